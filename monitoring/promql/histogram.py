"""Quantiles of classic histograms: rows that differ only in ``le`` are the cumulative buckets of one histogram.

Formulas: Prometheus 3, promql/quantile.go.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..samples import NAME, Booleans, Floats, Integers, Labels
from .distinct import alike, distinct
from .frame import Frame, Scalars, merge, with_labels
from .labelsets import derived, drop, without_name
from .query import check_quantile, inform, names_stay, warn
from .values import number_text

TOLERANCE = 1e-12
"""Buckets that fall by less than this, relatively, do so by rounding."""

NOT_MONOTONIC = (
    "input to histogram_quantile needed to be fixed for monotonicity (see"
    " https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
)

SMALLEST = 2.2250738585072014e-308

_NUMBER = re.compile(
    r"[+-]?(?:inf(?:inity)?|nan|0x[0-9a-f_]*\.?[0-9a-f_]*(?:p[+-]?\d+)?|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:e[+-]?\d+)?)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, eq=False)
class _Shape:
    """Histograms with the same ``bounds``: their numbers, and their rows [histogram, bucket]."""

    bounds: Floats
    histograms: Integers
    rows: Integers


Kernel = Callable[[Floats, Floats, Integers], Floats]
"""Bounds [bucket], cumulative counts [bucket, column] (sorted, unique) and which step each column is."""


def bound(text: str) -> float | None:
    """The upper bound that a ``le`` label names, read as Go reads a float; None if it names none."""
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return float.fromhex(text) if "0x" in text.lower() else float(text)
    except ValueError:
        return None


def quantile(frame: Frame, wanted: Scalars) -> Frame:
    """``histogram_quantile``: the value under which ``wanted`` of all observations lie."""
    check_quantile(wanted)

    def kernel(bounds: Floats, counts: Floats, steps: Integers) -> Floats:
        return _quantile(bounds, counts, wanted[steps])

    return _evaluate(frame, kernel)


def quantiles(frame: Frame, target: str, wanted: Sequence[Scalars]) -> Frame:
    """``histogram_quantiles``: several quantiles, told apart by the label ``target``."""
    parts = []
    for one in wanted:
        found = quantile(frame, one)
        text = number_text(float(one[0]))
        text = text if re.search(r"[^\d-]", text) else f"{text}.0"
        named = tuple([with_labels(labels, [(target, text)]) for labels in found.labels])
        parts.append(Frame(named, found.values, found.present))
    if not parts:
        return Frame.empty(frame.steps)
    labels = tuple([one for part in parts for one in part.labels])
    return merge(Frame(labels, np.vstack([part.values for part in parts]), np.vstack([part.present for part in parts])))


def fraction(frame: Frame, lower: Scalars, upper: Scalars) -> Frame:
    """``histogram_fraction``: the part of all observations between two values."""

    def kernel(bounds: Floats, counts: Floats, steps: Integers) -> Floats:
        return _fraction(bounds, counts, lower[steps], upper[steps])

    return _evaluate(frame, kernel)


def _buckets(labels: Sequence[Labels]) -> tuple[tuple[Labels, ...], list[_Shape], list[tuple[str, str]]]:
    """The histograms among the label sets, those with the same bounds together, and what is no bucket (le, name)."""
    le = frozenset({"le"})
    others: list[tuple[str, str]] = []
    histograms: dict[Labels, list[tuple[float, int]]] = defaultdict(list)
    for row, one in enumerate(labels):
        pairs = dict(one)
        upper = bound(pairs.get("le", ""))
        if upper is None:
            others.append((pairs.get("le", ""), pairs.get(NAME, "")))
        else:
            histograms[drop(one, le)].append((upper, row))  # names stay apart
    shapes: dict[tuple[float, ...], tuple[list[int], list[list[int]]]] = {}
    for number, buckets in enumerate(histograms.values()):
        buckets.sort(key=lambda one: (math.isnan(one[0]), one[0]))
        numbers, rows = shapes.setdefault(tuple([upper for upper, _ in buckets]), ([], []))
        numbers.append(number)
        rows.append([row for _, row in buckets])
    alike = [_Shape(np.array(bounds), np.array(of), np.array(rows)) for bounds, (of, rows) in shapes.items()]
    return tuple([without_name(one) for one in histograms]), alike, others


def _evaluate(frame: Frame, kernel: Kernel) -> Frame:
    labels, alike, others = derived(frame.labels, ("buckets", names_stay()), _buckets)
    for le, name in others:
        warn(f'bucket label "le" is missing or has a malformed value of "{le}"', name)
    values = np.zeros((len(labels), frame.steps))
    present = np.zeros((len(labels), frame.steps), dtype=bool)
    for shape in alike:
        # [bucket, histogram and step]: to the formulas each of these is one more column.
        many = len(shape.histograms)
        there = frame.present[shape.rows.T].reshape(len(shape.bounds), -1)
        counts = frame.values[shape.rows.T].reshape(len(shape.bounds), -1)
        steps = np.tile(np.arange(frame.steps), many)
        found = np.zeros(many * frame.steps)
        for columns, buckets in _patterns(there):
            if len(columns) == counts.shape[1] and len(buckets) == len(counts):
                found = _checked(shape.bounds, counts, steps, kernel)
            else:
                part = counts[np.ix_(buckets, columns)]
                found[columns] = _checked(shape.bounds[buckets], part, steps[columns], kernel)
        values[shape.histograms] = found.reshape(many, -1)
        present[shape.histograms] = there.any(axis=0).reshape(many, -1)
    return merge(Frame(labels, values, present).compact())


def _patterns(present: Booleans) -> Iterator[tuple[Integers, Integers]]:
    """Columns in which the same buckets are there, and which buckets these are."""
    if present.all():
        yield np.arange(present.shape[1]), np.arange(present.shape[0])
        return
    which = alike(present)
    for number in distinct(which)[0].tolist():
        columns = np.flatnonzero(which == number)
        there = np.flatnonzero(present[:, columns[0]])
        if len(there):
            yield columns, there


def _checked(bounds: Floats, counts: Floats, steps: Integers, kernel: Kernel) -> Floats:
    if bounds[-1] != np.inf:
        return np.full(len(steps), np.nan)
    first = np.flatnonzero(np.concatenate(([True], bounds[1:] != bounds[:-1])))
    if len(first) < len(bounds):
        bounds, counts = bounds[first], np.add.reduceat(counts, first, axis=0)
    return kernel(bounds, counts, steps)


def _levelled(counts: Floats) -> Floats:
    """Cumulative counts that never fall: what falls, or rises by rounding only, is set to the level before it."""
    rise = np.diff(counts, axis=0)
    # Most histograms need nothing done: every step up is zero or well above rounding.
    if ((rise == 0) | (rise > 4 * TOLERANCE * counts[1:])).all():
        return counts
    fell = False
    level = counts.copy()
    before = level[0].copy()
    for row in range(1, len(level)):
        now = level[row]
        size = np.abs(before) + np.abs(now)
        with np.errstate(all="ignore"):
            same = np.abs(before - now) / np.minimum(size, np.finfo(float).max) < TOLERANCE
        zero = (before == 0) | (now == 0) | (size < SMALLEST)
        same = np.where(zero, np.abs(before - now) < TOLERANCE * SMALLEST, same) | (before == now)
        fell |= bool((~same & (now < before)).any())
        level[row] = np.where(same | (now < before), before, now)
        before = level[row]
    if fell:
        inform(NOT_MONOTONIC)
    return level


def _quantile(bounds: Floats, counts: Floats, wanted: Floats) -> Floats:
    counts = _levelled(counts)
    total = counts[-1]
    out_of_range = np.where(wanted < 0, -np.inf, np.where(wanted > 1, np.inf, np.nan))
    if len(bounds) < 2:
        return np.where((wanted < 0) | (wanted > 1), out_of_range, np.nan)
    rank = wanted * total
    reached = counts[:-1] >= rank
    bucket = np.where(reached.any(axis=0), reached.argmax(axis=0), len(bounds) - 1)
    column = np.arange(len(rank))
    before = np.maximum(bucket - 1, 0)
    inner = bucket > 0
    start = np.where(inner, bounds[before], 0.0)
    below = np.where(inner, counts[before, column], 0.0)
    value = start + (bounds[bucket] - start) * ((rank - below) / (counts[bucket, column] - below))
    value = np.where((bucket == 0) & (bounds[0] <= 0), bounds[0], value)
    value = np.where(bucket == len(bounds) - 1, bounds[-2], value)
    value = np.where(total == 0, np.nan, value)
    return np.where((wanted >= 0) & (wanted <= 1), value, out_of_range)


def _fraction(bounds: Floats, counts: Floats, lower: Floats, upper: Floats) -> Floats:
    total = counts[-1]
    value = (_rank(bounds, counts, upper) - _rank(bounds, counts, lower)) / total
    value = np.where(lower >= upper, 0.0, value)
    return np.where((total == 0) | np.isnan(lower) | np.isnan(upper), np.nan, value)


def _rank(bounds: Floats, counts: Floats, at: Floats) -> Floats:
    """How many observations lie below ``at``, by linear interpolation inside the bucket that holds it."""
    column = np.arange(len(at))
    bucket = np.minimum(np.searchsorted(bounds, at, side="left"), len(bounds) - 1)
    before = np.maximum(bucket - 1, 0)
    inner = bucket > 0
    start = np.where(inner, bounds[before], 0.0 if bounds[0] > 0 else -np.inf)
    below = np.where(inner, counts[before, column], 0.0)
    # No interpolation in a bucket without an end: all of the lowest one counts, nothing of the highest.
    part = np.where(np.isinf(start), 1.0, (at - start) / (bounds[bucket] - start))
    inside = below + (counts[bucket, column] - below) * part
    return np.where(at <= start, below, np.where(at >= bounds[bucket], counts[bucket, column], inside))
