"""What the pages hold together, as metric families: one answer, whichever worker gives it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import add

from . import names
from .exposition import Family, LabelPairs, Sample, number_text
from .reader import Totals


def families(totals: Totals, edges: Mapping[str, tuple[float, ...]], private: bool = False) -> list[Family]:
    """Totals as families. ``edges``: the present edges of each histogram, by metric name.

    Workers of an older configuration may have recorded with other edges: their counts are put into the present
    buckets, never into a smaller one than they may belong to.
    """
    found: dict[str, list[Sample]] = {}
    histograms: dict[tuple[str, tuple[str, ...]], list[float]] = {}
    bounds = dict(edges)
    for key, values in totals.lasting.items():
        if key.kind == "counter":
            found.setdefault(key.name, []).append(Sample("", _labels(key.name, key.labels), values[0]))
            continue
        present = bounds.setdefault(key.name, key.edges)
        counts = values if key.edges == present else _rebucket(key.edges, values, present)
        known = histograms.get((key.name, key.labels))
        histograms[key.name, key.labels] = counts if known is None else list(map(add, known, counts))
    for (name, labels), counts in histograms.items():
        # A family appears once its instrument has spoken.
        if any(counts[1:]):
            found.setdefault(name, []).extend(_histogram(_labels(name, labels), bounds[name], counts))
    for key, level in totals.levels.items():
        found.setdefault(key.name, []).append(Sample("", _labels(key.name, key.labels), level))
    for name, age in totals.oldest.items():
        found[name] = [Sample("", (), age)]
    if totals.workers:
        found[names.HTTP_USERS.name] = [Sample("", (), totals.clients)]
    found[names.WORKERS.name] = [Sample("", (), float(totals.workers))]
    found[names.PAGES_REFUSED.name] = [Sample("", (), float(totals.refused))]
    found[names.PRIVATE_PAGE.name] = [Sample("", (), float(private))]
    return [Family(names.BY_NAME[name], samples) for name, samples in sorted(found.items()) if name in names.BY_NAME]


@lru_cache(maxsize=16_384)
def _labels(name: str, values: tuple[str, ...]) -> LabelPairs:
    """Label pairs; an empty value is an absent label. A metric of another version, unknown here, is left out later."""
    metric = names.BY_NAME.get(name)
    if metric is None or len(metric.labels) != len(values):
        return ()
    return tuple(pair for pair in zip(metric.labels, values, strict=True) if pair[1])


def _histogram(labels: LabelPairs, edges: tuple[float, ...], values: Sequence[float]) -> list[Sample]:
    counts = list(accumulate(values[1:]))
    samples = [
        Sample("_bucket", pairs, count) for pairs, count in zip(_bucket_labels(labels, edges), counts, strict=True)
    ]
    return [*samples, Sample("_sum", labels, values[0]), Sample("_count", labels, counts[-1])]


@lru_cache(maxsize=16_384)
def _bucket_labels(labels: LabelPairs, edges: tuple[float, ...]) -> tuple[LabelPairs, ...]:
    return tuple((*labels, ("le", text)) for text in (*map(number_text, edges), "+Inf"))


def _rebucket(old: tuple[float, ...], values: list[float], new: tuple[float, ...]) -> list[float]:
    result = [values[0], *[0.0] * (len(new) + 1)]
    for edge, count in zip([*old, float("inf")], values[1:], strict=True):
        result[1 + bisect_left(new, edge)] += count
    return result
