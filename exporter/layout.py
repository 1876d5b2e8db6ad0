"""The format of a worker page: one file that one worker writes and any process reads.

A page is a header and then an append-only log of records; numbers are in the machine's own byte order::

    header (64 bytes)  magic 8s · version u32 · header size u32 · used u64 · started f64 · pid u64 · 24 zero bytes
    record             size u32 · key length u32 · key (UTF-8 JSON), padded to 8 bytes · values (f64 …)

``used`` is where the last whole record ends and is stored after the record, so that a reader never sees half a record,
whenever the writer is killed. Values are then changed in place, each an aligned 8-byte store.

What is read may have been cut short or written by somebody else: everything is checked and refused with
:class:`PageError`, whose text says what is wrong.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

MAGIC: Final = b"ANVLPAGE"
VERSION: Final = 1
HEADER: Final = struct.Struct("=8sIIQdQ24x")
HEADER_SIZE: Final = HEADER.size
RECORD: Final = struct.Struct("=II")
USED_AT: Final = 2  # the index of `used`, in 8-byte words
MAX_KEY: Final = 1 << 20

# histogram: sum, then one count a bucket (the last is +Inf). counter, gauge: one value. oldest: the monotonic time at
# which the oldest unanswered request began, 0 for none. users: the bitmaps of users.py. folded: no values; its labels
# are the names of the page files that a retired page has taken in and that may still be there.
Kind = Literal["histogram", "counter", "gauge", "oldest", "users", "folded"]
KINDS: Final = ("histogram", "counter", "gauge", "oldest", "users", "folded")
LASTING: Final = ("histogram", "counter")  # what outlives its worker

assert HEADER_SIZE == 64


class PageError(ValueError):
    """The bytes are no page of this version, or a damaged one."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a record is: its kind, the metric's name, the label values in the metric's order, the bucket edges."""

    kind: Kind
    name: str
    labels: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()

    def encode(self) -> bytes:
        return json.dumps([self.kind, self.name, self.labels, self.edges], separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Header:
    used: int
    started: float
    pid: int


@lru_cache(maxsize=32_768)
def decode_key(data: bytes) -> Key:
    """The key that :meth:`Key.encode` wrote. Raises :class:`PageError` for anything else."""
    try:
        kind, name, labels, edges = json.loads(data)
        key = Key(kind, str(name), tuple(map(str, labels)), tuple(map(float, edges)))
    except (ValueError, TypeError, RecursionError):
        raise PageError("a record's key is damaged") from None
    if key.kind not in KINDS or list(key.edges) != sorted(set(key.edges)):
        raise PageError("a record's key is damaged")
    return key


def pack_header(used: int, started: float, pid: int) -> bytes:
    return HEADER.pack(MAGIC, VERSION, HEADER_SIZE, used, started, pid)


def read_header(data: bytes | memoryview, size: int) -> Header:
    """The header at the beginning of ``data``, of a file of ``size`` bytes. Raises :class:`PageError`."""
    if len(data) < HEADER_SIZE:
        raise PageError(f"cut short: {len(data)} bytes, a page has at least {HEADER_SIZE}")
    magic, version, header_size, used, started, pid = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise PageError("not a page of anvil-monitor")
    if version != VERSION or header_size != HEADER_SIZE:
        raise PageError(f"a page of format {version}, this version reads {VERSION}")
    if not HEADER_SIZE <= used <= size or used % 8:
        raise PageError(f"cut short: {used} bytes are said to be used, the file has {size}")
    return Header(used, started, pid)


def record(key: bytes, values: Sequence[float]) -> bytes:
    padded = -(-len(key) // 8) * 8
    data = array("d", values).tobytes()
    return RECORD.pack(RECORD.size + padded + len(data), len(key)) + key.ljust(padded, b"\0") + data


def read_records(data: bytes, start: int = HEADER_SIZE) -> list[tuple[Key, int, int]]:
    """``(key, first word, number of values)`` of each record from byte ``start`` on. Raises :class:`PageError`."""
    found: list[tuple[Key, int, int]] = []
    end = len(data)
    while start < end:
        size, length = RECORD.unpack_from(data, start)
        first = start + RECORD.size + -(-length // 8) * 8
        if size % 8 or length > MAX_KEY or first > start + size or start + size > end:
            raise PageError("a record is damaged")
        key = decode_key(data[start + RECORD.size : start + RECORD.size + length])
        values = (start + size - first) // 8
        expected = {"histogram": len(key.edges) + 2, "folded": 0}.get(key.kind, values if key.kind == "users" else 1)
        if values != expected:
            raise PageError("a record is damaged")
        found.append((key, first // 8, values))
        start += size
    return found
