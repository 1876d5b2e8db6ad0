"""Exponential histograms become explicit ones: what is exact stays exact, the rest is off by at most one bucket."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource

from anvil_monitor.exporter.instrument import histogram_edges
from anvil_monitor.exporter.otlp.buckets import explicit_of, rebucket, rescale
from anvil_monitor.exporter.otlp.points import Exponential
from anvil_monitor.exporter.server import Collector, otlp_app
from anvil_monitor.targets.load import parse

EDGES = histogram_edges(parse('[[service]]\nname = "api"\nport = 1\n'), "api")["http_server_request_duration_seconds"]


def index_of(value: float, scale: int) -> int:
    """The bucket of ``value`` by the data model: (base**index, base**(index + 1)]."""
    base = 2.0**2.0**-scale
    index = 0
    while base**index >= value:
        index -= 1
    while base ** (index + 1) < value:
        index += 1
    return index


def counted(values: list[float], scale: int) -> Exponential:
    sides: tuple[dict[int, int], dict[int, int]] = {}, {}
    for value in values:
        if value:
            side = sides[value < 0]
            index = index_of(abs(value), scale)
            side[index] = side.get(index, 0) + 1
    return Exponential(scale, values.count(0), sides[0], sides[1], sum(values))


VALUES = st.lists(st.one_of(st.just(0.0), st.floats(0.001, 20), st.floats(-5, -0.001)), max_size=30)

# None on a bucket's boundary, where the test's own arithmetic may round to either side.
INSIDE = st.lists(st.integers(1, 5000).map(lambda n: (2 * n + 1) / 2003), max_size=30)


@settings(deadline=None)
@given(VALUES, st.integers(-2, 4))
def test_at_each_edge_the_count_is_off_by_at_most_the_bucket_that_holds_it(values: list[float], scale: int) -> None:
    """And the whole count is exact."""
    counts, bounds = explicit_of(counted(values, scale))
    made = rebucket(counts, bounds, EDGES)
    assert sum(made) == pytest.approx(len(values))
    below = 0.0
    for edge, count in zip(EDGES, made, strict=False):
        below += count
        bucket = index_of(edge, scale)
        held = sum(1 for value in values if value > 0 and index_of(value, scale) == bucket)
        assert abs(below - sum(value <= edge for value in values)) <= held + 1e-6


@settings(deadline=None)
@given(INSIDE, st.integers(0, 3), st.integers(1, 3))
def test_fewer_wider_buckets_hold_the_same(values: list[float], scale: int, less: int) -> None:
    """A sender that halves its scale: the old counts are put into the new buckets exactly."""
    assert rescale(counted(values, scale + less), scale) == counted(values, scale)


def test_ends_of_the_number_line() -> None:
    """Indexes beyond what a float holds are counted, not an error."""
    counts, bounds = explicit_of(Exponential(-10, 1, {5: 2, -5: 3}, {5: 4}, 0.0))
    assert sum(rebucket(counts, bounds, EDGES)) == 10


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    made = Collector(parse('[[service]]\nname = "api"\nport = 1\n'))
    server = uvicorn.Server(uvicorn.Config(otlp_app(made), port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield made, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1/metrics"
    server.should_exit = True
    thread.join()
    made.close()


@pytest.mark.parametrize("temporality", [AggregationTemporality.CUMULATIVE, AggregationTemporality.DELTA])
def test_a_real_sdk_with_exponential_histograms(
    collector: tuple[Collector, str], temporality: AggregationTemporality
) -> None:
    """OpenTelemetry's Python SDK and OTLP exporter, gzip, values that make it halve its scale between two exports."""
    made, url = collector
    exporter = OTLPMetricExporter(
        url, compression=Compression.Gzip, preferred_temporality={Histogram: temporality},
        preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation(max_size=16)},
    )  # fmt: skip
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=60_000)
    resource = Resource({"service.name": "api", "service.instance.id": "1"})
    provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    histogram = provider.get_meter("test").create_histogram("http.server.request.duration", "s")
    labels = {"http.request.method": "GET", "http.route": "/", "http.response.status_code": 200}
    for value in (0.05, 0.051, 0.052):
        histogram.record(value, labels)
    provider.force_flush()
    for value in (0.001, 4.0, 0.3):
        histogram.record(value, labels)
    provider.shutdown()
    (family,) = [each for each in made.totals.collect() if each.metric.name == "http_server_request_duration_seconds"]
    found = {sample.suffix + dict(sample.labels).get("le", ""): sample.value for sample in family.samples}
    assert found["_count"] == found["_bucket+Inf"] == 6
    assert found["_sum"] == pytest.approx(0.05 + 0.051 + 0.052 + 4.301)
    assert found["_bucket10"] == 6
    assert found["_bucket0.1"] == pytest.approx(4)
    assert "_bucket0.2" not in found
    missing = {
        sample.value for each in made.totals.collect() for sample in each.samples if "edge_missing" in each.metric.name
    }
    assert missing == {1.0}
