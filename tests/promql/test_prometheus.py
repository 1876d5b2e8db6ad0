"""Our engine against a real Prometheus, over the same samples: labels, times and values must be the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest

from anvil_monitor.monitoring.promql import Engine

QUERIES = 2_500
"""A seed; there are eight of them."""

AT_ONCE = 200
"""Queries that Prometheus answers while we answer those before them."""

RULES = [
    'histogram_quantile(0.95, sum by (le) (rate(size_bucket{job="a"}[1m])))',
    'sum(increase(size_bucket{job="a", le="+Inf"}[5m]))',
    'sum(rate(requests_total{job="a"}[1m])) / sum(rate(size_bucket{job="a", le="+Inf"}[1m]))',
    'sum by (job) (avg_over_time(level{job="a"}[1m]))',
    'max_over_time(level{job="a"}[5m]) > bool 30',
    'label_replace(vector(200), "service", "shop", "", "") unless on (service) up',
    'label_replace(label_replace(vector(200), "job", "a", "", ""), "target", "api", "", "") unless on (job) level',
    "level and on (job, instance) (rate(requests_total[1m]) > 1) and on (job) (sum by (job) (requests_total) >= 100)",
    "(level > 3) or on () vector(0)",
    "avg_over_time((sum by (job) (rate(requests_total[1m])) > 0.5)[10m:29s])",
]


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize("seed", range(1, 9))
def test_random_queries_give_what_prometheus_gives(
    seed: int, prometheus: Callable[[Any], Any], oracle: ModuleType, differences: ModuleType
) -> None:
    """2,500 queries a seed, one half at an instant, one over a range; counters, gauges, gaps, markers, histograms.

    What may differ, and why, is in differences.py; nothing else does.
    """
    data = oracle.random_data(seed)
    server = prometheus(data)
    engine = Engine(oracle.store_of(data))
    queries, choice = oracle.Queries(seed), random.Random(seed)
    asked = []
    for number in range(QUERIES):
        query = RULES[number] if number < len(RULES) else queries.vector(choice.choice([1, 2, 2, 3, 3]))
        at = oracle.START + choice.randrange(60, 3700) + 0.5
        asked.append((query, at) if number % 2 else (query, at, at + 17 * choice.randrange(1, 8), 17))

    def answers(part: list[tuple[Any, ...]]) -> list[Any]:
        return [
            server.ask("query", query=query, time=at)
            if not span
            else server.ask("query_range", query=query, start=at, end=span[0], step=span[1])
            for query, at, *span in part
        ]

    answered, known, wrong = 0, 0, []
    with ThreadPoolExecutor(1) as other:
        parts = [asked[begin : begin + AT_ONCE] for begin in range(0, QUERIES, AT_ONCE)]
        coming = [other.submit(answers, part) for part in parts]
        for part, theirs in zip(parts, coming, strict=True):
            ours = [oracle.ours(engine, *one) for one in part]
            for one, here, there in zip(part, ours, theirs.result(), strict=True):
                answered += not isinstance(there, str) and bool(there)
                difference = oracle.differ(there, here)
                refused = here == "execution" and not isinstance(there, str)
                if difference and differences.tolerated(one[0], ranged=len(one) > 2, refused=refused):
                    known += 1
                elif difference:
                    wrong.append(f"{one}: {difference}")
    server.close()
    assert not wrong, "\n".join([f"{len(wrong)} of {QUERIES}", *wrong[:20]])
    assert answered > QUERIES / 2  # most queries are about something
    assert known < QUERIES / 50
