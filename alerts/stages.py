"""The stages between an alert and a person; ``pipeline.py`` has their order.

A stage is a function of the round (the time, the settings, what the outbox remembers) and the batches so far. It
returns the batches that go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

from anvil_monitor.targets import Channel, Configuration

from . import flapping, inhibition, silences
from .acks import Ack
from .messages import message, plain
from .model import ACKNOWLEDGED, Alert, Draft, Notification, Told
from .outbox import Outbox
from .routing import around, failing

logger = logging.getLogger(__name__)

Measure: TypeAlias = Callable[[Alert], float | None]
LinksOf: TypeAlias = Callable[[Notification], tuple[tuple[str, str], ...]]
# By (service, channel) and fingerprint: the alerts whose firing was told and whose end was not yet.
Known: TypeAlias = Mapping[tuple[str, str], Mapping[str, Alert]]


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Alerts of one service on their way to one channel (``None`` before routing).

    ``early``: its group has to wait; only that somebody looks after an alert is told now.
    """

    service: str
    alerts: tuple[Alert, ...]
    channel: Channel | None = None
    notification: Notification | None = None
    early: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """Why a channel is told about a service in this round, or why not."""

    service: str
    channel: str
    tell: bool
    reason: str


@dataclasses.dataclass(slots=True)
class Round:
    """What the stages of one round may look at. ``told`` and ``told_at`` are as of the outbox, before this round."""

    now: float
    configuration: Configuration
    outbox: Outbox
    inhibitors: Sequence[Alert] = ()
    held: Collection[str] = ()  # the fingerprints of alerts that Alertmanager holds back
    measure: Measure | None = None
    links: LinksOf | None = None
    acks: Mapping[str, Ack] = dataclasses.field(default_factory=dict)
    acks_told: Collection[tuple[str, str, str]] = ()  # fingerprint, channel, author
    # By fingerprint: when the first channel was told, and since when an alert is here that no channel was told of.
    first_told: Mapping[str, float] = dataclasses.field(default_factory=dict)
    seen: dict[str, float] = dataclasses.field(default_factory=dict)
    told: Known = dataclasses.field(default_factory=dict)
    told_at: Mapping[tuple[str, str], float] = dataclasses.field(default_factory=dict)
    decisions: list[Decision] = dataclasses.field(default_factory=list)
    next_look: list[float] = dataclasses.field(default_factory=list)
    grouped: list[tuple[float, tuple[Alert, ...]]] = dataclasses.field(default_factory=list)  # until when they wait

    def unheard(self, alerts: Sequence[Alert], place: tuple[str, str]) -> tuple[str, ...]:
        """Of ``alerts`` that the channel of ``place`` was told of: those that somebody looks after, which is news."""
        known = self.told.get(place, {})
        found = [alert.fingerprint for alert in alerts if alert.firing and alert.fingerprint in known]
        return tuple(
            one for one in found if one in self.acks and (one, place[1], self.acks[one].author) not in self.acks_told
        )

    def told_of(self, service: str) -> dict[str, Alert]:
        """The open alerts of ``service`` that any channel was told of."""
        known: dict[str, Alert] = {}
        for (topic, _), alerts in self.told.items():
            if topic == service:
                known.update(alerts)
        return known


Stage: TypeAlias = Callable[[Round, list[Batch]], list[Batch]]


def silence(round_: Round, batches: list[Batch]) -> list[Batch]:
    """Hold back firing alerts that a person has silenced, or that are under maintenance.

    Who was told of a firing still hears of its end.
    """
    now = round_.now
    active = silences.active(round_.outbox, now)
    windows = [one for one in round_.configuration.maintenance if one.when.span(now) is not None]

    def heard(alert: Alert) -> bool:
        return not (
            alert.firing
            and (
                alert.fingerprint in round_.held
                or any(one.holds(alert.labels, now) for one in active)
                or any(one.concerns(alert.service, alert.labels.get("target", "")) for one in windows)
            )
        )

    return _filter(batches, heard)


