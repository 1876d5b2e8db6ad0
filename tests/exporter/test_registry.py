"""prometheus_client's metrics on page cells: the user's own metrics, right over workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.parser import text_string_to_metric_families

from anvil_monitor.exporter import registry as module
from anvil_monitor.exporter.exposition import render
from anvil_monitor.exporter.merge import families
from anvil_monitor.exporter.publisher import Publisher
from anvil_monitor.exporter.reader import Reader
from anvil_monitor.exporter.recorder import Recorder
from anvil_monitor.exporter.registry import adopt, misfit, others

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Server:
    """One worker: its registry, and what /metrics of the folder shows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recorder = Recorder(folder)
        self.registry = CollectorRegistry(auto_describe=True)
        self.publisher = Publisher(every=3600, patience=30)

    def adopt(self) -> None:
        adopt(self.recorder, self.registry, self.publisher)

    def text(self) -> str:
        assert self.publisher.flush()
        return render([*families(Reader(self.folder).totals(), {}), *others(self.recorder)])

    def shown(self) -> Values:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.shown().get((name, frozenset(labels.items())))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "pages")
    yield made
    made.publisher.stop()
    made.recorder.close()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[Server]]:
    made = [Server(tmp_path / "pages") for _ in range(3)]
    yield made
    for each in made:
        each.publisher.stop()
        each.recorder.close()


PID = str(os.getpid())


def test_the_private_names_are_there() -> None:
    """An upgrade of prometheus_client that renames what we need fails here, and not in somebody's server."""
    assert misfit() == ""


@pytest.mark.parametrize("existing", [True, False])
def test_every_kind_of_metric(server: Server, existing: bool) -> None:
    """Metrics made before and after, with what they had counted, and their children."""
    if not existing:
        server.adopt()
    counter = Counter("orders", "Orders.", ["pay"], registry=server.registry)
    gauge = Gauge("queue", "Queue.", registry=server.registry, multiprocess_mode="sum")
    histogram = Histogram("basket", "Basket.", ["kind"], buckets=[1, 5], registry=server.registry, unit="euros")
    summary = Summary("size", "Size.", registry=server.registry)
    counter.labels("card").inc(2)
    gauge.set(3)
    histogram.labels(kind="a").observe(5)
    summary.observe(7)
    server.adopt()
    counter.labels("card").inc()
    counter.labels("cash").inc(0.5)
    gauge.inc(2)
    histogram.labels("a").observe(5.5)
    summary.observe(1)
    shown = server.shown()
    expected = {
        ("orders_total", (("pay", "card"),)): 3, ("orders_total", (("pay", "cash"),)): 0.5, ("queue", ()): 5,
        ("basket_euros_bucket", (("kind", "a"), ("le", "1.0"))): 0,
        ("basket_euros_bucket", (("kind", "a"), ("le", "5.0"))): 1,
        ("basket_euros_bucket", (("kind", "a"), ("le", "+Inf"))): 2,
        ("basket_euros_sum", (("kind", "a"),)): 10.5, ("size_sum", ()): 8, ("size_count", ()): 2,
    }  # fmt: skip
    assert {key: shown.get((key[0], frozenset(key[1]))) for key in expected} == expected
    assert "# HELP orders_total Orders." in server.text()


def test_it_stays_the_librarys_metric(server: Server) -> None:
    """Its class, what it prints and what the library itself exposes of it are what they were, for this worker."""
    server.adopt()
    counter = Counter("orders", "Orders.", ["pay"], registry=server.registry)
    histogram = Histogram("took", "Took.", buckets=[1], registry=server.registry)
    counter.labels("card").inc(2)
    with histogram.time():
        pass
    histogram.observe(0.5, exemplar={"trace_id": "1"})
    assert isinstance(counter, Counter)
    assert repr(counter) == "prometheus_client.metrics.Counter(orders)"
    assert server.registry.get_sample_value("orders_total", {"pay": "card"}) == 2
    assert server.registry.get_sample_value("took_count") == 2
    assert b'took_bucket{le="1.0"} 2.0' in generate_latest(server.registry)
    with pytest.raises(ValueError, match="non-negative"):
        counter.labels("card").inc(-1)
    with pytest.raises(ValueError, match="missing label values"):
        counter.inc()
    counter.labels("card").reset()
    assert server("orders_total", pay="card") == 0


