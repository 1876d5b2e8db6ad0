"""Sums and means as Prometheus forms them: compensated, and safe where the plain sum overflows.

numpy's sums are right to about 1e-13 unless terms cancel or overflow; only there is a window or a group added up again
by these. Formulas: Prometheus, util/kahansum and promql/functions.go.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..samples import Booleans, Floats

CANCELLED = 1e-3
"""A total smaller than this part of the sum of sizes has lost digits to cancellation."""


def doubtful(total: Floats, size: Floats) -> Booleans:
    """Where a plain sum must be formed again; ``size`` is the sum of absolute values (NaN where a term is NaN)."""
    with np.errstate(invalid="ignore"):
        cancelled = np.abs(total) < CANCELLED * size
        wrong: Booleans = (~np.isfinite(total) | cancelled) & ~np.isnan(size) & (size != 0)
    return wrong


def increment(value: float, total: float, rest: float) -> tuple[float, float]:
    """One step of Neumaier's sum: the new total and the new compensation."""
    after = total + value
    if math.isinf(after):
        return after, 0.0
    if abs(total) >= abs(value):
        return after, rest + ((total - after) + value)
    return after, rest + ((value - after) + total)


def sum_of(values: Iterable[float]) -> float:
    """The compensated sum."""
    total = rest = 0.0
    for value in values:
        total, rest = increment(value, total, rest)
    return total if math.isinf(total) else total + rest


def mean_of(values: Iterable[float]) -> float:
    """The mean: the sum by the count, or a running mean from the term on at which the sum would overflow."""
    total = rest = mean = 0.0
    count = 0
    running = False
    for value in values:
        count += 1
        if not running:
            new_total, new_rest = increment(value, total, rest)
            if count == 1 or not math.isinf(new_total):
                total, rest = new_total, new_rest
                continue
            running = True
            mean = total / (count - 1)
            rest /= count - 1
        part = (count - 1) / count
        mean, rest = increment(value / count, part * mean, part * rest)
    if running:
        return mean + rest
    return total / count + rest / count
