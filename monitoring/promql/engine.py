"""The engine: a query in, its value out. Evaluates each node of the expression once, for all steps."""

from __future__ import annotations

import threading
import time

import numpy as np

from ..samples import Integers, Series
from . import nodes
from .evaluate import evaluate, windows_of
from .frame import Frame, merge
from .labelsets import finished
from .parse import parse
from .query import evaluating
from .selectors import Context, Storage, matrix
from .values import Matrix, QueryError, Sample, Scalar, Text, Value, Vector

MOST_STEPS = 11_000
"""Steps that one range query may take, as in Prometheus."""

TOO_MANY_STEPS = (
    "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"
)

KINDS = {"scalar": "scalar", "string": "string", "vector": "instant vector", "matrix": "range vector"}


def check(query: str) -> None:
    """Reads a query without evaluating it. Raises QueryError of kind ``bad_data``."""
    parse(query)


class Engine:
    """PromQL over a storage, with the semantics of Prometheus 3.

    ``lookback``, ``subquery_step`` and ``timeout`` in seconds; ``max_samples`` bounds what one query may hold at once.
    With ``delayed_name_removal`` a name that a function drops can still be grouped by and copied (an option of
    Prometheus, there off by default as well). An engine keeps no state: it may be used from several threads.
    A query ends early, with a QueryError of kind ``canceled``, once its ``cancel`` event is set.
    """

    def __init__(
        self,
        storage: Storage,
        lookback: float = 300.0,
        subquery_step: float = 60.0,
        timeout: float = 120.0,
        max_samples: int = 50_000_000,
        delayed_name_removal: bool = False,
    ) -> None:
        self._storage = storage
        self._lookback = _milliseconds(lookback)
        self._subquery_step = _milliseconds(subquery_step)
        self._timeout = timeout
        self._max_samples = max_samples
        self._delayed = delayed_name_removal

    def instant(
        self, query: str | nodes.Node, at: float, *, timeout: float | None = None, cancel: threading.Event | None = None
    ) -> Value:
        """The value of a query, given as text or already read, at one time (seconds since 1970). Raises QueryError."""
        node = parse(query) if isinstance(query, str) else query
        when = _milliseconds(at)
        context = self._context(when, when, 0, timeout, cancel, instant=True)
        steps = np.array([when], dtype=np.int64)
        seconds = when / 1000
        with np.errstate(all="ignore"), evaluating(delayed_name_removal=self._delayed) as notes:
            if isinstance(node, nodes.Range | nodes.Subquery):
                windows = windows_of(node, steps, context)
                windows.labels = finished(windows.labels)
                return Matrix(matrix(windows), *notes.told())
            found = evaluate(node, steps, context)
            if isinstance(found, Frame):
                found = _finished(found)
        if isinstance(found, str):
            return Text(seconds, found, *notes.told())
        if not isinstance(found, Frame):
            return Scalar(seconds, float(found[0]), *notes.told())
        rows = np.flatnonzero(found.present[:, 0]).tolist()
        values = found.values[:, 0].tolist()
        return Vector([Sample(found.labels[row], seconds, values[row]) for row in rows], *notes.told())

    def range(
        self,
        query: str | nodes.Node,
        start: float,
        end: float,
        step: float,
        *,
        timeout: float | None = None,
        cancel: threading.Event | None = None,
    ) -> Matrix:
        """The values at ``start``, ``start + step``, … up to ``end`` (seconds). Raises QueryError."""
        node = parse(query) if isinstance(query, str) else query
        kind = nodes.kind(node)
        if kind not in ("scalar", "vector"):
            message = f'invalid expression type "{KINDS[kind]}" for range query, must be Scalar or instant Vector'
            raise QueryError("bad_data", message)
        first, last, width = _milliseconds(start), _milliseconds(end), _milliseconds(step)
        if width <= 0:
            message = "zero or negative query resolution step widths are not accepted. Try a positive integer"
            raise QueryError("bad_data", message)
        if last < first:
            raise QueryError("bad_data", "end timestamp must not be before start time")
        if (last - first) // width > MOST_STEPS:
            raise QueryError("bad_data", TOO_MANY_STEPS)
        steps = np.arange(first, last + 1, width, dtype=np.int64)
        context = self._context(first, last, width, timeout, cancel, instant=False)
        with np.errstate(all="ignore"), evaluating(delayed_name_removal=self._delayed) as notes:
            found = evaluate(node, steps, context)
            frame = _finished(found) if isinstance(found, Frame) else Frame.one(np.asarray(found))
        series = []
        values, present = np.ascontiguousarray(frame.values), np.ascontiguousarray(frame.present)
        complete: list[bool] = np.all(present, axis=1).tolist()
        times: dict[bytes, Integers] = {}  # series with the same gaps share theirs: whoever writes them does so once
        for row, labels in enumerate(frame.labels):
            if complete[row]:
                series.append(Series(labels, steps, values[row]))
            elif (there := present[row]).any():
                pattern = there.tobytes()
                series.append(Series(labels, times.setdefault(pattern, steps[there]), values[row, there]))
        return Matrix(sorted(series, key=lambda one: one.labels), *notes.told())

    def _context(
        self, start: int, end: int, step: int, timeout: float | None, cancel: threading.Event | None, *, instant: bool
    ) -> Context:
        allowed = self._timeout if timeout is None else min(timeout, self._timeout)
        return Context(
            storage=self._storage,
            start=start,
            end=end,
            step=step,
            lookback=self._lookback,
            subquery_step=self._subquery_step,
            max_samples=self._max_samples,
            deadline=time.monotonic() + allowed,
            instant=instant,
            cancel=cancel,
        )


def _finished(frame: Frame) -> Frame:
    labels = finished(frame.labels)
    return frame if labels is frame.labels else merge(Frame(labels, frame.values, frame.present).compact())


def _milliseconds(seconds: float) -> int:
    try:
        return round(seconds * 1000)
    except (OverflowError, ValueError):
        raise QueryError("bad_data", f"{seconds} is not a time") from None
