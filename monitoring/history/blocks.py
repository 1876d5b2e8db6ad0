"""The blocks of one folder: found at the start, read when asked, set aside when damaged, deleted when old."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ..samples import Floats, Integers, Labels, Matcher, Panel, TooManyError, as_slice
from .block import SUFFIX, Block, Directory, Reader, write
from .cache import Cache
from .codec import DamagedError
from .index import Table
from .merge import Held, Merger

logger = logging.getLogger(__name__)

HOUR: Final = 3_600_000
DAMAGED: Final = ".damaged"
CACHE_BYTES: Final = 16 << 20
TABLE_BYTES: Final = 8 << 20
MATCHES: Final = 4096
MOST_SAMPLES: Final = 25_000_000
"""Cells that one select may read (200 MB)."""


class BlockError(Exception):
    """A block that cannot be read."""

    def __init__(self, block: Block, error: Exception) -> None:
        super().__init__(str(error))
        self.block = block


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """What some matchers take of one panel: for each group that has any, its columns and their places in ``labels``."""

    panel: int
    labels: tuple[Labels, ...]
    groups: tuple[tuple[int, Integers | slice, Integers | slice], ...]


class Blocks:
    """All blocks of ``folder``. For use by several threads; ``add`` and ``expire`` by one at a time."""

    def __init__(self, folder: Path) -> None:
        """Opens every block by its end. Raises OSError if the folder cannot be read."""
        self.folder = folder
        self.damaged = 0
        self._lock = threading.Lock()
        self._read: Cache[Floats | Integers] = Cache(CACHE_BYTES, lambda one: one.nbytes)
        self._tables: Cache[Table] = Cache(TABLE_BYTES, lambda one: one.size)
        self._directories: Cache[Directory] = Cache(TABLE_BYTES, lambda one: one.panels.nbytes + 3 * one.groups.nbytes)
        self._matches: Cache[tuple[Match, ...]] = Cache(MATCHES, lambda _: 1)
        self._labels: dict[tuple[Labels, ...], tuple[Labels, ...]] = {}
        self._merger = Merger()
        self._blocks: list[Block] = []
        for path in sorted(folder.iterdir()):
            if path.suffix == ".tmp":
                path.unlink()
            elif path.suffix == DAMAGED:
                self.damaged += 1
            elif path.suffix == SUFFIX:
                try:
                    self._blocks.append(Block(path))
                except (OSError, DamagedError) as error:
                    self._set_aside(path, error)
        self._blocks.sort(key=lambda one: one.first)

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def size(self) -> int:
        """Bytes of all blocks."""
        return sum(block.size for block in self._blocks)

    @property
    def samples(self) -> int:
        return sum(block.samples for block in self._blocks)

    def until(self, now: int) -> int | None:
        """The end (ms, inclusive) of the last hour in a block; one of a wrong clock, from the future, is none."""
        past = [block.first for block in self._blocks if block.first <= now]
        return max(past) // HOUR * HOUR + HOUR - 1 if past else None

    def add(self, hour: int, panels: Sequence[Panel]) -> None:
        """Write the samples of one hour (all panels have rows). Raises OSError; there is then no block."""
        path = self.folder / f"{hour // 1000:012d}{SUFFIX}"
        write(path, panels)
        block = Block(path)
        with self._lock:
            self._blocks = sorted(
                [*(one for one in self._blocks if one.path != path), block], key=lambda one: one.first
            )

    def expire(self, before: int, most_bytes: int) -> int:
        """Delete blocks that end before a time, and the oldest while there are more bytes than may be; how many."""
        with self._lock:
            gone = [block for block in self._blocks if block.last < before]
            kept = [block for block in self._blocks if block.last >= before]
            size = sum(block.size for block in kept)
            while kept and size > most_bytes:
                gone.append(kept.pop(0))
                size -= gone[-1].size
            self._blocks = kept
        for block in gone:
            with contextlib.suppress(OSError):
                block.path.unlink()
        return len(gone)

    def _set_aside(self, path: Path, error: Exception) -> None:
        with self._lock:
            self._blocks = [block for block in self._blocks if block.path != path]
        aside = path.with_name(path.name + DAMAGED)
        with contextlib.suppress(OSError):
            path.rename(aside)
            self.damaged += 1
            logger.error("history: %s cannot be read (%s): it is set aside as %s", path.name, error, aside.name)

    def _between(self, first: int, last: int) -> list[Block]:
        with self._lock:
            return [block for block in self._blocks if block.first <= last and block.last >= first]

    def select(self, matchers: Sequence[Matcher], first: int, last: int, more: Sequence[Panel] = ()) -> list[Panel]:
        """Series that satisfy all matchers with their samples in ``first <= t <= last``, and those of ``more``, which
        are newer. Each series is in one panel. A block that turns out to be damaged is set aside, the rest is served.

        Raises TooManyError.
        """
        while True:
            try:
                return self._merger.merge([*self._parts(tuple(matchers), first, last), *map(Held, more)])
            except BlockError as error:
                self._set_aside(error.block.path, error)

    def _parts(self, matchers: tuple[Matcher, ...], first: int, last: int) -> list[_Stored]:
        parts: list[_Stored] = []
        cells = 0
        for block in self._between(first, last):
            with _told(block):
                for match in self._match(block, matchers):
                    part = _Stored(self, block, self._directory(block), match, first, last)
                    if len(part.times):
                        parts.append(part)
                        cells += len(part.times) * len(match.labels)
            if cells > MOST_SAMPLES:
                raise TooManyError(f"the query would read {cells} samples or more; at most {MOST_SAMPLES} may be")
        # What fills the cache at once would only push out what is asked for again and again.
        for part in parts:
            part.keep = cells * 8 < CACHE_BYTES // 2
        return parts

    def tables(self, first: int, last: int) -> Iterator[Table]:
        """The label sets of the blocks of a span of time, equal ones once."""
        seen = set()
        for block in self._between(first, last):
            if block.digest in seen:
                continue
            seen.add(block.digest)
            try:
                with _told(block):
                    table = self._table(block)
            except BlockError as error:
                self._set_aside(block.path, error)
            else:
                yield table

    def _directory(self, block: Block) -> Directory:
        return self._directories.get(block.number, block.directory)

    def _table(self, block: Block) -> Table:
        return self._tables.get(block.digest, lambda: Table(block.labels()))

    def _match(self, block: Block, matchers: tuple[Matcher, ...]) -> tuple[Match, ...]:
        return self._matches.get((block.digest, matchers), lambda: self._find(block, matchers))

    def _find(self, block: Block, matchers: tuple[Matcher, ...]) -> tuple[Match, ...]:
        table, directory = self._table(block), self._directory(block)
        if len(table) != block.series:
            raise DamagedError("its label sets are not those of its columns")
        series = table.matching(matchers)
        groups = directory.series_ends.searchsorted(series, side="right")
        panels = directory.group_ends.searchsorted(groups, side="right")
        begins = np.concatenate((np.zeros(1, dtype=np.int64), directory.series_ends))
        found = []
        for panel in np.unique(panels).tolist():
            mine = np.flatnonzero(panels == panel)
            labels = [table.labels(one) for one in series[mine].tolist()]
            order = sorted(range(len(labels)), key=labels.__getitem__)
            place = np.empty(len(order), dtype=np.int64)
            place[order] = np.arange(len(order))
            own, numbers = groups[mine], series[mine]
            chosen = []
            for group in np.unique(own).tolist():
                there = own == group
                columns = numbers[there] - begins[group]
                # By place, so that what lies together is copied together.
                at = np.argsort(place[there])
                chosen.append((group, as_slice(columns[at]), as_slice(place[there][at])))
            found.append(Match(panel, self._same(tuple([labels[one] for one in order])), tuple(chosen)))
        return tuple(found)

    def _same(self, labels: tuple[Labels, ...]) -> tuple[Labels, ...]:
        """One tuple for the same label sets of different blocks, so that they are known again at no cost."""
        if len(self._labels) >= MATCHES:
            self._labels.clear()
        return self._labels.setdefault(labels, labels)


class _Stored:
    """A match in one block as a part to merge: ``times`` are read at once, values when they are asked for."""

    def __init__(self, blocks: Blocks, block: Block, directory: Directory, match: Match, first: int, last: int) -> None:
        self.labels = match.labels
        self.keep = True
        self._blocks, self._block, self._directory, self._match = blocks, block, directory, match
        times = blocks._read.get((block.number, match.panel, -1), self._times)
        self._rows = slice(int(times.searchsorted(first)), int(times.searchsorted(last, side="right")))
        self.times: Integers = times[self._rows].astype(np.int64, copy=False)

    def _times(self) -> Integers:
        with Reader(self._block) as reader:
            return reader.times(self._directory, self._match.panel)

    def fill(self, target: Floats) -> None:
        with _told(self._block):
            if self.keep:
                values = self._blocks._read.get((self._block.number, self._match), self._whole)
                target[:] = values[self._rows]
            else:
                self._into(target, self._rows)

    def _whole(self) -> Floats:
        """All rows of the columns that are asked for: rules ask for the same few again and again."""
        values = np.empty((int(self._directory.panels[self._match.panel]["rows"]), len(self.labels)))
        self._into(values, slice(None))
        return values

    def _into(self, target: Floats, rows: slice) -> None:
        with Reader(self._block) as reader:
            for group, columns, places in self._match.groups:
                target[:, places] = reader.columns(self._directory, self._match.panel, group)[rows, columns]


@contextlib.contextmanager
def _told(block: Block) -> Iterator[None]:
    """Which block it was that could not be read."""
    try:
        yield
    except (DamagedError, FileNotFoundError) as error:
        raise BlockError(block, error) from error
    except OSError as error:  # too many open files are no fault of the block
        if error.errno != errno.EIO:
            raise
        raise BlockError(block, error) from error
