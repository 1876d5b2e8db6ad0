"""``traces=True``: spans through OpenTelemetry's own instrumentation, once each, and no second set of metrics."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import flask
import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from anvil_monitor.exporter import instrument, instrument_asgi, instrument_wsgi
from anvil_monitor.targets import load


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What the process's own tracer provider exports."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def options(tmp_path: Path) -> Any:
    return {
        "configuration": load(None, {}), "directory": tmp_path, "meters": False, "registry": False, "traces": True,
    }  # fmt: skip


def fastapi() -> FastAPI:
    app, inner = FastAPI(), FastAPI()

    @app.get("/items/{number}")
    async def item(number: int) -> int:
        return number

    @inner.get("/deep")
    async def deep() -> str:
        return "deep"

    app.mount("/inner", inner)
    return app


def test_fastapi_gives_one_span_a_request(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    """Named by the route, and not a second time by FastAPI's own telemetry, in a mounted application either."""
    app = fastapi()
    made = instrument(app, **options(tmp_path))
    client = TestClient(app)
    client.get("/items/7")
    client.get("/inner/deep")
    client.get("/metrics")
    found = spans.get_finished_spans()
    assert [span.kind for span in found] == [trace.SpanKind.SERVER] * 2
    assert found[0].name == "GET /items/{number}"
    counts = [
        (sample.labels["http_route"], sample.value)
        for family in text_string_to_metric_families(made.metrics())
        for sample in family.samples
        if sample.name == "http_server_request_duration_seconds_count"
    ]
    assert sorted(counts) == [("/inner/deep", 1), ("/items/{number}", 1)]


async def plain(request: Request) -> PlainTextResponse:
    return PlainTextResponse("x")


@pytest.mark.parametrize("way", ["starlette", "asgi"])
def test_any_asgi_application(tmp_path: Path, spans: InMemorySpanExporter, way: str) -> None:
    """Starlette and a bare ASGI application have spans through the same package."""
    app = Starlette(routes=[Route("/a", plain)])
    served: Any = app
    if way == "starlette":
        instrument(app, **options(tmp_path))
    else:

        async def bare(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)

        served = instrument_asgi(bare, **options(tmp_path))
    assert TestClient(served).get("/a").text == "x"
    assert [span.kind for span in spans.get_finished_spans()] == [trace.SpanKind.SERVER]


def test_wsgi_is_told_where_to_turn(tmp_path: Path) -> None:
    """OpenTelemetry has a package for each WSGI framework: the error names them."""
    with pytest.raises(TypeError, match="opentelemetry-instrumentation-flask"):
        instrument(flask.Flask("x"), **options(tmp_path))
    with pytest.raises(TypeError, match="opentelemetry-instrumentation-flask"):
        instrument_wsgi(lambda environ, start: [], **options(tmp_path))


@pytest.mark.parametrize(
    "missing",
    ["opentelemetry.instrumentation.fastapi", "opentelemetry.sdk.trace",
     "opentelemetry.exporter.otlp.proto.http.trace_exporter"],
)  # fmt: skip
def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Without a package the error says what to install, and the application is as it was."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setitem(sys.modules, missing, None)
    app = fastapi()
    with pytest.raises(ImportError, match=r"pip install 'anvil-monitor\[traces\]'"):
        instrument(app, **options(tmp_path))
    assert not hasattr(app, "_anvil_monitor")
    assert TestClient(app).get("/items/7").status_code == 200


class Collector(BaseHTTPRequestHandler):
    bodies: ClassVar[list[tuple[str, bytes]]] = []

    def do_POST(self) -> None:
        self.bodies.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[int]:
    Collector.bodies.clear()
    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


PROGRAM = """
import sys
from fastapi import FastAPI
from starlette.testclient import TestClient
from anvil_monitor.exporter import instrument
from anvil_monitor.targets import load
app = FastAPI()
app.get("/items/{number}")(lambda number: number)
instrument(app, configuration=load(None, {}), directory=sys.argv[1], traces=True)
TestClient(app).get("/items/7")
"""


def test_without_a_provider_spans_go_where_the_environment_says(tmp_path: Path, collector: int) -> None:
    """The standard variables name the endpoint; the service's name is monitor.toml's; all is sent before the end."""
    environ = {
        "PATH": "/usr/bin:/bin", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}", "HOME": str(tmp_path),
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], check=True, timeout=60, env=environ, cwd=tmp_path)
    ((path, body),) = Collector.bodies
    assert path == "/v1/traces"
    assert b"/items/{number}" in body
    assert b"service.name\x12\x05\n\x03app" in body