def test_nothing_is_made_at_import(server: Server) -> None:
    """Metrics that are made, and gauges that are set, before anything is served make no page."""
    server.adopt()
    Counter("orders", "Orders.", registry=server.registry)
    Gauge("version", "Version.", registry=server.registry).set(3)
    Info("build", "Build.", registry=server.registry).info({"commit": "abc"})
    Enum("state", "State.", states=["on", "off"], registry=server.registry).state("off")
    assert not server.folder.exists()
    shown = server.shown()
    assert shown["orders_total", frozenset()] == 0
    assert shown["version", frozenset({("pid", PID)})] == 3
    assert shown["build_info", frozenset({("commit", "abc")})] == 1
    assert shown["state", frozenset({("state", "off")})] == 1


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("sum", 9), ("livesum", 9), ("max", 4), ("livemax", 4), ("min", 2), ("livemin", 2), ("mostrecent", 2)],
)
def test_gauges_over_workers(workers: list[Server], mode: Any, expected: float) -> None:
    """A gauge is one number over workers as its multiprocess_mode says; a dead worker's is gone."""
    for worker, value in zip(workers, (3, 4, 2), strict=True):
        worker.adopt()
        Gauge("g", "G.", registry=worker.registry, multiprocess_mode=mode).set(value)
        assert worker.publisher.flush()
    assert workers[0]("g") == workers[2]("g") == expected
    workers[2].recorder.close()
    assert workers[0]("g") == {"sum": 7, "max": 4, "min": 3, "mostrecent": 4}[mode.removeprefix("live")]


def test_a_gauge_of_each_worker(server: Server) -> None:
    """By default each worker's own value, told apart by pid; a forked child has its own."""
    server.adopt()
    gauge = Gauge("g", "G.", registry=server.registry)
    early = Gauge("early", "Set before the fork, and before there was a page.", registry=server.registry)
    early.set(8)
    child = os.fork()
    if not child:
        server.recorder.when_open(lambda: None)
        gauge.set(5)
        server.publisher.flush()
        signal.pause()
    gauge.set(4)
    try:
        for _ in range(500):
            shown = server.shown()
            if len([name for name, _ in shown if name in ("g", "early")]) == 4:
                break
            threading.Event().wait(0.01)
        assert shown["g", frozenset({("pid", PID)})] == 4
        assert shown["g", frozenset({("pid", str(child))})] == 5
        assert shown["early", frozenset({("pid", str(child))})] == 8
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert [labels for name, labels in server.shown() if name == "g"] == [frozenset({("pid", PID)})]


def test_a_forked_child_after_the_page_is_there(server: Server) -> None:
    """It counts from zero, and no number of its parent's has the child's pid or is there twice."""
    server.adopt()
    gauge = Gauge("g", "G.", registry=server.registry)
    counter = Counter("c", "C.", registry=server.registry)
    gauge.set(4)
    counter.inc(3)
    assert server("c_total") == 3
    child = os.fork()
    if not child:
        counter.inc(2)
        server.publisher.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    shown = server.shown()
    assert shown["c_total", frozenset()] == 5
    assert {labels: value for (name, labels), value in shown.items() if name == "g"} == {frozenset({("pid", PID)}): 4}


def test_nothing_is_lost_by_a_kill(tmp_path: Path) -> None:
    """What a worker counted up to the instant of its SIGKILL is in the totals of the others."""
    code = """
import os, signal
from pathlib import Path
from prometheus_client import Counter, Histogram, Summary
from anvil_monitor.exporter.recorder import Recorder
from anvil_monitor.exporter.registry import adopt
counter, before = Counter("c", "C."), Counter("before", "B.")
before.inc(2)
adopt(Recorder(Path("pages")))
histogram, summary = Histogram("h", "H."), Summary("s", "S.")
for number in range(1000):
    counter.inc()
    histogram.observe(number)
    summary.observe(number)
os.kill(os.getpid(), signal.SIGKILL)
"""
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60)
    server = Server(tmp_path / "pages")
    assert (server("c_total"), server("before_total"), server("h_count"), server("s_count")) == (2000, 4, 2000, 2000)
    assert server("h_sum") == server("s_sum") == 999000
    server.recorder.close()


