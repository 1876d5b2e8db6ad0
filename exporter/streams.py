"""One metric of somebody else's as page cells: attributes in, a cell out."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any, Final, cast

from . import names
from .cells import CELL, Cell, Histogram
from .conventions import label_pairs
from .layout import Pairs, SeriesKind
from .names import Metric
from .recorder import Recorder

logger = logging.getLogger("anvil_monitor.exporter")
# Attributes in another order are another key of the same series; beyond this the keys are learnt anew.
MAX_KEYS: Final = 4000
# Label sets of which the last absolute value is remembered.
MAX_ABSOLUTE: Final = 4000

# Attributes of older semantic conventions that libraries still send, by what they are called now.
OLDER: Final[Mapping[str, str]] = {
    "db.system": "db.system.name",
    "db.operation": "db.operation.name",
    "db.sql.table": "db.collection.name",
    "state": "db.client.connection.state",
    "pool.name": "db.client.connection.pool.name",
}


class Stream:
    """The series of ``metric``. Of a metric that names.py has, only the labels that stand there are kept.

    ``cells``: what was looked up, by ``tuple(attributes.items())``; a caller looks there first and calls :meth:`open`
    for what it does not find.
    """

    def __init__(self, recorder: Recorder, kind: SeriesKind, metric: Metric, edges: tuple[float, ...] = ()) -> None:
        self.kind, self.metric, self.edges = kind, metric, edges
        self.cells: dict[tuple[Any, ...], Any] = {}
        self._typed: dict[tuple[Any, ...], Any] = {}  # where the values' types tell label sets apart
        self._recorder = recorder
        self._labels = frozenset(metric.labels) if metric.name in names.BY_NAME else None
        self._warned: set[str] = set()

    def open(self, attributes: object) -> Cell | Histogram:
        """The series of these attributes; one that nobody reads where Prometheus can have none."""
        given = attributes if isinstance(attributes, Mapping) else {}
        key = tuple(given.items())
        # 1 and True are equal as keys and different as labels.
        plain = all(isinstance(v, str) or (type(v) is int and v not in (0, 1)) for v in given.values())
        typed = key if plain else (*key, *map(type, given.values()))
        cells = self.cells if plain else self._typed
        try:
            series = cells.get(typed)
        except TypeError:  # a list, or whatever else has no hash
            return self.series(self.pairs(given)) or _unread(self)
        if series is None:
            series = self.series(self.pairs(given))
            if series is None:
                return _unread(self)
            if len(cells) >= MAX_KEYS:
                cells.clear()
            if self._recorder.remembers(series):
                cells[typed] = series
        return cast("Cell | Histogram", series)

    def series(self, pairs: Pairs, edges: tuple[float, ...] | None = None) -> Cell | Histogram | None:
        """The series of these labels; ``None`` if there can be none, which is said once."""
        try:
            return self._recorder.series(self.kind, self.metric, pairs, self.edges if edges is None else edges)
        except ValueError as error:
            self.warn("%s has a series that /metrics cannot have: %s", self.metric.name, error)
            return None

    def pairs(self, attributes: Mapping[str, Any]) -> Pairs:
        """The labels of ``attributes``, by OpenTelemetry's rules."""
        reserved = ("le",) if self.kind == "histogram" else ()
        try:
            found = label_pairs(_known(attributes, self._labels is not None), reserved)
        except (ValueError, TypeError, RecursionError):
            found = label_pairs(_readable(attributes), reserved)
        return found if self._labels is None else tuple(pair for pair in found if pair[0] in self._labels)

    def refuse(self, amount: object) -> None:
        """Say once that ``amount`` is not counted."""
        self.warn("%s does not take the value %.40r; it and others like it are not counted", self.metric.name, amount)

    def warn(self, text: str, *arguments: object) -> None:
        """Log ``text``, the first time."""
        if text not in self._warned:
            self._warned.add(text)
            logger.warning(text, *arguments)


