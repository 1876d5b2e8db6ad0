"""All pages of a folder as one: read by any worker, and by processes outside the server.

Live workers' pages and the ``retired`` page, which holds what dead workers counted, are added up. Reading takes no
lock: if ``retired`` changed meanwhile, reading begins again, so nothing is counted twice or missed. Folding dead pages
into ``retired`` is done by one process at a time (``fold.lock``) and may be killed at any instant: the new
``retired`` names the pages that it took in, and replaces the old one in one step, before their files are removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import add
from pathlib import Path
from typing import Final

from . import layout, users
from .layout import Key, PageError
from .names import OVERFLOW, Metric
from .page import PREFIX, SUFFIX

logger = logging.getLogger("anvil_monitor.exporter")
RETIRED: Final = "retired"
FOLD_LOCK: Final = "fold.lock"
# Dead workers may each have had other label sets: beyond this many series they share their metric's overflow series.
MAX_RETIRED_SERIES: Final = 8000
MAX_PAGE: Final = 64 * 1024 * 1024
ABANDONED_AFTER: Final = 60.0


@dataclass(slots=True)
class Reading:
    """One page as it was read: its records with their values, and whether its worker lives."""

    name: str
    alive: bool
    header: layout.Header
    values: memoryview[float]  # of float, over the whole page
    records: list[tuple[Key, int, int]]


@dataclass(slots=True)
class Totals:
    """The sum over pages.

    ``lasting``: counters and histograms; ``levels``: gauges of live workers; ``oldest``: ages in seconds; ``metrics``:
    those that names.py does not have; ``edges``: of each histogram as the youngest worker has them; ``pids``: of live
    workers.
    """

    lasting: dict[Key, list[float]] = field(default_factory=dict)
    levels: dict[Key, float] = field(default_factory=dict)
    oldest: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    edges: dict[str, tuple[float, ...]] = field(default_factory=dict)
    pids: tuple[int, ...] = ()
    clients: float = 0.0
    workers: int = 0
    refused: int = 0


class Reader:
    """Reads the pages in ``folder``. Thread-safe; what was parsed of a page is kept for the next reading."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parsed: dict[str, tuple[int, list[tuple[Key, int, int]]]] = {}
        self._complained: set[str] = set()

    def totals(self, private: bytes | None = None) -> Totals:
        """Everything counted in the folder, after folding the pages of the dead; ``private``: a page outside it."""
        self.fold()
        pages, refused = self._consistent()
        if private is not None:
            pages.append(self._parse("private", private, alive=True))
        return total(pages, refused, time.monotonic())

    def fold(self) -> int:
        """Take the pages of dead workers into ``retired``; how many. Does nothing while another process is at it."""
        try:
            dead = [path for path in self._paths() if not _is_alive(path)]
            if not dead and not self._abandoned():
                return 0
            lock = os.open(self.folder / FOLD_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:  # no folder, or one that cannot be written to: dead pages are still read where they are
            return 0
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return self._fold(dead)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._complain("fold", f"the pages of dead workers in {self.folder} cannot be folded: {error.strerror}")
            return 0
        finally:
            os.close(lock)

    def _fold(self, dead: Iterable[Path]) -> int:
        retired = self._retired(move_damaged=True)
        folded = _folded(retired)
        pages = [page for path in dead if (page := self._read(path)) is not None and not page.alive]
        fresh = [page for page in pages if page.name not in folded]
        if fresh:
            sums = total([*([retired] if retired else []), *fresh], 0, 0.0)
            # A file that could not be removed the last time must stay named for as long as it is there.
            taken = {page.name for page in pages} | {name for name in folded if (self.folder / name).exists()}
            _replace(self.folder / RETIRED, _retired_page(sums, sorted(taken)))
        for path in (*(self.folder / page.name for page in pages), *self._abandoned()):
            with contextlib.suppress(OSError):
                path.unlink()
            self._parsed.pop(path.name, None)
        return len(fresh)

    def _consistent(self) -> tuple[list[Reading], int]:
        for _ in range(50):
            before = _version(self.folder / RETIRED)
            retired = self._retired()
            folded = _folded(retired)
            pages, refused = [retired] if retired else [], 0
            for path in self._paths():
                page = self._read(path)
                if page is None:
                    refused += path.exists()
                elif path.name not in folded:
                    pages.append(page)
            if _version(self.folder / RETIRED) == before:
                return pages, refused
        raise TimeoutError(f"the pages in {self.folder} change faster than they can be read")

    def _paths(self) -> list[Path]:
        with contextlib.suppress(OSError):
            return [self.folder / name for name in os.listdir(self.folder)  # noqa: PTH208 -- one Path fewer a file
                    if name.startswith(PREFIX) and name.endswith(SUFFIX)]  # fmt: skip
        return []

    def _abandoned(self) -> list[Path]:
        """Files of workers that were killed while they made their page: unlocked, and older than that can take."""
        found = []
        for path in self.folder.glob(".new-*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED_AFTER and not _is_alive(path):
                    found.append(path)
        return found

    def _read(self, path: Path) -> Reading | None:
        """The page at ``path``; ``None`` if it has gone or is none, which is said once."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._complain(path.name, f"{path} cannot be read: {error.strerror}")
            return None
        try:
            alive = not _lock_shared(fd)
            size = os.fstat(fd).st_size
            header = layout.read_header(os.pread(fd, layout.HEADER_SIZE, 0), size)
            if header.used > MAX_PAGE:
                raise PageError("too large")
            return self._parse(path.name, os.pread(fd, header.used, 0), alive)
        except (PageError, OSError) as error:
            self._complain(path.name, f"{path} is left alone and not counted: {error}")
            return None
        finally:
            os.close(fd)

    def _parse(self, name: str, data: bytes, alive: bool) -> Reading:
        header = layout.read_header(data, len(data))
        known = self._parsed.get(name)
        start, records = (
            known if known and known[0] <= len(data) and name.startswith(PREFIX) else (layout.HEADER_SIZE, [])
        )
        if start < len(data):
            records = [*records, *layout.read_records(data, start)]
            if len(self._parsed) > 1000:
                self._parsed.clear()
            self._parsed[name] = len(data), records
        return Reading(name, alive, header, memoryview(data).cast("d"), records)

    def _retired(self, move_damaged: bool = False) -> Reading | None:
        path = self.folder / RETIRED
        try:
            data = path.read_bytes()
            self._parsed.pop(RETIRED, None)
            return self._parse(RETIRED, data[: layout.read_header(data, len(data)).used], alive=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (PageError, OSError) as error:
            self._complain(RETIRED, f"{path} is left out, dead workers' counts with it: {error}")
            if move_damaged:
                path.rename(path.with_suffix(".damaged"))
            return None

    def _complain(self, about: str, text: str) -> None:
        if about not in self._complained:
            self._complained.add(about)
            logger.warning("%s", text)


def total(pages: Iterable[Reading], refused: int, now: float) -> Totals:
    """The sum of ``pages`` at ``now`` (seconds of the monotonic clock)."""
    found = Totals(refused=refused)
    lasting, levels = found.lasting, found.levels
    bitmaps = []
    stamps: dict[Key, float] = {}
    # The youngest worker is the last: what it says of a metric is what stands.
    pages = sorted(pages, key=lambda page: (page.name != RETIRED, page.header.started, page.name))
    for page in pages:
        values = page.values
        for key, first, count in page.records:
            if key.kind in layout.LASTING:
                known = lasting.get(key)
                mine = list(values[first : first + count])
                lasting[key] = mine if known is None else list(map(add, known, mine))
                if key.kind == "histogram":
                    found.edges[key.name] = key.edges
            elif key.kind == "metric":
                found.metrics[key.name] = layout.described(key)
            elif not page.alive:
                continue
            elif key.kind == "oldest":
                age = max(0.0, now - values[first]) if values[first] else 0.0
                found.oldest[key.name] = max(found.oldest.get(key.name, 0.0), age)
            elif key.kind == "users":
                bitmaps.append(users.recent(values[first : first + count], now))
            elif key.kind == "gauge_recent":
                if values[first + 1] > stamps.get(key, 0.0):
                    levels[key], stamps[key] = values[first], values[first + 1]
            elif key.kind in LEVELS:
                value = values[first]
                if key.kind == "gauge" or value == value:  # no number: never set
                    levels[key] = LEVELS[key.kind](levels[key], value) if key in levels else value
    found.clients = users.estimate(bitmaps)
    found.workers = sum(page.alive for page in pages)
    found.pids = tuple(sorted({page.header.pid for page in pages if page.alive}))
    return found


LEVELS: Final[dict[str, Callable[[float, float], float]]] = {"gauge": add, "gauge_max": max, "gauge_min": min}


def _capped(sums: Totals) -> dict[Key, list[float]]:
    result: dict[Key, list[float]] = {}
    for key, values in sums.lasting.items():
        if len(result) >= MAX_RETIRED_SERIES and key not in result:
            key = Key(key.kind, key.name, tuple((label, OVERFLOW) for label, _ in key.labels), key.edges)
        known = result.get(key)
        result[key] = values if known is None else list(map(add, known, values))
    return result


def _retired_page(sums: Totals, taken: list[str]) -> bytes:
    lasting = _capped(sums)
    metrics = sorted({key.name for key in lasting} & set(sums.metrics))
    parts = [layout.record(Key("folded", "", tuple(("page", name) for name in taken)).encode(), [])]
    parts += [layout.record(layout.describe(sums.metrics[name]).encode(), []) for name in metrics]
    parts += [layout.record(key.encode(), values) for key, values in lasting.items()]
    body = b"".join(parts)
    return layout.pack_header(layout.HEADER_SIZE + len(body), time.time(), os.getpid()) + body


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(f".new-{os.getpid()}-{path.name}")
    try:
        new.write_bytes(data)
        new.chmod(0o600)
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def _folded(retired: Reading | None) -> frozenset[str]:
    return (
        frozenset(name for key, _, _ in retired.records if key.kind == "folded" for _, name in key.labels)
        if retired
        else frozenset()
    )


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _lock_shared(fd: int) -> bool:
    """Whether nobody holds the page of ``fd``. The lock that shows it is shared: readers never see each other."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(path: Path) -> bool:
    """Whether a worker holds ``path``; also where that cannot be found out."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        return not _lock_shared(fd)
    finally:
        os.close(fd)
