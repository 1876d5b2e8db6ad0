"""What a backtest reads: the answers of range queries, fetched piece by piece, on a tape that the engine can query."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np

from .promql import Matrix
from .remote import Remote, RemoteError, UnreachableError
from .samples import NAME, STALE_NAN, Floats, Integers, Labels, Matcher, Panel, matches

Progress: TypeAlias = Callable[[int], object]
# A label set and, for it, places among the instants of evaluation (rising) and as many values.
Row: TypeAlias = tuple[Labels, Integers, Floats]

# Points that one request asks for: at first, at least, and below the 11,000 that Prometheus allows.
FIRST: Final = 1_000
LEAST: Final = 50
MOST: Final = 10_000
# Seconds. A request is made longer or shorter until it takes about so long: a monitor that watches has other work.
PATIENCE: Final = 0.25
# Samples that one backtest may hold: 16 bytes each.
MOST_SAMPLES: Final = 40_000_000


class TooMuchError(Exception):
    """More was asked for than fits into memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Instants:
    """When a group is evaluated: ``times`` in ms, rising, multiples of ``step`` ms apart; gaps are left out."""

    times: Integers
    step: int

    def pieces(self, first: int, most: int) -> Iterator[tuple[int, int]]:
        """Begin and end (places, from ``first``) of runs without a gap, of at most ``most`` instants."""
        breaks = np.flatnonzero(np.diff(self.times[first:]) != self.step) + 1 + first
        bounds = [first, *breaks.tolist(), len(self.times)]
        for begin, end in pairwise(bounds):
            yield from ((at, min(at + most, end)) for at in range(begin, end, most))


