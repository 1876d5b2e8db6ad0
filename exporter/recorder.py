"""Where a measurement is written: the page of this process, shared by everything that measures in it.

Recording costs a bisect and two array writes, without a lock: under Python's global lock ``cells[i] += x`` on a
memoryview is one step for other threads, because the interpreter changes threads at calls and loops only
(``tests/exporter/test_pages.py`` holds this against the running Python). An interpreter without the global lock gets
a lock round each record.

A page is made with the first series, not at import. A forked child gets its own page and leaves its parent's alone. A
worker that ends in an orderly way counts that in its page.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast
from weakref import WeakSet

from . import folder as folders
from . import layout, names
from .cells import CELL, Cell, Histogram, Series, renew_lock, unread, wrap
from .layout import Key, Kind, Pairs, SeriesKind
from .names import Metric
from .page import PREFIX, RESERVE, Page
from .reader import Reader
from .retired import overflow
from .users import Users

logger = logging.getLogger("anvil_monitor.exporter")
# An accident with a label must not eat the server's memory.
MAX_SERIES: Final = 2000
# Overflow series, one a metric: an accident with the metrics' names must not, either.
MAX_OVERFLOW: Final = 500
# Beyond this many page files a worker that starts looks for dead ones.
CROWD: Final = 64


class Recorder:
    """Gives series of this process's page. ``folder``: where the pages of all workers are. See :func:`recorder_for`.

    Where no page file can be made (a read-only folder, a full disk) the series live in this process's memory, which is
    said once in the log and by ``anvil_monitor_private_page``.
    """

    def __init__(self, folder: Path, max_series: int = MAX_SERIES) -> None:
        self.folder = folder
        self.max_series = max_series
        self.page: Page | None = None
        self.counts_its_end = False  # a server's worker does; set before there is a page
        self.torn = False  # it was broken off in the middle of a request: its end is no orderly one
        self._ended: Cell | None = None
        self._lock = threading.Lock()
        self._given: dict[tuple[object, ...], Series] = {}  # by what callers give: no key is made for a known series
        self._series: dict[Key, Series] = {}
        self._overflow: dict[Key, Series] = {}
        self._metrics: dict[str, Metric] = {}
        self._users: Users | None = None
        self._waiting: list[Callable[[], None]] = []
        _living.add(self)

    def when_open(self, call: Callable[[], None]) -> None:
        """Call ``call`` once, as soon as this process has a page: that it serves, and did not only import."""
        with self._lock:
            if self.page is None:
                self._waiting.append(call)
                return
        call()

    @property
    def closed(self) -> bool:
        """Whether the page was given up."""
        return self.page is not None and self.page.path is not None and self.page.fd is None

    @property
    def private(self) -> bool:
        """Whether this process measures into its own memory only."""
        return self.page is not None and self.page.path is None

    def histogram(self, metric: Metric, labels: tuple[str, ...], edges: tuple[float, ...]) -> Histogram:
        """The series of ``metric`` with these label values (in the metric's order; an empty one is absent)."""
        return cast(Histogram, self._get("histogram", metric, labels, edges))

    def counter(self, metric: Metric, labels: tuple[str, ...] = ()) -> Cell:
        return cast(Cell, self._get("counter", metric, labels))

    def gauge(self, metric: Metric, labels: tuple[str, ...] = ()) -> Cell:
        """A level of this process: levels of live processes add up, a dead one's vanish."""
        return cast(Cell, self._get("gauge", metric, labels))

    def oldest(self, metric: Metric) -> Cell:
        """When the oldest of something began, on the monotonic clock (0: nothing is on); read as its age."""
        return cast(Cell, self._get("oldest", metric, ()))

    def series(self, kind: SeriesKind, metric: Metric, pairs: Pairs, edges: tuple[float, ...] = ()) -> Cell | Histogram:
        """The series of ``metric``, which may be :func:`names.foreign`, with these ``(label name, value)`` pairs.

        ``kind``: ``counter``; ``histogram`` with its ``edges``, which must rise; ``gauge`` (the sum over live workers),
        ``gauge_max``, ``gauge_min`` or ``gauge_recent`` (the one set last), which are shown once they have been set.
        The pairs may stand in any order; one with an empty value is absent.

        Raises ``ValueError`` for names or edges that Prometheus does not have, or where a metric of this name is of
        another type.
        """
        given = (kind, metric.name, pairs, edges)
        return self._given.get(given) or self._open(given, kind, metric, pairs, edges)

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

    def end(self) -> None:
        """This process ends in an orderly way, as one that is recycled does. One that is killed never comes here."""
        if self._ended is not None and not self.torn and not self.closed:
            self._ended.add(1.0)

    def close(self) -> None:
        """Give the page up, as at the end of the process; what it counted is folded by the next reader."""
        with self._lock:
            if self.page is not None:
                self.page.close()

    def _get(
        self, kind: Kind, metric: Metric, labels: tuple[str, ...], edges: tuple[float, ...] = ()
    ) -> Cell | Histogram:
        given = (kind, metric.name, labels, edges)
        found = self._given.get(given)
        if found is not None:
            return found
        return self._open(given, kind, metric, tuple(zip(metric.labels, labels, strict=True)), edges)

    def _open(
        self, given: tuple[object, ...], kind: Kind, metric: Metric, pairs: Pairs, edges: tuple[float, ...]
    ) -> Cell | Histogram:
        key = layout.key(kind, metric.name, pairs, edges)
        with self._lock:
            known = self._metrics.get(metric.name) or names.BY_NAME.get(metric.name, metric)
            if layout.TYPES.get(kind) != known.kind:
                raise ValueError(f"{metric.name} is a {known.kind}, no {kind}")
            series = self._series.get(key)
            if series is None and len(self._series) < self.max_series:
                try:
                    series = self._series[key] = self._new(key, known)
                except OSError:
                    self.max_series = len(self._series)  # the page cannot grow: full is full
                except ValueError:  # its labels are too long for a page
                    pass
            if series is None:
                return self._spill(key, known)
            if len(self._given) >= 4 * self.max_series:
                self._given.clear()
            self._given[given] = series
            return series

    def _spill(self, key: Key, metric: Metric) -> Series:
        """The one series of the metric that takes what has no room of its own."""
        refused = self._overflowing(Key("counter", names.SERIES_OVERFLOW.name), names.SERIES_OVERFLOW)
        assert isinstance(refused, Cell)
        refused.add(1.0)
        spilled = overflow(key)
        if len(self._overflow) >= MAX_OVERFLOW and spilled not in self._overflow:
            return self._overflow.setdefault(Key(key.kind, ""), wrap(Key(key.kind, ""), unread()))
        return self._overflowing(spilled, metric)

    def _overflowing(self, key: Key, metric: Metric) -> Series:
        series = self._overflow.get(key)
        if series is None:
            try:
                series = self._new(key, metric, reserve=0)
            except OSError:
                series = wrap(key, unread(len(key.empty)))
            self._overflow[key] = series
        return series

    def _new(self, key: Key, metric: Metric, reserve: int = RESERVE) -> Series:
        """A series in the page, which then also says what ``metric`` is. Raises ``OSError`` without room."""
        page = self._open_page()
        if metric.name not in self._metrics:
            if metric.name not in names.BY_NAME:
                page.add(layout.describe(metric), reserve)
            self._metrics[metric.name] = metric
        return wrap(key, page.add(key, reserve))

    def _open_page(self) -> Page:
        if self.page is not None and self.page.owner != os.geteuid():
            self._move(self.page)
        if self.page is None:
            self.folder = folders.settled(self.folder)
            try:
                folders.prepare(self.folder)
                self.page = Page.in_folder(self.folder)
                if self.counts_its_end:  # from the beginning: an increase is seen only by who has seen the zero
                    self._ended = CELL(self.page.add(Key("counter", names.WORKERS_ENDED.name)))
                self._tidy()
            except OSError as error:
                logger.warning(
                    "anvil-monitor cannot make a page in %s (%s): the numbers of this worker (pid %d) are kept in its "
                    "own memory, and no other worker shows them", self.folder, error.strerror or error, os.getpid(),
                )  # fmt: skip
                self.page = Page.private()
            waiting, self._waiting = self._waiting, []
            for call in waiting:
                call()
        return self.page

    def _move(self, old: Page) -> None:
        """This process has become another user, as workers do that give up root: its page goes where it can be read."""
        self.page = None
        self._users = None
        described, self._metrics = self._metrics, {}
        before = [(series, series.cells) for series in (*self._series.values(), *self._overflow.values())]
        for reserve, opened in ((RESERVE, self._series), (0, self._overflow)):
            self._reopen(opened, described, reserve)
        for series, cells in before:
            size = min(len(cells), len(series.cells))  # of what nobody reads, any
            series.cells[:size] = cells[:size]
            cells[:] = memoryview(bytes(cells.nbytes)).cast("d")
        old.close()

    def _tidy(self) -> None:
        """Fold the pages of the dead where many are left: a service that nobody scrapes must not fill the disk."""
        with contextlib.suppress(OSError):
            if len(list(self.folder.glob(f"{PREFIX}*"))) > CROWD:
                Reader(self.folder).fold()

    def _open_users(self) -> Users:
        key = Key("users", names.HTTP_USERS.name)
        try:
            cells = self._open_page().add(key)
        except OSError:
            cells = unread(len(key.empty))
        try:
            return Users(cells, os.urandom(32) if self.private else folders.salt(self.folder))
        except OSError:  # without the common salt this worker's clients count apart from the others'
            return Users(cells, os.urandom(32))

    def renew(self) -> None:
        """In a forked child: a page of its own with the same series, all at zero."""
        self._lock = threading.Lock()  # another thread of the parent may have held it
        parents, self.page, self._ended = self.page, None, None
        if parents is None:
            return
        parents.leave()  # else the parent would seem alive as long as this child is
        self._users = None
        described, self._metrics = self._metrics, {}
        for reserve, opened in ((RESERVE, self._series), (0, self._overflow)):
            self._reopen(opened, described, reserve)

    def _reopen(self, opened: dict[Key, Series], described: dict[str, Metric], reserve: int) -> None:
        for key, series in opened.items():
            try:
                series.cells = self._new(key, described[key.name], reserve).cells
            except (KeyError, OSError):  # KeyError: of the series that nobody reads
                series.cells = unread(len(key.empty))


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
    global _making
    _making = threading.Lock()
    renew_lock()
    for recorder in list(_living):
        recorder.renew()


def _at_exit() -> None:
    for recorder in list(_living):
        recorder.end()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
