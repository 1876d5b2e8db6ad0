"""Functions over ranges that look at every sample of a window: deviations, quantiles, regression, smoothing.

The windows are spread out tile by tile; the results of a tile are [step, series]. Formulas: Prometheus 3, functions.go.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..samples import Booleans, Floats
from .frame import Scalars
from .query import check_quantile
from .values import QueryError
from .windows import Block, Tile, Windows

Result = tuple[Floats, Booleans]
"""Values and where they exist."""


def tiled(windows: Windows, function: Callable[[Tile], Floats], least: int = 1) -> Result:
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


def variance(windows: Windows) -> Result:
    return tiled(windows, _squares)


def deviation(windows: Windows) -> Result:
    return tiled(windows, lambda tile: np.sqrt(_squares(tile)))


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


def quantile(windows: Windows, quantile: Scalars) -> Result:
    check_quantile(quantile)
    return tiled(windows, lambda tile: _interpolated(tile, tile.values, quantile[tile.rows, None]))


def median_deviation(windows: Windows) -> Result:
    """The median of the distances from the median."""

    def function(tile: Tile) -> Floats:
        half = np.full((1, 1), 0.5)
        median = _interpolated(tile, tile.values, half)
        deviation = _interpolated(tile, np.abs(tile.values - median[:, None]), half)
        return np.where(np.isnan(tile.sum(tile.values)), np.nan, deviation)

    return tiled(windows, function)


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


def derivative(windows: Windows) -> Result:
    return tiled(windows, lambda tile: _regression(tile, tile.times[:, 0])[0], least=2)


def predict(windows: Windows, seconds: Scalars) -> Result:
    steps = windows.steps[:, None].astype(np.float64)

    def function(tile: Tile) -> Floats:
        slope, level = _regression(tile, steps[tile.rows])
        return slope * seconds[tile.rows, None] + level

    return tiled(windows, function, least=2)


def when(better: np.ufunc) -> Callable[[Windows], Result]:
    """The time of the extreme sample, in seconds; of equal ones the last."""

    def function(tile: Tile) -> Floats:
        best, when = tile.values[:, 0], np.broadcast_to(tile.times[:, 0], tile.values[:, 0].shape)
        for place in range(1, tile.values.shape[1]):
            value = tile.values[:, place]
            wins = tile.inside[:, place] & (better(value, best) | np.isnan(best))
            best, when = np.where(wins, value, best), np.where(wins, tile.times[:, place], when)
        return when / 1000.0

    return lambda windows: tiled(windows, function)


def smoothed(windows: Windows, smoothing: Scalars, trend: Scalars) -> Result:
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

    return tiled(windows, function, least=2)
