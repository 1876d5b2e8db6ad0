"""Windows: for every series and step, the stretch of samples that a range selector sees.

All series lie behind each other in one array, so a function over ranges is a few numpy operations over all series and
steps at once, whatever their number: ``lo:hi`` are the bounds of each window in that array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..samples import Booleans, Floats, Integers, Labels

CHUNK = 2_000_000
"""Samples that are spread out at once where a function needs every window as a copy: 16 MB an array."""

PIECE = 100_000_000
"""Samples that are reduced between two looks at the clock: a tenth of a second."""


@dataclass(slots=True, eq=False)
class Windows:
    """``times`` (ms) and ``values`` of all series; ``lo`` and ``hi`` [series, step] bound each window.

    ``ends`` (ms, one a step) is where a window ends, ``range`` (ms) how long it is, ``steps`` (ms) when the step is
    evaluated: with an offset or ``@`` that is not the window's end.
    """

    labels: list[Labels]
    times: Integers
    values: Floats
    lo: Integers
    hi: Integers
    ends: Integers
    range: int
    steps: Integers
    check: Callable[[], None]
    """Raises QueryError once the query has taken too long; called between pieces of work."""

    @property
    def counts(self) -> Integers:
        return self.hi - self.lo

    def at(self, index: Integers, where: Booleans, source: Floats | Integers) -> Floats:
        """``source[index]`` where ``where``, elsewhere 0."""
        out = np.zeros(index.shape)
        out[where] = source[index[where]]
        return out

    def reduce(self, operation: np.ufunc, source: Floats, lo: Integers | None = None) -> Floats:
        """``operation`` over every window (0 for an empty one); ``lo`` moves the windows' starts."""
        start = self.lo if lo is None else lo
        out = np.zeros(start.shape)
        filled = np.flatnonzero((start < self.hi).ravel())
        lo, hi = start.ravel()[filled], self.hi.ravel()[filled]
        for begin, stop in self._pieces(hi - lo, PIECE):
            out.flat[filled[begin:stop]] = reduce_segments(operation, source, lo[begin:stop], hi[begin:stop])
        return out

    def _pieces(self, counts: Integers, size: int) -> Iterator[tuple[int, int]]:
        """Stretches of windows that hold about ``size`` samples together."""
        ends = np.cumsum(counts)
        begin = 0
        while begin < len(counts):
            self.check()
            taken = int(ends[begin - 1]) if begin else 0
            stop = max(begin + 1, int(np.searchsorted(ends, taken + size, side="right")))
            yield begin, stop
            begin = stop

    def chunks(self, at_least: int = 1) -> Iterator[Segments]:
        """The windows with so many samples, spread out, some at a time."""
        chosen = np.flatnonzero((self.counts >= at_least).ravel())
        lo, hi = self.lo.ravel()[chosen], self.hi.ravel()[chosen]
        for begin, stop in self._pieces(hi - lo, CHUNK):
            yield Segments.of(chosen[begin:stop], lo[begin:stop], hi[begin:stop])


@dataclass(slots=True, eq=False)
class Segments:
    """Windows spread out: sample ``index[i]`` belongs to window ``windows[owner[i]]``, which begins at ``starts``."""

    windows: Integers
    index: Integers
    owner: Integers
    starts: Integers
    counts: Integers

    @classmethod
    def of(cls, windows: Integers, lo: Integers, hi: Integers) -> Segments:
        counts = hi - lo
        starts = np.cumsum(counts) - counts
        owner = np.repeat(np.arange(len(windows)), counts)
        index = np.arange(int(counts.sum())) - starts[owner] + lo[owner]
        return cls(windows, index, owner, starts, counts)

    def sum(self, values: Floats) -> Floats:
        """Sum per window of values given per sample."""
        total: Floats = np.add.reduceat(values, self.starts)
        return total


def reduce_segments(operation: np.ufunc, source: Floats, lo: Integers, hi: Integers) -> Floats:
    """``operation.reduce(source[lo:hi])`` for each pair; every segment must have an element."""
    bounds = np.empty(2 * len(lo), dtype=np.int64)
    bounds[0::2], bounds[1::2] = lo, hi
    # reduceat wants every index inside the array: one more element that no segment contains.
    reduced: Floats = operation.reduceat(np.append(source, 0.0), bounds)[::2]
    return reduced


def locate(offsets: Integers, times: Integers, lower: Integers, upper: Integers) -> tuple[Integers, Integers]:
    """For each series (``offsets`` bound them in ``times``) the indices of ``lower < t <= upper``, [series, step]."""
    series = len(offsets) - 1
    if len(upper) == 1 and len(times) and times.min() > lower[0] and times.max() <= upper[0]:
        return offsets[:-1, None].copy(), offsets[1:, None].copy()  # an instant query read just its window
    lo = np.empty((series, len(lower)), dtype=np.int64)
    hi = np.empty((series, len(upper)), dtype=np.int64)
    for row in range(series):
        first, last = offsets[row], offsets[row + 1]
        own = times[first:last]
        lo[row] = own.searchsorted(lower, side="right") + first
        hi[row] = own.searchsorted(upper, side="right") + first
    return lo, hi
