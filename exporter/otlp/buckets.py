"""Counts of one set of buckets as counts of another.

A metric is exposed with one set of edges, whoever sends it: the configuration's (with an edge at every target limit),
or, of a metric of the user's own, those of the first that sent it. A sender's own bounds may be others. At an edge that
both have, the count is exact. Elsewhere the values of the sender's bucket are taken to lie evenly between its bounds,
as ``histogram_quantile`` takes them: the count at that edge is then off by at most the counts of that one bucket.
Such an edge at a target's limit is not shown, and a metric says so (``totals``).
Of the last bucket, which has no end, nothing can be said: all of it counts as greater than any edge.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate

from .points import Exponential


@lru_cache(maxsize=512)
def _plan(bounds: tuple[float, ...], edges: tuple[float, ...]) -> tuple[tuple[int, float], ...]:
    """For each edge the number of whole buckets below it, and the share of the next one."""
    found: list[tuple[int, float]] = []
    for edge in edges:
        at = bisect_left(bounds, edge)
        if at == len(bounds):
            found.append((len(bounds), 0.0))
        elif bounds[at] == edge:
            found.append((at + 1, 0.0))
        elif at == 0:  # like histogram_quantile: the first bucket begins at 0, unless it is below it
            found.append((0, edge / bounds[0] if 0 < edge < bounds[0] else 0.0))
        else:
            low, high = bounds[at - 1], bounds[at]
            found.append((at, (edge - low) / (high - low)))
    return tuple(found)


def rebucket(counts: Sequence[float], bounds: tuple[float, ...], edges: tuple[float, ...]) -> list[float]:
    """``counts`` (one more than ``bounds``) as counts of the buckets between ``edges`` (one more than those)."""
    if bounds == edges:
        return list(counts)
    below = [0.0, *accumulate(map(float, counts))]
    return _differences([_at(below, counts, whole, share) for whole, share in _plan(bounds, edges)], below[-1])


def _at(below: list[float], counts: Sequence[float], whole: int, share: float) -> float:
    return below[whole] + share * counts[whole] if share else below[whole]


def _differences(cumulative: list[float], total: float) -> list[float]:
    return [max(0.0, high - low) for low, high in zip([0.0, *cumulative], [*cumulative, total], strict=True)]


def explicit_of(point: Exponential) -> tuple[list[float], tuple[float, ...]]:
    """An exponential histogram's buckets as explicit ones, exactly: counts and bounds.

    Only buckets with a count are kept, and the empty ranges between them. A bucket's relative width is ``2**2**-scale``
    less 1 (9 % at scale 3, 1.1 % at 6): that is how far the count at any edge inside it is uncertain.
    """
    ranges: list[tuple[float, float, float]] = [
        (-_power(index + 1, point.scale), -_power(index, point.scale), count)
        for index, count in sorted(point.negative.items(), reverse=True)
    ]
    if point.zero:
        ranges.append((0.0, 0.0, point.zero))
    ranges += [
        (_power(index, point.scale), _power(index + 1, point.scale), count)
        for index, count in sorted(point.positive.items())
    ]
    bounds: list[float] = []
    counts: list[float] = []
    beyond = 0.0
    for low, high, count in ranges:
        if math.isinf(high):
            beyond += count
            continue
        if not bounds or low > bounds[-1]:
            bounds.append(max(low, -sys.float_info.max))
            counts.append(0.0)
        if high > bounds[-1]:
            bounds.append(high)
            counts.append(count)
        else:  # the bucket of zeros, and what is too near to another to be told apart
            counts[-1] += count
    return [*counts, beyond], tuple(bounds)


def _power(index: int, scale: int) -> float:
    try:
        return math.ldexp(2.0 ** math.fmod(index * 2.0**-scale, 1.0), math.trunc(index * 2.0**-scale))
    except OverflowError:
        return math.inf


def rescale(point: Exponential, scale: int) -> Exponential:
    """The same counts in the wider buckets of a smaller ``scale``."""
    shift = point.scale - scale
    if shift <= 0:
        return point

    def wider(side: Mapping[int, int]) -> dict[int, int]:
        found: dict[int, int] = {}
        for index, count in side.items():
            found[index >> shift] = found.get(index >> shift, 0) + count
        return found

    return Exponential(scale, point.zero, wider(point.positive), wider(point.negative), point.sum)
