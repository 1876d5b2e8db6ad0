"""Pages to text, fast: what a scrape costs whoever is scraped.

Between two scrapes the layout of the pages hardly ever changes, only their values do. So a :class:`Plan` is kept: where
the values are in each page, in which order the answer has them, and the text between them. A scrape then is a few
passes of C over all values: unpack, put in order, add up over pages, add up over buckets, join with the text.

What is no plain sum of values at fixed places goes the plain way (totals.py, merge.py, exposition.py): ages, users,
extremes, histograms of a worker with other edges, whatever else is to be shown. It is little.

``Exposer(Reader(folder), edges).text()`` is the whole of it, for benchmarks too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain
from math import trunc
from operator import add, itemgetter
from struct import Struct
from typing import Any, Final

from . import layout, names
from .exposition import Family, body, end, head, label_text, merged, numbers
from .layout import Key
from .merge import edge_texts, families, rebucket
from .names import Metric
from .reader import Reader, Snapshot
from .totals import Reading, total

# Kinds whose values are added up over pages, each at its place.
SUMMED: Final = frozenset(("histogram", "counter", "gauge"))
Extra = Iterable[Family] | Callable[[tuple[int, ...]], Iterable[Family]]


class Exposer:
    """The answer to ``GET /metrics``. Thread-safe. ``edges``: the present edges of each histogram, by metric name."""

    def __init__(self, reader: Reader, edges: Mapping[str, tuple[float, ...]]) -> None:
        self.reader, self.edges = reader, edges
        self._plan: tuple[object, Plan] | None = None

    def text(self, openmetrics: bool = False, private: bytes | None = None, extra: Extra = ()) -> str:
        """All metrics of all workers.

        ``private``: the bytes of this worker's page where it is in no file. ``extra``: further families, or a function
        that gives them for the process ids of the live workers; a name that pages have too is one family in the answer.

        Raises ``OSError`` as :meth:`Reader.totals` does.
        """
        found = self.reader.snapshot(private)
        others = list(extra(_pids(found)) if callable(extra) else extra)
        plan = self._planned(found, frozenset(family.metric.name for family in others))
        totals = total(plan.rest(found.pages), found.refused, self.reader.clock())
        rest = merged([*families(totals, plan.edges, private is not None), *others])
        return plan.text(found.pages, openmetrics) + body(rest, openmetrics) + end(openmetrics)

    def _planned(self, found: Snapshot, elsewhere: frozenset[str]) -> Plan:
        shape = (found.retired, [(page.name, page.alive, page.header.used) for page in found.pages])
        kept = self._plan
        if kept is None or kept[0] != shape or kept[1].names & elsewhere != kept[1].elsewhere:
            kept = self._plan = shape, Plan(found.pages, self.edges, elsewhere)
        return kept[1]


@dataclass(frozen=True, slots=True)
class Column:
    """Brings the values of one page into the plan's order."""

    page: str
    unpack: Callable[[bytes], tuple[float, ...]]
    pick: Callable[[tuple[float, ...]], tuple[float, ...]]

    def values(self, data: bytes) -> tuple[float, ...]:
        return self.pick((*self.unpack(data), 0.0))


class Sheet:
    """The text of an answer without its numbers. ``order``: which number comes next, by its place in the plan."""

    def __init__(self, pieces: list[str], order: list[int]) -> None:
        self._line: list[str] = [""] * (2 * len(pieces) + 1)
        self._line[:-1:2] = pieces
        self._line[0] = self._line[0].removeprefix("\n")
        self._line[-1] = "\n" if pieces else ""
        self._pick: Callable[[list[str]], Sequence[str]] = (
            itemgetter(*order) if len(order) > 1 else lambda texts: [texts[place] for place in order]
        )

    def text(self, numbers: list[str]) -> str:
        line = self._line.copy()
        line[1::2] = self._pick(numbers)
        return "".join(line)


