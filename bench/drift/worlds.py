"""Weeks of servers that never were, whose drifts are known: made a minute at a time, the same for the same seed.

Requests come as a Poisson process with a season; each takes a lognormal time that grows with the load and wanders (two
AR(1) processes: 5 % with a memory of 30 minutes, 5 % with one of 6 hours); they are counted into the buckets of the
instrument, and the p95 or the mean of five minutes is read from those, as the rule reads it. Memory is a level with a
warm-up after each restart, load, garbage collections, and perhaps a leak.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import erf, sqrt

import numpy as np

from anvil_monitor.exporter import names
from anvil_monitor.exporter.instrument import histogram_edges
from anvil_monitor.monitoring.samples import Floats
from anvil_monitor.targets.load import parse

MINUTES = 1440
FASTEST, SLOWEST = 0.03, 0.12
"""Seconds that a request takes in the middle: each world's own, for what buckets do to a p95 depends on where it is."""
SPREAD = 0.40  # of the logarithm of that time
HELD = 100  # users think between their requests: so many are on for each that is in flight
EDGES = np.array(histogram_edges(parse(""), "app")[names.HTTP_DURATION.name])
WINDOW = 5


@dataclass(frozen=True)
class World:
    """What happens in one series. ``grows``: by how much (0.6: 60 %) from ``start`` (minute) on, within ``ramp``
    minutes; ``leak``: bytes an hour."""

    name: str
    signal: str  # p95, mean, users, memory
    seed: int
    days: int = 14
    rate: float = 4.0  # requests a second
    daily: float = 0.5  # the season's height
    weekly: float = 0.0
    bursts: float = 0.0  # a day: 5 to 20 minutes with three times the traffic
    nightly: float = 0.0  # how much a nightly job of half an hour slows
    gaps: float = 0.0  # a day: 10 to 90 minutes without any sample
    start: int = 0
    grows: float = 0.0
    ramp: int = 0
    leak: float = 0.0
    swing: float = 6e6  # bytes, memory that follows the load
    collected: float = 30e6  # bytes that a collection gives back
    warm_up: float = 0.0  # bytes, 95 % of them within 6 hours after a start
    restarts: int = 0

    @property
    def drifts(self) -> bool:
        return bool(self.grows or self.leak)


def made(world: World) -> Floats:
    """One value a minute, NaN where there is none: the signal; of memory what the target's value is."""
    rng = np.random.default_rng([2026, world.seed])
    minutes = np.arange(world.days * MINUTES, dtype=np.float64)
    values = _memory(world, rng, minutes) if world.signal == "memory" else _requests(world, rng, minutes)
    for _ in range(rng.poisson(world.gaps * world.days)):
        begin = int(rng.integers(len(minutes)))
        values[begin : begin + int(rng.integers(10, 90))] = np.nan
    return values


