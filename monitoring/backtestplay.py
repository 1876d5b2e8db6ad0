"""Computes the rules of a backtest, segment by segment, onto a tape that later ones read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np

from anvil_monitor.alerts.rulefile import Alerting, Recording

from .backtestdata import MOST, Instants, Progress, Row, Source, Tape, rows_of
from .backtestlife import Life, Outcome, presume, walk
from .backtestsplit import Segment, Split
from .promql import Engine, QueryError
from .remote import RemoteError, UnreachableError
from .samples import NAME, Labels

# Seconds that one range query over what was computed may take.
TIMEOUT: Final = 120.0


class Play:
    """The tape, what is written on it, and the ``outcomes`` of the alert rules.

    ``clocks``: when each group is evaluated; ``first``: the instant (ms) from which on alerts count.
    """

    def __init__(self, source: Source, clocks: Mapping[str, Instants], first: float, progress: Progress) -> None:
        self.outcomes: dict[Split, Outcome] = {}
        self._source, self._clocks, self._first, self._progress = source, clocks, first, progress
        self._tape = Tape()
        self._engine = Engine(self._tape, timeout=TIMEOUT)

    def left(self, split: Split) -> int:
        """How many instants there are to compute."""
        return len(self._clocks[split.group.name].times) - self._begin(split)

    def _begin(self, split: Split) -> int:
        """The place of the first instant at which the rule is computed."""
        return int(np.searchsorted(self._clocks[split.group.name].times, self._first - split.reach))

    def segment(self, segment: Segment) -> None:
        """Compute its rules. One that fails takes those that rest on it with it."""
        for split in segment.splits:
            if isinstance(split.rule, Alerting):
                self.outcomes[split] = Outcome(split.rule, split.group.name)
        lead = segment.splits[0]
        try:
            failed = [split for split in segment.splits if self._failed(split)]
            if not failed:
                instants, begin = self._clocks[lead.group.name], self._begin(lead)
                for split in segment.splits:
                    self._fetch(split, instants, begin)
                (self._record if isinstance(lead.rule, Recording) else self._live)(segment, instants, begin)
        except UnreachableError:
            raise
        except (RemoteError, QueryError) as error:
            lead.problem = str(error)
        for split in segment.splits:
            split.problem = split.problem or lead.problem
            if split.problem:
                self._progress(self.left(split))
            if split in self.outcomes:
                self.outcomes[split].problem = self.outcomes[split].problem or split.problem

    def _failed(self, split: Split) -> bool:
        """Whether the rule cannot be computed; ``problem`` then says why."""
        for other in split.needs if not split.problem else ():
            if other.problem and other is not split:
                name = other.rule.record if isinstance(other.rule, Recording) else other.rule.alert
                split.problem = f"{name} cannot be computed: {other.problem}"
                break
        return bool(split.problem)

    def _record(self, segment: Segment, instants: Instants, begin: int) -> None:
        lead = segment.splits[0]
        if lead.node is None:
            self._write(lead, self._asked(lead, instants, begin), instants, begin, len(instants.times))
            return
        most = MOST if segment.delay is None else max(1, min(MOST, segment.delay // instants.step))
        for low, high in instants.pieces(begin, most):
            for split in segment.splits:
                self._write(split, self._compute(split, instants, low, high), instants, low, high)
                self._progress(high - low)

    def _live(self, segment: Segment, instants: Instants, begin: int) -> None:
        (split,) = segment.splits
        life = Life(self.outcomes[split], split.group, instants, self._first, self._source.ask)
        if split in split.edges:
            presume(life, partial(self._compute, split, instants), instants, begin, self._tape, self._progress)
            return
        if split.node is None:
            rows = self._asked(split, instants, begin)
        else:
            rows = []
            for low, high in instants.pieces(begin, MOST):
                rows += self._compute(split, instants, low, high)
                self._progress(high - low)
        times = instants.times
        walk(life, rows, begin, len(times), lambda place, batch: self._tape.put(batch, times[place : place + 1])
             if segment.read else None)  # fmt: skip

    def _asked(self, split: Split, instants: Instants, begin: int) -> list[Row]:
        return self._source.rows(split.rule.expr, instants, begin, self._progress)

    def _fetch(self, split: Split, instants: Instants, begin: int) -> None:
        for name, expr in split.parts.items():
            rows = self._source.rows(expr, instants, begin, lambda count: None)
            self._tape.append(name, rows, instants, begin, len(instants.times), name)

    def _compute(self, split: Split, instants: Instants, low: int, high: int) -> list[Row]:
        assert split.node is not None
        times = instants.times
        found = self._engine.range(split.node, times[low] / 1000, times[high - 1] / 1000, instants.step / 1000)
        return rows_of(found, instants)

    def _write(self, split: Split, rows: list[Row], instants: Instants, low: int, high: int) -> None:
        assert isinstance(split.rule, Recording)
        self._tape.append(split.rule.record, _recorded(split.rule, rows, split.group.limit), instants, low, high, split)


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
