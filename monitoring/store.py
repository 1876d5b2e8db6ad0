"""The embedded stack's store: the last hours of every series, in memory, and an index from label pairs to series.

Samples lie time-major (``head``), 8 bytes each. Readers get views that nobody writes into, so a query may run in
another thread than the scrapes.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .head import SPARSE, Columns, Entry, Layout, Sheet
from .samples import Floats, Integers, Labels, Matcher, Panel, as_slice, is_absent

MATCHED = 256
"""Selectors whose matches are remembered."""


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Where a batch's samples go in one sheet: ``take`` are their places in the batch (None: all of it, in order)."""

    sheet: Sheet
    layout: Layout
    columns: Integers | slice
    take: Integers | None


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What was found out about a batch's label sets. Good for the next batch of the same ones."""

    labels: tuple[Labels, ...]
    parts: tuple[_Part, ...]


class Store:
    """Series in memory, bounded: beyond ``max_series`` no new one is taken in, until ``trim`` has made room.

    ``refused`` counts samples of series that found no room, ``late`` those not newer than their series' last.
    """

    def __init__(self, max_series: int = 50_000) -> None:
        self.max_series = max_series
        self.refused = 0
        self.late = 0
        self._lock = threading.Lock()
        self._series: dict[Labels, Entry] = {}
        self._sheets: dict[Sheet, None] = {}
        self._index: dict[str, dict[str, set[Labels]]] = defaultdict(lambda: defaultdict(set))
        # Rules ask for the same selectors again and again: what they matched, until a series comes or goes.
        self._matched: dict[tuple[Matcher, ...], list[tuple[Sheet, Columns]]] = {}
        # Sources append the same label sets again and again: the plan of a batch, by its first label set.
        self._plans: dict[Labels, _Plan] = {}
        self._samples = 0

    @property
    def problem(self) -> str:
        """What the store cannot do at present, in words; empty if it can do all."""
        return ""

    @property
    def series_count(self) -> int:
        """Series that hold at least one sample."""
        return len(self._series)

    @property
    def sample_count(self) -> int:
        """Samples held, stale markers among them."""
        return self._samples

    def append(self, time_ms: int, samples: Iterable[tuple[Labels, float]]) -> int:
        """Take in samples of one instant; how many were taken.

        Label sets must be sorted by name. A sample that is not newer than the last of its series is dropped. Series
        that come in one batch are kept together; the same label sets in the same order are recognised, and cost little.
        """
        batch = samples if isinstance(samples, list) else list(samples)
        if not batch:
            return 0
        labels, numbers = zip(*batch, strict=True)
        return self.append_values(time_ms, labels, np.array(numbers, dtype=np.float64))

    def append_values(self, time_ms: int, labels: tuple[Labels, ...], values: Floats) -> int:
        """``append`` of label sets (one at least) and as many values, which may be changed."""
        foreign = is_absent(values)
        if foreign.any():
            values[foreign] = np.nan
        with self._lock:
            plan = self._plans.get(labels[0])
            if plan is None or plan.labels != labels or not self._good(plan, time_ms):
                return self._append_unplanned(time_ms, labels, values)
            for part in plan.parts:
                part.sheet.append(time_ms, part.columns, values if part.take is None else values[part.take])
            self._samples += len(values)
        return len(values)

    @staticmethod
    def _good(plan: _Plan, time: int) -> bool:
        return all(part.sheet.layout is part.layout and time > part.sheet.time for part in plan.parts)

    def _append_unplanned(self, time: int, labels: tuple[Labels, ...], values: Floats) -> int:
        places: dict[Sheet, dict[Entry, int]] = defaultdict(dict)
        new: dict[Labels, int] = {}
        late = refused = 0
        for place, one in enumerate(labels):
            entry = self._series.get(one)
            if entry is None:
                if one in new:
                    late += 1
                elif len(self._series) + len(new) >= self.max_series:
                    refused += 1
                else:
                    new[one] = place
            elif entry in places[entry.sheet] or entry.sheet.last_of(entry) >= time:
                late += 1
            else:
                places[entry.sheet][entry] = place
        places = {sheet: entries for sheet, entries in places.items() if entries}
        if new:
            # New series join the ones that they come with.
            sheet = max(places, key=lambda one: len(places[one])) if places else Sheet()
            self._sheets[sheet] = None
            for one, place in sorted(new.items()):  # neighbours for a selector are neighbours in memory
                places.setdefault(sheet, {})[self._add(one, sheet)] = place
        parts = tuple([self._put(time, sheet, entries, values) for sheet, entries in places.items()])
        taken = len(labels) - late - refused
        if taken == len(labels):
            if len(self._plans) > len(self._sheets) + MATCHED:
                self._plans.clear()
            self._plans[labels[0]] = _Plan(labels, _in_order(parts, taken))
        self._samples += taken
        self.late += late
        self.refused += refused
        return taken

    def _put(self, time: int, sheet: Sheet, entries: dict[Entry, int], values: Floats) -> _Part:
        known = list(entries)
        width = len(sheet.layout.entries)
        apart = len(known) * SPARSE < width and all(entry.column >= 0 for entry in known)
        if apart or (time < sheet.time and not sheet.amendable(time)):
            self._matched.clear()
            self._plans.clear()
            sheet = sheet.detach(known)
            self._sheets[sheet] = None
        missing = [entry for entry in known if entry.column < 0]
        if missing:
            sheet.add(missing)
        layout = sheet.layout
        columns = np.array([entry.column for entry in known], dtype=np.int64)
        take = np.array(list(entries.values()), dtype=np.int64)
        if time > sheet.time:
            sheet.append(time, columns, values[take])
        else:
            sheet.amend(time, columns, values[take])
        return _Part(sheet, layout, as_slice(columns), take)

    def _add(self, labels: Labels, sheet: Sheet) -> Entry:
        self._matched.clear()
        entry = self._series[labels] = Entry(labels, sheet)
        for name, value in labels:
            self._index[name][value].add(labels)
        return entry

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Panel]:
        """Series that satisfy all matchers with their samples in ``start_ms <= t <= end_ms``.

        Each series is in one panel. Stale markers are handed out as they are. A series without a sample in there may be
        among the columns, all ``ABSENT``. Do not write into the arrays.
        """
        found = []
        with self._lock:
            for sheet, columns in self._matched_by(matchers):
                if sheet.time < start_ms:
                    continue
                parts = sheet.between(start_ms, end_ms)
                if parts:
                    found.append((columns, parts))
        return [columns.panel(parts) for columns, parts in found]  # copies, so not under the lock

    def series(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Labels]:
        """Label sets that satisfy all matchers and have a sample in ``start_ms <= t <= end_ms``, sorted."""
        found: list[Labels] = []
        for panel in self.select(matchers, start_ms, end_ms):
            there = np.flatnonzero((~is_absent(panel.values)).any(axis=0))
            found += [panel.labels[column] for column in there.tolist()]
        return sorted(found)

    def _matched_by(self, matchers: Sequence[Matcher]) -> list[tuple[Sheet, Columns]]:
        key = tuple(matchers)
        found = self._matched.get(key)
        if found is None:
            if len(self._matched) >= MATCHED:
                self._matched.clear()
            sheets: dict[Sheet, list[Entry]] = defaultdict(list)
            for labels in sorted(self._matching(matchers)):
                entry = self._series[labels]
                sheets[entry.sheet].append(entry)
            found = self._matched[key] = [(sheet, Columns(entries)) for sheet, entries in sheets.items()]
        return found

    def _matching(self, matchers: Sequence[Matcher]) -> Iterable[Labels]:
        taken: set[Labels] | None = None
        # Matchers that name one value first: they leave the least for the others.
        for matcher in sorted(matchers, key=lambda one: one.op != "="):
            values = self._index.get(matcher.name, {})
            if matcher.op == "=" and matcher.value:
                group = values.get(matcher.value, set())
                taken = group if taken is None else taken & group
            elif not matcher.matches_empty:
                groups = [group for value, group in values.items() if matcher.test(value)]
                taken = set().union(*groups) if taken is None else taken.intersection(set().union(*groups))
            else:
                groups = [group for value, group in values.items() if not matcher.test(value)]
                taken = (set(self._series) if taken is None else taken).difference(*groups)
            if not taken:
                return ()
        return self._series.keys() if taken is None else taken

    def label_names(self, matchers: Sequence[Matcher] = ()) -> list[str]:
        """Names of all labels in use, sorted."""
        with self._lock:
            if not matchers:
                return sorted(self._index)
            return sorted({name for labels in self._matching(matchers) for name, _ in labels})

    def label_values(self, name: str, matchers: Sequence[Matcher] = ()) -> list[str]:
        """Values of one label, sorted."""
        with self._lock:
            if not matchers:
                return sorted(self._index.get(name, ()))
            return sorted({value for labels in self._matching(matchers) for key, value in labels if key == name})

    def trim(self, before_ms: int) -> int:
        """Forget samples older than ``before_ms``, and series that have none left; how many samples it were."""
        gone = 0
        with self._lock:
            for sheet in list(self._sheets):
                gone += sheet.trim(before_ms)
                if not any(segment.rows for segment in sheet.segments):
                    del self._sheets[sheet]
            ended = [entry for entry in self._series.values() if entry.sheet.last_of(entry) < before_ms]
            for entry in ended:
                self._drop(entry.labels)
            self._samples -= gone
        return gone

    def _drop(self, labels: Labels) -> None:
        self._matched.clear()
        self._plans.clear()
        del self._series[labels]
        for name, value in labels:
            values = self._index[name]
            values[value].discard(labels)
            if not values[value]:
                del values[value]
            if not values:
                del self._index[name]


def _in_order(parts: tuple[_Part, ...], count: int) -> tuple[_Part, ...]:
    """A batch that lies in one sheet in its own order needs no picking."""
    if len(parts) == 1 and parts[0].take is not None and (parts[0].take == np.arange(count)).all():
        return (_Part(parts[0].sheet, parts[0].layout, parts[0].columns, None),)
    return parts
