"""All pages of a folder as one: read by any worker, and by processes outside the server.

Live workers' pages and the ``retired`` page, which holds what dead workers counted, are added up. Reading takes no
lock: if ``retired`` changed meanwhile, reading begins again, so nothing is counted twice or missed. The pages of the
dead are folded into ``retired`` (retired.py) by whoever reads.

The folder is private. One that others may write to is not read, and in it nothing but plain files of this user: what
is named like a page and is a link, a pipe, a folder, cut short or damaged is refused, said once, and left alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import math
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from . import layout
from .folder import open_folder, settled
from .layout import PageError
from .page import FIRST_SIZE, MAX_SIZE, PREFIX, SUFFIX
from .retired import MAX_FOLD, MAX_NAMES, RETIRED, fold_lock, folded, replace, retired_page
from .totals import Reading, Records, Totals, total

logger = logging.getLogger("anvil_monitor.exporter")
NEW: Final = ".new-"
ABANDONED_AFTER: Final = 60.0
# Temporary folders are swept of files that have not changed for days, and what goes through a mapping is no change.
FRESHEN_EVERY: Final = 43_200.0
MAX_COMPLAINTS: Final = 1000
READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # NONBLOCK: opening a pipe must not hang
# The file is no page and will be none. Anything else (no descriptors, no memory) passes: to go on without the page
# would make totals go down and up again, which reads as a restart.
NO_PAGE: Final = (errno.ELOOP, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENXIO, errno.ENODEV)
Version = tuple[int, int, int] | None


@dataclass(slots=True)
class Snapshot:
    """All pages at one instant, the youngest last.

    ``refused``: how many files were; ``dead``: names of pages to fold; ``retired``: which retired page is among them.
    """

    pages: list[Reading] = field(default_factory=list)
    refused: int = 0
    dead: list[str] = field(default_factory=list)
    retired: Version = None


class Reader:
    """Reads the pages in ``folder``. Thread-safe; what was parsed of a page is kept for the next reading."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self.clock = folder, clock
        self._parsed: dict[str, tuple[int, Records]] = {}
        self._retired: tuple[Version, Reading | None] = (None, None)
        self._freshen_at = -math.inf
        self._complained: set[str] = set()

    def totals(self, private: bytes | None = None) -> Totals:
        """Everything counted in the folder, after folding the pages of the dead; ``private``: a page outside it.

        Raises ``OSError`` when a page cannot be read now (no descriptors left): a part would look like a restart.
        """
        found = self.snapshot(private)
        return total(found.pages, found.refused, self.clock())

    def snapshot(self, private: bytes | None = None) -> Snapshot:
        """All pages, after folding those of the dead; ``private``: the bytes of a page outside the folder.

        Raises ``OSError`` as :meth:`totals` does.
        """
        found = Snapshot()
        with self._opened() as folder:
            if folder is not None:
                self._freshen(folder)
                found = self._consistent(folder)
                if self._fold(folder, found.dead):
                    found = self._consistent(folder)
        if private is not None:
            found.pages.append(self._parse("private", private, alive=True))
        # What the youngest worker says of a metric is what stands.
        found.pages.sort(key=lambda page: (page.name != RETIRED, page.header.started, page.name))
        return found

    def fold(self) -> int:
        """Take the pages of dead workers into ``retired``; how many. Does nothing while another process is at it."""
        count = 0
        with self._opened() as folder:
            while folder is not None:
                dead = [name for name in self._names(folder) if (page := self._read(folder, name)) and not page.alive]
                more = self._fold(folder, dead)
                count += more
                if more < MAX_FOLD:
                    break
        return count

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int | None]:
        """The folder's descriptor; ``None`` where there is none, or one that cannot be trusted, which is said once."""
        self.folder = settled(self.folder)
        try:
            folder: int | None = open_folder(self.folder)
        except OSError as error:
            folder = None
            if isinstance(error, PermissionError):
                self._complain("", f"the pages in {self.folder} are not read: {error.strerror or error}")
            elif not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise
        try:
            yield folder
        finally:
            if folder is not None:
                os.close(folder)

    def _consistent(self, folder: int) -> Snapshot:
        for _ in range(50):
            before = _version(folder)
            retired = self._read_retired(folder, before)
            taken = folded(retired)
            found = Snapshot([retired] if retired else [], retired=before)
            names = self._names(folder)
            for name in names:
                page = self._read(folder, name)
                if page is None:
                    found.refused += _exists(folder, name)
                    continue
                if name not in taken:
                    found.pages.append(page)
                if not page.alive:
                    found.dead.append(name)
            if _version(folder) == before:
                if len(self._parsed) > 2 * len(names) + 100:
                    self._parsed = {name: self._parsed[name] for name in names if name in self._parsed}
                return found
        raise TimeoutError(f"the pages in {self.folder} change faster than they can be read")

    def _names(self, folder: int) -> list[str]:
        """The names of the page files; what was left half made is cleared away."""
        names = []
        for name in os.listdir(folder):
            if name.startswith(PREFIX) and name.endswith(SUFFIX):
                names.append(name)
            elif name.startswith(NEW):
                _clear_away(folder, name)
        return names

    def _read(self, folder: int, name: str) -> Reading | None:
        """The page of this name; ``None`` if it has gone or is none, which is said once."""
        try:
            fd = os.open(name, READ, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in NO_PAGE:
                raise
            self._refuse(name, error.strerror or str(error))
            return None
        try:
            alive = not _lock_shared(fd)  # before it is read: what a dead worker's page holds is final
            known = self._parsed.get(name)
            return self._parse(name, _read_page(fd, known[0] if known else FIRST_SIZE), alive)
        except PageError as error:
            self._refuse(name, str(error))
            return None
        finally:
            os.close(fd)

    def _read_retired(self, folder: int, version: Version, move_damaged: bool = False) -> Reading | None:
        """The retired page, read again only when it is another one."""
        if version is None:
            return None
        if self._retired[0] == version:
            return self._retired[1]
        try:
            fd = os.open(RETIRED, READ, dir_fd=folder)
        except OSError as error:
            if error.errno not in (*NO_PAGE, errno.ENOENT):
                raise
            self._complain(RETIRED, f"{self.folder / RETIRED} cannot be read: {error.strerror}")
            return None
        try:
            data = _read_page(fd, FIRST_SIZE)
            found = Reading(RETIRED, False, layout.read_header(data, len(data)), data, layout.read_records(data))
            self._retired = (version, found)
            return found
        except PageError as error:
            self._complain(RETIRED, f"{self.folder / RETIRED} is left out, dead workers' counts with it: {error}")
            if move_damaged:
                os.rename(RETIRED, f"{RETIRED}.damaged", src_dir_fd=folder, dst_dir_fd=folder)
            return None
        finally:
            os.close(fd)

    def _parse(self, name: str, data: bytes, alive: bool) -> Reading:
        header = layout.read_header(data, len(data))
        start, records = self._parsed.get(name, (layout.HEADER_SIZE, []))
        if start > len(data) or not name.startswith(PREFIX):
            start, records = layout.HEADER_SIZE, []
        if start < len(data):
            records = [*records, *layout.read_records(data, start, len(records))]
            self._parsed[name] = len(data), records
        return Reading(name, alive, header, data, records)

    def _fold(self, folder: int, dead: Collection[str]) -> int:
        if not dead:
            return 0
        try:
            with fold_lock(folder) as mine:
                return self._fold_locked(folder, dead) if mine else 0
        except OSError as error:  # a folder that cannot be written to: dead pages are still read where they are
            self._complain("fold", f"the pages of dead workers in {self.folder} cannot be folded: {error.strerror}")
            return 0

    def _fold_locked(self, folder: int, dead: Collection[str]) -> int:
        retired = self._read_retired(folder, _version(folder), move_damaged=True)
        already = folded(retired)
        # A file that could not be removed the last time must stay named for as long as it is there.
        still = {name for name in already if _exists(folder, name)}
        pages = [page for name in list(dead)[:MAX_FOLD] if (page := self._read(folder, name)) and not page.alive]
        fresh = [page for page in pages if page.name not in already]
        if len(still) + len(fresh) > MAX_NAMES:
            return 0
        if fresh:
            pages_in_order = sorted(fresh, key=lambda page: page.header.started)
            sums = total([*([retired] if retired else []), *pages_in_order], 0, 0.0)
            replace(folder, retired_page(sums, sorted(still | {page.name for page in fresh})))
        for page in pages:
            with contextlib.suppress(OSError):
                os.unlink(page.name, dir_fd=folder)
            self._parsed.pop(page.name, None)
        return len(fresh)

    def _freshen(self, folder: int) -> None:
        """Give every file the present time now and then, so that nothing sweeps it away while it is needed."""
        now = self.clock()
        if now - self._freshen_at < FRESHEN_EVERY:
            return
        self._freshen_at = now
        for name in os.listdir(folder):
            if not name.startswith(NEW):
                with contextlib.suppress(OSError):
                    os.utime(name, dir_fd=folder, follow_symlinks=False)

    def _refuse(self, name: str, reason: str) -> None:
        self._complain(name, f"{self.folder / name} is left alone and not counted: {reason}")

    def _complain(self, about: str, text: str) -> None:
        if about not in self._complained and len(self._complained) < MAX_COMPLAINTS:
            self._complained.add(about)
            logger.warning("%s", text)


def _read_page(fd: int, expected: int) -> bytes:
    """What is written of the page of ``fd``, about ``expected`` bytes. Raises :class:`PageError` and ``OSError``."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise PageError("no plain file")
    if found.st_uid != os.geteuid():
        raise PageError(f"it belongs to user {found.st_uid}")
    data = os.pread(fd, max(layout.HEADER_SIZE, min(expected, MAX_SIZE)), 0)
    used = layout.read_header(data, found.st_size).used
    if used > MAX_SIZE:
        raise PageError(f"{used} bytes are said to be used; a page has at most {MAX_SIZE}")
    while len(data) < used:
        more = os.pread(fd, used - len(data), len(data))
        if not more:
            raise PageError(f"cut short while it was read: {len(data)} of {used} bytes")
        data += more
    return data[:used]


def _version(folder: int) -> Version:
    try:
        found = os.stat(RETIRED, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True


def _lock_shared(fd: int) -> bool:
    """Whether nobody holds the page of ``fd``. The lock that shows it is shared: readers never see each other."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear_away(folder: int, name: str) -> None:
    """Remove a file of a worker that was killed while it made its page: unlocked, and older than that can take."""
    with contextlib.suppress(OSError):
        if time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime < ABANDONED_AFTER:
            return
        fd = os.open(name, READ, dir_fd=folder)
        try:
            if _lock_shared(fd):
                os.unlink(name, dir_fd=folder)
        finally:
            os.close(fd)
