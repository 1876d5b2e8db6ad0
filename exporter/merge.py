"""What the pages hold together, as metric families: one answer, whichever worker gives it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import add

from . import layout, names
from .exposition import Family, LabelPairs, Sample, edge_text
from .layout import Key
from .totals import Totals


def families(totals: Totals, edges: Mapping[str, tuple[float, ...]], private: bool = False) -> list[Family]:
    """Totals as families. ``edges``: the present edges of each histogram, by metric name.

    Workers of an older configuration may have recorded with other edges: their counts are put into the present
    buckets, never into a smaller one than they may belong to.
    """
    found: dict[str, list[Sample]] = {}
    metrics = {**totals.metrics, **names.BY_NAME}
    bounds = {**totals.edges, **edges}
    histograms: dict[tuple[str, LabelPairs], list[float]] = {}

    def add_sample(key: Key, value: float) -> None:
        metric = metrics.get(key.name)
        # Two workers that disagree on what a metric is: the youngest is right, the other's series has no place.
        if metric is not None and metric.kind == layout.TYPES[key.kind]:
            found.setdefault(key.name, []).append(Sample("", key.labels, value))

    for key, values in totals.lasting.items():
        if key.kind == "counter":
            add_sample(key, values[0])
            continue
        counts = values if key.edges == bounds[key.name] else rebucket(key.edges, values, bounds[key.name])
        known = histograms.get((key.name, key.labels))
        histograms[key.name, key.labels] = counts if known is None else list(map(add, known, counts))
    for (name, labels), counts in histograms.items():
        # A family appears once its instrument has spoken.
        if any(counts[1:]) and name in metrics and metrics[name].kind == "histogram":
            found.setdefault(name, []).extend(_histogram(labels, bounds[name], counts))
    for key, level in totals.levels.items():
        add_sample(key, level)
    for name, age in totals.oldest.items():
        found[name] = [Sample("", (), age)]
    if totals.workers:
        found[names.HTTP_USERS.name] = [Sample("", (), totals.clients)]
    found[names.WORKERS.name] = [Sample("", (), float(totals.workers))]
    found[names.PAGES_REFUSED.name] = [Sample("", (), float(totals.refused))]
    found[names.PRIVATE_PAGE.name] = [Sample("", (), float(private))]
    return [Family(metrics[name], samples) for name, samples in sorted(found.items()) if name in metrics]


def _histogram(labels: LabelPairs, edges: tuple[float, ...], values: Sequence[float]) -> list[Sample]:
    counts = list(accumulate(values[1:]))
    samples = [
        Sample("_bucket", pairs, count) for pairs, count in zip(_bucket_labels(labels, edges), counts, strict=True)
    ]
    return [*samples, Sample("_sum", labels, values[0]), Sample("_count", labels, counts[-1])]


@lru_cache(maxsize=4096)
def _bucket_labels(labels: LabelPairs, edges: tuple[float, ...]) -> tuple[LabelPairs, ...]:
    return tuple((*labels, ("le", text)) for text in edge_texts(edges))


@lru_cache(maxsize=1024)
def edge_texts(edges: tuple[float, ...]) -> tuple[str, ...]:
    """The value of ``le`` of each bucket of a histogram with ``edges``."""
    return (*map(edge_text, edges), "+Inf")


def rebucket(old: tuple[float, ...], values: Sequence[float], new: tuple[float, ...]) -> list[float]:
    """``values`` (the sum, then a count for each of the ``old`` edges and +Inf) as if recorded with ``new`` edges."""
    result = [values[0], *[0.0] * (len(new) + 1)]
    for edge, count in zip([*old, float("inf")], values[1:], strict=True):
        result[1 + bisect_left(new, edge)] += count
    return result
