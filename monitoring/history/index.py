"""Which series a block holds: label sets, and for each label pair the series that have it.

Blocks of a steady system hold the same series hour after hour, so tables are kept by what is in them, not by block.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ..samples import Integers, Labels, Matcher
from .codec import LEVEL, DamagedError, inflate

HEADER: Final = struct.Struct("<III")  # series, bytes of JSON, pairs of all series together
MOST_BYTES: Final = 1 << 28

_pairs: dict[tuple[str, str], tuple[str, str]] = {}
MOST_PAIRS: Final = 200_000


def pack_labels(series: Sequence[Labels]) -> bytes:
    """Label sets, in this order."""
    numbers: dict[tuple[str, str], int] = {}
    flat = [numbers.setdefault(pair, len(numbers)) for labels in series for pair in labels]
    text = json.dumps(list(numbers), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    counts = np.array([len(labels) for labels in series], dtype="<u2").tobytes()
    body = text + counts + np.array(flat, dtype="<u4").tobytes()
    return HEADER.pack(len(series), len(text), len(flat)) + zlib.compress(body, LEVEL)


class Table:
    """The label sets of one block. ``starts`` has one place more than there are series."""

    def __init__(self, data: bytes) -> None:
        """Raises DamagedError."""
        if len(data) < HEADER.size:
            raise DamagedError("the label sets are cut off")
        count, length, total = HEADER.unpack_from(data)
        size = length + 2 * count + 4 * total
        if size > MOST_BYTES:
            raise DamagedError("there are more label sets than can be")
        raw = inflate(data[HEADER.size :], size)
        try:
            found = json.loads(raw[:length].decode("utf-8", "surrogatepass"))
            self.pairs = [_shared(name, value) for name, value in found]
        except (ValueError, TypeError) as error:
            raise DamagedError(f"the label sets cannot be read: {error}") from None
        counts = np.frombuffer(raw, "<u2", count, length).astype(np.int64)
        self.members = np.frombuffer(raw, "<u4", total, length + 2 * count)
        self.starts: Integers = np.concatenate((np.zeros(1, dtype=np.int64), counts.cumsum()))
        if int(self.starts[-1]) != total or (total and int(self.members.max()) >= len(self.pairs)):
            raise DamagedError("the label sets make no sense")
        self.size = 16 * len(self.pairs) + 24 * total + 16 * count
        # Series by pair: the pairs' members in the order of the pairs.
        order = np.argsort(self.members, kind="stable")
        self._series = np.repeat(np.arange(count, dtype=np.int32), counts)[order]
        self._ends = np.searchsorted(self.members[order], np.arange(len(self.pairs) + 1))
        self._names: dict[str, list[int]] = {}
        for number, (name, _) in enumerate(self.pairs):
            self._names.setdefault(name, []).append(number)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def labels(self, series: int) -> Labels:
        """The label set of one series."""
        return tuple(
            [self.pairs[pair] for pair in self.members[self.starts[series] : self.starts[series + 1]].tolist()]
        )

    def names(self) -> list[str]:
        return list(self._names)

    def values(self, name: str) -> list[str]:
        return [self.pairs[pair][1] for pair in self._names.get(name, ())]

    def matching(self, matchers: Sequence[Matcher]) -> Integers:
        """Series that satisfy all matchers, rising."""
        taken: Any = np.ones(len(self), dtype=bool)
        for matcher in matchers:
            numbers = self._names.get(matcher.name, ())
            group = np.zeros(len(self), dtype=bool)
            empty = matcher.matches_empty
            for number in numbers:
                if matcher.test(self.pairs[number][1]) != empty:
                    group[self._series[self._ends[number] : self._ends[number + 1]]] = True
            taken &= ~group if empty else group
        return np.flatnonzero(taken)


def _shared(name: object, value: object) -> tuple[str, str]:
    """One tuple for equal pairs of all tables: label sets are then compared at no cost."""
    if not isinstance(name, str) or not isinstance(value, str):
        raise TypeError("a label is no text")
    if len(_pairs) >= MOST_PAIRS:
        _pairs.clear()
    pair = (name, value)
    return _pairs.setdefault(pair, pair)
