"""The format of a worker page: one file that one worker writes and any process reads.

A page is a header and then an append-only log of records; numbers are in the machine's own byte order::

    header (64 bytes)  magic 8s · version u32 · header size u32 · used u64 · started f64 · pid u64 · 24 zero bytes
    record             size u32 · key length u32 · key (UTF-8 JSON), padded to 8 bytes · values (f64 …)
    key                [kind, metric's name, [[label, value] …] sorted by label, [bucket edge …]]

A page explains itself: a reader shows metrics that it has never heard of, because the writer says once what they are
(a ``metric`` record).

``used`` is where the last whole record ends and is stored after the record, so that a reader never sees half a record,
whenever the writer is killed. Values are then changed in place, each an aligned 8-byte store.

What is read may have been cut short or written by somebody else: everything is checked and refused with
:class:`PageError`, whose text says what is wrong.
"""

from __future__ import annotations

import json
import re
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import isfinite, nan
from typing import Final, Literal, TypeAlias, cast

from . import names, users
from .names import Metric

MAGIC: Final = b"ANVLPAGE"
VERSION: Final = 2
HEADER: Final = struct.Struct("=8sIIQdQ24x")
HEADER_SIZE: Final = HEADER.size
RECORD: Final = struct.Struct("=II")
USED_AT: Final = 2  # the index of `used`, in 8-byte words
MAX_KEY: Final = 1 << 16
MAX_FOLDED: Final = 1 << 20
MAX_KEPT_KEY: Final = 1 << 10
MAX_HELP: Final = 1 << 10
MAX_RECORDS: Final = 20_000  # a page's; a worker stays far below

# histogram: sum, then one count a bucket (the last is +Inf). counter, gauge (levels of live workers add up): one value.
# gauge_max, gauge_min: one value, NaN until it is set. gauge_recent: the value and when it was set, on the monotonic
# clock, 0 for never. oldest: the monotonic time at which the oldest unanswered request began, 0 for none. users: the
# bitmaps of users.py. metric: no values; its labels are type, help and unit of a metric that names.py does not have.
# folded: no values; its labels are the names of the page files that a retired page has taken in and that may still be
# there.
SeriesKind = Literal["histogram", "counter", "gauge", "gauge_max", "gauge_min", "gauge_recent"]
Kind = Literal[
    "histogram", "counter", "gauge", "gauge_max", "gauge_min", "gauge_recent", "oldest", "users", "metric", "folded"
]
# What a series of each kind is to Prometheus.
TYPES: Final[dict[str, names.Kind]] = {
    "histogram": "histogram", "counter": "counter", "gauge": "gauge", "gauge_max": "gauge", "gauge_min": "gauge",
    "gauge_recent": "gauge", "oldest": "gauge", "users": "gauge",
}  # fmt: skip
KINDS: Final = frozenset((*TYPES, "metric", "folded"))
LASTING: Final = ("histogram", "counter")  # what outlives its worker
METRIC_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
Pairs: TypeAlias = tuple[tuple[str, str], ...]

assert HEADER_SIZE == 64


class PageError(ValueError):
    """The bytes are no page of this version, or a damaged one."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a record is: its kind, the metric's name, the labels sorted by name, the bucket edges. See :func:`key`."""

    kind: Kind
    name: str
    labels: Pairs = ()
    edges: tuple[float, ...] = ()

    def encode(self) -> bytes:
        return json.dumps([self.kind, self.name, self.labels, self.edges], separators=(",", ":")).encode()

    @property
    def empty(self) -> tuple[float, ...]:
        """The values of this record before anything is recorded."""
        if self.kind == "histogram":
            return (0.0,) * (len(self.edges) + 2)
        return _EMPTY.get(self.kind, (0.0,))


