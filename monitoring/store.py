"""The embedded stack's store: the last hours of every series, in memory.

Each series has its own growing buffers of times (int64 ms) and values (float64); an index from label pairs to series
answers matchers. Readers get views: a buffer's filled part is never written again (growing and trimming make new
buffers), so a query may run in another thread than the scrapes. 16 bytes a sample, and room for at most as much again.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from .samples import Floats, Integers, Labels, Matcher, Series

FIRST = 64
"""Samples that a new series has room for."""

MATCHED = 256
"""Selectors whose matches are remembered."""


class _Buffer:
    """One series: samples lie at ``start:end`` of both arrays."""

    __slots__ = ("end", "labels", "start", "times", "values")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.times: Integers = np.empty(FIRST, dtype=np.int64)
        self.values: Floats = np.empty(FIRST, dtype=np.float64)
        self.start = 0
        self.end = 0

    def append(self, time: int, value: float) -> bool:
        """False if the sample is not newer than the last one."""
        end = self.end
        if end > self.start and time <= self.times[end - 1]:
            return False
        if end == len(self.times):
            self._move(max(FIRST, 2 * (end - self.start)))
            end = self.end
        self.times[end] = time
        self.values[end] = value
        self.end = end + 1
        return True

    def trim(self, before: int) -> int:
        """Forget samples older than ``before``; how many they were."""
        start = self.start + int(self.times[self.start : self.end].searchsorted(before))
        gone = start - self.start
        self.start = start
        if start > len(self.times) // 2:
            self._move(max(FIRST, (self.end - start) * 5 // 4))
        return gone

    def between(self, first: int, last: int) -> Series | None:
        times = self.times[self.start : self.end]
        low, high = times.searchsorted(first), times.searchsorted(last, side="right")
        if low >= high:
            return None
        return Series(self.labels, times[low:high], self.values[self.start : self.end][low:high])

    def _move(self, room: int) -> None:
        """New buffers, so that views handed out before stay what they were."""
        times, values = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.float64)
        count = self.end - self.start
        times[:count] = self.times[self.start : self.end]
        values[:count] = self.values[self.start : self.end]
        self.times, self.values, self.start, self.end = times, values, 0, count


class Store:
    """Series in memory, bounded: beyond ``max_series`` no new one is taken in, until ``trim`` has made room.

    ``refused`` counts samples of series that found no room, ``late`` those not newer than their series' last.
    """

    def __init__(self, max_series: int = 50_000) -> None:
        self.max_series = max_series
        self.refused = 0
        self.late = 0
        self._lock = threading.Lock()
        self._series: dict[Labels, _Buffer] = {}
        self._index: dict[str, dict[str, set[Labels]]] = defaultdict(lambda: defaultdict(set))
        # Rules ask for the same selectors again and again: what they matched, until a series comes or goes.
        self._matched: dict[tuple[Matcher, ...], list[_Buffer]] = {}
        self._samples = 0

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

        Label sets must be sorted by name. A sample that is not newer than the last of its series is dropped.
        """
        taken = 0
        with self._lock:
            series = self._series
            for labels, value in samples:
                buffer = series.get(labels)
                if buffer is None:
                    if len(series) >= self.max_series:
                        self.refused += 1
                        continue
                    buffer = self._add(labels)
                if buffer.append(time_ms, value):
                    taken += 1
                else:
                    self.late += 1
            self._samples += taken
        return taken

    def _add(self, labels: Labels) -> _Buffer:
        self._matched.clear()
        buffer = self._series[labels] = _Buffer(labels)
        for name, value in labels:
            self._index[name][value].add(labels)
        return buffer

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Series]:
        """Series that satisfy all matchers with their samples in ``start_ms <= t <= end_ms``, sorted by labels.

        Series without a sample in there are left out. Stale markers are handed out as they are. The arrays are views:
        do not write into them.
        """
        with self._lock:
            key = tuple(matchers)
            buffers = self._matched.get(key)
            if buffers is None:
                if len(self._matched) >= MATCHED:
                    self._matched.clear()
                buffers = self._matched[key] = [self._series[labels] for labels in sorted(self._matching(matchers))]
            found = [buffer.between(start_ms, end_ms) for buffer in buffers]
        return [one for one in found if one is not None]

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
            for labels, buffer in list(self._series.items()):
                gone += buffer.trim(before_ms)
                if buffer.start == buffer.end:
                    self._drop(labels)
            self._samples -= gone
        return gone

    def _drop(self, labels: Labels) -> None:
        self._matched.clear()
        del self._series[labels]
        for name, value in labels:
            values = self._index[name]
            values[value].discard(labels)
            if not values[value]:
                del values[value]
            if not values:
                del self._index[name]
