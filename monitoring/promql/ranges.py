"""Functions over range vectors: rate and its kin, and those of ``*_over_time`` that need not see every sample.

Each takes windows (and for some a scalar per step) and gives values and where they exist, [series, step]; within a
block it is [step, series].
Formulas: Prometheus 3, promql/functions.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..samples import NAME, Booleans, Floats, Labels
from . import spread
from .exact import doubtful, mean_of, sum_of
from .labelsets import derived
from .query import inform
from .windows import Block, Windows, reduce

Result = tuple[Floats, Booleans]
"""Values and where they exist, [step, series] of one block."""

TILE = 65_536
"""Results that are formed at once where that takes many steps: what lies between them then stays in the cache."""


def _lost_at_resets(block: Block) -> Floats | None:
    """What a counter had counted before each of its resets, per window; None without any reset."""
    fell = _pairwise(block, np.less)
    if fell is None:
        return None
    # Few instants and series have resets: only these are summed.
    rows, columns = np.flatnonzero(fell.any(axis=1)), np.flatnonzero(fell.any(axis=0))
    some = np.ix_(rows, columns)
    falls = np.where(fell[some], block.values[:-1][some], 0.0)
    lo, hi = (one if one.shape[1] == 1 else one[:, columns] for one in (block.lo, block.hi))
    lost = np.zeros(block.shape)
    lost[:, columns] = reduce(np.add, falls, rows.searchsorted(lo), rows.searchsorted(hi - 1))
    return lost


def _pairwise(block: Block, compare: np.ufunc) -> Booleans | None:
    """Where a sample (from the second on) compares to the one before it, at its predecessor's row; None if nowhere."""
    values = block.values
    size = max(1, TILE * 8 // values.shape[1])
    for begin in range(0, len(values) - 1, size):
        end = min(begin + size, len(values) - 1)
        if compare(values[begin + 1 : end + 1], values[begin:end]).any():
            found: Booleans = compare(values[1:], values[:-1])
            return found
    return None


def _extrapolated(windows: Windows, *, counter: bool, per_second: bool) -> Result:
    """The increase over a window, stretched to the window's bounds where samples come close enough to them."""

    if counter:
        for name in _doubtful_counters(windows.labels):
            inform(f'metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "{name}"')

    def function(block: Block) -> Result:
        enough = block.counts >= 2
        lost = _lost_at_resets(block) if counter else None
        # Differences of whole milliseconds: seconds since 1970 are good to 2e-7 only.
        first_time, last_time = block.first(block.times), block.last(block.times)
        ends = windows.ends[:, None]
        span = (last_time - first_time) / 1000.0
        between = span / np.maximum(block.counts - 1, 1)
        threshold = between * 1.1
        to_start = (first_time - (ends - windows.range)) / 1000.0
        to_start = np.where(to_start >= threshold, between / 2, to_start)
        to_end = (ends - last_time) / 1000.0
        to_end = np.where(to_end >= threshold, between / 2, to_end)
        unit = windows.range / 1000.0 if per_second else 1.0
        out = np.empty(block.shape)
        size = max(1, TILE // block.shape[1])
        for begin in range(0, len(out), size):
            rows = slice(begin, begin + size)
            first = block.first_of(rows)
            increase = block.last_of(rows) - first
            if lost is not None:
                increase += lost[rows]
            stretch = to_start[rows]
            if counter:
                # A counter is never below zero: do not stretch beyond the point where it would have been zero.
                to_zero = span[rows] * (first / increase)
                closer = (to_zero < stretch) & (increase > 0) & (first >= 0)
                stretch = np.where(closer, to_zero, stretch)
            factor = (span[rows] + stretch + to_end[rows]) / span[rows]
            np.multiply(increase, factor / unit, out=out[rows])
        return out, enough

    return windows.apply(function)


def _doubtful_counters(labels: Sequence[Labels]) -> tuple[str, ...]:
    def make(all_: Sequence[Labels]) -> tuple[str, ...]:
        names = {dict(one).get(NAME, "") for one in all_} - {""}
        return tuple(sorted(name for name in names if not name.endswith(("_total", "_sum", "_count", "_bucket"))))

    return derived(labels, "doubtful counters", make)


def _instantaneous(windows: Windows, *, rate: bool) -> Result:
    """From the last two samples alone."""

    def function(block: Block) -> Result:
        newer, older = block.last(block.values), block.last(block.values, 1)
        seconds = (block.last(block.times) - block.last(block.times, 1)) / 1000.0
        change = newer - older
        if rate:
            change = np.where(newer < older, newer, change) / seconds
        return change, (block.counts >= 2) & (seconds > 0)

    return windows.apply(function)


def _again(
    windows: Windows, block: Block, which: Booleans, into: Floats, function: Callable[[list[float]], float]
) -> None:
    lo, hi = np.broadcast_to(block.lo, block.shape), np.broadcast_to(block.hi, block.shape)
    for step, column in zip(*np.nonzero(which), strict=True):
        windows.check()
        into[step, column] = function(block.values[lo[step, column] : hi[step, column], column].tolist())


def _doubtful(block: Block, total: Floats) -> Booleans | None:
    """Which windows' sums need to be formed again: None where no term is below zero and nothing overflows."""
    if block.values.min(initial=0) >= 0 and np.isfinite(total).all():
        return None
    which = doubtful(total, block.reduce(np.add, np.abs(block.values)))
    infinite = np.isinf(block.values)
    if which.any() and infinite.any():  # a sum with an infinite term is right as it is
        which &= block.reduce(np.add, infinite.astype(np.float64)) == 0
    return which if which.any() else None


def _sum(windows: Windows) -> Result:
    def function(block: Block) -> Result:
        total = block.reduce(np.add, block.values)
        which = _doubtful(block, total)
        if which is not None:
            _again(windows, block, which, total, sum_of)
        return total, block.counts > 0

    return windows.apply(function)


def _average(windows: Windows) -> Result:
    def function(block: Block) -> Result:
        total = block.reduce(np.add, block.values)
        mean = total / block.counts
        which = _doubtful(block, total)
        if which is not None:
            _again(windows, block, which, mean, mean_of)
        return mean, block.counts > 0

    return windows.apply(function)


def _some(function: Callable[[Block], Floats]) -> Callable[[Windows], Result]:
    """A function that gives a value for every window that has a sample."""
    return lambda windows: windows.apply(lambda block: (function(block), block.counts > 0))


def _extreme(operation: np.ufunc, plain: np.ufunc) -> Callable[[Windows], Result]:
    """``plain`` is three times as fast, and the same where there is no NaN."""
    return _some(lambda block: block.reduce(operation if np.isnan(block.values.sum()) else plain, block.values))


def _pairs(block: Block, happened: Booleans | None) -> Floats:
    """How often something happened between neighbours inside each window; ``happened[i]`` is about i and i + 1."""
    if happened is None:
        return np.zeros((1, 1))
    return reduce(np.add, happened.astype(np.float64), block.lo, np.maximum(block.hi - 1, block.lo))


def _changes(block: Block) -> Floats:
    happened = _pairwise(block, np.not_equal)
    if happened is not None and np.isnan(block.values.sum()):
        nothing = np.isnan(block.values)
        happened &= ~(nothing[1:] & nothing[:-1])
    return _pairs(block, happened)


FUNCTIONS: dict[str, Callable[..., Result]] = {
    "rate": lambda windows: _extrapolated(windows, counter=True, per_second=True),
    "increase": lambda windows: _extrapolated(windows, counter=True, per_second=False),
    "delta": lambda windows: _extrapolated(windows, counter=False, per_second=False),
    "irate": lambda windows: _instantaneous(windows, rate=True),
    "idelta": lambda windows: _instantaneous(windows, rate=False),
    "sum_over_time": _sum,
    "avg_over_time": _average,
    "count_over_time": _some(lambda block: block.counts.astype(np.float64)),
    "present_over_time": _some(lambda block: np.ones((1, 1))),
    "first_over_time": _some(lambda block: block.first(block.values)),
    "last_over_time": _some(lambda block: block.last(block.values)),
    "min_over_time": _extreme(np.fmin, np.minimum),
    "max_over_time": _extreme(np.fmax, np.maximum),
    "stdvar_over_time": spread.variance,
    "stddev_over_time": spread.deviation,
    "quantile_over_time": spread.quantile,
    "mad_over_time": spread.median_deviation,
    "changes": _some(_changes),
    "resets": _some(lambda block: _pairs(block, _pairwise(block, np.less))),
    "deriv": spread.derivative,
    "predict_linear": spread.predict,
    "ts_of_first_over_time": _some(lambda block: block.first(block.times) / 1000.0),
    "ts_of_last_over_time": _some(lambda block: block.last(block.times) / 1000.0),
    "ts_of_max_over_time": spread.when(np.greater_equal),
    "ts_of_min_over_time": spread.when(np.less_equal),
    "double_exponential_smoothing": spread.smoothed,
}
"""By name. Scalar arguments follow the windows, in the order in which PromQL writes them."""

KEEP_NAME = frozenset({"first_over_time", "last_over_time"})
