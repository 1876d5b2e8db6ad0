"""A user who has OpenTelemetry's SDK keeps it, and has its numbers in /metrics, right over workers, as well."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from prometheus_client.parser import text_string_to_metric_families

from anvil_monitor.exporter.exposition import render
from anvil_monitor.exporter.merge import families
from anvil_monitor.exporter.meters import Streams
from anvil_monitor.exporter.publisher import Publisher
from anvil_monitor.exporter.reader import Reader
from anvil_monitor.exporter.recorder import Recorder
from anvil_monitor.exporter.sdkreader import attach

EDGES = {"db_client_operation_duration_seconds": (0.05, 10.0)}


class Worker:
    """One worker with an SDK provider of the user's own."""

    def __init__(self, folder: Path) -> None:
        self.recorder, self.publisher = Recorder(folder), Publisher(every=3600, patience=30)
        self.own = InMemoryMetricReader()
        views = [View(instrument_name="exponential", aggregation=ExponentialBucketHistogramAggregation())]
        self.provider = MeterProvider([self.own], shutdown_on_exit=False, views=views)
        self.meter = self.provider.get_meter("shop")

    def attach(self) -> bool:
        return attach(self.provider, Streams(self.recorder, EDGES), self.publisher)

    def end(self) -> None:
        self.publisher.stop()
        self.recorder.close()
        self.provider.shutdown()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Worker]]:
    made = [Worker(tmp_path) for _ in range(2)]
    yield made
    for each in made:
        each.end()


def shown(folder: Path) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = render(families(Reader(folder).totals(), EDGES))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_instrument_over_workers(workers: list[Worker], tmp_path: Path) -> None:
    """Sums, histograms and levels add up over workers, of a gauge the latest is shown; the user's own reader stays."""
    for number, worker in enumerate(workers, 1):
        meter = worker.meter
        counter, levels = meter.create_counter("c", "By"), meter.create_up_down_counter("u")
        gauge, histogram = meter.create_gauge("g"), meter.create_histogram("h", "s")
        known = meter.create_histogram("db.client.operation.duration", "s")
        meter.create_observable_counter("oc", [lambda options, number=number: [Observation(number, {"a": True})]])  # type: ignore[misc]
        assert worker.attach()
        assert worker.attach()  # once
        for _ in range(2):
            counter.add(number, {"b": "x"})
            levels.add(number)
            gauge.set(number)
            histogram.record(0.3)
            known.record(0.03, {"db.system": "redis", "server.port": number})
            assert worker.publisher.flush()
    meter.create_histogram("exponential").record(1)
    found = shown(tmp_path)
    expected = {
        ("c_bytes_total", (("b", "x"),)): 6, ("oc_total", (("a", "true"),)): 3, ("u", ()): 6, ("g", ()): 2,
        ("h_seconds_count", ()): 4, ("h_seconds_sum", ()): 1.2,
        ("db_client_operation_duration_seconds_count", (("db_system_name", "redis"),)): 4,
    }  # fmt: skip
    assert {key: found.get((key[0], frozenset(key[1]))) for key in expected} == pytest.approx(expected)
    data = workers[0].own.get_metrics_data()
    assert data is not None
    assert len(data.resource_metrics[0].scope_metrics[0].metrics) == 6


def test_what_we_measure_ourselves_is_not_counted_twice(workers: list[Worker], tmp_path: Path) -> None:
    """Requests have one source, which is the middleware."""
    workers[0].attach()
    workers[0].meter.create_histogram("http.server.request.duration", "s").record(1)
    assert workers[0].publisher.flush()
    assert not [name for name, _ in shown(tmp_path) if name.startswith("http_server_request")]


def test_a_forked_worker(workers: list[Worker], tmp_path: Path) -> None:
    """The SDK's sums are inherited by a child; what they were at the fork is counted once."""
    worker = workers[0]
    counter, histogram = worker.meter.create_counter("c"), worker.meter.create_histogram("h")
    worker.attach()
    counter.add(2)
    assert worker.publisher.flush()
    counter.add(3)
    histogram.record(7)
    child = os.fork()
    if not child:
        counter.add(10)
        histogram.record(8)
        os._exit(0 if worker.publisher.flush() else 1)
    assert os.waitpid(child, 0)[1] == 0
    counter.add(100)
    assert worker.publisher.flush()
    found = shown(tmp_path)
    assert found["c_total", frozenset()] == 115
    assert (found["h_count", frozenset()], found["h_sum", frozenset()]) == (2, 15)


def test_an_sdk_without_a_way_in(workers: list[Worker], caplog: pytest.LogCaptureFixture) -> None:
    """An older SDK takes no reader later; the log says what is missing and what to do."""

    class Older:
        pass

    assert not attach(Older(), Streams(workers[0].recorder, {}), workers[0].publisher)
    assert "cannot be given a reader" in caplog.text


def test_a_server_on_the_sdk(tmp_path: Path) -> None:
    """install() leaves the user's provider where it is; what was counted last is there after the process ended."""
    code = """
import os
from pathlib import Path
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY
from anvil_monitor.exporter import names
from anvil_monitor.exporter.meters import install
from anvil_monitor.exporter.recorder import recorder_for
from anvil_monitor.exporter.registry import adopt, others
provider = MeterProvider([PrometheusMetricReader()])
metrics.set_meter_provider(provider)
recorder = recorder_for(Path("pages"))
install(recorder, {})
install(recorder, {})
adopt(recorder)
assert metrics.get_meter_provider() is provider
counter = metrics.get_meter("m").create_counter("c")
counter.add(1)
assert "c_total" in {sample.name for metric in REGISTRY.collect() for sample in metric.samples}
assert others(recorder) == []  # the pages have it
recorder.gauge(names.HTTP_ACTIVE, ("GET",))  # it serves
counter.add(4)
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    assert shown(tmp_path / "pages")["c_total", frozenset()] == 10