class Plan:
    """How these pages become text. ``elsewhere``: names of families that do not come from pages alone.

    The order of values is: the bucket counts of every histogram, the sums of every histogram, counters and gauges.
    """

    def __init__(
        self, pages: Sequence[Reading], edges: Mapping[str, tuple[float, ...]], elsewhere: frozenset[str]
    ) -> None:
        survey = _Survey(pages, edges)
        self.edges, self.names = survey.edges, survey.names
        self.elsewhere = survey.names & elsewhere
        self._plain = survey.plain | self.elsewhere
        self._rest = [[record for record in page.records if record[0].name in self._plain] for page in pages]
        summed = [
            (page, [(key, first) for key, first, _ in page.records
                    if key.name not in self._plain and survey.fits(key) and (page.alive or key.kind in layout.LASTING)])
            for page in pages
        ]  # fmt: skip
        series = sorted({(key.name, key.labels) for _, records in summed for key, _ in records})
        self._series = [(survey.metrics[name], labels) for name, labels in series]
        self._slices: list[slice] = []
        self._place: dict[tuple[str, layout.Pairs], int] = {}  # of a histogram's first bucket, or of the one value
        self._lay_out()
        self._base: list[float] | None = None
        self._columns: list[Column] = []
        for page, records in summed:
            if page.alive:
                self._columns.append(self._column(page, records))
            else:
                self._add_to_base(page, records)
        self._sheets: dict[bool, tuple[tuple[int, ...], Sheet]] = {}

    def rest(self, pages: Sequence[Reading]) -> list[Reading]:
        """``pages`` with those records only that are not in :meth:`text`."""
        return [
            Reading(page.name, page.alive, page.header, page.data, records)
            for page, records in zip(pages, self._rest, strict=True)
        ]

    def text(self, pages: Sequence[Reading], openmetrics: bool) -> str:
        values = self._sum({page.name: page.data for page in pages})
        slices = self._slices
        counts = list(chain.from_iterable(map(accumulate, map(values.__getitem__, slices))))
        try:
            texts = list(map(repr, map(trunc, counts)))
        except (ValueError, OverflowError):  # no finite numbers: somebody else wrote into a page
            texts = numbers(counts)
        texts += numbers(values[self._buckets :])
        # A histogram appears once its instrument has spoken.
        silent = tuple(at for at, piece in enumerate(slices) if not counts[piece.stop - 1]) if 0.0 in counts else ()
        kept = self._sheets.get(openmetrics)
        if kept is None or kept[0] != silent:
            kept = self._sheets[openmetrics] = silent, self._sheet(openmetrics, set(silent))
        return kept[1].text(texts)

    def _lay_out(self) -> None:
        at = 0
        histograms = [each for each in self._series if each[0].kind == "histogram"]
        for metric, labels in histograms:
            self._place[metric.name, labels] = at
            size = len(self.edges[metric.name]) + 1
            self._slices.append(slice(at, at + size))
            at += size
        self._buckets = at
        self._sums = {(metric.name, labels): at + place for place, (metric, labels) in enumerate(histograms)}
        at += len(histograms)
        for metric, labels in self._series:
            if metric.kind != "histogram":
                self._place[metric.name, labels] = at
                at += 1
        self._size = at

    def _column(self, page: Reading, records: list[tuple[Key, int]]) -> Column:
        # What unpack gives: the values of these records one after the other, then a zero for what the page lacks.
        form, end, found = ["="], 0, 0
        sizes = [len(key.empty) for key, _ in records]
        zero = sum(sizes)
        places = [zero] * (self._size + 2)  # two more, because itemgetter gives no tuple for one
        for (key, first), size in zip(records, sizes, strict=True):
            form.append(f"{8 * (first - end)}x{size}d")
            place = self._place[key.name, key.labels]
            if key.kind == "histogram":
                places[self._sums[key.name, key.labels]] = found
                places[place : place + size - 1] = range(found + 1, found + size)
            else:
                places[place] = found
            end, found = first + size, found + size
        return Column(page.name, Struct("".join(form)).unpack_from, itemgetter(*places))

    def _add_to_base(self, page: Reading, records: list[tuple[Key, int]]) -> None:
        base: list[float] = self._base or [0.0] * (self._size + 2)
        self._base = base
        values = page.values
        for key, first in records:
            place = self._place[key.name, key.labels]
            if key.kind != "histogram":
                base[place] += values[first]
                continue
            edges = self.edges[key.name]
            found: list[float] = list(values[first : first + len(key.edges) + 2])
            if key.edges != edges:
                found = rebucket(key.edges, found, edges)
            base[self._sums[key.name, key.labels]] += found[0]
            end = place + len(edges) + 1
            base[place:end] = map(add, base[place:end], found[1:])

    def _sum(self, data: Mapping[str, bytes]) -> list[float]:
        found: Any = self._base
        for number, column in enumerate(self._columns):
            values = column.values(data[column.page])
            found = values if found is None else map(add, found, values)
            if number % 32 == 31:  # maps of maps call each other
                found = list(found)
        return list(found or ())[: self._size]

    def _sheet(self, openmetrics: bool, silent: set[int]) -> Sheet:
        pieces: list[str] = []
        order: list[int] = []
        histogram = -1
        family = ""
        for metric, labels in self._series:
            place = self._place[metric.name, labels]
            if metric.kind == "histogram":
                histogram += 1
                if histogram in silent:
                    continue
                end = place + len(self.edges[metric.name]) + 1
                new = list(_histogram_pieces(metric.name, labels, self.edges[metric.name]))
                order += (*range(place, end), self._sums[metric.name, labels], end - 1)
            else:
                new = [f"\n{metric.name}{label_text(labels)} "]
                order.append(place)
            if metric.name != family:
                family = metric.name
                new[0] = f"\n{head(metric, openmetrics)}{new[0]}"
            pieces += new
        return Sheet(pieces, order)


