"""A worker's own page: the file that its measurements are written into.

The page is locked (``flock``) as long as its worker lives; the kernel drops the lock at death, SIGKILL included. Space
is reserved by writing zeros before it is mapped, so that a full disk is an ``OSError`` here and never a SIGBUS in the
user's server. One who cuts the file of a live worker short kills the worker, as with any mapped file: the folder is
private, so that only this user and root can.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Final

from . import layout

FIRST_SIZE: Final = 64 * 1024
MAX_SIZE: Final = 16 * 1024 * 1024
PRIVATE_SIZE: Final = 2 * 1024 * 1024
# What ordinary series leave free for those that take what has no room of its own.
RESERVE: Final = 16 * 1024
PREFIX: Final = "worker-"
SUFFIX: Final = ".page"
# A mapping that kept its own descriptor would keep the lock in a forked child; before 3.13 it does, until it is freed.
UNTRACKED: Final = {"trackfd": False} if sys.version_info >= (3, 13) else {}


class Page:
    """A page in a file (:meth:`in_folder`) or, where no file can be made, in this process's memory (:meth:`private`).

    Not thread-safe: whoever adds records holds a lock. The values of a record may be written by any thread.
    """

    def __init__(self, fd: int | None, path: Path | None) -> None:
        self.fd, self.path = fd, path
        self.started, self.owner = time.time(), os.geteuid()
        self._size = 0
        self._used = layout.HEADER_SIZE
        self._map: mmap.mmap
        self._grow(FIRST_SIZE)
        header = layout.pack_header(self._used, self.started, os.getpid())
        self._map[: layout.HEADER_SIZE] = header
        self._words = memoryview(self._map).cast("Q")

    @classmethod
    def in_folder(cls, folder: Path) -> Page:
        """A new page in ``folder``. Raises ``OSError`` where it cannot be made.

        It gets its name only when it is locked and has its header: no reader ever meets an unlocked page whose worker
        lives.
        """
        name = f"{os.getpid()}-{secrets.token_hex(6)}"
        new = folder / f".new-{name}"
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            path = folder / f"{PREFIX}{name}{SUFFIX}"
            page = cls(fd, path)
            new.rename(path)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                new.unlink()
            raise
        return page

    @classmethod
    def private(cls) -> Page:
        return cls(None, None)

    def add(self, key: layout.Key, reserve: int = RESERVE) -> memoryview[float]:
        """Append an empty record; its values as ``float`` cells. ``reserve``: bytes that stay free after it.

        Raises ``OSError`` when the page cannot grow and ``ValueError`` for a key that is too long.
        """
        written = key.encode()
        if len(written) > layout.MAX_KEY:
            raise ValueError(f"the labels of {key.name} are too long: {len(written)} bytes")
        empty = key.empty
        data = layout.record(written, empty)
        end = self._used + len(data)
        if end + reserve > self._size:
            self._grow(max(2 * self._size, -(-(end + reserve) // FIRST_SIZE) * FIRST_SIZE))
        self._map[self._used : end] = data
        cells = memoryview(self._map).cast("d")[end // 8 - len(empty) : end // 8]
        self._words[layout.USED_AT] = self._used = end
        return cells

    def bytes(self) -> bytes:
        """The whole page as a reader would find it."""
        return self._map[: self._used]

    def close(self) -> None:
        """Give the lock up: the worker is as good as dead, and its page will be folded. Cells stay writable."""
        if self.fd is not None:
            fcntl.flock(self.fd, fcntl.LOCK_UN)  # the mapping may hold the file open for as long as there are cells
            self.leave()

    def leave(self) -> None:
        """In a forked child: have nothing to do with the page, whose lock the parent goes on holding."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def _grow(self, size: int) -> None:
        if size > MAX_SIZE:
            raise OSError(f"a page holds at most {MAX_SIZE} bytes")
        if self.fd is None:
            if self._size:
                raise OSError("private memory does not grow")
            self._map, self._size = mmap.mmap(-1, PRIVATE_SIZE), PRIVATE_SIZE
            return
        reserved = self._size
        while reserved < size:
            reserved += os.pwrite(self.fd, bytes(size - reserved), reserved)
        # Cells made before keep the older mapping alive; both show the same memory.
        self._map, self._size = mmap.mmap(self.fd, size, **UNTRACKED), size
