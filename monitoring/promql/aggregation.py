"""Aggregations over the rows of a vector: sum, avg, count, min, max, group, stddev, stdvar, topk, bottomk, limitk,
quantile, count_values.

Rows of a group lie behind each other after one sort, so most of them are one ``reduceat`` along the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..samples import NAME, Booleans, Floats, Integers, Labels
from .distinct import distinct
from .exact import doubtful, mean_of, sum_of
from .frame import Frame, Scalars, merge, with_labels
from .heap import largest
from .labelsets import groups_of
from .query import check_quantile
from .values import QueryError, plain_text

MOST = 2.0**63


@dataclass(slots=True, eq=False)
class Groups:
    """Rows sorted by group: group g is ``starts[g]`` and the rows after it, up to the next start.

    ``values`` and ``present`` are [step, row] here: numpy reduces neighbours in memory fastest.
    """

    labels: Sequence[Labels]
    rows: Integers
    starts: Integers
    ends: Integers
    values: Floats
    present: Booleans
    complete: bool
    """Whether every row has a sample at every step."""

    @classmethod
    def of(cls, frame: Frame, names: tuple[str, ...], without: bool) -> Groups:
        pick = frozenset(names) | ({NAME} if without else frozenset())
        labels, group = groups_of(frame.labels, pick, without=without)
        rows = np.argsort(group, kind="stable")
        ends = np.cumsum(np.bincount(group, minlength=len(labels)))
        starts = np.concatenate(([0], ends[:-1])).astype(np.int64)
        values, present = np.ascontiguousarray(frame.values.T), np.ascontiguousarray(frame.present.T)
        if (group[1:] < group[:-1]).any():
            values, present = values.take(rows, axis=1), present.take(rows, axis=1)
        return cls(labels, rows, starts, ends, values, present, bool(present.all()))

    def reduce(self, operation: np.ufunc, values: Floats) -> Floats:
        """One column a group."""
        if len(self.starts) == 1:
            whole: Floats = operation.reduce(values, axis=1, keepdims=True)
            return whole
        reduced: Floats = operation.reduceat(values, self.starts, axis=1)
        return reduced

    def counts(self) -> Floats:
        if self.complete:
            return np.broadcast_to((self.ends - self.starts).astype(np.float64), (len(self.values), len(self.labels)))
        return self.reduce(np.add, self.present.astype(np.float64))

    def spread(self, per_group: Floats) -> Floats:
        """A value per group given to each of its rows."""
        return np.repeat(per_group, self.ends - self.starts, axis=1)

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
        return Frame(groups.labels, SIMPLE[op](groups).T, (groups.counts() > 0).T)
    if param is None:
        raise QueryError("bad_data", f"aggregation {op} is not supported")
    if op == "quantile":
        check_quantile(param)
        return _quantile(groups, param)
    if op in ("topk", "bottomk"):
        return _best(groups, frame, param, largest_first=op == "topk", instant=instant)
    if op == "limitk":
        return _limit(groups, frame, param)
    raise QueryError("bad_data", f"aggregation {op} is not supported")


def _absent_as(groups: Groups, value: float) -> Floats:
    return groups.values if groups.complete else np.where(groups.present, groups.values, value)


def _again(
    groups: Groups, total: Floats, values: Floats, into: Floats, function: Callable[[list[float]], float]
) -> None:
    """Forms a sum again where the plain one may be wrong: where terms cancel or overflow."""
    if values.min(initial=0) >= 0 and np.isfinite(total).all():
        return
    which = doubtful(total, groups.reduce(np.add, np.abs(values)))
    infinite = np.isinf(values)
    if which.any() and infinite.any():  # a sum with an infinite term is right as it is
        which &= groups.reduce(np.add, infinite.astype(np.float64)) == 0
    for step, group in zip(*np.nonzero(which), strict=True):
        rows = slice(groups.starts[group], groups.ends[group])
        into[step, group] = function(groups.values[step, rows][groups.present[step, rows]].tolist())


def _sum(groups: Groups) -> Floats:
    values = _absent_as(groups, 0.0)
    total = groups.reduce(np.add, values)
    _again(groups, total, values, total, sum_of)
    return total


def _average(groups: Groups) -> Floats:
    values = _absent_as(groups, 0.0)
    total = groups.reduce(np.add, values)
    mean = total / groups.counts()
    _again(groups, total, values, mean, mean_of)
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
    "group": lambda groups: np.ones((len(groups.values), len(groups.labels))),
    "min": lambda groups: groups.reduce(np.fmin, _absent_as(groups, np.nan)),
    "max": lambda groups: groups.reduce(np.fmax, _absent_as(groups, np.nan)),
    "stdvar": _variance,
    "stddev": lambda groups: np.sqrt(_variance(groups)),
}


def _quantile(groups: Groups, quantile: Scalars) -> Frame:
    counts = groups.counts().astype(np.int64)
    # Within each step and group in rising order, absent samples last, among the present ones NaN first.
    member = np.repeat(np.arange(len(groups.labels)), groups.ends - groups.starts)
    keys = (groups.values, ~np.isnan(groups.values), ~groups.present, np.broadcast_to(member, groups.values.shape))
    ordered = np.take_along_axis(groups.values, np.lexsort(keys, axis=1), axis=1)
    count = np.maximum(counts, 1)
    rank = np.where((quantile >= 0) & (quantile <= 1), quantile, 0)[:, None] * (count - 1)
    below = np.floor(rank).astype(np.int64)
    weight = rank - below
    lower = np.take_along_axis(ordered, groups.starts + below, axis=1)
    upper = np.take_along_axis(ordered, groups.starts + np.minimum(below + 1, count - 1), axis=1)
    q = quantile[:, None]
    out = np.where(q < 0, -np.inf, np.where(q > 1, np.inf, lower * (1 - weight) + upper * weight))
    return Frame(groups.labels, np.where(np.isnan(q), np.nan, out).T, (counts > 0).T)


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
    sizes = np.array([_size(param, step, len(frame.labels)) for step in range(frame.steps)], dtype=np.int64)
    kept = np.zeros((len(frame.labels), frame.steps), dtype=bool)
    order: list[int] = []
    for _, start, end in groups:
        rows = groups.rows[start:end]
        values, present = groups.values[:, start:end], groups.present[:, start:end]
        nothing = np.isnan(values)
        keys = np.where(nothing, np.inf, -values if largest_first else values)
        ranked = np.lexsort((keys, nothing, ~present), axis=1)
        counts = np.minimum(present.sum(axis=1), sizes)
        chosen = np.arange(len(rows)) < counts[:, None]
        # Which of two equal values stays is for the heap to say.
        last = np.maximum(counts - 1, 0)[:, None]
        after = np.minimum(counts, len(rows) - 1)[:, None]
        edge = [np.take_along_axis(keys, np.take_along_axis(ranked, at, axis=1), axis=1)[:, 0] for at in (last, after)]
        tied = np.flatnonzero((edge[0] == edge[1]) & (counts > 0) & (present.sum(axis=1) > counts))
        steps, places = np.nonzero(chosen)
        best = ranked[steps, places]
        is_tied = np.zeros(frame.steps, dtype=bool)
        is_tied[tied] = True
        ties = is_tied[steps]
        kept[rows[best[~ties]], steps[~ties]] = True
        if instant and not len(tied):
            order.extend(rows[best].tolist())
        for step in tied.tolist():
            there = rows[present[step]]
            heap = there[largest(frame.values[there, step], int(sizes[step]), reverse=not largest_first)]
            kept[heap, step] = True
            if instant:
                order.extend(heap.tolist())
    result = Frame(frame.labels, frame.values, kept)
    return result.rows(order) if instant else result.compact()


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
        steps, rows = np.nonzero(groups.present[:, start:end])
        # One number a value, NaN and the zeros by their bits.
        bits = groups.values[:, start:end][steps, rows].view(np.uint64)
        different, which = distinct(bits)
        seen: dict[str, Floats] = {}
        for number, value in enumerate(different.view(np.float64).tolist()):
            count = seen.setdefault(plain_text(value), np.zeros(len(groups.values)))
            count += np.bincount(steps[which == number], minlength=len(count))
        labels.extend(with_labels(group, [(name, text)]) for text in seen)
        counts.extend(seen.values())
    values = np.array(counts)
    return merge(Frame(tuple(labels), values, values > 0))
