"""Functions over range vectors: rate and its kin, ``*_over_time``, regression.

Each takes windows (and for some a scalar per step) and gives values and where they exist, [series, step].
Formulas: Prometheus 3, promql/functions.go.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..samples import Booleans, Floats, Integers
from .exact import doubtful, mean_of, sum_of
from .frame import Scalars
from .values import QueryError
from .windows import Segments, Windows, reduce_segments

Result = tuple[Floats, Booleans]


def _ends(windows: Windows, least: int) -> tuple[Booleans, Floats, Floats, Floats, Floats]:
    """Where there are so many samples; first and last value; first and last time in seconds."""
    enough = windows.counts >= least
    first, last = windows.lo, windows.hi - 1
    at = windows.at
    return (
        enough,
        at(first, enough, windows.values),
        at(last, enough, windows.values),
        at(first, enough, windows.times) / 1000.0,
        at(last, enough, windows.times) / 1000.0,
    )


def _lost_at_resets(windows: Windows) -> Floats:
    """What a counter had counted before each of its resets, per window."""
    values = windows.values
    falls = np.zeros(len(values))
    if len(values) > 1:
        fell = values[1:] < values[:-1]
        falls[1:][fell] = values[:-1][fell]
    some = np.concatenate(([0], np.cumsum(falls != 0)))
    # The first sample's own fall lies before the window.
    start = np.minimum(windows.lo + 1, windows.hi)
    affected = some[windows.hi] > some[start]
    lost = np.zeros(windows.lo.shape)
    if affected.any():
        lost[affected] = reduce_segments(np.add, falls, start[affected], windows.hi[affected])
    return lost


def _extrapolated(windows: Windows, *, counter: bool, per_second: bool) -> Result:
    """The increase over a window, stretched to the window's bounds where samples come close enough to them."""
    enough, first, last, first_time, last_time = _ends(windows, 2)
    increase = last - first
    if counter:
        increase = increase + _lost_at_resets(windows)
    span = last_time - first_time
    between = span / np.maximum(windows.counts - 1, 1)
    threshold = between * 1.1
    to_start = first_time - (windows.ends - windows.range) / 1000.0
    to_end = windows.ends / 1000.0 - last_time
    to_start = np.where(to_start >= threshold, between / 2, to_start)
    if counter:
        # A counter is never below zero: do not stretch beyond the point where it would have been zero.
        to_zero = np.where((increase > 0) & (first >= 0), span * (first / increase), to_start)
        to_start = np.where(to_zero < to_start, to_zero, to_start)
    to_end = np.where(to_end >= threshold, between / 2, to_end)
    factor = (span + to_start + to_end) / span
    if per_second:
        factor = factor / (windows.range / 1000.0)
    return increase * factor, enough


def _instantaneous(windows: Windows, *, rate: bool) -> Result:
    """From the last two samples alone."""
    enough = windows.counts >= 2
    last, before = windows.hi - 1, windows.hi - 2
    newer, older = windows.at(last, enough, windows.values), windows.at(before, enough, windows.values)
    seconds = (windows.at(last, enough, windows.times) - windows.at(before, enough, windows.times)) / 1000.0
    change = newer - older
    if rate:
        change = np.where(newer < older, newer, change) / seconds
    return change, enough & (seconds > 0)


def _again(
    windows: Windows, source: Floats, which: Booleans, into: Floats, function: Callable[[list[float]], float]
) -> None:
    for row, step in zip(*np.nonzero(which), strict=True):
        windows.check()
        into[row, step] = function(source[windows.lo[row, step] : windows.hi[row, step]].tolist())


def _sum(windows: Windows) -> Result:
    total = windows.reduce(np.add, windows.values)
    size = windows.reduce(np.add, np.abs(windows.values))
    _again(windows, windows.values, doubtful(total, size), total, sum_of)
    return total, windows.counts > 0