class _Survey:
    """What the pages have: metrics, edges, and the names of what goes the plain way."""

    def __init__(self, pages: Sequence[Reading], edges: Mapping[str, tuple[float, ...]]) -> None:
        self.metrics: dict[str, Metric] = {}
        self.edges: dict[str, tuple[float, ...]] = {}
        self.plain: set[str] = set()
        found: set[str] = set()
        for page in pages:
            for key, _, _ in page.records:
                if key.kind == "metric":
                    self.metrics[key.name] = layout.described(key)
                    continue
                found.add(key.name)
                if key.kind == "histogram":
                    self.edges[key.name] = key.edges
                elif key.kind not in SUMMED:
                    self.plain.add(key.name)
        self.names = frozenset(found)
        self.metrics.update(names.BY_NAME)
        self.edges.update(edges)
        for page in pages:
            keys = [key for key, _, _ in page.records]
            if len(set(keys)) < len(keys):  # a record twice: no place for both
                self.plain |= {key.name for key in keys}
            if page.alive:
                self.plain |= {
                    key.name for key in keys if key.kind == "histogram" and key.edges != self.edges[key.name]
                }

    def fits(self, key: Key) -> bool:
        """Whether the series is what its metric is; another worker may have had another metric of this name."""
        metric = self.metrics.get(key.name)
        return metric is not None and layout.TYPES.get(key.kind) == metric.kind


@lru_cache(maxsize=4096)
def _histogram_pieces(name: str, labels: layout.Pairs, edges: tuple[float, ...]) -> tuple[str, ...]:
    own = label_text(labels)
    before = f"\n{name}_bucket{own[:-1]}," if own else f"\n{name}_bucket{{"
    return (*[f'{before}le="{text}"}} ' for text in edge_texts(edges)], f"\n{name}_sum{own} ", f"\n{name}_count{own} ")


def _pids(found: Snapshot) -> tuple[int, ...]:
    return tuple(sorted({page.header.pid for page in found.pages if page.alive}))