_EMPTY: Final[dict[str, tuple[float, ...]]] = {
    "gauge_max": (nan,), "gauge_min": (nan,), "gauge_recent": (0.0, 0.0), "users": (0.0,) * users.WORDS,
    "metric": (), "folded": (),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """``used``: bytes that are written; ``started``: seconds since 1970; ``pid``: of the worker."""

    used: int
    started: float
    pid: int


def key(kind: Kind, name: str, pairs: Pairs = (), edges: tuple[float, ...] = ()) -> Key:
    """The key of a series; an empty label value is an absent label, and what is no Unicode is replaced.

    Raises ``ValueError`` for what no Prometheus series can be called.
    """
    made = Key(kind, name, tuple(sorted((label, _clean(value)) for label, value in pairs if value)), edges)
    problem = _problem(made)
    if problem:
        raise ValueError(problem)
    return made


def describe(metric: Metric) -> Key:
    """The ``metric`` record that tells readers what ``metric`` is."""
    told = (("help", metric.help[:MAX_HELP]), ("type", metric.kind), ("unit", metric.unit))
    return Key("metric", metric.name, tuple((label, _clean(value)) for label, value in told))


def described(key: Key) -> Metric:
    """The metric of a ``metric`` record."""
    told = dict(key.labels)
    return names.foreign(key.name, cast(names.Kind, told["type"]), told["help"], told["unit"])


def _clean(text: str) -> str:
    """``text`` with everything that UTF-8 cannot hold (lone surrogates) replaced."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _problem(key: Key) -> str:
    """What is wrong with ``key``; empty if nothing is."""
    labels = [name for name, _ in key.labels]
    if key.kind == "folded":
        return ""
    if not METRIC_NAME.fullmatch(key.name):
        return f"{key.name[:80]!r} is no name of a metric"
    if key.kind == "metric":
        known = labels == ["help", "type", "unit"] and key.labels[1][1] in ("counter", "gauge", "histogram")
        return "" if known else "not the description of a metric"
    wrong = next((name for name in labels if not LABEL_NAME.fullmatch(name)), None)
    if wrong is not None:
        return f"{wrong[:80]!r} is no name of a label"
    if any(before >= after for before, after in pairwise(labels)):
        return f"the labels of {key.name[:80]} are not each there once, in order"
    if key.kind == "histogram":
        if "le" in labels:
            return f"le is no label for {key.name[:80]}: a histogram has it for its buckets"
        if not all(map(isfinite, key.edges)) or any(a >= b for a, b in pairwise(key.edges)):
            return f"the edges of {key.name[:80]} do not rise"
    elif key.edges:
        return f"{key.name[:80]} has edges and is no histogram"
    return ""


def decode_key(data: bytes) -> Key:
    """The key that :meth:`Key.encode` wrote. Raises :class:`PageError` for anything else."""
    # Workers share most of their keys. Long ones are not kept: what is read must not fill the memory.
    return _decode_kept(data) if len(data) <= MAX_KEPT_KEY else _decode(data)


def _decode(data: bytes) -> Key:
    try:
        kind, name, labels, edges = json.loads(data)
        if kind not in KINDS or type(name) is not str:
            raise PageError("a record's key is damaged")
        found = Key(kind, name, tuple((label, value) for label, value in labels), tuple(map(float, edges)))
        for pair in found.labels:
            "".join(pair).encode()  # text, and nothing that UTF-8 cannot hold
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise PageError("a record's key is damaged") from None
    if _problem(found):
        raise PageError("a record's key is damaged")
    return found


_decode_kept = lru_cache(maxsize=16_384)(_decode)


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


def read_records(data: bytes, start: int = HEADER_SIZE, known: int = 0) -> list[tuple[Key, int, int]]:
    """``(key, first word, number of values)`` of each record from byte ``start`` on, where ``known`` records end.

    Raises :class:`PageError`.
    """
    found: list[tuple[Key, int, int]] = []
    end = len(data)
    while start < end:
        if known + len(found) >= MAX_RECORDS:
            raise PageError(f"more than {MAX_RECORDS} records")
        size, length = RECORD.unpack_from(data, start)
        first = start + RECORD.size + -(-length // 8) * 8
        if size % 8 or length > MAX_FOLDED or first > start + size or start + size > end:
            raise PageError("a record is damaged")
        key = decode_key(data[start + RECORD.size : start + RECORD.size + length])
        values = (start + size - first) // 8
        if values != len(key.empty) or (length > MAX_KEY and key.kind != "folded"):
            raise PageError("a record is damaged")
        found.append((key, first // 8, values))
        start += size
    return found