def inhibit(round_: Round, batches: list[Batch]) -> list[Batch]:
    """Hold back what a greater alert explains, its end too: a server that is down has not "recovered"."""
    explained = inhibition.explained(round_.inhibitors)
    return _filter(batches, lambda alert: not explained(alert))


def group(round_: Round, batches: list[Batch]) -> list[Batch]:
    """One batch a service, once it is its time: group_wait after the first news, group_interval between messages."""
    monitor = round_.configuration.monitor
    due: list[Batch] = []
    services = dict.fromkeys(alert.service for batch in batches for alert in batch.alerts)
    for service in services:
        alerts = tuple(alert for batch in batches for alert in batch.alerts if alert.service == service)
        known = round_.told_of(service)
        news = [alert for alert in alerts if alert.firing and alert.fingerprint not in known]
        # As in Alertmanager, an alert that was pending for long enough has waited already.
        ready = min((alert.starts_at for alert in news), default=round_.now) + (monitor.group_wait if news else 0)
        if known:
            last = max((at for (topic, _), at in round_.told_at.items() if topic == service), default=0.0)
            ready = max(ready, last + monitor.group_interval)
        if ready <= round_.now:
            due.append(Batch(service, alerts))
            continue
        if any(round_.unheard(alerts, place) for place in round_.told if place[0] == service):
            due.append(Batch(service, alerts, early=True))
        if news or any(not alert.firing for alert in alerts):
            round_.next_look.append(ready)
            round_.grouped.append((ready, alerts))
            reason = f"waits {ready - round_.now:.1f} s for its group"
            round_.decisions.append(Decision(service, "", False, reason))
    return due


def route(round_: Round, batches: list[Batch]) -> list[Batch]:
    """Give each channel the alerts that it is for, and the end of whatever it was told of."""
    routed: list[Batch] = []
    channels = round_.configuration.channels
    for batch in batches:
        lost = failing(batch.alerts)
        to = {alert.fingerprint: {channel.name for channel in around(channels, alert, lost)} for alert in batch.alerts}
        for channel in channels:
            known = round_.told.get((batch.service, channel.name), {})
            alerts = tuple(a for a in batch.alerts if channel.name in to[a.fingerprint] or a.fingerprint in known)
            if alerts:
                routed.append(dataclasses.replace(batch, channel=channel, alerts=alerts))
    return routed


def deduplicate(round_: Round, batches: list[Batch]) -> list[Batch]:
    """Tell a channel only what it has not heard: new alerts, ends (once), and after repeat_interval that it goes on.

    What somebody has acknowledged is not repeated; that they did is told at once, to whom the alert was.
    """
    telling: list[Batch] = []
    for batch in batches:
        place = (batch.service, channel_of(batch).name)
        known = round_.told.get(place, {})
        firing, still, resolved = _sort(batch.alerts, known)
        waiting = [alert for alert in still if alert.fingerprint not in round_.acks]
        if batch.early:
            firing, resolved = (), ()
        if firing:
            reason = "new alerts"
        elif resolved:
            reason = "alerts resolved"
        elif waiting and not batch.early and _repeats(round_, batch, waiting) <= round_.now:
            reason = "repeat interval elapsed"
        elif channel_of(batch).tell_acks and round_.unheard(still, place):
            reason = ACKNOWLEDGED
        else:
            if batch.early:
                continue  # it is said already that it waits
            why = "nothing new" if waiting else "acknowledged" if still else "nothing it was told of"
            round_.decisions.append(Decision(*place, False, why))
            continue
        telling.append(_told(round_, batch, reason, firing, still, resolved))
    return telling


