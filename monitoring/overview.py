"""Everything that the page and the terminal show, as one JSON object: ``/api/v1/targets-state``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Final

from anvil_monitor.alerts import acks, silences, wording
from anvil_monitor.alerts.acks import Ack
from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.outbox import Outbox, OutboxError
from anvil_monitor.alerts.pipeline import Pipeline
from anvil_monitor.alerts.rulefile import Alerting, Group
from anvil_monitor.alerts.silences import Silence
from anvil_monitor.targets import Configuration

from .rulemanager import ActiveAlert, GroupState, State
from .scrape import Scraper
from .status import Board
from .store import Store

NOTIFICATIONS_SHOWN: Final = 20
DECISIONS_SHOWN: Final = 200
NO_SEVERITY: Final = "none"
NO_CHANNELS: Final = "no channel is configured: nobody is told. Add [channels.…] to monitor.toml"


@dataclass(frozen=True, slots=True)
class Overview:
    """Reads the parts of the running system; nothing in here changes them."""

    configuration: Configuration
    board: Board
    groups: Sequence[tuple[Group, GroupState]]
    scrapers: Sequence[Scraper]
    pipeline: Pipeline
    outbox: Outbox
    store: Store
    clock: Callable[[], float]
    started: float

    def to_json(self) -> dict[str, Any]:
        """The object. Reads the ledger from disk: call it in a thread."""
        problems = list(self.problems())
        try:
            notifications = self.notifications(NOTIFICATIONS_SHOWN)
            held, seen = silences.since(self.outbox, self.clock()), acks.current(self.outbox)
        except OutboxError as error:
            notifications, held, seen = [], [], {}
            problems.append(str(error))
        monitor = self.configuration.monitor
        return {
            "now": round(self.clock(), 3),
            "started": round(self.started, 3),
            "version": metadata.version("anvil-monitor"),
            "evaluated_at": round(self.board.at, 3),
            "evaluation_interval": monitor.evaluation_interval,
            "targets": [status.to_json() for status in self.board.targets],
            "versions": self.board.past.versions_to_json(),
            "alerts": self.alerts(held, seen),
            "silences": [silence.to_json() for silence in held],
            "maintenance": self.maintenance(),
            "decisions": [asdict(decision) for decision in self.pipeline.decisions[:DECISIONS_SHOWN]],
            "notifications": notifications,
            "channels": [channel.name for channel in self.configuration.channels],
            "collectors": [_collector(scraper) for scraper in self.scrapers],
            "problems": problems,
            "series": self.store.series_count,
        }

    def alerts(self, held: Sequence[Silence] = (), seen: Mapping[str, Ack] | None = None) -> list[dict[str, Any]]:
        """Firing and pending alerts, firing first, then the oldest; not the watchdog, which says that all is well.

        Each with the numbers of those of ``held`` that silence it, and with its acknowledgement among ``seen``.
        """
        found = [
            alert
            for _, state in self.groups
            for alert in list(state.alerts())
            if alert.state is not State.INACTIVE and dict(alert.labels).get("severity") != NO_SEVERITY
        ]
        found.sort(key=lambda alert: (alert.state is not State.FIRING, alert.active_at, alert.labels))
        return [_alert(alert, held, seen or {}, self.clock()) for alert in found]

    def maintenance(self) -> list[dict[str, Any]]:
        """The maintenance windows that hold now."""
        now = self.clock()
        return [
            {"name": one.name, "services": one.services, "targets": one.targets, "ends": span[1]}
            for one in self.configuration.maintenance
            if (span := one.when.span(now)) is not None
        ]

    def notifications(self, limit: int) -> list[dict[str, Any]]:
        """The newest messages first: to whom, what, when, and did it arrive. Raises ``OutboxError``."""
        return [message.ledger_entry() for message in self.outbox.ledger(limit)]

    def problems(self) -> Sequence[str]:
        """What the monitor itself cannot do, one sentence each."""
        found = [] if self.configuration.channels else [NO_CHANNELS]
        for group, state in self.groups:
            for rule, memory in zip(group.rules, state.rules, strict=True):
                if memory.health == "err":
                    name = rule.alert if isinstance(rule, Alerting) else rule.record
                    found.append(f"rule {name} of group {group.name}: {memory.error}")
        if self.board.problem:
            found.append(self.board.problem)
        if self.pipeline.problem:
            found.append(f"notifications wait: {self.pipeline.problem}")
        if self.store.problem:
            found.append(self.store.problem)
        if self.store.refused:
            found.append(f"the store is full: {self.store.refused} samples of new series were not taken in")
        return found


def _alert(alert: ActiveAlert, held: Sequence[Silence], seen: Mapping[str, Ack], now: float) -> dict[str, Any]:
    labels = dict(alert.labels)
    told = Alert(labels, alert.annotations, alert.active_at)
    fingerprint = told.fingerprint
    ack = seen.get(fingerprint)
    return {
        "name": labels.get("alertname", ""),
        "service": labels.get("service", ""),
        "target": labels.get("target", ""),
        "severity": labels.get("severity", ""),
        "state": alert.state.value,
        "since": alert.active_at,
        "fired_at": alert.fired_at,
        "fingerprint": fingerprint,
        "acknowledged": ack.to_json() if ack else None,
        "silenced_by": [silence.id for silence in held if silence.holds(labels, now)],
        "recovering": alert.keep_since is not None,
        "details": wording.details(told, now),
        "summary": alert.annotations.get("summary") or _about(labels),
        "description": alert.annotations.get("description", ""),
        "runbook_url": alert.annotations.get("runbook_url", ""),
    }


def _about(labels: dict[str, str]) -> str:
    """What an alert without a summary is about: the labels that no column shows."""
    shown = ("alertname", "service", "target", "severity")
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()) if name not in shown)


def _collector(scraper: Scraper) -> dict[str, Any]:
    health, labels = scraper.health, scraper.endpoint.labels
    return {
        "job": labels["job"],
        "service": labels.get("service", ""),
        "instance": labels["instance"],
        "url": scraper.endpoint.url,
        "up": health.up,
        "error": health.error,
        "at": round(health.at, 3),
        "since": round(health.since, 3),
        "duration": round(health.duration, 6),
        "samples": health.samples,
    }
