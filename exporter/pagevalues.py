"""prometheus_client's value objects (``inc``, ``set``, ``get``) over page cells.

A counter's and a histogram's cells are made when they are first counted, a gauge's when the process has a page: a level
set while an application is imported makes no page, and a forked child starts with it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from math import inf, nan
from typing import Any, Final

from .cells import CELL, Cell, Histogram
from .layout import Pairs, SeriesKind
from .names import Metric
from .recorder import Recorder
from .streams import forget

logger = logging.getLogger("anvil_monitor.exporter")
_binding = threading.Lock()
_warned: set[str] = set()
_forks = 0  # counts up in a forked child


class Place:
    """Where a metric's series go: the recorder, what it is, and its labels."""

    __slots__ = ("edges", "kind", "metric", "pairs", "recorder")

    def __init__(
        self, recorder: Recorder, kind: SeriesKind, metric: Metric, pairs: Pairs, edges: tuple[float, ...] = ()
    ) -> None:
        self.recorder, self.kind, self.metric, self.pairs, self.edges = recorder, kind, metric, pairs, edges

    def open(self, pairs: Pairs = ()) -> Cell | Histogram:
        """The series, with ``pairs`` as well; where the page can have none, one that nobody reads."""
        try:
            return self.recorder.series(self.kind, self.metric, (*self.pairs, *pairs), self.edges)
        except ValueError as error:
            complain(self.metric.name, "is missing from /metrics: %s", error)
            unread = memoryview(bytearray(8 * (len(self.edges) + 2))).cast("d")
            return Histogram(unread, self.edges) if self.kind == "histogram" else Cell(unread)


class CellValue:
    """One counter."""

    _multiprocess = False

    def __init__(self, place: Place) -> None:
        self._place = place
        self._cell: Cell | None = None
        self._exemplar: Any = None

    def inc(self, amount: float) -> None:
        if -inf < amount < inf:
            (self._cell or self.bind()).add(amount)
        else:
            complain(self._place.metric.name, "does not count the value %r", amount)

    def set(self, value: float, timestamp: float | None = None) -> None:
        (self._cell or self.bind()).set(value)

    def get(self) -> float:
        return self._cell.cells[0] if self._cell is not None else 0.0

    def bind(self) -> Cell:
        cell = self._place.open()
        assert isinstance(cell, Cell)
        self._cell = cell
        return cell

    def set_exemplar(self, exemplar: Any) -> None:
        self._exemplar = exemplar

    def get_exemplar(self) -> Any:
        return self._exemplar


class LevelValue(CellValue):
    """One gauge. ``by_pid``: each worker's own series, told apart by the label ``pid``.

    ``wait``: has a call made once the process has a page.
    """

    def __init__(self, place: Place, by_pid: bool, wait: Callable[[Callable[[], object]], None]) -> None:
        super().__init__(place)
        self._by_pid, self._wait = by_pid, wait
        self._early: float | None = None
        self._made = -1

    def inc(self, amount: float) -> None:
        cell = self._ready()
        if cell is None:
            with _binding:
                cell = self._cell
                if cell is None:
                    self._keep((self._early or 0.0) + amount)
                    return
        cell.add(amount)

    def set(self, value: float, timestamp: float | None = None) -> None:
        cell = self._ready()
        if cell is None:
            with _binding:
                cell = self._cell
                if cell is None:
                    self._keep(value)
                    return
        cell.set(value)

    def get(self) -> float:
        cell = self._cell
        if cell is None:
            return self._early or 0.0
        value = cell.cells[0]
        return 0.0 if value != value and self._place.kind != "gauge" else value

    def bind(self) -> Cell:
        with _binding:
            if self._cell is None or (self._by_pid and self._made != _forks):
                pid = (("pid", str(os.getpid())),) if self._by_pid else ()
                cell = self._place.open(pid)
                assert isinstance(cell, Cell)
                early, self._early = self._early, None
                if early is not None:
                    cell.set(early)
                elif self._place.kind in ("gauge_max", "gauge_min"):
                    cell.add(0.0)  # a gauge that was never set is 0
                self._made = _forks
                self._cell = cell
            return self._cell

    def forget(self) -> None:
        """No longer there."""
        if self._cell is not None:
            forget(self._place.kind, self._cell)

    def _keep(self, value: float) -> None:
        if self._early is None:
            self._wait(self.bind)
        self._early = value

    def _ready(self) -> Cell | None:
        if self._cell is not None and (self._made == _forks or not self._by_pid):
            return self._cell
        return self.bind() if self._place.recorder.page is not None else None


