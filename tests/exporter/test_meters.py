"""Meters of any library on page cells, through the OpenTelemetry API only."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.metrics import CallbackOptions, NoOpCounter, Observation
from prometheus_client.parser import text_string_to_metric_families

from anvil_monitor.exporter import names
from anvil_monitor.exporter.exposition import render
from anvil_monitor.exporter.merge import families
from anvil_monitor.exporter.meters import PageMeterProvider
from anvil_monitor.exporter.publisher import Publisher
from anvil_monitor.exporter.reader import Reader
from anvil_monitor.exporter.recorder import Recorder

EDGES = {names.DB_DURATION.name: (0.05, 0.1, 1.0)}
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def shown(folder: Path) -> Values:
    """Every sample of /metrics, by name and labels."""
    text = render(families(Reader(folder).totals(), EDGES))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def at(found: Values, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    made = Recorder(tmp_path)
    yield made
    made.close()


@pytest.fixture
def provider(recorder: Recorder) -> Iterator[PageMeterProvider]:
    publisher = Publisher(every=3600, patience=30)
    yield PageMeterProvider(recorder, EDGES, publisher)
    publisher.stop()


def test_a_counter(provider: PageMeterProvider, tmp_path: Path) -> None:
    """Counts by attributes, in whatever order they are given; the name is OpenTelemetry's Prometheus name."""
    counter = provider.get_meter("shop").create_counter("orders.placed", "{order}", "Orders placed.")
    counter.add(1)
    counter.add(2, {"pay": "card", "new": True})
    counter.add(3, {"new": True, "pay": "card"})
    counter.add(0.5, {"new": True, "pay": "card"})
    found = shown(tmp_path)
    assert at(found, "orders_placed_total") == 1
    assert at(found, "orders_placed_total", pay="card", new="true") == 5.5
    assert "# HELP orders_placed_total Orders placed." in render(families(Reader(tmp_path).totals(), EDGES))


def test_levels(provider: PageMeterProvider, tmp_path: Path) -> None:
    """An up-down counter adds up over live workers; of a gauge the one set last, in any worker, is shown."""
    other = PageMeterProvider(Recorder(tmp_path), EDGES)
    for each, number in ((provider, 3), (other, 4)):
        each.get_meter("shop").create_up_down_counter("queue.length").add(number)
        each.get_meter("shop").create_gauge("room.temperature", "Cel").set(20 + number)
    provider.get_meter("shop").create_up_down_counter("queue.length").add(-1)
    found = shown(tmp_path)
    assert at(found, "queue_length") == 6
    assert at(found, "room_temperature_celsius") == 24
    other.recorder.close()
    found = shown(tmp_path)
    assert at(found, "queue_length") == 2
    assert at(found, "room_temperature_celsius") == 23


@pytest.mark.parametrize(
    ("unit", "advised", "expected"),
    [
        ("s", None, ("0.005", "10.0")),
        ("By", None, ("256.0", "2.68435456e+08")),
        ("{item}", None, ("0.0", "10000.0")),
        ("s", [1, 2.5], ("1.0", "2.5")),
        ("s", [math.nan, "x"], ("0.005", "10.0")),
        ("s", [2, 1, 1, math.inf], ("1.0", "2.0")),
    ],
)
def test_a_histogram(
    provider: PageMeterProvider, tmp_path: Path, unit: str, advised: Any, expected: tuple[str, str]
) -> None:
    """Its edges are those advised by its instrument, else those of its unit, else the SDK's."""
    meter = provider.get_meter("shop")
    histogram = meter.create_histogram("basket", unit, explicit_bucket_boundaries_advisory=advised)
    histogram.record(1.5)
    found = shown(tmp_path)
    name = next(name for name, _ in found if name.startswith("basket") and name.endswith("_count"))
    assert at(found, name) == 1
    assert at(found, name.replace("_count", "_sum")) == 1.5
    edges = [dict(labels)["le"] for name, labels in found if name.startswith("basket") and "le" in dict(labels)]
    assert (edges[0], edges[-2], edges[-1]) == (*expected, "+Inf")


