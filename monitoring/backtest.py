"""Rules on recorded history: when would each alert have fired, had it been switched on?

The life of an alert is :func:`.rulemanager.evaluate`, the very code that ``up`` runs, played over the instants at which
its group would have been evaluated. Only the queries differ: each expression is asked once for all instants, as range
queries. What the rules record themselves is computed first, in the order in which they depend on each other, and lies
on a tape; an expression that reads from it is evaluated here, by our engine, and what else it reads is asked for
(:mod:`.backtestsplit`). A rule that reads its own past (``x offset 1h``) is computed in steps shorter than that; an
alert that reads whether it fires already is played on the presumption that it goes on (:mod:`.backtestlife`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from anvil_monitor.alerts.rulefile import Group, Recording

from .backtestdata import Instants, Progress, Source
from .backtestlife import Outcome
from .backtestplay import Play
from .backtestsplit import ALERT_SERIES, plan
from .rulemanager import slot_offset
from .samples import Booleans

# Whoever collects has `up`: where it is missing for so many seconds (over two scrapes a minute apart), nobody did.
GAP: Final = 150
COLLECTED: Final = f"count(count_over_time(up[{GAP}s]))"
GRID: Final = 30_000  # ms between two looks at it


@dataclass(frozen=True, slots=True)
class Result:
    """``start`` and ``end`` of what was looked at, in Unix seconds; ``gap``: seconds without history in between."""

    start: float
    end: float
    gap: float
    outcomes: tuple[Outcome, ...]


class NoHistoryError(Exception):
    """Nothing is recorded of the time that was asked for."""


def run(
    groups: Sequence[Group],
    source: Source,
    start: float,
    end: float,
    *,
    total: Callable[[int], object] = lambda count: None,
    progress: Progress = lambda count: None,
) -> Result:
    """Play the alert rules of ``groups`` from ``start`` to ``end`` (Unix seconds).

    ``progress`` is told of instants that are done, ``total`` first of how many there are. Raises :class:`RemoteError`,
    :class:`NoHistoryError` and :class:`TooMuchError`; what ails a single rule is the ``problem`` of its outcome.
    """
    segments = plan(groups)
    splits = [split for segment in segments for split in segment.splits]
    reach = max((split.reach for split in splits), default=0)
    grid = _Collected.of(source, start * 1000 - reach, end * 1000)
    first = max(start * 1000, grid.first)
    held = {*source.names(grid.first / 1000, end), *ALERT_SERIES}
    held |= {split.rule.record for split in splits if isinstance(split.rule, Recording)}
    play = Play(source, {group.name: _instants(group, grid, end * 1000) for group in groups}, first, progress)
    total(sum(play.left(split) for split in splits))
    for segment in segments:
        play.segment(segment)
    outcomes = []
    for split in sorted(play.outcomes, key=lambda split: (groups.index(split.group), split.place)):
        named = {name for each in (split, *split.needs) for name in each.names}
        play.outcomes[split].missing = tuple(sorted(named - held))
        outcomes.append(play.outcomes[split])
    return Result(first / 1000, end, grid.gap(first), tuple(outcomes))


@dataclass(frozen=True, slots=True, eq=False)
class _Collected:
    """When somebody collected: ``there`` says it of every ``GRID`` ms from ``begin`` on."""

    begin: int
    there: Booleans

    @classmethod
    def of(cls, source: Source, start: float, end: float) -> _Collected:
        begin = math.floor(start / GRID) * GRID
        times = np.arange(begin, int(end) + 1, GRID, dtype=np.int64)
        rows = source.rows(COLLECTED, Instants(times, GRID), 0, lambda count: None)
        there = np.zeros(len(times), dtype=np.bool_)
        for _, places, _ in rows:
            there[places] = True
        if not rows:  # series may have been written by somebody who has no `up`
            if not source.names(start / 1000, end / 1000):
                raise NoHistoryError
            there[:] = True
        return cls(begin, there)

    @property
    def first(self) -> float:
        return self.begin + int(np.flatnonzero(self.there)[0]) * GRID

    def gap(self, first: float) -> float:
        return float((~self.there[round(max(0.0, first - self.begin) / GRID) :]).sum()) * GRID / 1000


def _instants(group: Group, grid: _Collected, end: float) -> Instants:
    """The times that the group would have asked for, without those in which nobody was there to do so."""
    step, offset = round(group.interval * 1000), round((slot_offset(group) - group.query_offset) * 1000)
    times = np.arange(math.ceil((grid.first - offset) / step) * step + offset, int(end) + 1, step, dtype=np.int64)
    return Instants(times[grid.there[(times - grid.begin) // GRID]], step)
