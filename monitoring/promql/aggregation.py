"""Aggregations over the rows of a vector: sum, avg, count, min, max, group, stddev, stdvar, topk, bottomk, limitk,
quantile, count_values.

Rows of a group lie behind each other after one sort, so most of them are one ``reduceat`` along the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..samples import NAME, Booleans, Floats, Integers, Labels
from .exact import doubtful, mean_of, sum_of
from .frame import Frame, Scalars, drop, keep, merge, with_labels
from .heap import largest
from .values import QueryError, plain_text

MOST = 2.0**63


@dataclass(slots=True, eq=False)
class Groups:
    """Rows sorted by group: group g is ``starts[g]`` and the rows after it, up to the next start."""

    labels: list[Labels]
    rows: Integers
    starts: Integers
    ends: Integers
    values: Floats
    present: Booleans

    @classmethod
    def of(cls, frame: Frame, names: tuple[str, ...], without: bool) -> Groups:
        pick = frozenset(names)
        if without:
            pick |= {NAME}
        shape = drop if without else keep
        numbers: dict[Labels, int] = {}
        group = np.array([numbers.setdefault(shape(labels, pick), len(numbers)) for labels in frame.labels], dtype=int)
        rows = np.argsort(group, kind="stable")
        ends = np.cumsum(np.bincount(group, minlength=len(numbers)))
        starts = np.concatenate(([0], ends[:-1])).astype(np.int64)
        return cls(list(numbers), rows, starts, ends, frame.values[rows], frame.present[rows])

    def reduce(self, operation: np.ufunc, values: Floats) -> Floats:
        """One row a group."""
        reduced: Floats = operation.reduceat(values, self.starts, axis=0)
        return reduced

    def counts(self) -> Floats:
        return self.reduce(np.add, self.present.astype(np.float64))

    def spread(self, per_group: Floats) -> Floats:
        """A value per group given to each of its rows."""
        return np.repeat(per_group, self.ends - self.starts, axis=0)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return zip(self.labels, self.starts.tolist(), self.ends.tolist(), strict=True)


def aggregate(
    op: str, frame: Frame, names: tuple[str, ...], without: bool, param: Scalars | str | None, *, instant: bool
) -> Frame:
    """The aggregated vector. ``param`` is what topk, quantile and count_values take. Raises QueryError."""
    frame = frame.compact()
    if not frame.labels:
        return Frame.empty(frame.steps)
    groups = Groups.of(frame, names, without)
    if isinstance(param, str):
        return _count_values(groups, param)
    if op in SIMPLE:
        values = SIMPLE[op](groups)
        return Frame(groups.labels, values, groups.counts() > 0)
    if param is None:
        raise QueryError("bad_data", f"aggregation {op} is not supported")
    if op == "quantile":
        return _quantile(groups, param)
    if op in ("topk", "bottomk"):
        return _best(groups, frame, param, largest_first=op == "topk", instant=instant)
    if op == "limitk":
        return _limit(groups, frame, param)
    raise QueryError("bad_data", f"aggregation {op} is not supported")


def _absent_as(groups: Groups, value: float) -> Floats:
    return np.where(groups.present, groups.values, value)


def _again(groups: Groups, which: Booleans, into: Floats, function: Callable[[list[float]], float]) -> None:
    for group, step in zip(*np.nonzero(which), strict=True):
        rows = slice(groups.starts[group], groups.ends[group])
        into[group, step] = function(groups.values[rows, step][groups.present[rows, step]].tolist())


def _sum(groups: Groups) -> Floats:
    values = _absent_as(groups, 0.0)
    total = groups.reduce(np.add, values)
    _again(groups, doubtful(total, groups.reduce(np.add, np.abs(values))), total, sum_of)
    return total


def _average(groups: Groups) -> Floats:
    values = _absent_as(groups, 0.0)
    total = groups.reduce(np.add, values)
    mean = total / groups.counts()
    _again(groups, doubtful(total, groups.reduce(np.add, np.abs(values))), mean, mean_of)
    return mean


def _variance(groups: Groups) -> Floats:
    counts = groups.counts()
    # Relative to the least sample, so that equal samples give exactly 0.
    least = groups.spread(groups.reduce(np.fmin, _absent_as(groups, np.nan)))
    values = np.where(groups.present, groups.values - least, 0.0)
    distance = values - groups.spread(groups.reduce(np.add, values) / counts)
    squares: Floats = groups.reduce(np.add, np.where(groups.present, distance * distance, 0.0)) / counts
    return squares


SIMPLE: dict[str, Callable[[Groups], Floats]] = {
    "sum": _sum,
    "avg": _average,
    "count": lambda groups: groups.counts(),
    "group": lambda groups: np.ones((len(groups.labels), groups.values.shape[1])),
    "min": lambda groups: groups.reduce(np.fmin, _absent_as(groups, np.nan)),
    "max": lambda groups: groups.reduce(np.fmax, _absent_as(groups, np.nan)),
    "stdvar": _variance,
    "stddev": lambda groups: np.sqrt(_variance(groups)),
}


def _quantile(groups: Groups, quantile: Scalars) -> Frame:
    out = np.zeros((len(groups.labels), groups.values.shape[1]))
    counts = groups.counts().astype(np.int64)
    for group, (_, start, end) in enumerate(groups):
        values, present = groups.values[start:end], groups.present[start:end]
        # Absent samples last; among the present ones NaN first.
        keys = (values, ~np.isnan(values), ~present)
        ordered = np.take_along_axis(values, np.lexsort(keys, axis=0), axis=0)
        count = np.maximum(counts[group], 1)
        rank = np.where((quantile >= 0) & (quantile <= 1), quantile, 0) * (count - 1)
        below = np.floor(rank).astype(np.int64)
        above = np.minimum(below + 1, count - 1)
        weight = rank - below
        lower = np.take_along_axis(ordered, below[None, :], axis=0)[0]
        upper = np.take_along_axis(ordered, above[None, :], axis=0)[0]
        out[group] = lower * (1 - weight) + upper * weight
    out = np.where(quantile < 0, -np.inf, np.where(quantile > 1, np.inf, out))
    return Frame(groups.labels, np.where(np.isnan(quantile), np.nan, out), counts > 0)


def _size(param: Scalars, step: int, rows: int) -> int:
    """How many rows topk and limitk keep at a step."""
    wanted = float(param[step])
    if np.isnan(wanted):
        raise QueryError("execution", "Parameter value is NaN")
    if not -MOST <= wanted < MOST:
        raise QueryError("execution", f"Scalar value {wanted} overflows int64")
    return max(0, min(int(wanted), rows))


def _best(groups: Groups, frame: Frame, param: Scalars, *, largest_first: bool, instant: bool) -> Frame:
    """The k largest or smallest rows of each group, step by step. In an instant query they come out in order."""
    kept = np.zeros(frame.present.shape, dtype=bool)
    order: list[int] = []
    sizes = [_size(param, step, len(frame.labels)) for step in range(frame.steps)]
    for _, start, end in groups:
        rows = groups.rows[start:end]
        for step, size in enumerate(sizes):
            there = rows[frame.present[rows, step]]
            best = largest(frame.values[there, step], size, reverse=not largest_first)
            kept[there[best], step] = True
            if instant:
                order.extend(there[best].tolist())
    chosen = Frame(frame.labels, frame.values, kept)
    return chosen.rows(order) if instant else chosen.compact()


def _limit(groups: Groups, frame: Frame, param: Scalars) -> Frame:
    """The first k rows of each group."""
    kept = np.zeros(frame.present.shape, dtype=bool)
    sizes = np.array([_size(param, step, len(frame.labels)) for step in range(frame.steps)])
    for _, start, end in groups:
        rows = groups.rows[start:end]
        here = frame.present[rows]
        kept[rows] = here & (np.cumsum(here, axis=0) <= sizes)
    return Frame(frame.labels, frame.values, kept).compact()


def _count_values(groups: Groups, name: str) -> Frame:
    """How often each value occurs; the value becomes the label ``name``."""
    if not name:
        raise QueryError("execution", f"invalid label name {name!r}")
    labels: list[Labels] = []
    counts: list[Floats] = []
    for group, start, end in groups:
        seen: dict[str, Floats] = {}
        for row in range(start, end):
            for step in np.flatnonzero(groups.present[row]).tolist():
                text = plain_text(float(groups.values[row, step]))
                count = seen.setdefault(text, np.zeros(groups.values.shape[1]))
                count[step] += 1
        labels.extend(with_labels(group, [(name, text)]) for text in seen)
        counts.extend(seen.values())
    values = np.array(counts)
    return merge(Frame(labels, values, values > 0))
