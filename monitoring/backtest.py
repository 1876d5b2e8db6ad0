"""Rules on recorded history: when would each alert have fired, had it been switched on?

The life of an alert is :func:`.rulemanager.evaluate`, the very code that ``up`` runs, played over the instants at which
its group would have been evaluated. Only the queries differ: each expression is asked once for all instants, as range
queries. What the rules record themselves is computed first, in the order in which they depend on each other, and lies
on a tape; an expression that reads from it is evaluated here, by our engine, and what else it reads is asked for
(:mod:`.backtestsplit`). A rule that reads its own past (``x offset 1h``) is computed in steps shorter than that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from anvil_monitor.alerts import templates
from anvil_monitor.alerts.rulefile import Alerting, Group, Recording

from .backtestdata import MOST, Instants, Progress, Row, Source, Tape, rows_of
from .backtestsplit import Segment, Split, plan
from .promql import Engine, QueryError, Sample, Vector
from .remote import RemoteError
from .rulemanager import ActiveAlert, GroupState, State, evaluate, slot_offset
from .samples import NAME, Booleans, Labels

# Whoever collects has `up`: where it is missing for so many seconds (over two scrapes a minute apart), nobody did.
GAP: Final = 150
COLLECTED: Final = f"count(count_over_time(up[{GAP}s]))"
GRID: Final = 30_000  # ms between two looks at it
# Seconds that one range query over what was computed may take.
TIMEOUT: Final = 120.0


@dataclass(slots=True)
class Firing:
    """One time that one label set fired. Unix seconds; ``ended`` is None while it still does."""

    labels: Labels
    since: float
    fired: float
    ended: float | None = None


@dataclass(slots=True)
class Outcome:
    """What would have become of one alert rule.

    ``short``: how often its condition was over before its ``for``. ``missing``: series that it reads and history has
    none of; ``problem``: why nothing can be said.
    """

    rule: Alerting
    group: str
    firings: list[Firing] = field(default_factory=list)
    short: int = 0
    missing: tuple[str, ...] = ()
    problem: str = ""


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
    made = plan(groups)
    reach = max((split.reach for split in made.splits), default=0)
    grid = _Collected.of(source, start * 1000 - reach, end * 1000)
    first = max(start * 1000, grid.first)
    held = source.names(grid.first / 1000, end)
    play = _Play(source, {group.name: _instants(group, grid, end * 1000) for group in groups}, first, progress)
    total(sum(play.left(split) for split in made.splits))
    for segment in made.segments:
        play.record(segment)
    recorded = {split.rule.record for split in made.splits if isinstance(split.rule, Recording)}
    outcomes = []
    for split in made.alerts:
        assert isinstance(split.rule, Alerting)
        outcome = Outcome(split.rule, split.group.name, problem=split.problem)
        named = {name for each in (split, *split.needs) for name in each.names}
        outcome.missing = tuple(sorted(named - held - recorded))
        play.alert(outcome, split)
        outcomes.append(outcome)
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


class _Play:
    """The tape, and what is written on it."""

    def __init__(self, source: Source, clocks: Mapping[str, Instants], first: float, progress: Progress) -> None:
        self._source, self._clocks, self._first, self._progress = source, clocks, first, progress
        self._tape = Tape()
        self._engine = Engine(self._tape, timeout=TIMEOUT)

    def left(self, split: Split) -> int:
        return len(self._clocks[split.group.name].times) - self._begin(split)

    def _begin(self, split: Split) -> int:
        """The place of the first instant at which the rule is computed."""
        return int(np.searchsorted(self._clocks[split.group.name].times, self._first - split.reach))

    def record(self, segment: Segment) -> None:
        """Compute recording rules. One that fails takes those that rest on it with it."""
        lead = segment.splits[0]
        failed = next((split for split in segment.splits if self._failed(split)), None)
        try:
            if failed is None:
                self._record(segment, self._clocks[lead.group.name], self._begin(lead))
        except (RemoteError, QueryError) as error:
            failed = lead
            lead.problem = str(error)
        if failed is not None:
            for split in segment.splits:
                split.problem = split.problem or failed.problem

    def _failed(self, split: Split) -> bool:
        """Whether the rule cannot be computed; ``problem`` then says why."""
        for other in split.needs if not split.problem else ():
            if other.problem and isinstance(other.rule, Recording):
                split.problem = f"{other.rule.record} cannot be computed: {other.problem}"
                break
        return bool(split.problem)

    def _record(self, segment: Segment, instants: Instants, begin: int) -> None:
        lead = segment.splits[0]
        if lead.node is None:
            rows = self._source.rows(lead.rule.expr, instants, begin, self._progress)
            self._write(lead, rows, instants, begin, len(instants.times))
            return
        for split in segment.splits:
            self._fetch(split, instants, begin)
        most = MOST if segment.delay is None else max(1, min(MOST, segment.delay // instants.step))
        for low, high in instants.pieces(begin, most):
            for split in segment.splits:
                self._write(split, self._compute(split, instants, low, high), instants, low, high)

    def _fetch(self, split: Split, instants: Instants, begin: int) -> None:
        for name, expr in split.parts.items():
            rows = self._source.rows(expr, instants, begin, lambda count: None)
            self._tape.append(name, rows, instants, begin, len(instants.times), name)

    def _compute(self, split: Split, instants: Instants, low: int, high: int) -> list[Row]:
        assert split.node is not None
        times = instants.times
        found = self._engine.range(split.node, times[low] / 1000, times[high - 1] / 1000, instants.step / 1000)
        self._progress(high - low)
        return rows_of(found, instants)

    def _write(self, split: Split, rows: list[Row], instants: Instants, low: int, high: int) -> None:
        assert isinstance(split.rule, Recording)
        self._tape.append(split.rule.record, _recorded(split.rule, rows, split.group.limit), instants, low, high, split)

    def alert(self, outcome: Outcome, split: Split) -> None:
        instants, begin = self._clocks[split.group.name], self._begin(split)
        try:
            if self._failed(split):
                outcome.problem = split.problem
                self._progress(self.left(split))
            elif split.node is None:
                _live(outcome, self._source.rows(outcome.rule.expr, instants, begin, self._progress), instants, begin,
                      split.group, self._source)  # fmt: skip
            else:
                self._fetch(split, instants, begin)
                pieces = [
                    row
                    for low, high in instants.pieces(begin, MOST)
                    for row in self._compute(split, instants, low, high)
                ]
                _live(outcome, pieces, instants, begin, split.group, self._source)
        except (RemoteError, QueryError) as error:
            outcome.problem = str(error)


def _recorded(rule: Recording, rows: Sequence[Row], limit: int) -> list[Row]:
    """The rows with the rule's name and labels; at instants at which the rule manager would refuse them, none."""
    made: dict[Labels, list[Row]] = {}
    for labels, places, values in rows:
        merged = {**dict(labels), NAME: rule.record, **rule.labels}
        ours = tuple(sorted((key, value) for key, value in merged.items() if value))
        made.setdefault(ours, []).append((ours, places, values))
    if len(made) == len(rows) and not 0 < limit < len(rows):
        return [row for (row,) in made.values()]
    refused = np.array([], dtype=np.int64)
    joined = []
    for labels, parts in made.items():
        places, values = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
        order = np.argsort(places, kind="stable")
        places, values = places[order], values[order]
        refused = np.union1d(refused, places[1:][np.diff(places) == 0])  # two would be one
        joined.append((labels, places, values))
    if 0 < limit < len(joined):
        there, counts = np.unique(np.concatenate([places for _, places, _ in joined]), return_counts=True)
        refused = np.union1d(refused, there[counts > limit])
    kept = [(labels, places, values, ~np.isin(places, refused)) for labels, places, values in joined]
    return [(labels, places[good], values[good]) for labels, places, values, good in kept if good.any()]