def test_a_known_metric(provider: PageMeterProvider, tmp_path: Path) -> None:
    """A metric of names.py gets the configured edges and only its own labels; older attribute names count as new."""
    meter = provider.get_meter("redis-py")
    histogram = meter.create_histogram(
        "db.client.operation.duration", "s", explicit_bucket_boundaries_advisory=[0.0001, 5]
    )
    attributes = {"db.system": "redis", "db.operation.name": "GET", "server.port": 6379, "db.namespace": "0"}
    histogram.record(0.06, attributes)
    histogram.record(0.01, {**attributes, "server.port": 6380, "db.system.name": "redis", "db.system": "old"})
    found = shown(tmp_path)
    labels = {"db_system_name": "redis", "db_operation_name": "GET"}
    assert at(found, "db_client_operation_duration_seconds_count", **labels) == 2
    assert at(found, "db_client_operation_duration_seconds_bucket", **labels, le="0.05") == 1
    assert at(found, "db_client_operation_duration_seconds_bucket", **labels, le="0.1") == 2


@pytest.mark.parametrize(
    ("name", "unit"),
    [("http.server.request.duration", "s"), ("process.memory.usage", "By"), ("system.memory.limit", "By")],
)
def test_what_we_measure_ourselves_is_not_counted_twice(
    provider: PageMeterProvider, tmp_path: Path, name: str, unit: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests, processes and the host have one source; the other's instrument works and measures nothing."""
    meter = provider.get_meter("other")
    for make in ("create_histogram", "create_up_down_counter", "create_counter"):
        getattr(meter, make)(name, unit)
    meter.create_histogram(name, unit).record(1)
    assert "is measured by anvil-monitor itself" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, "true"), (False, "false"), (1, "1"), (1.5, "1.5"), ([1, "a"], '[1,"a"]'), (("x",), '["x"]'),
        (b"\x00\xff", "AP8="), ('a"b\n\\', 'a"b\n\\'), ("\ud800", "?"), (object, None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_attribute_values(provider: PageMeterProvider, tmp_path: Path, value: Any, expected: str | None) -> None:
    """Values become text as the specification says; odd ones break nothing, and each is counted."""
    counter = provider.get_meter("m").create_counter("odd")
    for _ in range(3):
        counter.add(1, {"a": value})
    values = [dict(labels).get("a") for name, labels in shown(tmp_path) if name == "odd_total"]
    assert values == ["(type)" if value is object else expected]
    assert list(shown(tmp_path).values()).count(3.0) >= 1


def test_values_that_python_takes_for_equal(provider: PageMeterProvider, tmp_path: Path) -> None:
    """1 and True are equal as dictionary keys, and are two labels."""
    counter = provider.get_meter("m").create_counter("odd")
    for value in (1, True, 1, True, 0, False):
        counter.add(1, {"a": value})
    found = shown(tmp_path)
    assert [at(found, "odd_total", a=text) for text in ("1", "true", "0", "false")] == [2, 2, 1, 1]


def test_odd_calls(provider: PageMeterProvider, tmp_path: Path) -> None:
    """Numbers of other types are numbers, attributes that are none are left out: whoever measures never breaks."""
    meter = provider.get_meter("m")
    histogram, counter = meter.create_histogram("h"), meter.create_counter("c")
    for amount in (Decimal("0.5"), Fraction(1, 2), True, 1):
        histogram.record(amount)  # type: ignore[arg-type]
    for attributes in (None, {}, [("a", "b")], 3):
        counter.add(1, attributes)  # type: ignore[arg-type]
    found = shown(tmp_path)
    assert (at(found, "h_count"), at(found, "h_sum"), at(found, "c_total")) == (4, 3, 4)


def test_attribute_names(provider: PageMeterProvider, tmp_path: Path) -> None:
    """Names become labels; le stays the buckets' own; a circular value and a name without a letter are borne."""
    circle: list[Any] = []
    circle.append(circle)
    meter = provider.get_meter("m")
    meter.create_histogram("odd").record(1, {"le": "3", "http.route": "/", "1": "x", "…": "y", "c": circle, 5: "z"})
    found = shown(tmp_path)
    assert at(found, "odd_count", exported_le="3", http_route="/", key_1="x", c="(list)") == 1


@pytest.mark.parametrize("amount", [-1, math.nan, math.inf, -math.inf, "x", None, 10**400])
def test_impossible_amounts(
    provider: PageMeterProvider, tmp_path: Path, amount: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither counted nor raised, and said once."""
    meter = provider.get_meter("m")
    counter, histogram, gauge = meter.create_counter("c"), meter.create_histogram("h"), meter.create_gauge("g")
    for _ in range(3):
        counter.add(amount)
        histogram.record(amount)
        if amount != -1:
            gauge.set(amount)
    counter.add(1)
    histogram.record(1)
    found = shown(tmp_path)
    assert (at(found, "c_total"), at(found, "h_count"), at(found, "h_sum"), at(found, "g")) == (1, 1, 1, None)
    assert caplog.text.count("c_total does not take the value") == 1


def test_the_same_instrument(provider: PageMeterProvider) -> None:
    """Asked for twice, in whatever case, it is one instrument."""
    meter = provider.get_meter("m")
    assert meter.create_counter("Sold", "1") is meter.create_counter("sold", "1")
    assert provider.get_meter("m").create_counter("sold", "1") is meter.create_counter("sold", "1")


def test_instruments_that_contradict_each_other(
    provider: PageMeterProvider, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One name for two kinds: the first stands, the later measures nothing and says so; other edges change nothing."""
    meter = provider.get_meter("m")
    meter.create_gauge("level").set(5)
    meter.create_up_down_counter("level").add(7)
    meter.create_histogram("size", explicit_bucket_boundaries_advisory=[1.0]).record(3)
    again = provider.get_meter("n").create_histogram("size", explicit_bucket_boundaries_advisory=[2.0])
    again.record(3)
    found = shown(tmp_path)
    assert at(found, "level") == 5
    assert at(found, "size_count") == 2
    assert at(found, "size_bucket", le="1.0") == 0
    assert "level is already a gauge_recent" in caplog.text
    assert "size was made before with other bucket boundaries" in caplog.text


def test_an_impossible_name(provider: PageMeterProvider, caplog: pytest.LogCaptureFixture) -> None:
    """An instrument that OpenTelemetry does not allow is one that does nothing."""
    assert isinstance(provider.get_meter("m").create_counter("1 é"), NoOpCounter)
    assert "is no name of an OpenTelemetry instrument" in caplog.text


def test_too_many_label_sets(recorder: Recorder, tmp_path: Path) -> None:
    """Beyond the page's cap everything is still counted, in one series."""
    recorder.max_series = 3
    counter = PageMeterProvider(recorder, EDGES).get_meter("m").create_counter("odd")
    for _ in range(2):
        for number in range(10):
            counter.add(1, {"user": str(number)})
    found = shown(tmp_path)
    assert sum(value for (name, _), value in found.items() if name == "odd_total") == 20
    assert at(found, "odd_total", otel_metric_overflow="true") == 14


def test_many_threads(provider: PageMeterProvider, tmp_path: Path) -> None:
    """Nothing is lost when threads share instruments."""
    meter = provider.get_meter("m")

    def work() -> None:
        for number in range(2000):
            meter.create_counter("c").add(1, {"n": str(number % 7)})
            meter.create_histogram("h").record(number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    found = shown(tmp_path)
    assert sum(value for (name, _), value in found.items() if name == "c_total") == 8000
    assert at(found, "h_count") == 8000


def observed(value: float, **attributes: str) -> Observation:
    return Observation(value, attributes)


def test_observable_instruments(provider: PageMeterProvider, tmp_path: Path) -> None:
    """Asked when needed: sums as they stand, levels as they are; what is no longer said is no longer shown."""
    seen: dict[str, list[Observation]] = {"c": [observed(5, a="x")], "u": [observed(2, a="x"), observed(3, a="y")]}
    meter = provider.get_meter("m")
    meter.create_observable_counter("c", [lambda options: seen["c"]])
    meter.create_observable_up_down_counter("u", [lambda options: iter(seen["u"])])
    meter.create_observable_gauge("g", [lambda options: seen["u"]])
    assert not list(tmp_path.iterdir())
    assert provider.force_flush()
    found = shown(tmp_path)
    assert (at(found, "c_total", a="x"), at(found, "u", a="y"), at(found, "g", a="y")) == (5, 3, 3)
    seen["c"], seen["u"] = [observed(7, a="x")], [observed(4, a="x")]
    assert provider.force_flush()
    found = shown(tmp_path)
    assert (at(found, "c_total", a="x"), at(found, "u", a="x"), at(found, "u", a="y")) == (7, 4, 0)
    assert (at(found, "g", a="x"), at(found, "g", a="y")) == (4, None)
    seen["c"] = [observed(1, a="x")]  # began anew
    assert provider.force_flush()
    assert at(shown(tmp_path), "c_total", a="x") == 8


def test_a_callback_may_be_a_generator(provider: PageMeterProvider, tmp_path: Path) -> None:
    """The API allows generators that are sent the options; one that ends says nothing more."""

    values = [1.0]

    def callback() -> Any:
        options = yield
        while values:
            assert isinstance(options, CallbackOptions)
            options = yield [observed(values[0])]

    provider.get_meter("m").create_observable_counter("c", [callback()])
    for given, expected in ((1.0, 1), (2.0, 2), (None, 2), (None, 2)):
        values[:] = [] if given is None else [given]
        assert provider.force_flush()
        assert at(shown(tmp_path), "c_total") == expected


def test_a_callback_that_fails(provider: PageMeterProvider, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, and the others are asked all the same."""

    def broken(options: CallbackOptions) -> Any:
        raise RuntimeError("no")

    meter = provider.get_meter("m")
    meter.create_observable_counter("bad", [broken])
    meter.create_observable_counter("worse", [lambda options: [observed(math.nan)]])
    meter.create_observable_counter("worst", [lambda options: [7]])  # type: ignore[list-item, return-value]
    meter.create_observable_counter("good", [lambda options: [observed(1)]])
    with caplog.at_level(logging.WARNING):
        assert provider.force_flush()
        assert provider.force_flush()
    assert at(shown(tmp_path), "good_total") == 1
    assert caplog.text.count("a callback of bad_total failed: RuntimeError('no')") == 1


def test_a_forked_worker(provider: PageMeterProvider, tmp_path: Path) -> None:
    """A child counts its own: what its parent had counted, and what a callback inherits, is there once."""
    total = {"value": 5.0}
    meter = provider.get_meter("m")
    counter = meter.create_counter("c")
    meter.create_observable_counter("o", [lambda options: [observed(total["value"])]])
    counter.add(2, {"a": "x"})
    assert provider.force_flush()
    total["value"] = 6.0
    child = os.fork()
    if not child:
        total["value"] += 1
        counter.add(3, {"a": "x"})
        os._exit(0 if provider.force_flush() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert provider.force_flush()
    found = shown(tmp_path)
    assert at(found, "c_total", a="x") == 5
    assert at(found, "o_total") == 7


def python(code: str, folder: Path, **environment: str) -> str:
    environ = {**os.environ, "FOLDER": str(folder), **environment}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


BEGIN = """
import os, sys, logging
from pathlib import Path
logging.basicConfig(level="WARNING")
from opentelemetry import metrics
from anvil_monitor.exporter.meters import PageMeterProvider, install
from anvil_monitor.exporter.recorder import recorder_for
recorder = recorder_for(Path(os.environ["FOLDER"]))
"""


def test_install(tmp_path: Path) -> None:
    """Instruments made through the API before our provider is there come alive with it; nothing is made by that."""
    code = (
        BEGIN
        + """
early = metrics.get_meter("m").create_counter("early")
watched = metrics.get_meter("m").create_observable_gauge("watched", [lambda options: [metrics.Observation(4)]])
install(recorder, {})
install(recorder, {})
assert isinstance(metrics.get_meter_provider(), PageMeterProvider)
assert not list(Path(os.environ["FOLDER"]).iterdir())
early.add(2)
metrics.get_meter("n").create_histogram("late", "s").record(1)
assert "opentelemetry.sdk" not in sys.modules
"""
    )
    assert python(code, tmp_path) == ""
    found = shown(tmp_path)
    assert at(found, "early_total") == 2
    assert at(found, "late_seconds_count") == 1


def test_a_provider_that_does_nothing_is_left_alone(tmp_path: Path) -> None:
    """Who sets the API's own no-op provider wants no metrics."""
    code = (
        BEGIN
        + """
metrics.set_meter_provider(metrics.NoOpMeterProvider())
install(recorder, {})
metrics.get_meter("m").create_counter("c").add(1)
print(type(metrics.get_meter_provider()).__name__, list(Path(os.environ["FOLDER"]).iterdir()))
"""
    )
    assert python(code, tmp_path).strip() == "NoOpMeterProvider []"


def test_the_end_of_a_process(tmp_path: Path) -> None:
    """Observable sums are brought to the page before the process ends."""
    code = (
        BEGIN
        + """
install(recorder, {})
metrics.get_meter("m").create_counter("c").add(1)
metrics.get_meter("m").create_observable_counter("o", [lambda options: [metrics.Observation(total)]])
total = 9
"""
    )
    assert python(code, tmp_path) == ""
    assert at(shown(tmp_path), "o_total") == 9
