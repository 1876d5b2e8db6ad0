"""From a selector to columns: which samples each step sees.

Instant selectors take the last sample not older than the lookback, unless it is a stale marker; range selectors take
all samples of ``(end - range, end]`` but stale markers. Rules: Prometheus 3, promql/engine.go.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..samples import Booleans, Floats, Integers, Matcher, Panel, Series, TooManyError, is_absent, is_stale
from .frame import Frame
from .labelsets import joined, together
from .nodes import At, Range, Selector, Subquery
from .values import QueryError
from .windows import Block, Windows, blocks_of, pick, split


class Storage(Protocol):
    """Where samples come from. Each series is in one panel, and has a row in it."""

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Panel]: ...


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
    cancel: threading.Event | None = None

    def check_time(self) -> None:
        """Raises QueryError once the query has taken too long or is no longer wanted."""
        if self.cancel is not None and self.cancel.is_set():
            raise QueryError("canceled", "query was canceled in expression evaluation")
        if time.monotonic() > self.deadline:
            raise QueryError("timeout", "query timed out in expression evaluation")

    def check_size(self, samples: int) -> None:
        """Raises QueryError for more samples than may be held at once."""
        if samples > self.max_samples:
            message = "query processing would load too many samples into memory in query execution"
            raise QueryError("execution", f"{message} ({samples}; at most {self.max_samples})")


def reference(at: At, offset: int, steps: Integers, context: Context) -> Integers:
    """The time that each step looks at."""
    if at is None:
        return steps - offset
    fixed = context.start if at == "start" else context.end if at == "end" else at
    return np.full(len(steps), fixed - offset, dtype=np.int64)


def instant(node: Selector, steps: Integers, context: Context, *, times: bool = False) -> tuple[Frame, Floats]:
    """The vector of an instant selector, and with ``times`` when its samples were taken, in seconds [series, step]."""
    refs = reference(node.at, node.offset, steps, context)
    panels = _panels(node, int(refs.min()) - context.lookback + 1, int(refs.max()), len(steps), context)
    labels, columns = together(panels)
    whole = len(panels) == 1 and isinstance(columns[0], slice)
    shape = (len(steps), len(labels))
    values, present = np.zeros((0 if whole else shape[0], shape[1])), np.zeros(shape, dtype=bool)
    taken = np.zeros(shape if times else (0, 0))
    for panel, place in zip(panels, columns, strict=True):
        found, there, at = _last(panel, refs, context.lookback)
        if whole:
            values, present = found, np.broadcast_to(there, shape)
        else:
            values[:, place], present[:, place] = found, there
        if times:
            taken[:, place] = at / 1000.0
    return Frame(labels, values.T, present.T), taken.T


def _last(panel: Panel, refs: Integers, lookback: int) -> tuple[Floats, Booleans, Integers]:
    """Value, presence and time of the last sample not older than the lookback, at each reference time."""
    row = panel.times.searchsorted(refs, side="right") - 1
    at = np.maximum(row, 0)[:, None]
    values = pick(panel.values, at)
    when = panel.times[at]
    present = (row[:, None] >= 0) & (when > refs[:, None] - lookback)
    if np.isnan(values.sum()):
        gaps = np.flatnonzero(is_absent(values).any(axis=0))
        if len(gaps):
            # The last sample is further back: the row of the last one at or before each row.
            there = ~is_absent(panel.values[:, gaps])
            before = np.maximum.accumulate(np.where(there, np.arange(len(there))[:, None], -1), axis=0)[at[:, 0]]
            before[row < 0] = -1
            own = np.maximum(before, 0)
            values[:, gaps] = np.take_along_axis(panel.values[:, gaps], own, axis=0)
            when = np.broadcast_to(when, values.shape).copy()
            present = np.broadcast_to(present, values.shape).copy()
            when[:, gaps] = panel.times[own]
            present[:, gaps] = (before >= 0) & (when[:, gaps] > refs[:, None] - lookback)
        present = present & ~is_stale(values)
    return values, present, when


def ranges(node: Range, steps: Integers, context: Context) -> Windows:
    """The windows of a range selector."""
    selector = node.selector
    refs = reference(selector.at, selector.offset, steps, context)
    panels = _panels(selector, int(refs.min()) - node.range + 1, int(refs.max()), len(steps), context)
    labels, columns = together(panels)
    blocks = blocks_of(panels, columns, refs - node.range, refs)
    return Windows(labels, blocks, refs, node.range, steps, context.check_time)


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
    frame = Frame.empty(0)
    blocks: list[Block] = []
    if len(grid):
        inner = evaluate(grid)
        frame = inner if isinstance(inner, Frame) else Frame.one(inner)
        there = frame.present.T
        place = slice(0, len(frame.labels))
        # No gap is the pattern of most: split makes one block of it.
        blocks = split(place, grid, frame.values.T, there, refs - node.range, refs) if len(frame.labels) else []
    return Windows(frame.labels, blocks, refs, node.range, steps, context.check_time)


def matrix(windows: Windows) -> list[Series]:
    """The samples themselves, for an instant query that is a bare range selector."""
    found = []
    for block in windows.blocks:
        places = np.arange(len(windows.labels))[block.columns].tolist()
        for column, place in enumerate(places):
            bounds = column if block.lo.shape[1] > 1 else 0
            own = slice(int(block.lo[0, bounds]), int(block.hi[0, bounds]))
            if own.start < own.stop:
                times = block.times[own, column if block.times.shape[1] > 1 else 0]
                found.append(Series(windows.labels[place], times, block.values[own, column]))
    return sorted(found, key=lambda one: one.labels)


def _panels(node: Selector, first: int, last: int, steps: int, context: Context) -> list[Panel]:
    """What the storage has, panels of the same times as one."""
    try:
        panels = context.storage.select(node.matchers, first, last)
    except TooManyError as error:
        raise QueryError("execution", str(error)) from None
    context.check_size(sum(panel.values.size for panel in panels))
    context.check_size(sum(len(panel.labels) for panel in panels) * steps)
    if len(panels) < 2:
        return panels
    alike: dict[tuple[int, int, int], list[Panel]] = {}
    for panel in panels:
        key = (len(panel.times), int(panel.times[0]), int(panel.times[-1]))
        alike.setdefault(key, []).append(panel)
    found = []
    for group in alike.values():
        same = [panel for panel in group[1:] if np.array_equal(panel.times, group[0].times)]
        if same:
            one = [group[0], *same]
            labels = joined(tuple(panel.labels for panel in one))
            found.append(Panel(labels, group[0].times, np.hstack([panel.values for panel in one])))
        else:
            found.append(group[0])
        found += [panel for panel in group[1:] if all(panel is not other for other in same)]
    return found
