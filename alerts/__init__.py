"""Decides and tells: targets to rules, rules to files and their tests, alerts to messages that arrive."""