def _traffic(world: World, rng: np.random.Generator, minutes: Floats) -> Floats:
    """Requests a second."""
    phase = rng.uniform(0, 1)
    season = 1 + world.daily * np.sin(2 * np.pi * (minutes / MINUTES + phase))
    weekend = np.where(minutes // MINUTES % 7 >= 5, 1 - world.weekly, 1.0)
    rate = world.rate * season * weekend * np.exp(_wander(rng, len(minutes), 0.05, 30))
    for _ in range(rng.poisson(world.bursts * world.days)):
        begin = int(rng.integers(len(minutes)))
        rate[begin : begin + int(rng.integers(5, 20))] *= 3
    found: Floats = rate
    return found


def _requests(world: World, rng: np.random.Generator, minutes: Floats) -> Floats:
    base = FASTEST * (SLOWEST / FASTEST) ** rng.uniform()
    rate = _traffic(world, rng, minutes)
    growth = _growth(world, minutes)
    if world.signal == "users":
        rate = rate * growth
        growth = np.ones(len(minutes))
    wander = _wander(rng, len(minutes), 0.05, 30) + _wander(rng, len(minutes), 0.05, 360)
    centre = np.log(base) + 0.15 * np.log(rate / world.rate) + wander + np.log(growth)
    night = minutes % MINUTES
    centre += np.where((night >= 180) & (night < 210), np.log1p(world.nightly), 0.0)
    count = rng.poisson(rate * 60)
    if world.signal == "users":
        # By Little's law: those in flight are the arrivals of a second times the seconds that they stay.
        busy = np.array(count) / 60 * np.exp(centre + SPREAD**2 / 2) * HELD
        return _rolled(busy) / WINDOW
    if world.signal == "mean":
        scale = np.exp(centre + SPREAD**2 / 2)
        sigma = scale * np.sqrt(np.expm1(SPREAD**2))
        total = count * scale + rng.standard_normal(len(minutes)) * sigma * np.sqrt(count)
        with np.errstate(invalid="ignore", divide="ignore"):
            return _rolled(total) / _rolled(count.astype(float))
    below = _normal((np.log(EDGES)[None, :] - centre[:, None]) / SPREAD)
    shares = np.diff(below, axis=1, prepend=0.0)
    shares = np.hstack([shares, 1 - below[:, -1:]]).clip(0, 1)
    counts = rng.multinomial(count, shares / shares.sum(axis=1, keepdims=True))
    return _quantile(0.95, np.apply_along_axis(_rolled, 0, counts.astype(float)))


def _memory(world: World, rng: np.random.Generator, minutes: Floats) -> Floats:
    load = _traffic(world, rng, minutes) / world.rate - 1
    level = 250e6 + world.swing * load + 2e6 * rng.standard_normal(len(minutes))
    period = rng.uniform(4, 12)
    level += world.collected * ((minutes / period + rng.uniform()) % 1)
    starts = sorted({0, *rng.integers(0, len(minutes), world.restarts).tolist()})
    since = minutes - np.array(starts)[np.searchsorted(starts, minutes, side="right") - 1]
    level -= world.warm_up * np.exp(-since / 120)
    leaking = np.minimum(since, minutes - world.start).clip(0)
    found: Floats = level + world.leak / 60 * leaking
    return found


def uptime(world: World) -> Floats:
    """Seconds since the last start, minute by minute; the server had run for a day before."""
    rng = np.random.default_rng([2026, world.seed])
    minutes = np.arange(world.days * MINUTES, dtype=np.float64)
    _traffic(world, rng, minutes)
    rng.standard_normal(len(minutes)), rng.uniform(4, 12), rng.uniform()
    starts = sorted({0, *rng.integers(0, len(minutes), world.restarts).tolist()})
    since: Floats = 60.0 * (minutes - np.array(starts)[np.searchsorted(starts, minutes, side="right") - 1])
    return since


def _growth(world: World, minutes: Floats) -> Floats:
    if not world.grows:
        return np.ones(len(minutes))
    part = (minutes - world.start) / world.ramp if world.ramp else (minutes >= world.start).astype(float)
    grown: Floats = 1 + world.grows * np.clip(part, 0, 1)
    return grown


def _wander(rng: np.random.Generator, count: int, size: float, memory: float) -> Floats:
    """AR(1) with a standard deviation of ``size`` that forgets over ``memory`` minutes."""
    keep = np.exp(-1 / memory)
    noise = rng.standard_normal(count) * size * sqrt(1 - keep**2)
    noise[0] = rng.standard_normal() * size
    # x[n] = keep * x[n-1] + noise[n], in blocks short enough for the powers of keep
    found = np.empty(count)
    last, block = 0.0, max(1, int(30 * memory))
    for begin in range(0, count, block):
        part = noise[begin : begin + block]
        powers = keep ** np.arange(len(part))
        found[begin : begin + len(part)] = powers * (np.cumsum(part / powers) + keep * last)
        last = found[begin + len(part) - 1]
    return found


def _rolled(values: Floats) -> Floats:
    """The sum of the last five minutes."""
    total = np.cumsum(values)
    found: Floats = total - np.concatenate([np.zeros(WINDOW), total[:-WINDOW]])
    return found


def _quantile(wanted: float, counts: Floats) -> Floats:
    """``histogram_quantile`` of [time, bucket]; NaN without any count."""
    reached = np.cumsum(counts, axis=1)
    rank = wanted * reached[:, -1]
    place = np.minimum((reached < rank[:, None]).sum(axis=1), len(EDGES))
    inside = np.minimum(place, len(EDGES) - 1)
    rows = np.arange(len(counts))
    before = np.where(inside > 0, reached[rows, inside - 1], 0.0)
    low = np.where(inside > 0, EDGES[inside - 1], 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = low + (EDGES[inside] - low) * (rank - before) / counts[rows, inside]
    found: Floats = np.where(place == len(EDGES), EDGES[-1], value)
    found[reached[:, -1] == 0] = np.nan
    return found


def _normal(of: Floats) -> Floats:
    """The normal distribution, from a table fine enough for shares of a bucket."""
    grid, table = _table()
    found: Floats = np.interp(of, grid, table)
    return found


@lru_cache(1)
def _table() -> tuple[Floats, Floats]:
    grid = np.linspace(-8, 8, 4001)
    return grid, np.array([0.5 * (1 + erf(each / sqrt(2))) for each in grid])
