"""The engine: a query in, its value out. Evaluates each node of the expression once, for all steps."""

from __future__ import annotations

import time

import numpy as np

from ..samples import Series
from . import nodes
from .evaluate import evaluate, windows_of
from .frame import Frame
from .parse import parse
from .selectors import Context, Storage, matrix
from .values import Matrix, QueryError, Sample, Scalar, Text, Value, Vector

MOST_STEPS = 11_000
"""Points a series that one range query may ask for, as in Prometheus."""

KINDS = {"scalar": "scalar", "string": "string", "vector": "instant vector", "matrix": "range vector"}


def check(query: str) -> None:
    """Reads a query without evaluating it. Raises QueryError of kind ``bad_data``."""
    parse(query)


class Engine:
    """PromQL over a storage, with the semantics of Prometheus 3.

    ``lookback``, ``subquery_step`` and ``timeout`` in seconds; ``max_samples`` bounds what one query may hold at once.
    An engine keeps no state: it may be used from several threads.
    """

    def __init__(
        self,
        storage: Storage,
        lookback: float = 300.0,
        subquery_step: float = 60.0,
        timeout: float = 120.0,
        max_samples: int = 20_000_000,
    ) -> None:
        self._storage = storage
        self._lookback = _milliseconds(lookback)
        self._subquery_step = _milliseconds(subquery_step)
        self._timeout = timeout
        self._max_samples = max_samples

    def instant(self, query: str, at: float, *, timeout: float | None = None) -> Value:
        """The value at one time (seconds since 1970). Raises QueryError."""
        node = parse(query)
        when = _milliseconds(at)
        context = self._context(when, when, 0, timeout, instant=True)
        steps = np.array([when], dtype=np.int64)
        seconds = when / 1000
        with np.errstate(all="ignore"):
            if isinstance(node, nodes.Range | nodes.Subquery):
                return Matrix(matrix(windows_of(node, steps, context)))
            found = evaluate(node, steps, context)
        if isinstance(found, str):
            return Text(seconds, found)
        if not isinstance(found, Frame):
            return Scalar(seconds, float(found[0]))
        rows = np.flatnonzero(found.present[:, 0]).tolist()
        values = found.values[:, 0].tolist()
        return Vector([Sample(found.labels[row], seconds, values[row]) for row in rows])

    def range(self, query: str, start: float, end: float, step: float, *, timeout: float | None = None) -> Matrix:
        """The values at ``start``, ``start + step``, … up to ``end`` (seconds). Raises QueryError."""
        node = parse(query)
        kind = nodes.kind(node)
        if kind not in ("scalar", "vector"):
            message = f'invalid expression type "{KINDS[kind]}" for range query, must be Scalar or instant Vector'
            raise QueryError("bad_data", message)
        first, last, width = _milliseconds(start), _milliseconds(end), _milliseconds(step)
        if width <= 0:
            raise QueryError("bad_data", "zero or negative query resolution step widths are not accepted")
        if last < first:
            raise QueryError("bad_data", "end timestamp must not be before start time")
        if (last - first) // width > MOST_STEPS:
            raise QueryError("bad_data", f"exceeded maximum resolution of {MOST_STEPS:,} points per timeseries")
        steps = np.arange(first, last + 1, width, dtype=np.int64)
        with np.errstate(all="ignore"):
            found = evaluate(node, steps, self._context(first, last, width, timeout, instant=False))
        frame = found if isinstance(found, Frame) else Frame.one(np.asarray(found))
        series = []
        for row, labels in enumerate(frame.labels):
            present = frame.present[row]
            if present.any():
                series.append(Series(labels, steps[present], frame.values[row, present]))
        return Matrix(sorted(series, key=lambda one: one.labels))

    def _context(self, start: int, end: int, step: int, timeout: float | None, *, instant: bool) -> Context:
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
        )


def _milliseconds(seconds: float) -> int:
    try:
        return round(seconds * 1000)
    except (OverflowError, ValueError):
        raise QueryError("bad_data", f"{seconds} is not a time") from None
