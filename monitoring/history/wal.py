"""The log of what is in memory and in no block yet: after a crash it is read back.

Each batch is one ``write`` of records: what is new (label sets, then which of them the batch holds), and the time and
the values. What has been written is in the kernel's cache, so it survives the death of this process at any instant; a
power cut may lose what was written since the last ``sync`` (once a minute). A record that was cut off is found by its
checksum, and the segment ends before it. Segments are complete in themselves; they go when blocks hold their samples.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from ..samples import Floats, Labels

logger = logging.getLogger(__name__)

MAGIC: Final = b"anvilwal\x01\x00\x00\x00"
SUFFIX: Final = ".wal"
HEADER: Final = struct.Struct("<IIB")  # length and checksum of what follows, which begins with the kind
SAMPLES: Final = struct.Struct("<Iq")  # number of the batch's layout, time
SERIES, LAYOUT, VALUES = 1, 2, 3
MOST_RECORD: Final = 1 << 28
MOST_SEGMENT: Final = 1 << 25
"""A segment that is longer is closed before its hour is over."""
MOST_LAYOUTS: Final = 1000

Replay = Callable[[int, tuple[Labels, ...], Floats], object]


class Segment:
    """One file, written to. ``first`` and ``last`` are the times of its samples. Raises OSError in all it does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first, self.last = np.iinfo(np.int64).max, np.iinfo(np.int64).min
        self._series: dict[Labels, int] = {}
        self._layouts: dict[Labels, tuple[int, tuple[Labels, ...]]] = {}
        self._count = 0
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.size = 0
        try:
            self._write(MAGIC)
        except OSError:
            self.close()
            with contextlib.suppress(OSError):
                path.unlink()
            raise

    @property
    def series(self) -> int:
        return len(self._series)

    def add(self, time: int, labels: tuple[Labels, ...], values: Floats) -> None:
        """Log one batch. It is logged whole or, where this raises, not at all."""
        known = self._layouts.get(labels[0])
        head = b""
        if known is None or (known[1] is not labels and known[1] != labels):
            head, known = self._layout(labels)
        body = SAMPLES.pack(known[0], time) + np.ascontiguousarray(values, dtype="<f8").tobytes()
        self._write(head + _record(VALUES, body))
        if head:
            if len(self._layouts) >= MOST_LAYOUTS:
                self._layouts.clear()
            self._layouts[labels[0]] = known
        self.first, self.last = min(self.first, time), max(self.last, time)

    def _layout(self, labels: tuple[Labels, ...]) -> tuple[bytes, tuple[int, tuple[Labels, ...]]]:
        new = [one for one in dict.fromkeys(labels) if one not in self._series]
        head = b""
        if new:
            text = json.dumps(new, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
            head = _record(SERIES, zlib.compress(text, 1))
        numbers = {one: number for number, one in enumerate(new, start=len(self._series))}
        flat = [numbers[one] if one in numbers else self._series[one] for one in labels]
        head += _record(LAYOUT, np.array(flat, dtype="<u4").tobytes())
        number = self._count
        # If the write fails nothing more goes into this segment, so these may be ahead of the file.
        self._series.update(numbers)
        self._count += 1
        return head, (number, labels)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        start = self.size
        try:
            while view:
                done = os.write(self._handle, view)
                view = view[done:]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, start)
            raise
        self.size += len(data)

    def sync(self) -> None:
        """Make it last through a power cut. In any thread: what is logged meanwhile does not wait."""
        handle = os.dup(self._handle)
        try:
            os.fdatasync(handle)
        finally:
            os.close(handle)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _record(kind: int, body: bytes) -> bytes:
    check = zlib.crc32(body, zlib.crc32(bytes((kind,))))
    return HEADER.pack(len(body), check, kind) + body


def replay(path: Path, take: Replay) -> tuple[int, int]:
    """Give every batch of a segment to ``take``; the first and last time of its samples.

    A segment that ends in the midst of a record, or is damaged from some byte on, is cut there. Raises OSError.
    """
    data = path.read_bytes()
    good, first, last = _read(data, take)
    if good < len(data):
        logger.warning("%s: the last %d bytes are no whole record and are cut off", path.name, len(data) - good)
        with contextlib.suppress(OSError):
            os.truncate(path, good)
    return first, last


def _read(data: bytes, take: Replay) -> tuple[int, int, int]:
    first, last = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    if not data.startswith(MAGIC):
        return 0, first, last
    view = memoryview(data)
    series: list[Labels] = []
    layouts: list[tuple[Labels, ...]] = []
    at = len(MAGIC)
    while at + HEADER.size <= len(data):
        length, check, kind = HEADER.unpack_from(data, at)
        end = at + HEADER.size + length
        if length > MOST_RECORD or end > len(data):
            break
        body = view[at + HEADER.size : end]
        if zlib.crc32(body, zlib.crc32(bytes((kind,)))) != check:
            break
        try:
            if kind == SERIES:
                series += _labels(body)
            elif kind == LAYOUT:
                layouts.append(tuple([series[number] for number in np.frombuffer(body, "<u4").tolist()]))
            elif kind == VALUES:
                layout, time = SAMPLES.unpack_from(body)
                labels = layouts[layout]
                values = np.frombuffer(body, "<f8", offset=SAMPLES.size)
                if len(values) != len(labels):
                    break
                take(time, labels, values)
                first, last = min(first, time), max(last, time)
        except (ValueError, IndexError, TypeError, struct.error, zlib.error):
            break
        at = end
    return at, first, last


def _labels(body: memoryview) -> list[Labels]:
    found = json.loads(zlib.decompress(body).decode("utf-8", "surrogatepass"))
    pairs: dict[tuple[str, str], tuple[str, str]] = {}
    return [tuple([pairs.setdefault((name, value), (name, value)) for name, value in one]) for one in found]


def numbered(paths: Sequence[Path]) -> int:
    """The number for the next segment."""
    return max((int(path.stem) for path in paths if path.stem.isdecimal()), default=0) + 1
