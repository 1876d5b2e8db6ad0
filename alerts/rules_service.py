"""The rules of a service as a whole: does it answer, does it fail, does it hang."""

from __future__ import annotations

from typing import Final

from anvil_monitor.exporter import names
from anvil_monitor.targets import Configuration, Service, format_duration

from .rulefile import Alerting, Group
from .ruleparts import DOWN, Links, literal, quoted

# A scrape that fails once is a hiccup, three in a row are a fact; below 15 s a plain restart would page.
DOWN_SCRAPES: Final = 3
DOWN_LEAST: Final = 15.0


def service_group(configuration: Configuration, service: Service, links: Links) -> Group:
    """What may be told of ``service`` itself."""
    rules = (_down(configuration, service, links),)
    return Group(f"service {service.name}", configuration.monitor.evaluation_interval, rules)


def down_hold(configuration: Configuration) -> float:
    """Seconds of failed scrapes before ``ServiceDown``."""
    return max(DOWN_LEAST, DOWN_SCRAPES * configuration.monitor.scrape_interval)


def _down(configuration: Configuration, service: Service, links: Links) -> Alerting:
    # Of several instances one that answers keeps the service up; the label `instance` would page once for each.
    expr = f'max by (service) (up{{job="server",service={quoted(service.name)}}}) == 0'
    hold = down_hold(configuration)
    what = f"{literal(service.metrics_url.partition('?')[0])} has not answered a scrape"
    if service.pushes:
        # What pushes has no scrape that fails: the probes see whether it answers.
        expr = f"max by (service) ({names.PROBE_SUCCESS.name}{{service={quoted(service.name)}}}) == 0"
        what = "None of its probes has been answered"
    annotations = {
        "summary": f"{service.name} does not answer",
        "description": f"{what} for {format_duration(hold)}: {service.name} is stopped, hangs, or cannot be reached.",
        "title": service.name,
        **links.of(service.name, "", DOWN),
    }
    # Kept as long as it was waited for: a server that dies again after one good scrape is still one outage.
    return Alerting(DOWN, expr, hold, hold, {"service": service.name, "severity": "critical"}, annotations)
