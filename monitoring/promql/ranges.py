"""Functions over range vectors: rate and its kin, ``*_over_time``, regression.

Each takes windows (and for some a scalar per step) and gives values and where they exist, [series, step]; within a
block it is [step, series].
Formulas: Prometheus 3, promql/functions.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..samples import NAME, Booleans, Floats, Labels
from .exact import doubtful, mean_of, sum_of
from .frame import Scalars
from .labelsets import derived
from .query import check_quantile, inform
from .values import QueryError
from .windows import Block, Tile, Windows, reduce

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


def _tiled(windows: Windows, function: Callable[[Tile], Floats], least: int = 1) -> Result:
    """A function of every sample of a window; it gives [step, series] of a tile."""

    def whole(block: Block) -> Result:
        out = np.zeros(block.shape)
        for tile in block.tiles(windows.check):
            out[tile.rows, tile.columns] = function(tile)
        return out, block.counts >= least

    return windows.apply(whole)


def _squares(tile: Tile) -> Floats:
    # Relative to the first sample, so that equal samples give exactly 0.
    distance = tile.values - tile.values[:, :1]
    distance -= (tile.sum(distance) / tile.counts)[:, None]
    return tile.sum(distance * distance) / tile.counts


def _variance(windows: Windows) -> Result:
    return _tiled(windows, _squares)


def _deviation(windows: Windows) -> Result:
    return _tiled(windows, lambda tile: np.sqrt(_squares(tile)))


def _interpolated(tile: Tile, values: Floats, quantile: Floats) -> Floats:
    """The quantile ([step, 1]) between two neighbours of the sorted samples, NaN being the least."""
    values = np.where(tile.inside, values, np.nan)
    nothing = np.maximum(tile.counts - (~np.isnan(values)).sum(axis=1), 0)[:, None]
    values.sort(axis=1)  # NaN last, also those that stand for no sample
    q = np.where((quantile >= 0) & (quantile <= 1), quantile, 0)
    rank = q * np.maximum(tile.counts - 1, 0)
    lower = np.floor(rank)
    weight = rank - lower

    def ranked(position: Floats) -> Floats:
        place = position.astype(np.int64)[:, None] - nothing
        found = np.take_along_axis(values, np.maximum(place, 0), axis=1)
        out: Floats = np.where(place < 0, np.nan, found)[:, 0]
        return out

    value = ranked(lower) * (1 - weight) + ranked(np.minimum(lower + 1, np.maximum(tile.counts - 1, 0))) * weight
    value = np.where(quantile < 0, -np.inf, np.where(quantile > 1, np.inf, value))
    return np.where(np.isnan(quantile), np.nan, value)


def _quantile(windows: Windows, quantile: Scalars) -> Result:
    check_quantile(quantile)
    return _tiled(windows, lambda tile: _interpolated(tile, tile.values, quantile[tile.rows, None]))


def _median_deviation(windows: Windows) -> Result:
    """The median of the distances from the median."""

    def function(tile: Tile) -> Floats:
        half = np.full((1, 1), 0.5)
        median = _interpolated(tile, tile.values, half)
        deviation = _interpolated(tile, np.abs(tile.values - median[:, None]), half)
        return np.where(np.isnan(tile.sum(tile.values)), np.nan, deviation)

    return _tiled(windows, function)


def _regression(tile: Tile, origin: Floats) -> tuple[Floats, Floats]:
    """Least squares: slope per second, and the line's value at ``origin`` (ms, [step, 1 or series])."""
    values = tile.values
    x = np.where(tile.inside, (tile.times - origin[:, None]) / 1000.0, 0.0)
    mean_x = x.sum(axis=1) / tile.counts
    mean_y = tile.sum(values) / tile.counts
    dx = np.where(tile.inside, x - mean_x[:, None], 0.0)
    slope = tile.sum(dx * (values - mean_y[:, None])) / (dx * dx).sum(axis=1)
    first = values[:, 0]
    flat = (~tile.inside | (values == first[:, None])).all(axis=1)
    slope = np.where(flat, np.where(np.isinf(first), np.nan, 0.0), slope)
    return slope, np.where(flat, first + slope, mean_y - slope * mean_x)


def _derivative(windows: Windows) -> Result:
    return _tiled(windows, lambda tile: _regression(tile, tile.times[:, 0])[0], least=2)


def _predict(windows: Windows, seconds: Scalars) -> Result:
    steps = windows.steps[:, None].astype(np.float64)

    def function(tile: Tile) -> Floats:
        slope, level = _regression(tile, steps[tile.rows])
        return slope * seconds[tile.rows, None] + level

    return _tiled(windows, function, least=2)


def _when(better: np.ufunc) -> Callable[[Windows], Result]:
    """The time of the extreme sample, in seconds; of equal ones the last."""

    def function(tile: Tile) -> Floats:
        best, when = tile.values[:, 0], np.broadcast_to(tile.times[:, 0], tile.values[:, 0].shape)
        for place in range(1, tile.values.shape[1]):
            value = tile.values[:, place]
            wins = tile.inside[:, place] & (better(value, best) | np.isnan(best))
            best, when = np.where(wins, value, best), np.where(wins, tile.times[:, place], when)
        return when / 1000.0

    return lambda windows: _tiled(windows, function)


def _smoothed(windows: Windows, smoothing: Scalars, trend: Scalars) -> Result:
    """Holt's double exponential smoothing: place by place, all windows at once."""
    for name, factors in (("smoothing", smoothing), ("trend", trend)):
        wrong = factors[~((factors > 0) & (factors < 1))]
        if len(wrong):
            raise QueryError("execution", f"invalid {name} factor. Expected: 0 < factor < 1, got: {wrong[0]:f}")

    def function(tile: Tile) -> Floats:
        values, a, b = tile.values, smoothing[tile.rows, None], trend[tile.rows, None]
        level = before = values[:, 0]
        if values.shape[1] < 2:
            return level
        slope = values[:, 1] - level
        for place in range(1, values.shape[1]):
            inside = tile.inside[:, place]
            if place > 1:
                slope = np.where(inside, b * (level - before) + (1 - b) * slope, slope)
            after = a * values[:, place] + (1 - a) * (level + slope)
            before, level = np.where(inside, level, before), np.where(inside, after, level)
        return level

    return _tiled(windows, function, least=2)


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
    "stdvar_over_time": _variance,
    "stddev_over_time": _deviation,
    "quantile_over_time": _quantile,
    "mad_over_time": _median_deviation,
    "changes": _some(_changes),
    "resets": _some(lambda block: _pairs(block, _pairwise(block, np.less))),
    "deriv": _derivative,
    "predict_linear": _predict,
    "ts_of_first_over_time": _some(lambda block: block.first(block.times) / 1000.0),
    "ts_of_last_over_time": _some(lambda block: block.last(block.times) / 1000.0),
    "ts_of_max_over_time": _when(np.greater_equal),
    "ts_of_min_over_time": _when(np.less_equal),
    "double_exponential_smoothing": _smoothed,
}
"""By name. Scalar arguments follow the windows, in the order in which PromQL writes them."""

KEEP_NAME = frozenset({"first_over_time", "last_over_time"})
