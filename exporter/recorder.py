"""Where a measurement is written: the page of this process, shared by everything that measures in it.

Recording costs a bisect and two array writes, without a lock: under Python's global lock ``cells[i] += x`` on a
memoryview is one step for other threads, because the interpreter changes threads at calls and loops only
(``tests/exporter/test_recorder.py`` holds this against the running Python). An interpreter without the global lock gets
a lock round each record.

A page is made with the first series, not at import. A forked child gets its own page and leaves its parent's alone.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from bisect import bisect_left
from pathlib import Path
from typing import Final
from weakref import WeakSet

from . import folder as folders
from . import names
from .layout import Key, Kind
from .names import OVERFLOW, Metric
from .page import Page
from .users import WORDS, Users

logger = logging.getLogger("anvil_monitor.exporter")
# An accident with a label must not eat the server's memory.
MAX_SERIES: Final = 2000


class Cell:
    """One value of one series: :meth:`add` for counters and levels that go up and down, :meth:`set` for levels."""

    __slots__ = ("cells",)

    def __init__(self, cells: memoryview[float]) -> None:
        self.cells = cells

    def add(self, amount: float) -> None:
        self.cells[0] += amount

    def set(self, value: float) -> None:
        self.cells[0] = value


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


class LockedCell(Cell):
    """For an interpreter without the global lock."""

    __slots__ = ()

    def add(self, amount: float) -> None:
        with _writing:
            self.cells[0] += amount


class LockedHistogram(Histogram):
    """For an interpreter without the global lock."""

    __slots__ = ()

    def record(self, value: float) -> None:
        with _writing:
            super().record(value)


FREE_THREADED: Final = not getattr(sys, "_is_gil_enabled", lambda: True)()
CELL: Final = LockedCell if FREE_THREADED else Cell
HISTOGRAM: Final = LockedHistogram if FREE_THREADED else Histogram


class Recorder:
    """Gives series of this process's page. ``folder``: where the pages of all workers are. See :func:`recorder_for`.

    Where no page file can be made (a read-only folder, a full disk) the series live in this process's memory, which is
    said once in the log and by ``anvil_monitor_private_page``.
    """

    def __init__(self, folder: Path, max_series: int = MAX_SERIES) -> None:
        self.folder = folder
        self.max_series = max_series
        self.page: Page | None = None
        self._lock = threading.Lock()
        self._series: dict[Key, Cell | Histogram] = {}
        self._overflow: dict[Key, Cell | Histogram] = {}
        self._users: Users | None = None
        _living.add(self)

    @property
    def private(self) -> bool:
        """Whether this process measures into its own memory only."""
        return self.page is not None and self.page.path is None

    def histogram(self, metric: Metric, labels: tuple[str, ...], edges: tuple[float, ...]) -> Histogram:
        """The series of ``metric`` with these label values (in the metric's order; an empty one is absent)."""
        series = self._get(Key("histogram", metric.name, labels, edges))
        assert isinstance(series, Histogram)
        return series

    def counter(self, metric: Metric, labels: tuple[str, ...] = ()) -> Cell:
        return self._cell("counter", metric, labels)

    def gauge(self, metric: Metric, labels: tuple[str, ...] = ()) -> Cell:
        """A level of this process: levels of live processes add up, a dead one's vanish."""
        return self._cell("gauge", metric, labels)

    def oldest(self, metric: Metric) -> Cell:
        """When the oldest of something began, on the monotonic clock (0: nothing is on); read as its age."""
        return self._cell("oldest", metric, ())

    @property
    def users(self) -> Users:
        """The bitmaps of this worker's clients."""
        if self._users is None:
            with self._lock:
                if self._users is None:
                    self._users = self._open_users()
        return self._users

    def remembers(self, series: Cell | Histogram) -> bool:
        """Whether ``series`` is a label set's own, and no overflow series, which a caller must not keep for one."""
        return not any(series is each for each in self._overflow.values())

    def close(self) -> None:
        """Give the page up, as at the end of the process; what it counted is folded by the next reader."""
        with self._lock:
            if self.page is not None:
                self.page.close()

    def _cell(self, kind: Kind, metric: Metric, labels: tuple[str, ...]) -> Cell:
        series = self._get(Key(kind, metric.name, labels))
        assert isinstance(series, Cell)
        return series

    def _get(self, key: Key) -> Cell | Histogram:
        series = self._series.get(key)
        if series is not None:
            return series
        with self._lock:
            series = self._series.get(key)
            if series is None and len(self._series) < self.max_series:
                try:
                    series = self._series[key] = _wrap(key, self._open_page().add(key))
                except OSError:
                    self.max_series = len(self._series)  # the page cannot grow: full is full
            return series or self._spill(key)

    def _spill(self, key: Key) -> Cell | Histogram:
        """The one series of the metric that takes what has no room of its own."""
        refused = self._overflowing(Key("counter", names.SERIES_OVERFLOW.name))
        assert isinstance(refused, Cell)
        refused.add(1.0)
        return self._overflowing(Key(key.kind, key.name, (OVERFLOW,) * len(key.labels), key.edges))

    def _overflowing(self, key: Key) -> Cell | Histogram:
        series = self._overflow.get(key)
        if series is None:
            series = self._overflow[key] = _wrap(key, self._add(key))
        return series

    def _add(self, key: Key) -> memoryview[float]:
        """Cells for ``key``; where the page cannot even take these, cells that nobody reads."""
        try:
            return self._open_page().add(key)
        except OSError:
            words = WORDS if key.kind == "users" else len(key.edges) + 2
            return memoryview(bytearray(8 * words)).cast("d")

    def _open_page(self) -> Page:
        if self.page is None:
            try:
                folders.prepare(self.folder)
                self.page = Page.in_folder(self.folder)
            except OSError as error:
                logger.warning(
                    "anvil-monitor cannot make a page in %s (%s): the numbers of this worker (pid %d) are kept in its "
                    "own memory, and no other worker shows them", self.folder, error.strerror or error, os.getpid(),
                )  # fmt: skip
                self.page = Page.private()
        return self.page

    def _open_users(self) -> Users:
        cells = self._add(Key("users", names.HTTP_USERS.name))
        try:
            return Users(cells, os.urandom(32) if self.private else folders.salt(self.folder))
        except OSError:  # without the common salt this worker's clients count apart from the others'
            return Users(cells, os.urandom(32))

    def renew(self) -> None:
        """In a forked child: a page of its own with the same series, all at zero."""
        self._lock = threading.Lock()  # another thread of the parent may have held it
        parents, self.page = self.page, None
        if parents is None:
            return
        parents.close()  # else the parent would seem alive as long as this child is
        self._users = None
        for key, series in [*self._series.items(), *self._overflow.items()]:
            series.cells = self._add(key)


def _wrap(key: Key, cells: memoryview[float]) -> Cell | Histogram:
    return HISTOGRAM(cells, key.edges) if key.kind == "histogram" else CELL(cells)


_living: WeakSet[Recorder] = WeakSet()
_by_folder: dict[Path, Recorder] = {}
_making = threading.Lock()


def recorder_for(folder: Path) -> Recorder:
    """The recorder of this process for ``folder``: one, however many applications measure into it."""
    with _making:
        if folder not in _by_folder:
            _by_folder[folder] = Recorder(folder)
        return _by_folder[folder]


def _after_fork() -> None:
    global _making, _writing
    _making, _writing = threading.Lock(), threading.Lock()
    for recorder in list(_living):
        recorder.renew()


os.register_at_fork(after_in_child=_after_fork)
