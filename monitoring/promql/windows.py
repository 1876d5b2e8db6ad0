"""Windows: for every step and series, the stretch of samples that a range selector sees.

Samples lie time-major, [time, series], in *blocks*: in most of them the series share their times, so that the bounds of
all windows are one binary search; only series with gaps of their own have bounds of their own. A function over ranges
is written once for both, as a few numpy operations over all series and steps: arrays are [step, series], or [step, 1]
where something is the same for all series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ..samples import ABSENT_BITS, STALE_BITS, Booleans, Floats, Integers, Labels, Panel, as_slice
from .distinct import alike, distinct

CHUNK = 1_000_000
"""Samples that are spread out at once where a function needs every window as a copy: 8 MB an array."""

PATTERNS = 8
"""Series with the same gaps share a block; series with gaps of their own beyond so many patterns share a ragged one."""

NARROW = 16
"""Blocks with fewer series are put into one, when there are more than ``PATTERNS`` of them, and always for one step."""

OVERLAP = 64
"""How often a sample may be looked at, one window after the other; above, sums of powers of two are formed first."""


@dataclass(slots=True, eq=False)
class Block:
    """Series ``columns`` of the result. ``times`` (ms) [T, 1 or S] and ``values`` [T, S]; window ``lo:hi``
    [steps, 1 or S] are rows of these. There is at least one row."""

    columns: Integers | slice
    times: Integers
    values: Floats
    lo: Integers
    hi: Integers

    @property
    def counts(self) -> Integers:
        return self.hi - self.lo

    @property
    def shape(self) -> tuple[int, int]:
        return self.lo.shape[0], self.values.shape[1]

    def first(self, source: Floats | Integers) -> Floats:
        """The source at the first sample of each window; anything where the window is empty."""
        return pick(source, np.minimum(self.lo, len(self.values) - 1))

    def last(self, source: Floats | Integers, before: int = 0) -> Floats:
        """The source at the last sample of each window, or so many before it."""
        return pick(source, np.maximum(self.hi - 1 - before, 0))

    def first_of(self, rows: slice) -> Floats:
        """The first value of some steps' windows."""
        return pick(self.values, np.minimum(self.lo[rows], len(self.values) - 1))

    def last_of(self, rows: slice) -> Floats:
        """The last value of some steps' windows."""
        return pick(self.values, np.maximum(self.hi[rows] - 1, 0))

    def reduce(self, operation: np.ufunc, source: Floats, lo: Integers | None = None, empty: float = 0.0) -> Floats:
        """``operation`` over every window; ``lo`` moves the windows' starts."""
        return reduce(operation, source, self.lo if lo is None else lo, self.hi, empty)

    def tiles(self, context: Callable[[], None]) -> Iterator[Tile]:
        """The windows spread out, some at a time."""
        longest = int(self.counts.max(initial=0))
        if longest < 1:
            return
        offsets = np.arange(longest)
        steps, series = self.shape
        wide = max(1, min(series, CHUNK // longest))
        many = max(1, CHUNK // (longest * wide))
        for left in range(0, series, wide):
            right = slice(left, left + wide)
            lo, hi, times = (one if one.shape[1] == 1 else one[:, right] for one in (self.lo, self.hi, self.times))
            values = self.values[:, right]
            for begin in range(0, steps, many):
                context()
                rows = slice(begin, begin + many)
                index = lo[rows, None, :] + offsets[None, :, None]
                inside = index < hi[rows, None, :]
                index = np.minimum(index, len(values) - 1)
                shape = index.shape
                flat = index.reshape(shape[0] * shape[1], shape[2])
                yield Tile(
                    rows,
                    right,
                    pick(values, flat).reshape(shape[0], shape[1], -1),
                    pick(times, flat).reshape(shape[0], shape[1], -1),
                    inside,
                    (hi - lo)[rows],
                )


@dataclass(slots=True, eq=False)
class Tile:
    """Some windows spread out: ``values`` and ``times`` [step, place, series], ``inside`` where there is a sample.

    ``rows`` and ``columns`` say which steps and series these are; ``counts`` [step, series] how long the windows are.
    """

    rows: slice
    columns: slice
    values: Floats
    times: Floats
    inside: Booleans
    counts: Integers

    def sum(self, values: Floats) -> Floats:
        total: Floats = np.where(self.inside, values, 0.0).sum(axis=1)
        return total


def pick(source: Floats | Integers, index: Integers) -> Floats:
    """``source[index]`` along the rows: [step, series] from an index [step, 1 or series]."""
    found: Any
    if index.shape[1] == 1:
        found = source.take(index[:, 0], axis=0)
    elif source.shape[1] == 1:
        found = source[:, 0][index]
    else:
        found = np.take_along_axis(cast(Floats, source), index, axis=0)
    return cast(Floats, found)


def reduce(operation: np.ufunc, source: Floats, lo: Integers, hi: Integers, empty: float = 0.0) -> Floats:
    """``operation.reduce(source[lo:hi], axis=0)`` per window, ``empty`` for one without rows."""
    steps, series = max(len(lo), len(hi)), source.shape[1]
    out = np.full((steps, series), empty)
    lengths = np.maximum(hi - lo, 0)
    if not lengths.any():
        return out
    if lengths.shape[1] == 1 and int(lengths.sum()) <= OVERLAP * len(source):
        first, last = np.broadcast_to(lo, lengths.shape)[:, 0], np.broadcast_to(hi, lengths.shape)[:, 0]
        inner = np.flatnonzero((first < last) & (last < len(source)))
        if len(inner):
            bounds = np.stack((first[inner], last[inner]), axis=1).ravel()
            out[inner] = operation.reduceat(source, bounds, axis=0)[::2]
        final = np.flatnonzero((first < last) & (last == len(source)))  # reduceat wants every index inside
        if len(final):
            starts, place = distinct(first[final])
            parts = operation.reduceat(source, starts, axis=0)
            out[final] = operation.accumulate(parts[::-1], axis=0)[::-1][place]
        return out
    # Windows overlap a lot: sums of 1, 2, 4, … neighbours, of which every window is a few.
    at = np.broadcast_to(lo, lengths.shape).copy()
    neighbours, width = source, 1
    started = np.zeros(lengths.shape, dtype=bool)
    while True:
        wanted = (lengths & width) != 0
        if wanted.any():
            part = pick(neighbours, np.minimum(at, len(neighbours) - 1))
            both = np.where(started, operation(out, part), part)
            out = np.where(wanted, both, out)
            at = np.where(wanted, at + width, at)
            started |= wanted
        if 2 * width > int(lengths.max()):
            return out
        neighbours = operation(neighbours[:-width], neighbours[width:])
        width *= 2


@dataclass(slots=True, eq=False)
class Windows:
    """The windows of all series in ``blocks``.

    ``ends`` (ms, one a step) is where a window ends, ``range`` (ms) how long it is, ``steps`` (ms) when the step is
    evaluated: with an offset or ``@`` that is not the window's end.
    """

    labels: Sequence[Labels]
    blocks: list[Block]
    ends: Integers
    range: int
    steps: Integers
    check: Callable[[], None]
    """Raises QueryError once the query has taken too long; called between pieces of work."""

    def apply(self, function: Callable[[Block], tuple[Floats, Booleans]]) -> tuple[Floats, Booleans]:
        """A function's values and where they are, [series, step], from what it gives for each block."""
        steps, series = len(self.steps), len(self.labels)
        if len(self.blocks) == 1 and self._whole(self.blocks[0].columns):
            values, present = function(self.blocks[0])
            shape = (steps, series)
            return np.broadcast_to(values, shape).T, np.broadcast_to(present, shape).T
        out, there = np.zeros((steps, series)), np.zeros((steps, series), dtype=bool)
        for block in self.blocks:
            self.check()
            out[:, block.columns], there[:, block.columns] = function(block)
        return out.T, there.T

    def _whole(self, columns: Integers | slice) -> bool:
        return isinstance(columns, slice) and columns.stop - columns.start == len(self.labels)

    def filled(self) -> Booleans:
        """Which windows have a sample, [series, step]."""
        return self.apply(lambda block: (np.zeros((1, 1)), block.counts > 0))[1]


def holes(values: Floats) -> Booleans | None:
    """Where there is a sample that is not a stale marker; None if everywhere."""
    if not np.isnan(values.sum()):
        return None
    bits = values.view(np.uint64)
    there: Booleans = (bits != np.uint64(ABSENT_BITS)) & (bits != np.uint64(STALE_BITS))
    return None if there.all() else there


def blocks_of(
    panels: Sequence[Panel], columns: Sequence[Integers | slice], lower: Integers, upper: Integers
) -> list[Block]:
    """Blocks whose windows hold ``lower < t <= upper``, without stale markers; ``columns`` per panel, in the result."""
    found: list[Block] = []
    for panel, place in zip(panels, columns, strict=True):
        there = holes(panel.values)
        if there is None:
            found.append(_dense(place, panel.times, panel.values, lower, upper))
        else:
            found += split(place, panel.times, panel.values, there, lower, upper)
    narrow = [block for block in found if block.values.shape[1] < NARROW]
    if len(narrow) > (PATTERNS if len(lower) > 1 else 1):
        found = [block for block in found if block.values.shape[1] >= NARROW]
        found.append(_stacked(narrow))
    return found


def _dense(place: Integers | slice, times: Integers, values: Floats, lower: Integers, upper: Integers) -> Block:
    lo, hi = times.searchsorted(lower, side="right"), times.searchsorted(upper, side="right")
    return Block(place, times[:, None], values, lo[:, None], np.maximum(lo, hi)[:, None])


def split(
    place: Integers | slice, times: Integers, values: Floats, there: Booleans, lower: Integers, upper: Integers
) -> list[Block]:
    """Blocks of series that have samples at the same times; those with gaps of their own come ragged, in one."""
    if there.all():
        return [_dense(place, times, values, lower, upper)]
    which = alike(there)
    own = np.argsort(np.bincount(which))[::-1][:PATTERNS]
    taken = np.zeros(len(which), dtype=bool)
    index = np.arange(place.start, place.stop) if isinstance(place, slice) else place
    found = []
    for pattern in own.tolist():
        columns = np.flatnonzero(which == pattern)
        if not len(columns):
            continue
        taken[columns] = True
        rows = np.flatnonzero(there[:, columns[0]])
        if len(rows):
            part = values.take(columns, axis=1) if len(rows) == len(values) else values[np.ix_(rows, columns)]
            found.append(_dense(as_slice(index[columns]), times[rows], part, lower, upper))
    rest = np.flatnonzero(~taken)
    if len(rest):
        found.append(_ragged(index[rest], times, values[:, rest], there[:, rest], lower, upper))
    return found


def _ragged(
    place: Integers, times: Integers, values: Floats, there: Booleans, lower: Integers, upper: Integers
) -> Block:
    """Every series' own samples moved up to its first rows."""
    before = np.zeros((len(times) + 1, len(place)), dtype=np.int64)
    np.cumsum(there, axis=0, out=before[1:])
    rows, columns = np.nonzero(there)
    target = before[rows, columns]
    longest = max(1, int(before[-1].max(initial=0)))
    own_values = np.zeros((longest, len(place)))
    own_times = np.full((longest, len(place)), times[-1] if len(times) else 0, dtype=np.int64)
    own_values[target, columns] = values[rows, columns]
    own_times[target, columns] = times[rows]
    lo, hi = before[times.searchsorted(lower, side="right")], before[times.searchsorted(upper, side="right")]
    return Block(place, own_times, own_values, lo, np.maximum(lo, hi))


def _stacked(blocks: Sequence[Block]) -> Block:
    """Narrow blocks beside each other, as one ragged block."""
    width = sum(block.values.shape[1] for block in blocks)
    longest = max(len(block.values) for block in blocks)
    steps = len(blocks[0].lo)
    times, values = np.zeros((longest, width), dtype=np.int64), np.zeros((longest, width))
    lo, hi = np.empty((steps, width), dtype=np.int64), np.empty((steps, width), dtype=np.int64)
    places = []
    at = 0
    for block in blocks:
        rows, here = len(block.values), slice(at, at + block.values.shape[1])
        times[:rows, here], values[:rows, here] = block.times, block.values
        times[rows:, here] = block.times[-1]
        lo[:, here], hi[:, here] = block.lo, block.hi
        place = block.columns
        places.append(np.arange(place.start, place.stop) if isinstance(place, slice) else place)
        at = here.stop
    return Block(np.concatenate(places), times, values, lo, hi)