def test_a_gauge_with_a_function(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Asked in every worker; one that fails is not shown, which is said once."""
    value: list[Any] = [5]
    before = Gauge("before", "B.", registry=server.registry, multiprocess_mode="max")
    before.set_function(lambda: value[0])
    server.adopt()
    after = Gauge("after", "A.", ["a"], registry=server.registry, multiprocess_mode="max")
    after.labels("x").set_function(lambda: value[0] + 1)
    assert (server("before"), server("after", a="x")) == (5, 6)
    value[0] = 7
    assert (server("before"), server("after", a="x")) == (7, 8)
    value[0] = None
    assert (server("before"), server("after", a="x")) == (None, None)
    server.shown()
    assert caplog.text.count("gauge:before has a function that fails") == 1


def test_a_removed_gauge(server: Server) -> None:
    """Is no longer shown; a counter's past is never taken back."""
    server.adopt()
    gauge = Gauge("g", "G.", ["a"], registry=server.registry)
    total = Gauge("t", "T.", ["a"], registry=server.registry, multiprocess_mode="sum")
    counter = Counter("c", "C.", ["a"], registry=server.registry)
    for each in (gauge, total, counter):
        for label in "xyz":
            each.labels(label).inc(2)
    assert server("g", a="x", pid=PID) == 2
    for each in (gauge, total, counter):
        each.remove("x")
        each.remove_by_labels({"a": "y"})
    assert [server(name, a="x", pid=PID) for name in "g"] == [None]
    assert (server("t", a="x"), server("t", a="y"), server("t", a="z")) == (0, 0, 2)
    assert server("c_total", a="x") == 2
    gauge.labels("x").set(4)
    assert server("g", a="x", pid=PID) == 4
    gauge.clear()
    assert [name for name, _ in server.shown() if name == "g"] == []


def test_states_and_infos(workers: list[Server]) -> None:
    """An Enum is what any worker set last, and not how a new worker begins; equal infos of workers are one."""
    enums = []
    for worker in workers[:2]:
        worker.adopt()
        enums.append(Enum("state", "S.", states=["starting", "running"], registry=worker.registry))
        info = Info("build", "B.", ["part"], registry=worker.registry).labels("x")
        info.info({"commit": "old"})
        info.info({"commit": "abc"})
    assert workers[0]("state", state="starting") == 1
    enums[0].state("running")
    workers[2].adopt()
    Enum("state", "S.", states=["starting", "running"], registry=workers[2].registry)
    shown = {labels: value for (name, labels), value in workers[2].shown().items() if name in ("state", "build_info")}
    assert shown == {
        frozenset({("state", "starting")}): 0,
        frozenset({("state", "running")}): 1,
        frozenset({("part", "x"), ("commit", "abc")}): 1,
    }


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), float("-inf")])
def test_impossible_amounts(server: Server, amount: float) -> None:
    """One NaN would spoil a sum over all workers for ever: not counted, by half either, and not raised."""
    server.adopt()
    counter = Counter("c", "C.", registry=server.registry)
    histogram = Histogram("h", "H.", registry=server.registry)
    summary = Summary("s", "S.", registry=server.registry)
    if amount > 0 or amount != amount:
        counter.inc(amount)
    histogram.observe(amount)
    counter.inc(1)
    histogram.observe(1)
    summary.observe(1)
    assert (server("c_total"), server("h_count"), server("h_sum"), server("s_sum")) == (1, 1, 1, 1)


def test_a_class_of_the_users_own(server: Server) -> None:
    """A subclass that observes in its own way still does."""

    class Milliseconds(Histogram):
        def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
            super().observe(amount / 1000, exemplar)

    server.adopt()
    histogram = Milliseconds("took", "T.", ["a"], registry=server.registry)
    histogram.labels("x").observe(1500)
    assert isinstance(histogram.labels("x"), Milliseconds)
    assert server("took_sum", a="x") == 1.5


