"""One hour of samples in one file.

Layout: magic, the parts (times and groups of columns of every panel, the label sets, the directory), and a trailer of
fixed size that says where label sets and directory are. Every part has a checksum, so has the trailer: a byte that is
not what was written is found before anything is made of it. A block is opened by its trailer alone; all else is read
when it is asked for. A file under its own name is whole: it is written under another, synced and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ..samples import Floats, Integers, Labels, Panel, is_absent
from .codec import LEVEL, MOST_CELLS, DamagedError, inflate, pack, pack_times, unpack, unpack_times
from .index import pack_labels

MAGIC: Final = b"anvilblk"
VERSION: Final = 1
SUFFIX: Final = ".block"
# Version, first and last time, samples, series, size of the file, label sets (offset, length, checksum, digest),
# directory (offset, length, checksum, unpacked length); a checksum of all this and the magic follow.
TRAILER: Final = struct.Struct("<IqqQIQQII16sQIII")
ENDING: Final = struct.Struct("<I8s")
TRAILER_SIZE: Final = TRAILER.size + ENDING.size
MOST_DIRECTORY: Final = 1 << 26
NUMBERS: Final = itertools.count()

PANEL = np.dtype([("rows", "<u4"), ("groups", "<u4"), ("offset", "<u8"), ("length", "<u4"), ("check", "<u4")])
GROUP = np.dtype([("columns", "<u4"), ("offset", "<u8"), ("length", "<u4"), ("check", "<u4")])


@dataclass(frozen=True, slots=True, eq=False)
class Directory:
    """Where the parts are. Series are numbered panel by panel, group by group."""

    panels: np.ndarray[tuple[int], np.dtype[np.void]]
    groups: np.ndarray[tuple[int], np.dtype[np.void]]
    group_ends: Integers
    """For each panel the first group that is no longer its own."""
    series_ends: Integers
    """For each group the first series that is no longer its own."""


def write(path: Path, panels: Sequence[Panel]) -> int:
    """Write the panels (one row at least each) to a new file; how many bytes it has.

    Raises OSError; there is then no file under ``path``.
    """
    data = encode(panels)
    part = path.with_suffix(".tmp")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    return len(data)


def sync_folder(folder: Path) -> None:
    """Make what was created or renamed in there last through a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def encode(panels: Sequence[Panel]) -> bytes:
    """A block as bytes. The same panels give the same bytes."""
    parts = [MAGIC]
    at = len(MAGIC)

    def put(data: bytes) -> tuple[int, int, int]:
        nonlocal at
        parts.append(data)
        at += len(data)
        return at - len(data), len(data), zlib.crc32(data)

    found, groups, series, samples = [], [], [], 0
    seen: dict[bytes, tuple[int, int, int]] = {}
    for panel in sorted(panels, key=lambda one: min(one.labels)):
        # Neighbours in the order of labels are asked for together; the buckets of one histogram resemble each other.
        order = sorted(range(len(panel.labels)), key=[_apart(labels) for labels in panel.labels].__getitem__)
        values = panel.values[:, order]
        samples += values.size - int(is_absent(values).sum())
        times = pack_times(panel.times)
        if times not in seen:  # rules of one group share theirs
            seen[times] = put(times)
        count = 0
        for columns, data in pack(values):
            groups.append((len(columns), *put(data)))
            series += [panel.labels[order[column]] for column in columns.tolist()]
            count += 1
        found.append((len(panel.times), count, *seen[times]))
    labels = pack_labels(series)
    place = put(labels)
    heads = struct.pack("<II", len(found), len(groups))
    raw = heads + np.array(found, PANEL).tobytes() + np.array(groups, GROUP).tobytes()
    where = put(zlib.compress(raw, LEVEL))
    first = min(int(panel.times[0]) for panel in panels)
    last = max(int(panel.times[-1]) for panel in panels)
    # Blocks with the same digest have the same series in the same places.
    shape = repr(([one[1] for one in found], [one[0] for one in groups])).encode()
    digest = hashlib.blake2b(labels + shape, digest_size=16).digest()
    size = at + TRAILER_SIZE
    trailer = TRAILER.pack(VERSION, first, last, samples, len(series), size, *place, digest, *where, len(raw))
    parts += [trailer, ENDING.pack(zlib.crc32(trailer), MAGIC)]
    return b"".join(parts)


