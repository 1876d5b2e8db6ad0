"""Both text formats: what a scraper asks for is what it gets, and a series is the same in each."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import math
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

from anvil_monitor.exporter.cells import Cell
from anvil_monitor.exporter.exposer import Exposer
from anvil_monitor.exporter.exposition import (
    CONTENT_TYPE,
    OPENMETRICS_TYPE,
    Family,
    Sample,
    edge_text,
    encode,
    negotiate,
    render,
)
from anvil_monitor.exporter.names import HTTP_DURATION, foreign
from anvil_monitor.exporter.reader import Reader
from anvil_monitor.exporter.recorder import Recorder

# What Prometheus 2.42 and 3.5 send.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
        ("", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("text/plain;version=0.0.4", False),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text ; Version=1.0.0", True),
        ('application/openmetrics-text;version="1.0.0"', True),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;version=2.0.0,text/plain", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.3,text/plain;q=0.5", False),
        ("application/openmetrics-text;q=nan", False),
        ("application/openmetrics-text;q=x,;;,=,q=", False),
    ],
)
def test_the_format_is_the_scrapers_choice(accept: str, openmetrics: bool) -> None:
    """OpenMetrics where it is wanted at least as much as plain text, in the one version that there is."""
    found = negotiate(accept, "")
    assert found.openmetrics is openmetrics
    assert found.content_type == (OPENMETRICS_TYPE if openmetrics else CONTENT_TYPE)


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip", True), ("deflate, gzip;q=0.5", True), ("GZIP", True), ("gzip;q=0", False), ("", False), ("br", False)],
)
def test_the_answer_is_packed_where_that_is_taken(accepted: str, packed: bool) -> None:
    """Only then, with the headers that say so; caches are told that answers differ."""
    content, headers = encode("text\n" * 100, negotiate("", accepted))
    assert dict(headers).get("content-encoding") == ("gzip" if packed else None)
    assert dict(headers)["vary"] == "Accept, Accept-Encoding"
    assert (gzip.decompress(content) if packed else content) == b"text\n" * 100


@settings(max_examples=200)
@given(accept=st.text(max_size=200), encoding=st.text(max_size=50))
def test_any_header_is_survived(accept: str, encoding: str) -> None:
    """A header of any text gives a choice."""
    assert negotiate(accept, encoding).content_type


@given(st.floats(0, allow_infinity=True, allow_nan=False) | st.sampled_from([1e5, 1e6, 123456789.0, 1e21, 1e22, 2.0]))
def test_edges_are_written_as_go_does(edge: float) -> None:
    """One text a number, the one that Prometheus 3 and its clients write."""
    assert edge_text(edge) == floatToGoString(edge)
    assert float(edge_text(edge)) == edge


def test_edges_below_zero() -> None:
    """Users' own histograms may have them."""
    assert [edge_text(edge) for edge in (-1.0, -0.5, -2e6, -math.inf)] == ["-1.0", "-0.5", "-2e+06", "-Inf"]


def recorded(folder: Path) -> Exposer:
    """An exposer over each kind of metric, with all that needs an escape."""
    recorder = Recorder(folder)
    edges = (0.2, 2.0, 1e6)
    recorder.histogram(HTTP_DURATION, ("GET", "/", "200", ""), edges).record(0.5)
    help_text = 'Jobs "done"\nor \\ not.'
    for name in ("jobs_total", "strange_seconds"):
        done = recorder.series("counter", foreign(name, "counter", help_text, "seconds"), (("a", 'x"\\\ny'),))
        assert isinstance(done, Cell)
        done.add(2.5)
    recorder.series("gauge", foreign("nothing", "gauge", ""), ()).set(math.nan)  # type: ignore[union-attr]
    recorder.series("gauge_max", foreign("depth", "gauge", ""), ()).set(math.inf)  # type: ignore[union-attr]
    return Exposer(Reader(folder), {HTTP_DURATION.name: edges})


