"""What an instance has sent so far, and how much more its next report says.

Everything is reduced to increments, which are added to the service's totals at once. So a restart, a silence or the
end of an instance takes nothing away, and its totals need no folding.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from operator import sub
from typing import TypeAlias

from .buckets import rescale
from .points import Attributes, Explicit, Exponential, Identity, Point, Stream

MOST_INTERVAL = 600.0
# A series that an instance sends for the first time after so many seconds of sending others is a new one.
SETTLED = 30.0

Increment: TypeAlias = float | Explicit | Exponential


@dataclass(slots=True)
class Source:
    """One series of one instance. ``start``, ``time``: of its last point; ``seen``: when it came (our clock)."""

    stream: Stream
    target: Series
    start: int
    time: int
    seen: float
    value: float | Explicit | Exponential


@dataclass(slots=True)
class Series:
    """One exposed series: its labels with the service's, and what lasts (a counter's value; sum and bucket counts)."""

    labels: tuple[tuple[str, str], ...]
    values: list[float]


@dataclass(slots=True)
class Instance:
    """One process that sends. ``first`` and ``last``: when its first and last reports came."""

    identity: Identity
    first: float
    last: float
    sources: dict[tuple[str, str, str], dict[Attributes, Source]] = field(default_factory=dict)
    bounds: dict[str, tuple[float, ...] | None] = field(default_factory=dict)
    size: int = 0
    _gaps: deque[float] = field(default_factory=lambda: deque([0.0], maxlen=5))

    def reported(self, now: float) -> None:
        gap = now - self.last
        if gap > 0.5:  # less is one report in several requests
            self._gaps.append(min(gap, MOST_INTERVAL))
        self.last = now

    def patience(self, least: float) -> float:
        """Seconds of silence after which the instance is taken to have gone."""
        return max(least, 3 * sorted(self._gaps)[len(self._gaps) // 2])

    def is_new(self, point: Point, horizon: float, now: float) -> bool:
        """Whether all of a series' first value has been counted by nobody: it began since we began to look.

        ``horizon``: since when (our clock) nothing that was counted has been forgotten. A series that began before it
        may have been counted by this program's predecessor, or before its instance was forgotten: it is counted from
        its first report on, so that no total leaps.
        """
        if now - self.first > SETTLED:
            return True
        age = (point.time - point.start) / 1e9 if 0 < point.start <= point.time else float("inf")
        return age <= now - horizon


def step(source: Source, point: Point) -> Increment | None:
    """What ``point`` adds to what ``source`` has sent; None if it came too late. Remembers the point.

    The data model's rules: a later start is a restart, and so is a value that fell; older points are dropped.
    https://opentelemetry.io/docs/specs/otel/metrics/data-model/#resets-and-gaps
    """
    value = point.value
    assert value is not None
    if point.stream.delta:
        if point.time <= source.time:
            return None
        source.start, source.time = point.start, point.time
        return value
    if point.time < source.time or (source.start and 0 < point.start < source.start):
        return None
    restarted = bool(source.start) and point.start > source.time
    more = None if restarted else _more(source.value, value)
    if more is None:
        if not restarted and point.time == source.time:
            return None
        more = value
    source.start, source.time, source.value = point.start or source.start, point.time, value
    return more


def _more(old: Increment, new: Increment) -> Increment | None:
    """``new`` less ``old``; None if something fell."""
    if isinstance(new, Explicit) and isinstance(old, Explicit):
        if new.bounds != old.bounds:
            return None
        counts = list(map(sub, new.counts, old.counts))
        return None if min(counts) < 0 else Explicit(counts, new.sum - old.sum, new.bounds)
    if isinstance(new, Exponential) and isinstance(old, Exponential):
        scale = min(new.scale, old.scale)
        one, two = rescale(old, scale), rescale(new, scale)
        sides: list[dict[int, int]] = []
        for before, after in ((one.positive, two.positive), (one.negative, two.negative)):
            if any(count > after.get(index, 0) for index, count in before.items()):
                return None
            sides.append({index: count - before.get(index, 0) for index, count in after.items()})
        if two.zero < one.zero:
            return None
        return Exponential(scale, two.zero - one.zero, sides[0], sides[1], two.sum - one.sum)
    if isinstance(new, float) and isinstance(old, float):
        return None if new < old else new - old
    return None
