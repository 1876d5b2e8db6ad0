"""FastAPI's own telemetry beside ours: nothing is measured twice, spans and logs stay as they are.

All of this reads what is private to FastAPI and OpenTelemetry: an upgrade that moves it must break a test here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry import metrics, trace
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.metrics import _internal as metrics_internal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from anvil_monitor.exporter import Instrument, instrument
from anvil_monitor.exporter.meters import PageMeterProvider
from anvil_monitor.targets import load


@pytest.fixture(autouse=True)
def nobodys_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in which nobody has set a provider."""
    monkeypatch.setattr(metrics_internal, "_METER_PROVIDER", None)
    monkeypatch.setattr(metrics_internal, "_METER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)


@pytest.fixture
def reader() -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    yield reader
    reader.shutdown()


def shop() -> FastAPI:
    """With a FastAPI application mounted in it."""
    app, inner = FastAPI(), FastAPI()

    @app.get("/items/{number}")
    async def item(number: int) -> int:
        return number

    @inner.get("/deep")
    async def deep() -> str:
        return "deep"

    app.mount("/inner", inner)
    return app


def visit(app: FastAPI) -> None:
    client = TestClient(app)
    assert client.get("/items/1").status_code == 200
    assert client.get("/inner/deep").status_code == 200


def durations(made: Instrument) -> dict[str, float]:
    return {
        sample.labels["http_route"]: sample.value
        for family in text_string_to_metric_families(made.metrics())
        for sample in family.samples
        if sample.name == "http_server_request_duration_seconds_count"
    }


def names_read(reader: InMemoryMetricReader) -> set[str]:
    data = reader.get_metrics_data()
    if data is None:
        return set()
    return {
        metric.name for each in data.resource_metrics for scope in each.scope_metrics for metric in scope.metrics
    }  # fmt: skip


def test_with_our_provider_each_request_is_counted_once(tmp_path: Path) -> None:
    """Behind the API stands our MeterProvider; FastAPI, in a mounted application too, does not record into it."""
    app = shop()
    made = instrument(app, configuration=load(None, {}), directory=tmp_path, registry=False)
    assert isinstance(metrics.get_meter_provider(), PageMeterProvider)
    visit(app)
    assert durations(made) == {"/items/{number}": 1, "/inner/deep": 1}
    assert app._native_telemetry.config["metrics"] is False


def test_with_the_users_provider_each_request_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: InMemoryMetricReader
) -> None:
    """A provider of the SDK that the user has set is not fed by FastAPI: ours has measured the request."""
    monkeypatch.setattr(metrics_internal, "_METER_PROVIDER", MeterProvider([reader]))
    app = shop()
    made = instrument(app, configuration=load(None, {}), directory=tmp_path, registry=False)
    visit(app)
    assert durations(made) == {"/items/{number}": 1, "/inner/deep": 1}
    assert "http.server.request.duration" not in names_read(reader)


def test_without_us_fastapi_would_measure(monkeypatch: pytest.MonkeyPatch, reader: InMemoryMetricReader) -> None:
    """The two tests above prove something: the same application, not instrumented, does feed the provider."""
    monkeypatch.setattr(metrics_internal, "_METER_PROVIDER", MeterProvider([reader]))
    visit(shop())
    assert "http.server.request.duration" in names_read(reader)


def test_a_provider_given_to_fastapi_itself_is_left_in_charge(tmp_path: Path) -> None:
    """Whoever names a provider for FastAPI's metrics wants them there, and nothing else writes to it."""
    own = FastAPI(telemetry={"meter_provider": NoOpMeterProvider()})
    instrument(own, configuration=load(None, {}), directory=tmp_path, meters=False, registry=False)
    assert own._native_telemetry.config["metrics"] is True


def test_an_application_mounted_later_is_found(tmp_path: Path) -> None:
    """What is mounted after instrument() is still, too, by the time of the first request."""
    app, late = FastAPI(), FastAPI()
    instrument(app, configuration=load(None, {}), directory=tmp_path, registry=False)
    app.mount("/late", late)
    TestClient(app).get("/late/x")
    assert late._native_telemetry.config["metrics"] is False


def test_fastapis_spans_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracer provider that is set at any time, also after requests, gets FastAPI's own spans as before."""
    app = shop()
    instrument(app, configuration=load(None, {}), directory=tmp_path, meters=False, registry=False)
    visit(app)
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    visit(app)
    servers = [span.name for span in spans.get_finished_spans() if span.kind is trace.SpanKind.SERVER]
    assert servers == ["GET /items/{number}", "GET /inner/deep"]


def test_the_look_for_providers_is_spared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody has a provider, FastAPI's look for them is answered without it."""
    app = shop()
    instrument(app, configuration=load(None, {}), directory=tmp_path, meters=False, registry=False)
    native: Any = app._native_telemetry
    assert "enabled" in vars(native)

    def look() -> Any:
        raise AssertionError("looked")

    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", look)
    monkeypatch.setattr("opentelemetry._logs.get_logger_provider", look)
    assert native.enabled() is False
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider())
    with pytest.raises(AssertionError, match="looked"):
        native.enabled()


def test_where_the_environment_names_providers_nothing_is_spared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With OTEL_PYTHON_TRACER_PROVIDER the first look makes the provider: FastAPI looks as it always does."""
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "sdk_tracer_provider")
    app = shop()
    instrument(app, configuration=load(None, {}), directory=tmp_path, meters=False, registry=False)
    assert "enabled" not in vars(app._native_telemetry)