def enqueue(round_: Round, batches: list[Batch]) -> list[Batch]:
    """Write the messages, and what their channels now know, into the outbox: all of the round or nothing."""
    drafts: list[Draft] = []
    told: list[Told] = []
    for batch in batches:
        note = batch.notification
        assert note is not None
        title, body = message(note)
        name, aside = channel_of(batch).name, bool(note.acknowledged)
        drafts.append(Draft(name, batch.service, note.kind, title, body, note.reason, note.to_json(), aside))
        resolved = tuple(alert.fingerprint for alert in note.resolved)
        known = round_.told.get((batch.service, channel_of(batch).name), {})
        # What goes on is on disk already; of thousands only those are written that began anew.
        anew = tuple(a for a in note.still if known[a.fingerprint].starts_at != a.starts_at)
        seen = tuple((fingerprint, who) for fingerprint, (who, _) in note.seen.items())
        told.append(Told(batch.service, channel_of(batch).name, note.firing + anew, resolved, seen))
    round_.outbox.record(drafts, told, round_.now)
    for batch, draft in zip(batches, drafts, strict=True):
        round_.decisions.append(Decision(batch.service, draft.channel, True, draft.cause))
        service = plain(batch.service, 60) or "alerts"
        logger.info("channel %s is told about %s: %s", draft.channel, service, draft.cause)
    return batches


def _filter(batches: list[Batch], keep: Callable[[Alert], bool]) -> list[Batch]:
    return [dataclasses.replace(batch, alerts=tuple(a for a in batch.alerts if keep(a))) for batch in batches]


def _repeats(round_: Round, batch: Batch, alerts: Sequence[Alert]) -> float:
    """When the channel is told again that ``alerts`` go on: as soon as the severity of one of them asks for it."""
    channel = channel_of(batch)
    usual = channel.repeat_interval or round_.configuration.monitor.repeat_interval
    by_severity = dict(channel.repeat_by_severity)
    interval = min(by_severity.get(alert.severity, usual) for alert in alerts)
    return round_.told_at.get((batch.service, channel.name), round_.now) + interval


def channel_of(batch: Batch) -> Channel:
    """The channel of a batch that was routed."""
    assert batch.channel is not None
    return batch.channel


def _sort(
    alerts: tuple[Alert, ...], known: Mapping[str, Alert]
) -> tuple[tuple[Alert, ...], tuple[Alert, ...], tuple[Alert, ...]]:
    """News, what goes on, and what is over, as a channel sees it that has heard of ``known``."""
    ordered = sorted(alerts, key=lambda a: (a.severity != "critical", a.starts_at, a.labels.get("target", ""), a.name))
    firing: list[Alert] = []
    still: list[Alert] = []
    resolved: list[Alert] = []
    for alert in ordered:
        before = known.get(alert.fingerprint)
        if alert.firing:
            (firing if before is None or flapping.changed(alert, before) else still).append(alert)
        elif before is not None:
            resolved.append(alert)
    return tuple(firing), tuple(still), tuple(resolved)


def _told(
    round_: Round,
    batch: Batch,
    reason: str,
    firing: tuple[Alert, ...],
    still: tuple[Alert, ...],
    resolved: tuple[Alert, ...],
) -> Batch:
    current: dict[str, float] = {}
    for alert in resolved if round_.measure else ():
        assert round_.measure is not None
        with contextlib.suppress(Exception):  # a value for the wording must not cost the message
            value = round_.measure(alert)
            if value is not None:
                current[alert.fingerprint] = value
    seen = {one.fingerprint: round_.acks[one.fingerprint] for one in firing + still if one.fingerprint in round_.acks}
    note = Notification(
        batch.service, round_.now, reason, firing, still, resolved, current,
        seen={fingerprint: (ack.author, ack.reason) for fingerprint, ack in seen.items()},
        news=round_.unheard(still, (batch.service, channel_of(batch).name)),
    )  # fmt: skip
    if round_.links and reason != ACKNOWLEDGED:
        note = dataclasses.replace(note, links=round_.links(note))
    return dataclasses.replace(batch, notification=note)
