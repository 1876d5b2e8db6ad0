"""The stages at which a channel waits although it is to be told: for its hours, and whether somebody acknowledges.

What waits is looked at again in every round, so nothing is told that has ended meanwhile, and nothing is lost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from .model import Alert
from .stages import Batch, Decision, Round, channel_of


def escalate(round_: Round, batches: list[Batch]) -> list[Batch]:
    """A channel with ``escalate_after`` hears of an alert that nobody has acknowledged for so long since it was told.

    An alert of which no channel was told (outside the hours of all) counts from when it came here.
    """
    now = round_.now

    def due(batch: Batch, alert: Alert) -> bool:
        channel = channel_of(batch)
        known = round_.told.get((batch.service, channel.name), {})
        if not channel.escalate_after or not alert.firing or alert.fingerprint in known:
            return True
        since = round_.first_told.get(alert.fingerprint) or round_.seen.setdefault(alert.fingerprint, now)
        if alert.fingerprint in round_.acks:
            return False
        if now < since + channel.escalate_after:
            round_.next_look.append(since + channel.escalate_after)
            return False
        return True

    return _held(round_, batches, due, "wait whether somebody acknowledges")


def hours(round_: Round, batches: list[Batch]) -> list[Batch]:
    """Outside its hours a channel waits: news and ends alike, but for the severities that it takes at any hour."""
    closed = {
        channel.name: channel.hours.outside
        for channel in round_.configuration.channels
        if channel.hours is not None and channel.hours.when.span(round_.now) is None
    }

    def told(batch: Batch, alert: Alert) -> bool:
        name = channel_of(batch).name
        return name not in closed or alert.severity in closed[name]

    return _held(round_, batches, told, "wait for its hours")


def _held(round_: Round, batches: list[Batch], keep: Callable[[Batch, Alert], bool], why: str) -> list[Batch]:
    """The routed ``batches`` without the alerts that wait; a channel for which none is left has none."""
    going: list[Batch] = []
    for batch in batches:
        alerts = tuple(alert for alert in batch.alerts if keep(batch, alert))
        if alerts:
            going.append(dataclasses.replace(batch, alerts=alerts))
        if waiting := len(batch.alerts) - len(alerts):
            round_.decisions.append(Decision(batch.service, channel_of(batch).name, False, f"{waiting} {why}"))
    return going
