"""What a target is held against, for the page: the usual value, where drift is told, and which versions ran."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from anvil_monitor.alerts import learning, wording
from anvil_monitor.alerts.drift import BASELINE, EVERY, LOWER, UPPER
from anvil_monitor.alerts.driftkinds import kind
from anvil_monitor.alerts.ruleparts import VERSION_SINCE
from anvil_monitor.targets import Configuration, Target

from .promql import Matrix, Value, Vector

Key: TypeAlias = tuple[str, str]
Points: TypeAlias = tuple[tuple[float, float], ...]
Query: TypeAlias = Callable[[str, float], Value]
QueryRange: TypeAlias = Callable[[str, float, float, float], Matrix]

# How long what is known of all targets' learning holds: it counts in hours.
SLOWLY: Final = 600.0


@dataclass(frozen=True, slots=True)
class Usual:
    """Each as (Unix seconds, value in base units), a point a minute; empty while a target is learning.

    ``text`` says the newest of them, or how long it will be learning, in a sentence.
    """

    baseline: Points = ()
    upper: Points = ()
    lower: Points = ()
    text: str = ""

    def to_json(self) -> dict[str, Any]:
        lines = {"baseline": self.baseline, "upper": self.upper, "lower": self.lower}
        return {"text": self.text, **{name: [[at, float(f"{value:.6g}")] for at, value in points]
                                      for name, points in lines.items()}}  # fmt: skip


NOTHING: Final = Usual()


class Past:
    """Reads the recorded series of the drift rules, as often as these are written."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._at = self._slowly = -math.inf
        self._began: Mapping[Key, float] = {}
        self._usual: dict[Key, Usual] = {}
        self.versions: Mapping[str, tuple[tuple[str, float], ...]] = {}

    def update(self, at: float, query: Query, query_range: QueryRange, seconds: float) -> None:
        """Read what is written up to ``at``; ``seconds``: how far back. Raises :class:`.promql.QueryError`."""
        self.versions = _versions(query(f"last_over_time({VERSION_SINCE}[{round(seconds)}s])", at))
        if at - self._at < EVERY and self._usual:
            return
        start = at - seconds
        lines = [_lines(query_range(name, start, at, EVERY)) for name in (BASELINE, UPPER, LOWER)]
        if at - self._slowly >= SLOWLY or len(self._began) < len(self._configuration.targets):
            self._began, self._slowly = _values(query(learning.began(), at)), at
        for target in self._configuration.targets:
            key = (target.service, target.name)
            baseline, upper, lower = (line.get(key, ()) for line in lines)
            self._usual[key] = self._of(target, baseline, upper, lower, at)
        self._at = at

    def usual(self, target: Target) -> Usual:
        return self._usual.get((target.service, target.name), NOTHING)

    def versions_to_json(self) -> dict[str, list[dict[str, Any]]]:
        """The versions that ran lately, by service, the newest first."""
        return {
            service: [{"version": version, "since": at} for version, at in found]
            for service, found in self.versions.items()
        }

    def _of(self, target: Target, baseline: Points, upper: Points, lower: Points, at: float) -> Usual:
        if not upper and not lower:
            clock = partial(wording.clock, now=at)
            began = self._began.get((target.service, target.name))
            return Usual(text=learning.said(kind(target), began, at, clock))
        bounds = [f"{word} {target.text(line[-1][1])}" for word, line in (("over", upper), ("under", lower)) if line]
        usually = f"Usually {target.text(baseline[-1][1])}; drift" if baseline else "Drift"
        return Usual(baseline, upper, lower, f"{usually} is told {' or '.join(bounds)}.")


def _values(value: Value) -> dict[Key, float]:
    samples = value.samples if isinstance(value, Vector) else []
    return {_key(dict(sample.labels)): sample.value for sample in samples}


def _lines(matrix: Matrix) -> dict[Key, Points]:
    found = {}
    for series in matrix.series:
        points = zip((series.timestamps / 1000).tolist(), series.values.tolist(), strict=True)
        found[_key(dict(series.labels))] = tuple((at, value) for at, value in points if math.isfinite(value))
    return found


def _versions(value: Value) -> dict[str, tuple[tuple[str, float], ...]]:
    found: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for sample in value.samples if isinstance(value, Vector) else []:
        labels = dict(sample.labels)
        found[labels.get("service", "")].append((labels.get("service_version", ""), sample.value))
    return {service: tuple(sorted(all_, key=lambda each: -each[1])) for service, all_ in found.items()}


def _key(labels: Mapping[str, str]) -> Key:
    return labels.get("service", ""), labels.get("target", "")
