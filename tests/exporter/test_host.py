"""Host metrics and the exporter's own ``/metrics``."""

from __future__ import annotations

import math

import psutil
from starlette.testclient import TestClient

from anvil_monitor.exporter import host
from anvil_monitor.exporter.exposition import Family, Sample, number_text, render
from anvil_monitor.exporter.names import Metric
from anvil_monitor.exporter.server import create_app
from anvil_monitor.targets.load import parse


def test_the_host_is_told_under_opentelemetry_names() -> None:
    """CPU, memory, load, file systems, disks and network of this very machine."""
    families = {family.metric.name: family for family in host.collect()}
    assert families["system_memory_limit_bytes"].samples[0].value == psutil.virtual_memory().total
    assert {"system_cpu_time_seconds_total", "system_load_average", "system_network_io_bytes_total"} <= set(families)
    modes = dict(sample.labels)["cpu_mode"] if (sample := families["system_cpu_time_seconds_total"].samples[0]) else ""
    assert modes == "user"


def test_the_exporter_serves_two_services_in_one_family() -> None:
    """Two services that are down: one family with a sample each, in valid text."""
    app = create_app(parse('[[service]]\nname = "a"\nport = 1\n[[service]]\nname = "b"\nport = 2\n'))
    with TestClient(app) as client:
        text = client.get("/metrics").text
        assert client.get("/-/healthy").text == "ok\n"
    assert text.count("# TYPE process_count gauge") == 1
    assert 'process_count{service="a"} 0\nprocess_count{service="b"} 0\n' in text


def test_text_format_escapes_and_numbers() -> None:
    """Quotes, backslashes and line ends in a label are escaped; numbers are as Prometheus writes them."""
    family = Family(Metric("m", "gauge", "Help."), [Sample("", (("x", 'a"b\\c\nd'),), 0.2)])
    assert render([family]) == '# HELP m Help.\n# TYPE m gauge\nm{x="a\\"b\\\\c\\nd"} 0.2\n'
    assert [number_text(value) for value in (2.0, 0.05, math.inf, -math.inf, 1e20)] == [
        "2", "0.05", "+Inf", "-Inf", "1e+20",
    ]  # fmt: skip
    assert number_text(math.nan) == "NaN"