def _average(windows: Windows) -> Result:
    total = windows.reduce(np.add, windows.values)
    size = windows.reduce(np.add, np.abs(windows.values))
    mean = total / windows.counts
    _again(windows, windows.values, doubtful(total, size), mean, mean_of)
    return mean, windows.counts > 0


def _count(windows: Windows) -> Result:
    return windows.counts.astype(np.float64), windows.counts > 0


def _present(windows: Windows) -> Result:
    return np.ones(windows.counts.shape), windows.counts > 0


def _first(windows: Windows) -> Result:
    some = windows.counts > 0
    return windows.at(windows.lo, some, windows.values), some


def _last(windows: Windows) -> Result:
    some = windows.counts > 0
    return windows.at(windows.hi - 1, some, windows.values), some


def _minimum(windows: Windows) -> Result:
    return windows.reduce(np.fmin, windows.values), windows.counts > 0


def _maximum(windows: Windows) -> Result:
    return windows.reduce(np.fmax, windows.values), windows.counts > 0


def _pairs(windows: Windows, happened: Booleans) -> Result:
    """How often something happened between neighbours inside each window; ``happened[i]`` is about i and i + 1."""
    total = np.concatenate(([0, 0], np.cumsum(happened)))
    start = np.minimum(windows.lo + 1, windows.hi)
    return (total[windows.hi] - total[start]).astype(np.float64), windows.counts > 0


def _changes(windows: Windows) -> Result:
    before, after = windows.values[:-1], windows.values[1:]
    return _pairs(windows, (before != after) & ~(np.isnan(before) & np.isnan(after)))


def _resets(windows: Windows) -> Result:
    return _pairs(windows, windows.values[1:] < windows.values[:-1])


def _variance(windows: Windows) -> Result:
    out = np.zeros(windows.counts.shape)
    for part in windows.chunks():
        values = windows.values[part.index]
        # Relative to the first sample, so that equal samples give exactly 0.
        distance = values - values[part.starts][part.owner]
        mean = part.sum(distance) / part.counts
        out.flat[part.windows] = part.sum((distance - mean[part.owner]) ** 2) / part.counts
    return out, windows.counts > 0


def _deviation(windows: Windows) -> Result:
    variance, present = _variance(windows)
    return np.sqrt(variance), present


def _sorted(part: Segments, values: Floats) -> Floats:
    """Values in rising order within each window, NaN first."""
    order = np.lexsort((values, ~np.isnan(values), part.owner))
    ordered: Floats = values[order]
    return ordered


def _interpolated(part: Segments, ordered: Floats, quantile: Floats) -> Floats:
    """The quantile (one a window) between two neighbours of the sorted samples."""
    q = np.where((quantile >= 0) & (quantile <= 1), quantile, 0)
    rank = q * (part.counts - 1)
    lower = np.floor(rank)
    weight = rank - lower
    below = lower.astype(np.int64)
    above = np.minimum(below + 1, part.counts - 1)
    value = ordered[part.starts + below] * (1 - weight) + ordered[part.starts + above] * weight
    value = np.where(quantile < 0, -np.inf, np.where(quantile > 1, np.inf, value))
    return np.where(np.isnan(quantile), np.nan, value)


def _quantile(windows: Windows, quantile: Scalars) -> Result:
    out = np.zeros(windows.counts.shape)
    wanted = np.broadcast_to(quantile, out.shape).ravel()
    for part in windows.chunks():
        out.flat[part.windows] = _interpolated(part, _sorted(part, windows.values[part.index]), wanted[part.windows])
    return out, windows.counts > 0


def _median_deviation(windows: Windows) -> Result:
    """The median of the distances from the median."""
    out = np.zeros(windows.counts.shape)
    for part in windows.chunks():
        half = np.full(len(part.windows), 0.5)
        values = windows.values[part.index]
        median = _interpolated(part, _sorted(part, values), half)
        deviation = _interpolated(part, _sorted(part, np.abs(values - median[part.owner])), half)
        out.flat[part.windows] = np.where(np.isnan(part.sum(values)), np.nan, deviation)
    return out, windows.counts > 0


