"""History in one folder: ``blocks/`` for full hours, ``wal/`` for what is not in a block yet, ``lock`` for its owner.

A full hour is sealed into a block some minutes after it ended; only then its part of the log goes. While the disk takes
nothing more (full, read-only, broken) samples stay in memory; when it does again the log is made whole from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ..samples import Floats, Labels, Matcher, Panel, is_absent
from . import wal
from .blocks import HOUR, Blocks

logger = logging.getLogger(__name__)

RETRY: Final = 5.0
"""Seconds between attempts to write to a disk that took nothing."""
MOST_SERIES: Final = 200_000
"""Series of one segment of the log."""


class HistoryError(Exception):
    """A folder that cannot hold history; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class _Closed:
    path: Path
    last: int
    size: int


class History:
    """Raises HistoryError if the folder cannot be used or another process has it. ``clock`` gives Unix seconds.

    ``problem`` says in words what is wrong at present, or is empty. ``log``, ``seal`` and ``expire`` never raise.
    """

    def __init__(
        self,
        folder: Path,
        retention_seconds: float,
        retention_bytes: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.problem = ""
        self._seconds, self._bytes, self._clock = retention_seconds, retention_bytes, clock
        self._segment: wal.Segment | None = None
        self._closed: list[_Closed] = []
        self._unlogged: int | None = None  # the first time that is in memory alone
        self._again = 0.0
        try:
            for each in (folder, folder / "blocks", folder / "wal"):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HistoryError(f"history cannot be kept in {folder}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.blocks = Blocks(folder / "blocks")
        except BlockingIOError:
            os.close(self._lock)
            raise HistoryError(f"the history in {folder} is in use by another process: end that one first") from None
        except OSError as error:
            os.close(self._lock)
            raise HistoryError(f"history in {folder} cannot be read: {error.strerror}") from None
        self.sealed = self.blocks.until(self._now() + HOUR)
        """Up to here (ms, inclusive) every sample is in a block, or gone."""

    def _now(self) -> int:
        return round(self._clock() * 1000)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        open_ = self._segment.size if self._segment else 0
        return self.blocks.size + open_ + sum(each.size for each in self._closed)

    def replay(self, take: wal.Replay) -> None:
        """Give what was logged and is in no block to ``take``, in the order in which it came."""
        for path in sorted((self.folder / "wal").glob(f"*{wal.SUFFIX}")):
            try:
                _, last = wal.replay(path, take)
                size = path.stat().st_size
            except OSError as error:
                logger.error("history: %s cannot be read: %s", path.name, error.strerror)
                continue
            self._closed.append(_Closed(path, last, size))
        self._drop()

    def log(self, time: int, labels: tuple[Labels, ...], values: Floats, memory: Callable[[int], list[Panel]]) -> None:
        """Make a batch survive this process. It is in memory already; ``memory`` gives all since some time.

        Where the disk does not take it, ``problem`` says so and a later call makes up for it.
        """
        if self._lock < 0:  # closed: another process may have the folder
            return
        if self._unlogged is not None:
            self._unlogged = min(self._unlogged, time)
            if self._clock() < self._again <= self._clock() + RETRY:
                return
        try:
            segment = self._writable(time)
            if self._unlogged is None:
                segment.add(time, labels, values)
            else:
                for panel in memory(self._unlogged):
                    _add_rows(segment, panel)
                logger.warning("history: the disk takes samples again; what was in memory alone is written")
                self._unlogged, self.problem = None, ""
        except OSError as error:
            self._failed(time, error)

    def _writable(self, time: int) -> wal.Segment:
        segment = self._segment
        if segment is not None:
            newer = segment.first <= segment.last and time // HOUR > segment.last // HOUR
            if newer or segment.size > wal.MOST_SEGMENT or segment.series > MOST_SERIES:
                self._close()
                segment = None
        if segment is None:
            folder = self.folder / "wal"
            number = wal.numbered(list(folder.glob(f"*{wal.SUFFIX}")))
            segment = self._segment = wal.Segment(folder / f"{number:012d}{wal.SUFFIX}")
        return segment

    def _failed(self, time: int, error: OSError) -> None:
        self._again = self._clock() + RETRY
        if self._unlogged is None:
            self._unlogged = time
            self.problem = f"history cannot be written ({error.strerror}): samples are in memory alone"
            logger.error("%s", self.problem)
            self._close()
        elif self._segment is not None:
            # All of this segment is in memory, and half of it helps nobody.
            path = self._segment.path
            self._segment.close()
            self._segment = None
            with contextlib.suppress(OSError):
                path.unlink()

    def _close(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._closed.append(_Closed(self._segment.path, self._segment.last, self._segment.size))
            self._segment = None

    def sync(self) -> None:
        """Make the log last through a power cut, too."""
        segment = self._segment
        if segment is not None:
            with contextlib.suppress(OSError):
                segment.sync()

    def select(self, matchers: Sequence[Matcher], first: int, last: int, more: Sequence[Panel] = ()) -> list[Panel]:
        """See ``Blocks.select``."""
        return self.blocks.select(matchers, first, last, more)

    def seal(self, hour: int, panels: Sequence[Panel]) -> bool:
        """Write an hour's samples as a block; False if the disk does not take them. Call ``drop`` after it."""
        if self._lock < 0:
            return False
        try:
            if panels:
                self.blocks.add(hour, panels)
        except OSError as error:
            problem = f"history: the hour to {_when(hour + HOUR)} cannot be written ({error.strerror}): it is in memory"
            if not self.problem:
                logger.error("%s", problem)
                self.problem = problem
            return False
        if self._unlogged is None:
            self.problem = ""
        self.sealed = max(hour + HOUR - 1, self.sealed if self.sealed is not None else hour)
        return True

    def drop(self) -> None:
        """Delete segments of the log whose samples are in blocks. Not while ``log`` runs."""
        if self._segment is not None and self.sealed is not None and self._segment.last <= self.sealed:
            self._close()
        self._drop()

    def _drop(self) -> None:
        kept = []
        for each in self._closed:
            if (self.sealed is not None and each.last <= self.sealed) or each.size <= len(wal.MAGIC):
                with contextlib.suppress(OSError):
                    each.path.unlink()
            else:
                kept.append(each)
        self._closed = kept

    def expire(self) -> int:
        """Delete what is too old or too much; how many blocks."""
        log = self.size - self.blocks.size
        return self.blocks.expire(self._now() - round(self._seconds * 1000), max(0, int(self._bytes) - log))

    def close(self) -> None:
        """Let another process have the folder."""
        self.sync()
        self._close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _add_rows(segment: wal.Segment, panel: Panel) -> None:
    absent = is_absent(panel.values)
    partly = set(np.flatnonzero(absent.any(axis=1)).tolist())
    for row, at in enumerate(panel.times.tolist()):
        labels, values = panel.labels, panel.values[row]
        if row in partly:
            there = ~absent[row]
            labels = tuple([one for one, here in zip(labels, there.tolist(), strict=True) if here])
            values = values[there]
        if labels:
            segment.add(at, labels, values)


def _when(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at / 1000))