def _live(outcome: Outcome, rows: Sequence[Row], instants: Instants, begin: int, group: Group, source: Source) -> None:
    """Play the alert's life through the rule manager; instants at which nothing is and nothing was are passed over."""
    rule = replace(outcome.rule, annotations={})  # the words of the moment matter to nobody afterwards
    alone = replace(group, rules=(rule,))
    state = GroupState.of(alone)
    vectors = _vectors(rows)
    filled = sorted(vectors)
    opened: dict[Labels, Firing] = {}
    waiting: set[Labels] = set()

    def query(expr: str, at: float) -> Vector:
        found = vectors.get(place, []) if expr == rule.expr else source.ask(expr, at)
        return Vector([Sample(labels, at, value) for labels, value in found])

    def expand(text: str, data: templates.Data) -> str:
        return templates.parse(text).expand(data)

    upcoming, place = 0, begin - 1
    while True:
        if opened or waiting:
            place += 1
        elif upcoming < len(filled):
            place = filled[upcoming]
        else:
            break
        if place >= len(instants.times):
            break
        while upcoming < len(filled) and filled[upcoming] <= place:
            upcoming += 1
        at = int(instants.times[place]) / 1000 + group.query_offset
        memory = state.rules[0]
        if place and (late := int(instants.times[place] - instants.times[place - 1]) - instants.step):
            _shift(memory.alerts.values(), late / 1000)
        evaluate(alone, state, at, query, lambda at_ms, batch: None, expand)
        if memory.health == "err":
            outcome.problem = memory.error
        waiting = _look(memory.alerts, opened, waiting, outcome)


def _look(
    alerts: Mapping[Labels, ActiveAlert], opened: dict[Labels, Firing], waiting: set[Labels], outcome: Outcome
) -> set[Labels]:
    """Note what began to fire and what ended; the label sets that wait for their ``for``."""
    for labels, alert in alerts.items():
        if alert.state is State.FIRING and labels not in opened and alert.fired_at is not None:
            opened[labels] = Firing(labels, alert.active_at, alert.fired_at)
            outcome.firings.append(opened[labels])
        elif alert.state is State.INACTIVE and labels in opened:
            opened.pop(labels).ended = alert.resolved_at
    pending = {labels for labels, alert in alerts.items() if alert.state is State.PENDING}
    outcome.short += sum(labels not in pending and labels not in opened for labels in waiting)
    return pending


def _shift(alerts: Iterable[ActiveAlert], seconds: float) -> None:
    """Time in which nobody evaluated does not count as held (as after a restart: restore.py)."""
    for alert in alerts:
        if alert.state is State.PENDING:
            alert.active_at += seconds


def _vectors(rows: Sequence[Row]) -> dict[int, list[tuple[Labels, float]]]:
    """By place, the elements that are there."""
    found: dict[int, list[tuple[Labels, float]]] = {}
    for labels, places, values in rows:
        for place, value in zip(places.tolist(), values.tolist(), strict=True):
            found.setdefault(place, []).append((labels, value))
    return found
