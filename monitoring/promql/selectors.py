"""From a selector to columns: which samples each step sees.

Instant selectors take the last sample not older than the lookback, unless it is a stale marker; range selectors take
all samples of ``(end - range, end]`` but stale markers. Rules: Prometheus 3, promql/engine.go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..samples import Floats, Integers, Labels, Matcher, Series, is_stale
from .frame import Frame
from .nodes import At, Range, Selector, Subquery
from .values import QueryError
from .windows import Windows, locate


class Storage(Protocol):
    """Where samples come from. Series must be sorted by labels, their times rising."""

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Series]: ...


@dataclass(frozen=True, slots=True)
class Context:
    """One query: its bounds and step, and what limits it. Times in ms; ``deadline`` on the monotonic clock, in s."""

    storage: Storage
    start: int
    end: int
    step: int
    lookback: int
    subquery_step: int
    max_samples: int
    deadline: float
    instant: bool

    def check_time(self) -> None:
        """Raises QueryError once the query has taken too long."""
        if time.monotonic() > self.deadline:
            raise QueryError("timeout", "the query took too long")

    def check_size(self, samples: int) -> None:
        """Raises QueryError for more samples than may be held at once."""
        if samples > self.max_samples:
            raise QueryError("execution", f"the query would hold {samples} samples; at most {self.max_samples} may be")


def reference(at: At, offset: int, steps: Integers, context: Context) -> Integers:
    """The time that each step looks at."""
    if at is None:
        return steps - offset
    fixed = context.start if at == "start" else context.end if at == "end" else at
    return np.full(len(steps), fixed - offset, dtype=np.int64)


def instant(node: Selector, steps: Integers, context: Context) -> tuple[Frame, Floats]:
    """The vector of an instant selector, and the times of its samples in seconds."""
    refs = reference(node.at, node.offset, steps, context)
    series = context.storage.select(node.matchers, int(refs.min()) - context.lookback + 1, int(refs.max()))
    context.check_size(len(series) * len(steps))
    if not series:
        return Frame.empty(len(steps)), np.empty((0, len(steps)))
    times, values, offsets = _gather(series, context)
    lo, hi = locate(offsets, times, refs - context.lookback, refs)
    last = hi - 1
    present = hi > lo
    last[~present] = 0
    present &= ~is_stale(values)[last]
    frame = Frame([one.labels for one in series], values[last], present)
    return frame, times[last] / 1000.0


def ranges(node: Range, steps: Integers, context: Context) -> Windows:
    """The windows of a range selector."""
    selector = node.selector
    refs = reference(selector.at, selector.offset, steps, context)
    series = context.storage.select(selector.matchers, int(refs.min()) - node.range + 1, int(refs.max()))
    context.check_size(len(series) * len(steps))
    times, values, offsets = _gather(series, context)
    stale = is_stale(values)
    if stale.any():
        offsets = offsets - np.concatenate(([0], np.cumsum(stale)))[offsets]
        times, values = times[~stale], values[~stale]
    return _windows([one.labels for one in series], times, values, offsets, refs, node.range, steps, context)


def subquery(
    node: Subquery, steps: Integers, context: Context, evaluate: Callable[[Integers], Frame | Floats]
) -> Windows:
    """The windows over an inner expression, which is evaluated once on the subquery's own absolute grid."""
    refs = reference(node.at, node.offset, steps, context)
    step = node.step or context.subquery_step
    lower = int(refs[0]) - node.range
    first = step * int(lower / step)  # toward zero, as Go divides
    if first <= lower:
        first += step
    last = int(refs[-1])
    context.check_size(max(0, last - first) // step)
    grid = np.arange(first, last + 1, step, dtype=np.int64)
    if not len(grid):
        return _windows([], grid, np.empty(0), np.zeros(1, dtype=np.int64), refs, node.range, steps, context)
    inner = evaluate(grid)
    frame = inner if isinstance(inner, Frame) else Frame.one(inner)
    _, columns = np.nonzero(frame.present)
    offsets = np.concatenate(([0], np.cumsum(frame.present.sum(axis=1))))
    return _windows(frame.labels, grid[columns], frame.values[frame.present], offsets, refs, node.range, steps, context)


def matrix(windows: Windows) -> list[Series]:
    """The samples themselves, for an instant query that is a bare range selector."""
    found = []
    for labels, lo, hi in zip(windows.labels, windows.lo[:, 0].tolist(), windows.hi[:, 0].tolist(), strict=True):
        if hi > lo:
            found.append(Series(labels, windows.times[lo:hi], windows.values[lo:hi]))
    return sorted(found, key=lambda one: one.labels)


def _gather(series: list[Series], context: Context) -> tuple[Integers, Floats, Integers]:
    """All samples behind each other, and where each series begins (one bound more than series)."""
    counts = [len(one.timestamps) for one in series]
    context.check_size(sum(counts))
    offsets = np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64)
    if not series:
        return np.empty(0, dtype=np.int64), np.empty(0), offsets
    return np.concatenate([one.timestamps for one in series]), np.concatenate([one.values for one in series]), offsets


def _windows(
    labels: list[Labels],
    times: Integers,
    values: Floats,
    offsets: Integers,
    refs: Integers,
    length: int,
    steps: Integers,
    context: Context,
) -> Windows:
    lo, hi = locate(offsets, times, refs - length, refs)
    return Windows(labels, times, values, lo, hi, refs, length, steps, context.check_time)
