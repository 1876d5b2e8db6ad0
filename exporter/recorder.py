"""Where a measurement is written: this process's page, shared by everything that measures in it.

A forked child gets a page of its own with its first record. Recording is thread-safe and costs a dictionary look-up, a
bisect and two array writes.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from . import folder as folders
from .layout import Key, Kind
from .names import OVERFLOW, OVERFLOW_TOTAL, Metric
from .page import Page
from .users import Users

logger = logging.getLogger(__name__)
# A cap on series a page: an accident with a label must not eat the server's memory.
MOST_SERIES: Final = 2000
# A label value longer than this is cut: no client's text may fill the page.
LONGEST_VALUE: Final = 200


class Recorder:
    """Opens series on this process's page, which is made with the first of them. See :func:`recorder_for`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.families: list[Family] = []
        self.is_private = False
        self._page: Page | None = None
        self._reset()

    def _reset(self) -> None:
        self.lock = threading.RLock()
        self._page = None
        self._cells: dict[Key, memoryview] = {}
        self._users: Users | None = None
        for family in self.families:
            family.cells.clear()

    def renew(self) -> None:
        """In a forked child: leave the parent's page to the parent. Closing our copy of its descriptor keeps its lock."""
        if self._page is not None:
            self._page.close()
        self._reset()

    @property
    def page(self) -> Page:
        """This process's page. Where no file can be had it is memory of this process alone: said once."""
        with self.lock:
            if self._page is None:
                self._start()
            assert self._page is not None
            return self._page

    @property
    def users(self) -> Users:
        users = self._users
        if users is None:
            with self.lock:
                self.page  # noqa: B018 - makes it
                users = self._users
        assert users is not None
        return users

    def _start(self) -> None:
        salt = os.urandom(32)
        try:
            folders.prepare(self.folder)
            salt = folders.salt(self.folder)
            self._page = Page.in_folder(self.folder)
        except OSError as error:
            if not self.is_private:
                logger.warning(
                    "anvil-monitor cannot use %s (%s): this worker's metrics are served by this worker alone",
                    self.folder, error.strerror or error,
                )  # fmt: skip
            self.is_private = True
            self._page = Page.private()
        words = self._page.add(Key("users", "")).cast("B").cast("Q")
        self._users = Users(words, salt)

    def cell(self, kind: Kind, metric: Metric, values: tuple[str, ...], edges: tuple[float, ...]) -> memoryview:
        """The cells of a series; a full page gives its metric's one overflow series. Call with the lock held."""
        key = Key(kind, metric.name, tuple(value[:LONGEST_VALUE] for value in values), edges)
        cells = self._cells.get(key)
        if cells is not None:
            return cells
        page = self.page
        if len(self._cells) < MOST_SERIES:
            try:
                cells = self._cells[key] = page.add(key)
                return cells
            except OSError as error:  # the disk is full: what has a place goes on being measured
                logger.debug("no room for a series of %s: %s", metric.name, error)
        try:
            self._spill(Key("counter", OVERFLOW_TOTAL.name))[0] += 1.0
            return self._spill(Key(kind, metric.name, tuple(OVERFLOW for _ in values), edges))
        except OSError:
            return memoryview(bytearray(8 * (len(edges) + 2))).cast("d")  # nowhere: better lost than an error there

    def _spill(self, key: Key) -> memoryview:
        cells = self._cells.get(key)
        if cells is None:
            cells = self._cells[key] = self.page.add(key)
        return cells


class Family:
    """All series of one metric in this process; ``key`` is the values of its labels, in order."""

    kind: Kind = "gauge"

    def __init__(self, recorder: Recorder, metric: Metric, edges: Sequence[float] = ()) -> None:
        self.recorder, self.metric = recorder, metric
        self.edges = tuple(sorted({float(edge) for edge in edges}))
        self.cells: dict[tuple[str, ...], memoryview] = {}
        recorder.families.append(self)

    def open(self, key: tuple[str, ...]) -> memoryview:
        """The cells of ``key``, made where they are new. Call with the recorder's lock held."""
        cells = self.recorder.cell(self.kind, self.metric, key, self.edges)
        # What overflowed is not remembered by its own key: that memory would be what the cap is against.
        if len(self.cells) < MOST_SERIES:
            self.cells[key] = cells
        return cells


class Histogram(Family):
    """Durations and sizes, in buckets with inclusive upper bounds ``edges`` and one for the rest."""

    kind: Kind = "histogram"

    def record(self, value: float, key: tuple[str, ...] = ()) -> None:
        """Count ``value``; what is no finite number is left out, for a sum would never recover from it."""
        if not math.isfinite(value):
            return
        with self.recorder.lock:
            cells = self.cells.get(key)
            if cells is None:
                cells = self.open(key)
            cells[0] += value
            cells[1 + bisect_left(self.edges, value)] += 1.0


class Counter(Family):
    """A number of events; it only grows, over workers and their deaths."""

    kind: Kind = "counter"

    def add(self, amount: float = 1.0, key: tuple[str, ...] = ()) -> None:
        with self.recorder.lock:
            cells = self.cells.get(key)
            if cells is None:
                cells = self.open(key)
            cells[0] += amount


class Gauge(Counter):
    """A level of this process; levels of processes add up, and end with their process."""

    kind: Kind = "gauge"

    def set(self, value: float, key: tuple[str, ...] = ()) -> None:
        with self.recorder.lock:
            cells = self.cells.get(key)
            if cells is None:
                cells = self.open(key)
            cells[0] = value


class Oldest(Gauge):
    """When something began, on the monotonic clock that all processes of a host share; 0 for nothing."""

    kind: Kind = "oldest"


_recorders: dict[Path, Recorder] = {}
_making = threading.Lock()


def recorder_for(folder: Path) -> Recorder:
    """The recorder of this process for ``folder``: one, however many applications measure into it."""
    with _making:
        if folder not in _recorders:
            _recorders[folder] = Recorder(folder)
        return _recorders[folder]


def _after_fork() -> None:
    global _making
    _making = threading.Lock()
    for recorder in _recorders.values():
        recorder.renew()


os.register_at_fork(after_in_child=_after_fork)