def test_openmetrics_is_what_its_reference_parser_reads(tmp_path: Path) -> None:
    """Names, types, units, help and the end; a counter without _total is of unknown type, so its name stays."""
    text = recorded(tmp_path).text(openmetrics=True)
    assert text.endswith("# EOF\n")
    found = {family.name: family for family in openmetrics_families(text)}
    jobs = found["jobs"]
    assert (jobs.type, jobs.documentation) == ("counter", 'Jobs "done"\nor \\ not.')
    assert [(sample.name, sample.labels, sample.value) for sample in jobs.samples] == [
        ("jobs_total", {"a": 'x"\\\ny'}, 2.5)
    ]
    assert (found["strange_seconds"].type, found["strange_seconds"].unit) == ("unknown", "seconds")
    assert (found[HTTP_DURATION.name].type, found[HTTP_DURATION.name].unit) == ("histogram", "seconds")
    assert [sample.labels.get("le") for sample in found[HTTP_DURATION.name].samples] == [
        "0.2", "2.0", "1e+06", "+Inf", None, None,
    ]  # fmt: skip


def test_a_series_is_the_same_in_both_formats(tmp_path: Path) -> None:
    """Every line with a value is the same text, from the fast way and the plain one."""
    shown = recorded(tmp_path)
    family = Family(foreign("other_total", "counter", "Other."), [Sample("", (), 1)])
    for render_it in (
        lambda openmetrics: shown.text(openmetrics, extra=[family]),
        lambda openmetrics: render([family], openmetrics),
    ):
        lines = [
            sorted(line for line in render_it(openmetrics).splitlines() if not line.startswith("#"))
            for openmetrics in (False, True)
        ]
        assert lines[0] == lines[1] != []


@pytest.mark.needs("promtool")
def test_promtool_finds_no_fault(tmp_path: Path) -> None:
    """The text format, by Prometheus's own checker; what it says of the style of a user's names is not ours."""
    text = recorded(tmp_path).text()
    list(text_string_to_metric_families(text))
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert result.returncode in (0, 3), result.stderr  # 3: lint
    ours = [line for line in result.stderr.splitlines() if line.startswith(("http_", "anvil_"))]
    assert ours == []
    assert "error" not in result.stderr


@contextlib.contextmanager
def served(shown: Exposer) -> Iterator[tuple[int, list[str]]]:
    """``shown`` over HTTP, negotiated; and the content types of the answers."""
    given: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = negotiate(self.headers.get("accept", ""), self.headers.get("accept-encoding", ""))
            if self.path == "/text":
                found = negotiate("", self.headers.get("accept-encoding", ""))
            content, headers = encode(shown.text(found.openmetrics), found)
            given.append(found.content_type)
            self.send_response(200)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], given
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.needs("prometheus")
def test_a_real_prometheus_stores_the_same_series_of_both_formats(tmp_path: Path) -> None:
    """It asks for OpenMetrics, gets it packed, and has the same series as from the text format, to the edge's text."""
    with served(recorded(tmp_path / "pages")) as (port, given), socket.create_server(("127.0.0.1", 0)) as free:
        own = free.getsockname()[1]
        free.close()
        config = {
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
            "scrape_configs": [
                {"job_name": job, "metrics_path": f"/{job}", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
                for job in ("openmetrics", "text")
            ],
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))
        command = [
            "prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{own}", "--log.level=error",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            series = eventually(lambda: [stored(own, job) for job in ("openmetrics", "text")])
        finally:
            process.terminate()
            process.wait(10)
    assert set(given) == {OPENMETRICS_TYPE, CONTENT_TYPE}
    assert series[0] == series[1]
    assert "2.0" in str(series[0])


def stored(port: int, job: str) -> list[tuple[tuple[str, str], ...]]:
    """The series of one job that are ours, without the labels of the scrape."""
    query = urllib.parse.urlencode({"match[]": f'{{job="{job}",__name__!~"up|scrape_.*"}}'})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/series?{query}", timeout=2) as answer:
        found = json.load(answer)["data"]
    return sorted(
        tuple(sorted(pair for pair in each.items() if pair[0] not in ("job", "instance"))) for each in found
    )  # fmt: skip


def eventually(find: Any, seconds: float = 15) -> Any:
    """What ``find`` gives once nothing in it is empty."""
    until = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            found = find()
            if all(found):
                return found
        if time.monotonic() > until:
            raise TimeoutError("Prometheus stored nothing")
        time.sleep(0.05)
