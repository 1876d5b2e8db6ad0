"""The store that keeps history: the last hours in memory, everything older in blocks, one answer over both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from ..samples import Floats, Labels, Matcher, Panel
from ..store import Store
from .blocks import HOUR
from .history import History

MEMORY: Final = 1.5 * 3600.0
"""Seconds in memory: rules and pages ask for these again and again."""
MOST_MEMORY: Final = 6 * 3600.0
"""Seconds in memory while no block can be written."""
SLACK: Final = 300_000
"""Milliseconds after its end in which an hour still takes samples."""
AHEAD: Final = HOUR
"""A sample that is further in the future comes from a wrong clock, and would keep all others out."""
NEVER: Final = -(1 << 62)


class HistoryStore(Store):
    """A store whose samples survive it. An ``append`` that has returned is not lost with this process.

    Samples of an hour that is in a block are refused and counted as ``late``. ``maintain`` is to be called once a
    minute, in any thread. The history is opened and closed by whoever gives it.
    """

    def __init__(
        self,
        history: History,
        max_series: int = 50_000,
        memory_seconds: float = MEMORY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(max_series)
        self.history = history
        self._memory, self._clock = memory_seconds, clock
        self._writing = threading.Lock()
        self._floor = self._seam = NEVER if history.sealed is None else history.sealed + 1
        """Older samples are not taken in; older ones are not in memory."""
        history.replay(self._replayed)
        self.late = 0

    @property
    def problem(self) -> str:
        damaged = self.history.blocks.damaged
        told = [self.history.problem] if self.history.problem else []
        if damaged:
            told.append(f"history: {damaged} damaged blocks are set aside in {self.history.folder / 'blocks'}")
        return "; ".join(told)

    def _replayed(self, time_ms: int, labels: tuple[Labels, ...], values: Floats) -> None:
        if self._floor <= time_ms <= self._now() + AHEAD:
            super().append_values(time_ms, labels, values.copy())

    def _now(self) -> int:
        return round(self._clock() * 1000)

    def append_values(self, time_ms: int, labels: tuple[Labels, ...], values: Floats) -> int:
        with self._writing:
            if not self._floor <= time_ms <= self._now() + AHEAD:
                self.late += len(labels)
                return 0
            taken = super().append_values(time_ms, labels, values)
            if taken == 0:
                return 0
            if taken < len(labels):  # what the store has no room for is not for the log; what came late does no harm
                there = np.array([one in self._series for one in labels])
                labels = tuple([one for one, known in zip(labels, there.tolist(), strict=True) if known])
                values = values[there]
            self.history.log(time_ms, labels, values, self._since)
            return taken

    def _since(self, first: int) -> list[Panel]:
        return super().select((), first, self._now() + AHEAD)

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Panel]:
        while True:
            seam = self._seam
            recent = super().select(matchers, max(start_ms, seam), end_ms)
            if self._seam == seam:  # or else something has left the memory meanwhile
                break
        if start_ms >= seam:
            return recent
        return self.history.select(matchers, start_ms, min(end_ms, seam - 1), recent)

    def series(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Labels]:
        """As ``Store.series``; what is on disk is told by the hour."""
        found = set(super().series(matchers, max(start_ms, self._seam), end_ms))
        for table in self.history.blocks.tables(start_ms, end_ms):
            found.update(table.labels(one) for one in table.matching(matchers).tolist())
        return sorted(found)

    def label_names(self, matchers: Sequence[Matcher] = ()) -> list[str]:
        found = set(super().label_names(matchers))
        for table in self.history.blocks.tables(NEVER, -NEVER):
            if matchers:
                found.update(name for one in table.matching(matchers).tolist() for name, _ in table.labels(one))
            else:
                found.update(table.names())
        return sorted(found)

    def label_values(self, name: str, matchers: Sequence[Matcher] = ()) -> list[str]:
        found = set(super().label_values(name, matchers))
        for table in self.history.blocks.tables(NEVER, -NEVER):
            if matchers:
                labels = (table.labels(one) for one in table.matching(matchers).tolist())
                found.update(value for one in labels for key, value in one if key == name)
            else:
                found.update(table.values(name))
        return sorted(found)

    def trim(self, before_ms: int) -> int:
        self._seam = max(self._seam, before_ms)  # first: a query that runs meanwhile looks again
        return super().trim(before_ms)

    def maintain(self) -> None:
        """Seal hours that are over, delete what is too old, forget what is in blocks. Does not raise OSError."""
        now = self._now()
        for hour in self._hours():
            if hour + HOUR + SLACK > now or not self._seal(hour):
                break
        sealed = self.history.sealed
        with self._writing:
            self.history.drop()
        self.history.sync()
        self.history.expire()
        before = now - round(self._memory * 1000)
        before = NEVER if sealed is None else min(before, sealed + 1)
        self.trim(max(before, now - round(max(MOST_MEMORY, self._memory) * 1000)))

    def _seal(self, hour: int) -> bool:
        with self._writing:
            self._floor = max(self._floor, hour + HOUR)  # from here on nothing is added to that hour
        panels = super().select((), max(hour, self._seam), hour + HOUR - 1)
        return self.history.seal(hour, panels)

    def _hours(self) -> list[int]:
        """The beginnings of hours of which there are samples in memory alone."""
        sealed = self.history.sealed
        with self._lock:
            found = {
                hour
                for sheet in self._sheets
                for segment in sheet.segments
                for hour in np.unique(segment.filled()[0] // HOUR).tolist()
            }
        return sorted(hour * HOUR for hour in found if sealed is None or hour * HOUR > sealed)
