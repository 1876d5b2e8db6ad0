"""The life of one alert over recorded results: the rule manager's own code, played instant by instant."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from anvil_monitor.alerts import templates
from anvil_monitor.alerts.rulefile import Alerting, Group

from .backtestdata import Instants, Row, Tape
from .promql import Sample, Vector
from .rulemanager import ActiveAlert, Batch, GroupState, State, evaluate
from .samples import Labels

Result: TypeAlias = list[tuple[Labels, float]]
Compute: TypeAlias = Callable[[int, int], Sequence[Row]]
Ask: TypeAlias = Callable[[str, float], Result]

# Instants for which it is presumed, at first, that what an alert writes stays as it is; and at most.
FIRST: Final = 16
MOST: Final = 10_000


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


class Life:
    """What the alerts of one rule go through. Noted in ``outcome`` is what is there from ``first`` (ms) on."""

    def __init__(self, outcome: Outcome, group: Group, instants: Instants, first: float, ask: Ask) -> None:
        # The words of the moment matter to nobody afterwards.
        self._rule = replace(outcome.rule, annotations={})
        self._group = replace(group, rules=(self._rule,))
        self._state = GroupState.of(self._group)
        self._outcome, self._instants, self._first, self._ask = outcome, instants, first, ask
        self._opened: dict[Labels, Firing] = {}
        self._waiting: set[Labels] = set()
        self._vector: Result = []

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing fires: an instant without a result changes nothing."""
        return not self._opened and not self._waiting

    def step(self, place: int, vector: Result) -> Batch | None:
        """One evaluation; what it writes, or None where the rule failed."""
        times, memory = self._instants.times, self._state.rules[0]
        late = int(times[place] - times[place - 1]) - self._instants.step if place else 0
        if late:
            # Time in which nobody evaluated does not count as held (as after a restart: restore.py).
            for alert in memory.alerts.values():
                alert.active_at += late / 1000 if alert.state is State.PENDING else 0.0
        self._vector = vector
        written: list[Batch] = []
        at = int(times[place]) / 1000 + self._group.query_offset
        evaluate(self._group, self._state, at, self._query, lambda _, batch: written.append(batch), _expand)
        if memory.health == "err":
            self._outcome.problem = memory.error
        self._look(memory.alerts, noted=times[place] >= self._first)
        return written[0] if written else None

    def _query(self, expr: str, at: float) -> Vector:
        found = self._vector if expr == self._rule.expr else self._ask(expr, at)
        return Vector([Sample(labels, at, value) for labels, value in found])

    def _look(self, alerts: Mapping[Labels, ActiveAlert], *, noted: bool) -> None:
        """Note what began to fire and what ended."""
        for labels, alert in alerts.items():
            if alert.state is State.FIRING and labels not in self._opened and alert.fired_at is not None:
                self._opened[labels] = Firing(labels, alert.active_at, alert.fired_at)
                self._outcome.firings.append(self._opened[labels])
            elif alert.state is State.INACTIVE and labels in self._opened:
                ended = self._opened.pop(labels)
                ended.ended = alert.resolved_at
                if not noted:
                    self._outcome.firings.remove(ended)
        pending = {labels for labels, alert in alerts.items() if alert.state is State.PENDING}
        if noted:
            self._outcome.short += sum(one not in pending and one not in self._opened for one in self._waiting)
        self._waiting = pending


def walk(life: Life, rows: Sequence[Row], begin: int, end: int, write: Callable[[int, Batch], object]) -> None:
    """Play all instants from ``begin`` to ``end``; those at which nothing is and nothing was are passed over."""
    vectors = vectors_of(rows)
    filled = sorted(vectors)
    upcoming, place = 0, begin - 1
    while True:
        if not life.idle:
            place += 1
        elif upcoming < len(filled):
            place = filled[upcoming]
        else:
            return
        if place >= end:
            return
        while upcoming < len(filled) and filled[upcoming] <= place:
            upcoming += 1
        batch = life.step(place, vectors.get(place, []))
        if batch:
            write(place, batch)


def presume(
    life: Life, compute: Compute, instants: Instants, begin: int, tape: Tape, done: Callable[[int], object]
) -> None:
    """Play a rule that reads what its own alerts wrote: at each instant it depends on the one before.

    It is presumed that they go on writing what they wrote last; with that on the tape the expression is computed for
    many instants at once, and played as far as they do. So hours of silence, or of firing, cost one query.
    """
    size, last = FIRST, Batch()
    for low, high in instants.pieces(begin, MOST):
        place = low
        while place < high:
            upto = min(high, place + size)
            tape.put(last, instants.times[place:upto])
            vectors = vectors_of(compute(place, upto))
            broken = None
            for at in range(place, upto):
                if life.idle and at not in vectors:
                    continue
                batch = life.step(at, vectors.get(at, []))
                if (batch or []) != last:
                    broken = at
                    tape.cut(last, int(instants.times[at]))
                    tape.put(batch or (), instants.times[at : at + 1])
                    last = [sample for sample in batch or () if not math.isnan(sample[1])]  # stale markers end what was
                    break
            after = upto if broken is None else broken + 1
            size = min(MOST, 2 * size) if broken is None else FIRST
            done(after - place)
            place = after


def vectors_of(rows: Sequence[Row]) -> dict[int, Result]:
    """By place, the elements that are there."""
    found: dict[int, Result] = {}
    for labels, places, values in rows:
        for place, value in zip(places.tolist(), values.tolist(), strict=True):
            found.setdefault(place, []).append((labels, value))
    return found


def _expand(text: str, data: templates.Data) -> str:
    return templates.parse(text).expand(data)
