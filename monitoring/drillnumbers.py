"""The numbers of a drill's service: series that keep a target of any kind, or miss it when told to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from anvil_monitor.alerts.ownscenes import NoSceneError, scene_of
from anvil_monitor.alerts.promseries import parse_labels
from anvil_monitor.alerts.ruleparts import quoted
from anvil_monitor.alerts.searching import EVENTS, Found, Levels, Source, looks_back, search
from anvil_monitor.targets import Capacity, Direction, Formula, Mean, Percentile, Target, format_duration

from . import ruletest

# So many times the limit is what a miss measures: a mean over the window is over the limit with the first bad scrape.
FAR: Final = 10.0
# Requests, queries or page loads that each scrape finds: at least, and so many times the target's floor.
LEAST: Final = 100
OVER_FLOOR: Final = 2
# Seconds that an expression may look back over by itself: so long a drill waits for its end.
LONGEST: Final = 12.0
# What the monitor writes itself, and the labels that it sets on what it scrapes; None: to what nobody knows before.
WRITTEN: Final = ("up", "ALERTS", "ALERTS_FOR_STATE")
SET: Final = {"job": "server", "instance": None}
INSTEAD: Final = "drill another target: it is told in the same way; anvil-monitor notify previews a message"


class CannotDrillError(Exception):
    """Why a target cannot be missed on purpose, and what to do instead."""


class Numbers(Protocol):
    """The series of one target."""

    def lines(self, missed: bool) -> Iterator[str]:
        """One scrape's worth more of them, as an exposition has them."""


def numbers_of(target: Target, targets: tuple[Target, ...], step: float) -> Numbers:
    """For ``target``, scraped every ``step`` seconds beside ``targets``. Raises :class:`CannotDrillError`."""
    try:
        if isinstance(target.indicator, Formula):
            return _played(target, step)
        labels = scene_of(target, targets, step).labels
        _checked(target, {"service": target.service, **labels})
    except NoSceneError as error:
        raise _cannot(target, str(error)) from None
    said = _said(labels)
    if isinstance(target.indicator, Percentile | Mean):
        same = [each for each in targets if _metric(each) == _metric(target)]
        count = max(LEAST, *(OVER_FLOOR * each.floor for each in targets))
        return Histogram(_metric(target), said, min(t.limit for t in same), max(t.limit for t in same), count)
    return Gauge(target, said)


def _metric(target: Target) -> str:
    return target.indicator.metric


@dataclass(frozen=True, slots=True)
class Gauge:
    """A level. Of users there are fewer than promised in any case: it is the other target that breaks."""

    target: Target
    labels: str

    def lines(self, missed: bool) -> Iterator[str]:
        limit = self.target.limit
        if isinstance(self.target.indicator, Capacity):
            value = max(1.0, limit // 2)
        else:
            good, bad = (0.5, FAR) if self.target.direction is Direction.BELOW else (2.0, 1 / FAR)
            value = limit * (bad if missed else good)
        yield f"{_metric(self.target)}{_braced(self.labels)} {value!r}"


@dataclass(slots=True)
class Histogram:
    """Of durations or sizes: good ones lie within ``low``, bad ones far over ``high``."""

    name: str
    labels: str
    low: float
    high: float
    count: int
    good: int = 0
    bad: int = 0

    def lines(self, missed: bool) -> Iterator[str]:
        if missed:
            self.bad += self.count
        else:
            self.good += self.count
        total = self.good + self.bad
        more = f"{self.labels}," if self.labels else ""
        for edge in sorted({self.low / 2, self.low, self.high, self.high * FAR}):
            yield f'{self.name}_bucket{{{more}le="{edge!r}"}} {self.good if edge <= self.high else total}'
        yield f'{self.name}_bucket{{{more}le="+Inf"}} {total}'
        whole = self.good * self.low / 2 + self.bad * self.high * FAR
        yield f"{self.name}_sum{_braced(self.labels)} {whole!r}"
        yield f"{self.name}_count{_braced(self.labels)} {total}"


@dataclass(slots=True)
class Played:
    """What was found to miss a formula, and what to keep it; ``times`` as many events, for its floor."""

    found: Found
    times: int
    counted: dict[str, float] = field(default_factory=dict)

    def lines(self, missed: bool) -> Iterator[str]:
        levels: Levels = self.found.bad if missed else self.found.good
        for source, level in zip(self.found.sources, levels, strict=True):
            if level is None:
                continue
            for name, value in _values(source, level):
                if source.moves or source.edges:
                    self.counted[name] = self.counted.get(name, 0.0) + value * self.times
                    yield f"{name} {self.counted[name]!r}"
                else:
                    yield f"{name} {value!r}"


def _values(source: Source, level: float) -> Iterator[tuple[str, float]]:
    """By the names of its series, as an exposition has them, what each counts more, or is."""
    labels = dict(parse_labels(source.name))
    metric, said = labels.pop("__name__"), _said(labels)
    if not source.edges:
        yield f"{metric}{_braced(said)}", level
        return
    for edge in (*source.edges, math.inf):
        le = "+Inf" if edge == math.inf else repr(edge)
        yield f'{metric}{{{f"{said}," if said else ""}le="{le}"}}', float(EVENTS if level <= edge else 0)


def _played(target: Target, step: float) -> Played:
    if looks_back(target) > LONGEST:
        raise _cannot(target, f"its expression looks back over {format_duration(looks_back(target))} by itself, and so "
                              "long a drill would take; write [$window] there")  # fmt: skip
    found = search(target, step, ruletest.evaluator)
    for source in found.sources:
        labels = dict(parse_labels(source.name))
        name = labels.pop("__name__")
        if name in WRITTEN or ":" in name:
            raise _cannot(target, f"it is read from {name}, which the monitor writes itself")
        _checked(target, labels)
    return Played(found, max(1, OVER_FLOOR * target.floor))


def _checked(target: Target, labels: Mapping[str, str]) -> None:
    """Nothing that the service of a drill could not have. Raises :class:`CannotDrillError`."""
    if labels.get("service", target.service) != target.service:
        raise _cannot(target, f"it asks for service={quoted(labels['service'])} by name; write $service there")
    for name, value in SET.items():
        if name in labels and labels[name] != value:
            raise _cannot(target, f"it asks for {name}={quoted(labels[name])}, which the service of a drill has not")


def _cannot(target: Target, why: str) -> CannotDrillError:
    return CannotDrillError(f"{target.name} cannot be missed on purpose: {why}; {INSTEAD}")


def _said(labels: Mapping[str, str]) -> str:
    """As an exposition has them; the scrape sets the service and the job."""
    own = ((name, text) for name, text in sorted(labels.items()) if name not in ("service", *SET))
    return ",".join(f"{name}={quoted(text)}" for name, text in own)


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""
