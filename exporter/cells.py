"""What a measurement is written into: the cells of one series in a page, and the few lines that are hot.

A record is a bisect and two array writes. Where the interpreter has no global lock, the same with one of ours.
"""

from __future__ import annotations

import sys
import threading
from bisect import bisect_left
from time import monotonic
from typing import Final

from .layout import Key


class Cell:
    """One value of one series: :meth:`add` for counters and levels that go up and down, :meth:`set` for levels."""

    __slots__ = ("cells",)

    def __init__(self, cells: memoryview[float]) -> None:
        self.cells = cells

    def add(self, amount: float) -> None:
        self.cells[0] += amount

    def set(self, value: float) -> None:
        self.cells[0] = value


class ExtremeCell(Cell):
    """A level of which the greatest or the least over the workers is shown: not a number until it is set."""

    __slots__ = ()

    def add(self, amount: float) -> None:
        known = self.cells[0]
        self.cells[0] = amount if known != known else known + amount  # no number: never set


class RecentCell(Cell):
    """A level of which the one that was set last is shown."""

    __slots__ = ()

    def add(self, amount: float) -> None:
        self.cells[0] += amount
        self.cells[1] = monotonic()

    def set(self, value: float) -> None:
        self.cells[0] = value
        self.cells[1] = monotonic()


class Histogram:
    """One series of a histogram: how many values were at or below each of ``edges``, and their sum."""

    __slots__ = ("cells", "edges")

    def __init__(self, cells: memoryview[float], edges: tuple[float, ...]) -> None:
        self.cells, self.edges = cells, edges

    def record(self, value: float) -> None:
        """Count ``value``, which must be finite: a sum would never recover from anything else."""
        cells = self.cells
        cells[bisect_left(self.edges, value) + 1] += 1.0
        cells[0] += value


_writing = threading.Lock()


class _Locked:
    """For an interpreter without the global lock: one record at a time in this process."""

    __slots__ = ()

    def add(self, amount: float) -> None:
        with _writing:
            super().add(amount)  # type: ignore[misc]

    def record(self, value: float) -> None:
        with _writing:
            super().record(value)  # type: ignore[misc]


class LockedCell(_Locked, Cell):
    __slots__ = ()


class LockedExtremeCell(_Locked, ExtremeCell):
    __slots__ = ()


class LockedRecentCell(_Locked, RecentCell):
    __slots__ = ()


class LockedHistogram(_Locked, Histogram):
    __slots__ = ()


FREE_THREADED: Final = not getattr(sys, "_is_gil_enabled", lambda: True)()
CELL: Final = LockedCell if FREE_THREADED else Cell
EXTREME_CELL: Final = LockedExtremeCell if FREE_THREADED else ExtremeCell
RECENT_CELL: Final = LockedRecentCell if FREE_THREADED else RecentCell
HISTOGRAM: Final = LockedHistogram if FREE_THREADED else Histogram
Series = Cell | Histogram


def wrap(key: Key, cells: memoryview[float]) -> Series:
    """The series of ``key`` over its cells in a page."""
    if key.kind == "histogram":
        return HISTOGRAM(cells, key.edges)
    if key.kind in ("gauge_max", "gauge_min"):
        return EXTREME_CELL(cells)
    return RECENT_CELL(cells) if key.kind == "gauge_recent" else CELL(cells)


def unread(size: int = 2) -> memoryview[float]:
    """Cells that nobody reads, for a series without any room."""
    return memoryview(bytearray(8 * size)).cast("d")


def renew_lock() -> None:
    """In a child after a fork: whoever held the lock of its parent is not there."""
    global _writing
    _writing = threading.Lock()
