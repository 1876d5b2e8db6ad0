"""The stage of a drill: its configuration, its rules and their marks, and what is reported of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from anvil_monitor.alerts.rulefile import Alerting, Group, Recording
from anvil_monitor.alerts.ruleparts import MISSES
from anvil_monitor.alerts.rules import believed
from anvil_monitor.targets import Channel, Configuration, ProcessFinder, Service, Target
from anvil_monitor.targets.settings import SEVERITIES

PREFIX: Final = "drill-"
MARK: Final = "[DRILL]"
LABEL: Final = {"drill": "true"}
# Seconds. The shortest times at which scrape and evaluation still come in their slots on a busy machine.
BEAT: Final = 1.0
WINDOW: Final = 4 * BEAT  # at least four scrapes, as for any target
HOLD: Final = 2 * BEAT


@dataclass(frozen=True, slots=True)
class Step:
    """``seconds`` after the breach or its end; None where it never happened."""

    name: str
    seconds: float | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured. From ``breach`` to ``end`` (Unix seconds) the service missed its target.

    ``hold``, ``budget`` and ``slowest`` in seconds; the latter: from breach to the last channel, beyond the rule's own
    ``for``, or None where one was not told.
    """

    target: Target
    breach: float
    end: float
    missed: tuple[Step, ...]
    recovered: tuple[Step, ...]
    hold: float
    budget: float
    slowest: float | None

    @property
    def kept(self) -> bool:
        return self.slowest is not None and self.slowest <= self.budget


def short(target: Target, configuration: Configuration) -> tuple[Target, ...]:
    """``target`` as the drill has it, after the one that it rests on."""
    others = configuration.targets_of(target.service)
    return tuple(
        replace(each, service=PREFIX + each.service, window=WINDOW, hold=HOLD, keep=0.0)
        for each in dict.fromkeys((believed(target, others), target))
    )


def staged(
    configuration: Configuration, target: Target, channels: Sequence[Channel], url: str, data: Path
) -> Configuration:
    """The configuration of the drill. ``url`` is where its service answers."""
    name = PREFIX + target.service
    targets = short(target, configuration)
    service = Service(name, url, f"{url}/metrics", ProcessFinder.PID_FILE, str(data / "no.pid"), probes=(url,))
    monitor = replace(
        configuration.monitor,
        host="127.0.0.1",
        port=0,
        otlp=None,
        token=None,
        data=data,
        rules=(),
        heartbeat=None,
        external_url="",
        scrape_interval=BEAT,
        scrape_timeout=BEAT,
        evaluation_interval=BEAT,
        group_wait=min(configuration.monitor.group_wait, HOLD),
        group_interval=min(configuration.monitor.group_interval, BEAT),
    )
    # A drill is for every channel, and now.
    told = tuple(
        replace(channel, severities=SEVERITIES, services=(), hours=None, escalate_after=0.0, repeat_interval=None)
        for channel in channels
    )
    return replace(configuration, services=(service,), targets=targets, channels=told, monitor=monitor, maintenance=())


def shortened(configuration: Configuration, target: Target) -> list[tuple[str, float, float]]:
    """Name, configured and drilled length (seconds) of each time that is not the user's."""
    monitor = configuration.monitor
    return [
        (name, given, drilled)
        for name, given, drilled in (
            ("window", target.window, WINDOW),
            ("for", target.hold, HOLD),
            ("keep_firing_for", target.keep, 0.0),
            ("scrape_interval", monitor.scrape_interval, BEAT),
            ("evaluation_interval", monitor.evaluation_interval, BEAT),
            ("group_wait", monitor.group_wait, min(monitor.group_wait, HOLD)),
            ("group_interval", monitor.group_interval, min(monitor.group_interval, BEAT)),
        )
        if given != drilled
    ]


def marked(target: Target) -> Callable[[Sequence[Group]], Sequence[Group]]:
    """Keeps, of all rules, those that the miss of ``target`` needs, and marks each of them as a drill."""

    def mark(groups: Sequence[Group]) -> Sequence[Group]:
        return [kept for group in groups if (kept := replace(group, rules=tuple(_rules(group)))).rules]

    def _rules(group: Group) -> Any:
        for rule in group.rules:
            if isinstance(rule, Recording) and rule.record.startswith("target:"):
                yield replace(rule, labels={**rule.labels, **LABEL})
            elif isinstance(rule, Alerting) and rule.alert in MISSES and rule.labels.get("target") == target.name:
                yield replace(rule, labels={**rule.labels, **LABEL}, annotations=_words(rule.annotations, target))

    return mark


def _words(annotations: Mapping[str, str], target: Target) -> dict[str, str]:
    """The service stands in the title, so that nothing is put before the mark; there is no dashboard of a drill."""
    said = {key: text for key, text in annotations.items() if key != "dashboard"}
    said["title"] = f"{MARK} {target.title} of {PREFIX}{target.service}"
    said["summary"] = f"{MARK} {annotations.get('summary', '')}"
    said["description"] = f"This is a drill; no server is slow. {annotations.get('description', '')}"
    return said
