"""The samples that both engines hold: servers with routes, histograms and gauges, scraped every few seconds.

The same arguments give the same samples, so every process of the bench makes them for itself. Requests come in waves,
servers restart (their counters begin at 0 again), scrapes come a little early or late. No sample lies on a whole
second, where windows begin and end in queries: Prometheus 2 counts such a sample, Prometheus 3 does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from anvil_monitor.monitoring.samples import Floats, Integers, Labels, labels_of

START = 1_760_000_000 // 7200 * 7200
INTERVAL = 5
SERVICE = "shop"
EDGES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0)
LE = (*(f"{edge:g}" for edge in EDGES), "+Inf")
HTTP, DATABASE = "http_server_request_duration_seconds", "db_client_operation_duration_seconds"
PER_HISTOGRAM = len(LE) + 2
GAUGES, RECORDED = 7, 20
# Value and limit of each target in the records of the rules: the first one is missed.
TARGETS = {
    "api_response_time": (0.31, 0.2), "frontend_load_time": (1.2, 2.0), "db_query_time": (0.02, 0.05),
    "memory": (3.1e8, 5e8), "concurrent_users": (80.0, 100.0),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Source:
    """What one target answers, or one group of rules records: ``values[t, s]`` of ``labels[s]`` at ``times[t]`` ms."""

    labels: tuple[Labels, ...]
    times: Integers
    values: Floats


@dataclass(frozen=True, eq=False)
class Data:
    """``start`` and ``end`` in seconds since 1970."""

    sources: tuple[Source, ...]
    start: int
    end: int

    @property
    def series(self) -> int:
        return sum(len(source.labels) for source in self.sources)

    @property
    def samples(self) -> int:
        return sum(source.values.size for source in self.sources)

    def scrapes(self) -> Iterator[tuple[int, Source, int]]:
        """Time, source and row of every scrape, in the order in which they came."""
        order = [(int(at), number, row) for number, one in enumerate(self.sources) for row, at in enumerate(one.times)]
        for at, number, row in sorted(order):
            yield at, self.sources[number], row


def make(series: int, seconds: int, seed: int = 4, instances: int | None = None) -> Data:
    """About ``series`` series (``Data.series`` tells) over ``seconds``."""
    instances = instances or (4 if series <= 4000 else 10)
    histograms = max(5, round((series - RECORDED - GAUGES * instances) / (PER_HISTOGRAM * instances)))
    random = np.random.default_rng(seed)
    sources = [_instance(random, f"10.0.0.{number + 1}:8000", histograms, seconds) for number in range(instances)]
    return Data((*sources, _recorded(random, seconds)), START, START + seconds)


def _times(random: np.random.Generator, seconds: int, jitter: int) -> Integers:
    times = START * 1000 + np.arange(0, seconds * 1000, INTERVAL * 1000) + random.integers(200, 4700)
    times = times + random.integers(-jitter, jitter + 1, len(times))
    return times + (times % 1000 == 0)


def _instance(random: np.random.Generator, instance: str, histograms: int, seconds: int) -> Source:
    times = _times(random, seconds, 80)
    own = {"instance": instance, "job": "server", "service": SERVICE}
    restarts = np.sort(random.integers(len(times) // 8, len(times), 2))
    wave = 1 + 0.5 * np.sin(np.arange(len(times)) * INTERVAL / 3600 * 2 * np.pi + random.uniform(0, 6))
    columns: list[Floats] = []
    labels: list[Labels] = []
    failing = (histograms - 1) // 4
    for number in range(histograms):
        if number == 0:
            name, tags, rate = DATABASE, {"db_system_name": "postgresql", "db_operation_name": "SELECT"}, 60.0
        else:
            failed = number > histograms - 1 - failing
            route = f"/api/v1/thing{number - (histograms - 1 - failing) * failed}/{{id}}"
            status = {"http_response_status_code": "500", "error_type": "500"} if failed else {
                "http_response_status_code": "200"}  # fmt: skip
            name, tags = HTTP, {"http_request_method": "GET", "http_route": route, **status}
            rate = random.uniform(2, 30) / (20 if failed else 1)
        tags |= own
        labels += [labels_of(__name__=f"{name}_bucket", le=le, **tags) for le in LE]
        labels += [labels_of(__name__=f"{name}_{part}", **tags) for part in ("count", "sum")]
        columns.append(_histogram(random, rate * wave, restarts))
    for name, values in _gauges(random, wave, restarts):
        labels.append(labels_of(__name__=name, **own))
        columns.append(values[:, None])
    return Source(tuple(labels), times, np.ascontiguousarray(np.concatenate(columns, axis=1)))


def _histogram(random: np.random.Generator, rates: Floats, restarts: Integers) -> Floats:
    middle, wide = random.uniform(-4, -1.5), random.uniform(0.6, 1.2)
    shares = 1 / (1 + np.exp(-(np.log(EDGES) - middle) / (wide * 0.6)))  # the logistic curve is near enough
    shares = np.diff(np.concatenate([[0], shares, [1]])) + 1e-4
    counts = random.multinomial(random.poisson(rates * INTERVAL), shares / shares.sum()).astype(np.float64)
    typical = np.array([edge * 0.7 for edge in EDGES] + [13.0])
    taken = (counts * typical).sum(axis=1) * random.uniform(0.8, 1.2, len(rates))
    # A day's requests came before: next to 0, Prometheus 2 and 3 guess differently what lies before a first sample.
    before = random.multinomial(200_000, shares / shares.sum()) + 2000.0
    buckets = _counted(counts, before, restarts).cumsum(axis=1)
    total = _counted(taken[:, None], np.array([(before * typical).sum()]), restarts)
    return np.concatenate([buckets, buckets[:, -1:], total], axis=1)


def _counted(increments: Floats, before: Floats, restarts: Integers) -> Floats:
    total: Floats = increments.cumsum(axis=0) + before
    for restart in restarts:  # what was counted until then is gone
        total[restart:] -= total[restart - 1] if restart else 0
    return np.maximum(total, 0)


def _gauges(random: np.random.Generator, wave: Floats, restarts: Integers) -> Iterator[tuple[str, Floats]]:
    count = len(wave)
    pages = 60_000 + np.abs(random.integers(-40, 50, count).cumsum())
    yield "process_memory_usage_bytes", pages * 4096.0
    yield "http_server_active_requests", random.poisson(4 * wave).astype(np.float64)
    yield "http_server_active_users", random.poisson(40 * wave).astype(np.float64)
    spent = random.integers(20, 90, count).astype(np.float64)
    yield "process_cpu_time_seconds_total", _counted(spent[:, None], np.array([9e5]), restarts)[:, 0].round() / 100
    yield "process_open_file_descriptor_count", random.poisson(60, count).astype(np.float64)
    yield "scrape_duration_seconds", random.lognormal(-5, 0.3, count)
    yield "up", np.ones(count)


def _recorded(random: np.random.Generator, seconds: int) -> Source:
    times = _times(random, seconds, 0)
    labels, columns = [], []
    for target, (usual, limit) in TARGETS.items():
        value = usual * random.uniform(0.9, 1.1, len(times))
        parts = {"value": value, "limit": np.full(len(times), limit), "ratio": value / limit,
                 "samples": random.poisson(4000, len(times)).astype(np.float64)}  # fmt: skip
        for name, values in parts.items():
            labels.append(labels_of(__name__=f"target:{name}", service=SERVICE, target=target))
            columns.append(values)
    return Source(tuple(labels), times, np.ascontiguousarray(np.stack(columns, axis=1)))