class Buckets:
    """One histogram or, without edges, one summary: what its values share."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._series: Histogram | None = None

    def series(self) -> Histogram:
        if self._series is None:
            series = self._place.open()
            assert isinstance(series, Histogram)
            self._series = series
        return self._series

    def add(self, index: int, amount: float) -> None:
        """Add to the ``index``-th cell: the sum, then the buckets."""
        if -inf < amount < inf:
            CELL(self.series().cells[index : index + 1]).add(amount)
        else:
            complain(self._place.metric.name, "does not count the value %r", amount)

    def put(self, values: Sequence[float]) -> None:
        """Add what was counted before: the sum, then the buckets."""
        if any(values):
            for index, value in enumerate(values):
                self.add(index, value)

    def get(self, index: int) -> float:
        return self._series.cells[index] if self._series is not None else 0.0

    def set(self, index: int, value: float) -> None:
        self.series().cells[index] = value

    def observe(self, amount: float) -> None:
        """Count ``amount`` whole, or, if no sum can take it, not at all."""
        if -inf < amount < inf:
            (self._series or self.series()).record(amount)
        else:
            complain(self._place.metric.name, "does not count the value %r", amount)


class BucketValue:
    """One number of a histogram: its sum (``index`` 0), or one of its buckets."""

    __slots__ = ("_buckets", "_exemplar", "_index")
    _multiprocess = False

    def __init__(self, buckets: Buckets, index: int) -> None:
        self._buckets, self._index = buckets, index
        self._exemplar: Any = None

    def inc(self, amount: float) -> None:
        self._buckets.add(self._index, amount)

    def set(self, value: float, timestamp: float | None = None) -> None:
        self._buckets.set(self._index, value)

    def get(self) -> float:
        return self._buckets.get(self._index)

    def set_exemplar(self, exemplar: Any) -> None:
        self._exemplar = exemplar

    def get_exemplar(self) -> Any:
        return self._exemplar


class States:
    """Which of some states is on: of an Enum, or (each state a label set of its own) of an Info."""

    NEVER: Final = 1e-9  # "set" before anything was: what any worker sets later stands

    def __init__(self, place: Place) -> None:
        self._place = place
        self._on: dict[Pairs, Cell] = {}

    def choose(self, pairs: Pairs, among: Sequence[Pairs], set_by: bool) -> None:
        """``pairs`` is the one of ``among``; ``set_by``: somebody has set it, it is not only how it began."""
        for each in among:
            cell = self._on.get(each)
            if cell is None:
                opened = self._place.open(each)
                assert isinstance(opened, Cell)
                cell = self._on[each] = opened
            cell.set(float(each == pairs))
            if not set_by:
                cell.cells[1] = self.NEVER

    def only(self, pairs: Pairs) -> None:
        """``pairs`` is there; what was there before is gone."""
        for cell in self._on.values():
            cell.cells[0] = nan
        opened = self._place.open(pairs)
        assert isinstance(opened, Cell)
        opened.set(1.0)
        self._on = {pairs: opened}


def complain(name: str, text: str, *arguments: object, of: Callable[..., None] = logger.warning) -> None:
    """Log that ``name`` has a problem, once for each kind of problem."""
    key = f"{name} {text}"
    if key not in _warned and len(_warned) < 1000:
        _warned.add(key)
        of(f"%s {text}", name, *arguments)


def _after_fork() -> None:
    global _binding, _forks
    _binding = threading.Lock()
    _forks += 1


os.register_at_fork(after_in_child=_after_fork)
