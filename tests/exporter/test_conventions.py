"""OTel names to Prometheus names: the specification's own cases, and where others differ."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry

from anvil_monitor.exporter.conventions import (
    NameKind,
    label_name,
    label_pairs,
    label_value,
    metric_name,
    prometheus_unit,
)

CASES: list[tuple[str, str, NameKind, str]] = [
    ("http.server.request.duration", "s", "histogram", "http_server_request_duration_seconds"),
    ("http.server.active_requests", "{request}", "updown", "http_server_active_requests"),
    ("db.client.operation.duration", "s", "histogram", "db_client_operation_duration_seconds"),
    ("db.client.connection.count", "{connection}", "updown", "db_client_connection_count"),
    ("process.cpu.time", "s", "counter", "process_cpu_time_seconds_total"),
    ("process.memory.usage", "By", "updown", "process_memory_usage_bytes"),
    ("nodejs.eventloop.utilization", "1", "gauge", "nodejs_eventloop_utilization_ratio"),
    ("nodejs.eventloop.delay.p99", "s", "gauge", "nodejs_eventloop_delay_p99_seconds"),
    ("v8js.memory.heap.used", "By", "updown", "v8js_memory_heap_used_bytes"),
    # the cases of Prometheus's own tests
    ("requests", "", "counter", "requests_total"),
    ("requests_total", "", "counter", "requests_total"),
    ("total.requests", "", "counter", "requests_total"),
    ("items", "1", "counter", "items_total"),
    ("items", "1", "updown", "items"),
    ("cpu_usage", "1", "gauge", "cpu_usage_ratio"),
    ("cpu_usage_ratio", "1", "gauge", "cpu_usage_ratio"),
    ("requests", "1/s", "gauge", "requests_per_second"),
    ("speed", "m/s", "gauge", "speed_meters_per_second"),
    ("throughput", "By/s", "gauge", "throughput_bytes_per_second"),
    ("throughput", "By/s", "counter", "throughput_bytes_per_second_total"),
    ("custom_metric", "custom_unit", "gauge", "custom_metric_custom_unit"),
    ("custom_metric", "By/{custom}", "gauge", "custom_metric_bytes"),
    ("custom_metric", "{custom}/s", "gauge", "custom_metric_per_second"),
    ("response_time_seconds", "s", "gauge", "response_time_seconds"),
    ("seconds.of.delay", "s", "gauge", "seconds_of_delay"),
    ("metric__with__underscores", "unit__of_it", "gauge", "metric_with_underscores_unit_of_it"),
    ("custom_metric", "unit@with#special/chars", "gauge", "custom_metric_unit_with_special_per_chars"),
    ("metric@@##$$name", "", "gauge", "metric_name"),
    ("job:requests", "", "gauge", "job:requests"),
    ("123metric", "", "gauge", "_123metric"),
    ("größe", "", "gauge", "gr_e"),
    ("disk", "%", "gauge", "disk_percent"),
]


@pytest.mark.parametrize(("name", "unit", "kind", "expected"), CASES)
def test_metric_names(name: str, unit: str, kind: NameKind, expected: str) -> None:
    """Dots become underscores, the unit and the kind's suffix come last, nothing is said twice."""
    assert metric_name(name, unit, kind) == expected


# What OpenTelemetry's Python exporter makes of the same metric, where that is something else.
DIFFERENT = {
    # it never says _ratio (specification issue 4058); Prometheus's receiver does
    ("nodejs.eventloop.utilization", "1", "gauge"): "nodejs_eventloop_utilization",
    ("cpu_usage", "1", "gauge"): "cpu_usage",
    # it drops an annotation before it looks for the slash, and then no longer knows the unit
    ("custom_metric", "By/{custom}", "gauge"): "custom_metric_By",
    # it leaves "total" where it is and adds it again
    ("total.requests", "", "counter"): "total_requests_total",
    # it looks for the unit at the end only
    ("seconds.of.delay", "s", "gauge"): "seconds_of_delay_seconds",
}
# The SDK does not let other names through.
POSSIBLE = [case for case in CASES if re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", case[0])]


@pytest.mark.parametrize(("name", "unit", "kind", "expected"), POSSIBLE)
def test_names_against_the_python_exporter_of_opentelemetry(
    name: str, unit: str, kind: NameKind, expected: str
) -> None:
    """The same name as `opentelemetry-exporter-prometheus` gives, but for the listed, deliberate differences."""
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(scope_info_enabled=False, disable_target_info=True, registry=registry)
    provider = MeterProvider([reader])
    meter = provider.get_meter("test")
    if kind == "counter":
        meter.create_counter(name, unit).add(1)
    elif kind == "updown":
        meter.create_up_down_counter(name, unit).add(1)
    elif kind == "gauge":
        meter.create_gauge(name, unit).set(1)
    else:
        meter.create_histogram(name, unit).record(1)
    (family,) = registry.collect()
    provider.shutdown()
    theirs = f"{family.name}_total" if kind == "counter" else family.name
    assert theirs == DIFFERENT.get((name, unit, kind), expected)


def test_units() -> None:
    """UCUM to words; annotations and the dimensionless 1 are no unit."""
    cases = {
        "s": "seconds",
        "By": "bytes",
        "1": "",
        "{request}": "",
        "m/s": "meters_per_second",
        "": "",
        "By/s": "bytes_per_second",
    }
    assert {unit: prometheus_unit(unit) for unit in cases} == cases


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ("http.request.method", "http_request_method"),
        ("cpu.mode", "cpu_mode"),
        ("a..b", "a_b"),
        ("123", "key_123"),
        ("_private", "key_private"),
        ("__name__", "key_name_"),
    ],
)
def test_label_names(attribute: str, expected: str) -> None:
    """Nothing that Prometheus keeps for itself comes out, whatever the attribute is called."""
    assert label_name(attribute) == expected


def test_labels_that_collide_share_one_value() -> None:
    """Joined with a semicolon in the order of the attributes' names; empty ones are absent, reserved ones renamed."""
    found = label_pairs([("b_c", "2"), ("b.c", "1"), ("le", "x"), ("empty", ""), ("a", True)], reserved=("le",))
    assert found == (("a", "true"), ("b_c", "1;2"), ("exported_le", "x"))


def test_values_that_are_no_text() -> None:
    """JSON, as OpenTelemetry asks for; bytes in base64."""
    values: list[object] = ["a", True, 200, 0.5, ["a", 1], {"k": [b"x"]}, b"\x00\x01", None]
    assert [label_value(value) for value in values] == [
        "a", "true", "200", "0.5", '["a",1]', '{"k":["eA=="]}', "AAE=", ""
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "___", "@#$%", "é"])
def test_names_of_which_nothing_is_left(text: str) -> None:
    """A name without a letter or digit is refused, not made up."""
    with pytest.raises(ValueError, match="no letter or digit"):
        metric_name(text, "", "gauge")
    with pytest.raises(ValueError, match="no letter or digit"):
        label_name(text)


@given(st.text(), st.text(), st.sampled_from(["counter", "gauge", "histogram", "updown"]))
def test_whatever_comes_out_is_legal(name: str, unit: str, kind: NameKind) -> None:
    """Any text at all gives a name that Prometheus 2 takes, or ``ValueError``."""
    try:
        made = metric_name(name, unit, kind)
    except ValueError:
        return
    assert re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", made)
    assert "__" not in made
    try:
        label = label_name(name)
    except ValueError:
        return
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*", label)
    assert "__" not in label