class Source:
    """Range queries to a monitor or a Prometheus."""

    def __init__(self, remote: Remote, clock: Callable[[], float] = time.monotonic) -> None:
        self._remote, self._clock = remote, clock

    def names(self, start: float, end: float) -> frozenset[str]:
        """Every metric name with a sample in between (Unix seconds)."""
        return frozenset(self._remote.data("label/__name__/values", start=f"{start:.3f}", end=f"{end:.3f}"))

    def ask(self, expr: str, at: float) -> list[tuple[Labels, float]]:
        """An instant vector."""
        data = self._remote.data("query", query=expr, time=f"{at:.3f}")
        found = data["result"]
        if data["resultType"] == "scalar":
            return [((), float(found[1]))]
        return [(_labels(one["metric"]), float(one["value"][1])) for one in found]

    def rows(self, expr: str, instants: Instants, first: int, progress: Progress) -> list[Row]:
        """``expr`` at the instants from place ``first`` on. Raises :class:`RemoteError`."""
        parts: dict[Labels, tuple[list[Integers], list[Floats]]] = {}
        size, held = FIRST, 0
        for begin, end in instants.pieces(first, MOST):
            while begin < end:
                upto = min(end, begin + size)
                started = self._clock()
                try:
                    found = self._range(expr, instants.times[begin], instants.times[upto - 1], instants.step)
                except RemoteError as error:
                    if size <= LEAST or isinstance(error, UnreachableError):
                        raise
                    size //= 2  # it may be too much for it at once
                    continue
                taken = self._clock() - started
                for one in found:
                    times = np.array([float(at) for at, _ in one["values"]])
                    places = np.searchsorted(instants.times, np.round(times * 1000).astype(np.int64))
                    values = np.array([float(value) for _, value in one["values"]])
                    kept = parts.setdefault(_labels(one["metric"]), ([], []))
                    kept[0].append(places)
                    kept[1].append(values)
                    held += len(values)
                if held > MOST_SAMPLES:
                    raise TooMuchError(f"{expr} gives more than {MOST_SAMPLES:,} values: ask for less, with --since")
                progress(upto - begin)
                begin = upto
                size = (
                    min(MOST, size * 2) if taken < PATIENCE else max(LEAST, size // 2) if taken > 4 * PATIENCE else size
                )
        return [(labels, np.concatenate(places), np.concatenate(values)) for labels, (places, values) in parts.items()]

    def _range(self, expr: str, start: int, end: int, step: int) -> list[dict[str, Any]]:
        data = self._remote.data(
            "query_range", query=expr, start=f"{start / 1000:.3f}", end=f"{end / 1000:.3f}", step=f"{step / 1000:.3f}"
        )
        return [one for one in data["result"] if one.get("values")]


def _labels(metric: dict[str, str]) -> Labels:
    return tuple(sorted(metric.items()))


@dataclass(slots=True)
class _Column:
    """One series, written in order of time; ``alone`` is its label set as a panel's."""

    alone: tuple[Labels]
    times: Integers = field(default_factory=lambda: np.empty(16, dtype=np.int64))
    values: Floats = field(default_factory=lambda: np.empty(16))
    size: int = 0
    last: int = -1  # the place of its last sample

    def write(self, times: Integers, values: Floats) -> None:
        need = self.size + len(times)
        if need > len(self.times):
            room = max(need, 2 * len(self.times))
            self.times, self.values = np.resize(self.times, room), np.resize(self.values, room)
        self.times[self.size : need], self.values[self.size : need] = times, values
        self.size = need


class Tape:
    """Series that were computed, by name: a storage for the engine.

    ``append`` is told of every instant, so that it ends series as a rule does: with a stale marker at the next one.
    """

    def __init__(self) -> None:
        self._series: dict[str, dict[Labels, _Column]] = {}
        self._written: dict[object, dict[Labels, _Column]] = {}
        self._samples = 0

    def append(self, name: str, rows: Sequence[Row], instants: Instants, begin: int, end: int, key: object) -> None:
        """Take in ``rows`` of the instants ``begin`` up to ``end``; ``key`` says who writes into ``name``."""
        columns = self._series.setdefault(name, {})
        mine = self._written.setdefault(key, {})
        present: set[Labels] = set()
        for labels, places, values in rows:
            column = columns.get(labels)
            if column is None:
                column = columns[labels] = _Column((labels,))
                column.last = begin - 1
            mine[labels] = column
            present.add(labels)
            self._write(column, places, values, instants, begin, end)
        for labels in [labels for labels, column in mine.items() if labels not in present and column.last == begin - 1]:
            self._end(mine[labels], instants.times[begin : begin + 1])
        if self._samples > MOST_SAMPLES:
            raise TooMuchError(f"the rules record more than {MOST_SAMPLES:,} values: ask for less, with --since")

    def _write(
        self, column: _Column, places: Integers, values: Floats, instants: Instants, begin: int, end: int
    ) -> None:
        if column.size and column.last == begin - 1 and places[0] > begin:
            self._end(column, instants.times[begin : begin + 1])
        ended = places[np.append(np.diff(places) > 1, places[-1] < end - 1)] + 1
        times = instants.times[np.concatenate([places, ended])]
        order = np.argsort(times, kind="stable")
        column.write(times[order], np.concatenate([values, np.full(len(ended), STALE_NAN)])[order])
        column.last = int(places[-1])
        self._samples += len(times)

    @staticmethod
    def _end(column: _Column, times: Integers) -> None:
        column.write(times, np.full(len(times), STALE_NAN))

    def put(self, samples: Iterable[tuple[Labels, float]], times: Integers) -> None:
        """Write each of the samples at all of the times, which come after what was written."""
        for labels, value in samples:
            columns = self._series.setdefault(dict(labels)[NAME], {})
            column = columns.setdefault(labels, _Column((labels,)))
            column.write(times, np.full(len(times), value))
            self._samples += len(times)

    def cut(self, samples: Iterable[tuple[Labels, float]], begin: int) -> None:
        """Take back what was put of these series from ``begin`` (ms) on."""
        for labels, _ in samples:
            column = self._series[dict(labels)[NAME]][labels]
            size = int(np.searchsorted(column.times[: column.size], begin))
            self._samples -= column.size - size
            column.size = size

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Panel]:
        """As the store's; a name that is no metric name (a part of an expression) is taken as it is."""
        named = next((each.value for each in matchers if each.name == NAME and each.op == "="), None)
        found = []
        groups = [self._series.get(named, {})] if named is not None else list(self._series.values())
        part = named is not None and named.startswith(PART)
        for columns in groups:
            for labels, column in list(columns.items()):
                if not part and not matches(labels, matchers):
                    continue
                times = column.times[: column.size]
                low, high = np.searchsorted(times, start_ms, "left"), np.searchsorted(times, end_ms, "right")
                if low < high:
                    found.append(Panel(column.alone, times[low:high], column.values[low:high, None]))
        return found


# No metric name begins with a space.
PART: Final = " part "


def rows_of(matrix: Matrix, instants: Instants) -> list[Row]:
    """What the engine answers, as rows."""
    return [(one.labels, np.searchsorted(instants.times, one.timestamps), one.values) for one in matrix.series]