def _apart(labels: Labels) -> tuple[Labels, Labels]:
    return tuple([pair for pair in labels if pair[0] != "le"]), labels


class Block:
    """A block's file, opened by its trailer. Raises OSError and DamagedError, here and in all that reads."""

    __slots__ = (
        "_directory", "_labels", "_length", "digest", "first", "last", "number", "path", "samples", "series", "size",
    )  # fmt: skip

    def __init__(self, path: Path) -> None:
        self.number = next(NUMBERS)  # in this process; a path may be written again
        self.path = path
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < len(MAGIC) + TRAILER_SIZE:
                raise DamagedError("it is too short for a block")
            file.seek(size - TRAILER_SIZE)
            data = file.read(TRAILER_SIZE)
        check, magic = ENDING.unpack_from(data, TRAILER.size)
        if magic != MAGIC or check != zlib.crc32(data[: TRAILER.size]):
            raise DamagedError("its end is not that of a block")
        fields = TRAILER.unpack_from(data)
        version, self.first, self.last, self.samples, self.series, self.size = fields[:6]
        self._labels: tuple[int, int, int] = fields[6:9]
        self.digest: bytes = fields[9]
        self._directory: tuple[int, int, int] = fields[10:13]
        self._length: int = fields[13]
        if version != VERSION:
            raise DamagedError(f"it is of version {version}; this program reads {VERSION}")
        if self.size != size or self.first > self.last or self._length > MOST_DIRECTORY:
            raise DamagedError("its end makes no sense")

    def labels(self) -> bytes:
        """The packed label sets, for ``index.Table``."""
        with self.path.open("rb") as file:
            return _part(file.fileno(), *self._labels)

    def directory(self) -> Directory:
        with self.path.open("rb") as file:
            raw = inflate(_part(file.fileno(), *self._directory), self._length)
        if len(raw) < 8:
            raise DamagedError("its directory is cut off")
        panels, groups = struct.unpack_from("<II", raw)
        if len(raw) != 8 + panels * PANEL.itemsize + groups * GROUP.itemsize:
            raise DamagedError("its directory makes no sense")
        found = np.frombuffer(raw, PANEL, panels, 8)
        grouped = np.frombuffer(raw, GROUP, groups, 8 + panels * PANEL.itemsize)
        ends, series = found["groups"].astype(np.int64).cumsum(), grouped["columns"].astype(np.int64).cumsum()
        if not panels or not groups or int(ends[-1]) != groups or int(series[-1]) != self.series:
            raise DamagedError("its directory does not add up")
        return Directory(found, grouped, ends, series)


class Reader:
    """Reads parts of one block while it is held open: a block that is deleted meanwhile can still be read."""

    def __init__(self, block: Block) -> None:
        self._file = block.path.open("rb")

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def times(self, directory: Directory, panel: int) -> Integers:
        one = directory.panels[panel]
        rows = int(one["rows"])
        if not 0 < rows <= MOST_CELLS:
            raise DamagedError("a panel has no rows")
        return unpack_times(self._read(one), rows)

    def columns(self, directory: Directory, panel: int, group: int) -> Floats:
        one = directory.groups[group]
        values = unpack(self._read(one))
        if values.shape != (int(directory.panels[panel]["rows"]), int(one["columns"])):
            raise DamagedError("a group of columns is of another size")
        return values

    def _read(self, part: np.void) -> bytes:
        return _part(self._file.fileno(), int(part["offset"]), int(part["length"]), int(part["check"]))


def _part(handle: int, offset: int, length: int, check: int) -> bytes:
    if offset + length > os.fstat(handle).st_size:
        raise DamagedError("a part lies nowhere")
    data = os.pread(handle, length, offset)
    if len(data) != length or zlib.crc32(data) != check:
        raise DamagedError("a part is not what was written")
    return data
