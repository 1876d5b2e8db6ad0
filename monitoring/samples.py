"""Samples, label sets and matchers: the words that the store, the scraper and the PromQL engine share.

Times are integer milliseconds since 1970 (as in Prometheus); values are IEEE 754 doubles. A series that has ended is
closed by a *stale marker*: one particular NaN, told apart from every other NaN by its bits alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anvil_monitor.alerts.patterns import PatternError as PatternError
from anvil_monitor.alerts.patterns import compile_pattern

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

Labels = tuple[tuple[str, str], ...]
"""A label set: (name, value) pairs sorted by name, ``__name__`` among them, no empty values."""

NAME = "__name__"

STALE_BITS = 0x7FF0000000000002  # from Prometheus, model/value/value.go
STALE_NAN: float = struct.unpack("<d", struct.pack("<Q", STALE_BITS))[0]
"""The value that ends a series. Compare with ``is_stale``, never with ``==`` or ``isnan``."""

ABSENT_BITS = 0x7FF80000000AB5E7
ABSENT: float = struct.unpack("<d", struct.pack("<Q", ABSENT_BITS))[0]
"""Fills the cells of a panel in which a series has no sample. Never a sample's value: the store replaces it."""


def is_stale(values: Floats) -> Booleans:
    """Which of the values are stale markers. Looks at the bits, so ordinary NaNs are not taken for one."""
    stale: Booleans = np.ascontiguousarray(values, dtype=np.float64).view(np.uint64) == np.uint64(STALE_BITS)
    return stale


def is_absent(values: Floats) -> Booleans:
    """Which cells of a panel hold no sample, by their bits."""
    absent: Booleans = np.ascontiguousarray(values, dtype=np.float64).view(np.uint64) == np.uint64(ABSENT_BITS)
    return absent


def as_slice(columns: Integers) -> Integers | slice:
    """Neighbouring columns as a slice, which is read without a copy."""
    if len(columns) and int(columns[-1]) - int(columns[0]) == len(columns) - 1 and bool((np.diff(columns) == 1).all()):
        return slice(int(columns[0]), int(columns[-1]) + 1)
    return columns


def labels_of(**pairs: str) -> Labels:
    """A label set from keywords; ``labels_of(__name__="up", job="server")``."""
    return tuple(sorted((name, value) for name, value in pairs.items() if value))


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One label set with its samples: ``timestamps`` in ms, rising, and as many ``values``."""

    labels: Labels
    timestamps: Integers
    values: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """Series that were appended together: one scrape target, one rule. They share their ``times``.

    ``times`` (ms, [T]) rise strictly; ``values[t, s]`` belongs to ``labels[s]`` and is ``ABSENT`` where that series has
    no sample. Nobody writes into the arrays once a panel has been handed out. While the same series match, ``labels``
    is the same tuple, so what is derived from it can be kept.
    """

    labels: tuple[Labels, ...]
    times: Integers
    values: Floats

    def series(self) -> list[Series]:
        """Series by series, without absent cells and without series that have no sample."""
        found = []
        for labels, column in zip(self.labels, self.values.T, strict=True):
            there = ~is_absent(column)
            if there.any():
                found.append(Series(labels, self.times[there], column[there]))
        return found


def series_of(panels: Iterable[Panel]) -> list[Series]:
    """All series of these panels, sorted by labels."""
    return sorted((one for panel in panels for one in panel.series()), key=lambda one: one.labels)


class TooManyError(Exception):
    """More samples were asked for than may be read at once; the text says how many."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """``name op value`` with op one of ``=``, ``!=``, ``=~``, ``!~``. A missing label counts as the empty text.

    Raises PatternError for a regular expression that does not compile and ValueError for another operator.
    """

    name: str
    op: str
    value: str
    test: Callable[[str], bool] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "test", _test(self.op, self.value))

    @property
    def matches_empty(self) -> bool:
        """Whether a series without this label is taken."""
        return self.test("")

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.name}{self.op}"{escaped}"'


def _test(op: str, value: str) -> Callable[[str], bool]:
    if op == "=":
        return lambda text: text == value
    if op == "!=":
        return lambda text: text != value
    if op not in ("=~", "!~"):
        raise ValueError(f"{op!r} is not a matcher; allowed: =, !=, =~, !~")
    match = compile_pattern(value).fullmatch
    if op == "=~":
        return lambda text: match(text) is not None
    return lambda text: match(text) is None


def matches(labels: Labels, matchers: Sequence[Matcher]) -> bool:
    """Whether the label set satisfies every matcher."""
    pairs = dict(labels)
    return all(matcher.test(pairs.get(matcher.name, "")) for matcher in matchers)
