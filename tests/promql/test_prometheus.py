"""Our engine against a real Prometheus, over the same samples: labels, times and values must be the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from anvil_monitor.monitoring.promql import Engine

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
def test_rules_and_random_queries_give_what_prometheus_gives(
    prometheus: Callable[[Any], Any], oracle: ModuleType
) -> None:
    """Ten rule-like and 400 random queries, instant and range, over counters, gauges, gaps, markers and histograms."""
    data = oracle.random_data(2)
    server = prometheus(data)
    engine = Engine(oracle.store_of(data))
    queries = oracle.Queries(2)
    choice = random.Random(2)
    answered = 0
    for number in range(400 + len(RULES)):
        query = RULES[number] if number < len(RULES) else queries.vector(choice.choice([1, 2, 2, 3, 3]))
        at = oracle.START + choice.randrange(60, 3700) + 0.5
        instant = server.ask("query", query=query, time=at)
        assert not oracle.differ(instant, oracle.ours(engine, query, at)), f"{query} at {at}"
        step = choice.choice([17, 30, 61])
        end = at + step * choice.randrange(1, 30)
        found = server.ask("query_range", query=query, start=at, end=end, step=step)
        assert not oracle.differ(found, oracle.ours(engine, query, at, end, step)), f"{query} from {at} to {end}"
        answered += not isinstance(found, str) and bool(found)
    assert answered > 200  # most queries are about something