def test_a_name_of_ours(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """What anvil-monitor measures itself is not shown twice; database times of the user's own are welcome."""
    server.adopt()
    Histogram("http_server_request_duration_seconds", "x", registry=server.registry).observe(1)
    Histogram(
        "db_client_operation_duration_seconds", "x", ["db_system_name"], buckets=[0.05], registry=server.registry
    ).labels("mongodb").observe(0.1)
    assert "http_server_request_duration_seconds is measured by anvil-monitor itself" in caplog.text
    assert server("http_server_request_duration_seconds_count") is None
    assert server("db_client_operation_duration_seconds_count", db_system_name="mongodb") == 1


def test_names_that_not_every_prometheus_can_read(server: Server) -> None:
    """UTF-8 names are written as the library writes them for older scrapers."""
    server.adopt()
    Counter("my.orders", "x", ["pay.by"], registry=server.registry).labels("card").inc()
    assert server("my_orders_total", pay_by="card") == 1


class Custom:
    def __init__(self, told: Any) -> None:
        self.told = told

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Any:
        if isinstance(self.told, Exception):
            raise self.told
        yield from self.told


def test_custom_collectors(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Shown as they are in the worker that answers; one that fails, or says what we say, is left out."""
    server.adopt()
    server.registry.set_target_info({"env": "test"})
    Counter("known", "K.", registry=server.registry).inc()
    counter = CounterMetricFamily("odd", "O.", labels=["a"], created=1)
    counter.add_metric(["x"], 3)
    summary = SummaryMetricFamily("su", "S.", count_value=2, sum_value=3.5)
    gauge = GaugeMetricFamily("ga", "G.", value=float("nan"))
    known, ours = CounterMetricFamily("known", "K.", 9), GaugeMetricFamily("http_server_active_requests", "x", 9)
    histogram = HistogramMetricFamily("hi", "H.", buckets=[("1.0", 1), ("+Inf", 2)], sum_value=9)
    ranges = GaugeHistogramMetricFamily("gh", "G.", buckets=[("1.0", 1), ("+Inf", 2)], gsum_value=9)
    info = InfoMetricFamily("in", "I.", value={"commit": "abc"})
    for told in ([counter, summary, gauge, known, ours], RuntimeError("no"), [histogram, ranges, info], [3]):
        server.registry.register(Custom(told))
    shown = server.shown()
    expected = {
        ("target_info", (("env", "test"),)): 1, ("odd_total", (("a", "x"),)): 3, ("su_count", ()): 2,
        ("su_sum", ()): 3.5, ("known_total", ()): 1, ("hi_bucket", (("le", "1.0"),)): 1, ("hi_count", ()): 2,
        ("gh_bucket", (("le", "+Inf"),)): 2, ("gh_gsum", ()): 9, ("in_info", (("commit", "abc"),)): 1,
    }  # fmt: skip
    assert {key: shown.get((key[0], frozenset(key[1]))) for key in expected} == expected
    assert "ga NaN" in server.text()
    assert "http_server_active_requests" not in server.text()
    assert "cannot be collected: RuntimeError('no')" in caplog.text


def test_what_the_library_says_of_the_process(tmp_path: Path) -> None:
    """Garbage collections of all workers together, python_info once, and no process_* of one random worker."""
    code = """
import gc
from pathlib import Path
from anvil_monitor.exporter.exposition import render
from anvil_monitor.exporter.merge import families
from anvil_monitor.exporter.publisher import publisher
from anvil_monitor.exporter.reader import Reader
from anvil_monitor.exporter.recorder import Recorder
from anvil_monitor.exporter.registry import adopt, others
recorder = Recorder(Path("pages"))
adopt(recorder)
gc.disable()
for _ in range(1000):
    gc.collect(0)
while not publisher.flush():
    pass
print(render([*families(Reader(recorder.folder).totals(), {}), *others(recorder)]))
"""
    for expected in (1000, 2000):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60, capture_output=True, text=True)
        samples = [each for family in text_string_to_metric_families(done.stdout) for each in family.samples]
        assert sum(s.value for s in samples if s.name == "python_gc_collections_total") >= expected
        assert [s.value for s in samples if s.name == "python_info"] == [1]
        assert not [s.name for s in samples if s.name.startswith("process_")]


def test_what_is_no_registry(server: Server) -> None:
    """It is said what can be given."""
    with pytest.raises(TypeError, match=r"takes a prometheus_client\.CollectorRegistry"):
        adopt(server.recorder, "all", server.publisher)


def test_multiprocess_mode_is_left_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who runs prometheus_client over files already keeps it, and is told."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(server.folder))
    monkeypatch.setattr("anvil_monitor.exporter.pagevalues._warned", set())
    counter = Counter("c", "C.", registry=server.registry)
    server.adopt()
    assert type(counter) is Counter
    assert others(server.recorder) == []
    assert "is in its own multiprocess mode" in caplog.text


def test_a_prometheus_client_that_has_changed(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the private names, everything is shown from the worker that answers, and that is said."""
    monkeypatch.setattr(module, "misfit", lambda: "Histogram._buckets")
    monkeypatch.setattr("anvil_monitor.exporter.pagevalues._warned", set())
    server.adopt()
    counter = Counter("c", "C.", registry=server.registry)
    counter.inc(3)
    assert type(counter) is Counter
    server.publisher.add(server.recorder, lambda: None)
    assert server("c_total") == 3
    assert "has no Histogram._buckets" in caplog.text


def test_many_threads(server: Server) -> None:
    """Nothing is lost when threads share metrics and make children."""
    server.adopt()
    counter = Counter("c", "C.", ["a"], registry=server.registry)
    histogram = Histogram("h", "H.", registry=server.registry)

    def work() -> None:
        for number in range(2000):
            counter.labels(str(number % 7)).inc()
            histogram.observe(number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(value for (name, _), value in server.shown().items() if name == "c_total") == 8000
    assert server("h_count") == 8000