def _known(attributes: Mapping[str, Any], ours: bool) -> Iterable[tuple[str, Any]]:
    if not ours:
        return attributes.items()
    return [(OLDER.get(name, name), value) for name, value in attributes.items() if OLDER.get(name) not in attributes]


def _readable(attributes: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """What of odd attributes can be a label: a hostile or broken one must not break whoever measures."""
    for name, value in attributes.items():
        try:
            label_pairs([(name, value)])
        except (ValueError, TypeError, RecursionError):
            if not isinstance(name, str) or not any(c.isascii() and c.isalnum() for c in name):
                continue
            value = f"({type(value).__name__})"
        yield name, value


def _unread(stream: Stream) -> Cell | Histogram:
    if stream.kind == "histogram":
        return Histogram(memoryview(bytearray(8 * (len(stream.edges) + 2))).cast("d"), stream.edges)
    return Cell(memoryview(bytearray(16)).cast("d"))


class Absolute:
    """Brings to ``stream`` what somebody else adds up: the sums so far (of a histogram: sum, then buckets).

    A sum grows by what it has grown there; one that has become smaller has begun anew. So a forked child, which
    inherits its parent's sums, adds only what is its own.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._last: dict[tuple[Pairs, tuple[float, ...]], Sequence[float]] = {}
        self._there: set[Pairs] = set()
        self._pid = os.getpid()

    def publish(
        self, points: Iterable[tuple[Mapping[str, Any] | None, Sequence[float]]], edges: tuple[float, ...] = ()
    ) -> None:
        """Write all present values; what was there the last time and is no more has gone."""
        stream = self._stream
        if stream.kind == "gauge_recent" and self._pid != os.getpid():
            self._pid = os.getpid()
            self._last.clear()  # a forked child's page does not have its parent's levels
        found: dict[Pairs, Sequence[float]] = {}
        for attributes, values in points:
            if not all(-inf < value < inf for value in values):
                stream.refuse(values[0])
                continue
            pairs = stream.pairs(attributes or {})
            known = found.get(pairs)
            # Labels that names.py leaves out may have told these apart.
            adds_up = known is not None and stream.kind in ("counter", "gauge", "histogram")
            found[pairs] = [a + b for a, b in zip(known or (), values, strict=True)] if adds_up else values
        if stream.kind in ("counter", "histogram"):
            for pairs, values in found.items():
                self._grow(pairs, values, edges)
            return
        for pairs in self._there - found.keys():
            self._forget(pairs)
        for pairs, values in found.items():
            series = stream.series(pairs)
            if series is not None and (stream.kind != "gauge_recent" or self._last.get((pairs, ())) != values):
                cast(Cell, series).set(float(values[0]))
                self._last[pairs, ()] = values
        self._there = set(found)

    def _grow(self, pairs: Pairs, values: Sequence[float], edges: tuple[float, ...]) -> None:
        key = pairs, edges
        last = self._last.get(key)
        if last is None and len(self._last) >= MAX_ABSOLUTE:
            self._stream.warn(
                "%s has over %d label sets; new ones are left out", self._stream.metric.name, MAX_ABSOLUTE
            )
            return
        series = self._stream.series(pairs, edges)
        if series is None:
            return
        counts = slice(1, None) if len(values) > 1 else slice(None)
        fresh = last is None or any(now < then for now, then in zip(values[counts], last[counts], strict=True))
        for index, value in enumerate(values):
            grown = value if fresh or last is None else value - last[index]
            if grown:
                CELL(series.cells[index : index + 1]).add(grown)
        self._last[key] = values

    def _forget(self, pairs: Pairs) -> None:
        series = self._stream.series(pairs)
        if series is None:
            return
        forget(self._stream.kind, series)
        self._last.pop((pairs, ()), None)


def forget(kind: str, series: Cell | Histogram) -> None:
    """A level that is no more: it is not shown, or adds nothing."""
    if kind == "gauge_recent":
        series.cells[1] = 0.0
    else:
        series.cells[0] = float("nan") if kind in ("gauge_max", "gauge_min") else 0.0