def _regression(windows: Windows, origin: Integers) -> tuple[Floats, Floats]:
    """Least squares: slope per second, and the line's value at ``origin`` (ms, [series, step])."""
    slope, level = np.zeros(windows.counts.shape), np.zeros(windows.counts.shape)
    for part in windows.chunks(2):
        values = windows.values[part.index]
        x = (windows.times[part.index] - origin.ravel()[part.windows][part.owner]) / 1000.0
        mean_x, mean_y = part.sum(x) / part.counts, part.sum(values) / part.counts
        dx = x - mean_x[part.owner]
        tilt = part.sum(dx * (values - mean_y[part.owner])) / part.sum(dx * dx)
        first = values[part.starts]
        flat = np.logical_and.reduceat(values == first[part.owner], part.starts)
        tilt = np.where(flat, np.where(np.isinf(first), np.nan, 0.0), tilt)
        slope.flat[part.windows] = tilt
        level.flat[part.windows] = np.where(flat, first + tilt, mean_y - tilt * mean_x)
    return slope, level


def _derivative(windows: Windows) -> Result:
    enough = windows.counts >= 2
    origin = windows.at(windows.lo, enough, windows.times).astype(np.int64)
    return _regression(windows, origin)[0], enough


def _predict(windows: Windows, seconds: Scalars) -> Result:
    slope, level = _regression(windows, np.broadcast_to(windows.steps, windows.counts.shape))
    return slope * seconds + level, windows.counts >= 2


def _smoothed(windows: Windows, smoothing: Scalars, trend: Scalars) -> Result:
    """Holt's double exponential smoothing."""
    for name, factors in (("smoothing", smoothing), ("trend", trend)):
        wrong = factors[~((factors > 0) & (factors < 1))]
        if len(wrong):
            raise QueryError("execution", f"invalid {name} factor. Expected: 0 < factor < 1, got: {wrong[0]:f}")
    out = np.zeros(windows.counts.shape)
    enough = windows.counts >= 2
    for row, step in zip(*np.nonzero(enough), strict=True):
        windows.check()
        values = windows.values[windows.lo[row, step] : windows.hi[row, step]].tolist()
        a, b = float(smoothing[step]), float(trend[step])
        level, slope = values[0], values[1] - values[0]
        before = 0.0
        for position, value in enumerate(values[1:]):
            if position:
                slope = b * (level - before) + (1 - b) * slope
            before, level = level, a * value + (1 - a) * (level + slope)
        out[row, step] = level
    return out, enough


FUNCTIONS: dict[str, Callable[..., Result]] = {
    "rate": lambda windows: _extrapolated(windows, counter=True, per_second=True),
    "increase": lambda windows: _extrapolated(windows, counter=True, per_second=False),
    "delta": lambda windows: _extrapolated(windows, counter=False, per_second=False),
    "irate": lambda windows: _instantaneous(windows, rate=True),
    "idelta": lambda windows: _instantaneous(windows, rate=False),
    "sum_over_time": _sum,
    "avg_over_time": _average,
    "count_over_time": _count,
    "present_over_time": _present,
    "first_over_time": _first,
    "last_over_time": _last,
    "min_over_time": _minimum,
    "max_over_time": _maximum,
    "stdvar_over_time": _variance,
    "stddev_over_time": _deviation,
    "quantile_over_time": _quantile,
    "mad_over_time": _median_deviation,
    "changes": _changes,
    "resets": _resets,
    "deriv": _derivative,
    "predict_linear": _predict,
    "double_exponential_smoothing": _smoothed,
}
"""By name. Scalar arguments follow the windows, in the order in which PromQL writes them."""

KEEP_NAME = frozenset({"first_over_time", "last_over_time"})
