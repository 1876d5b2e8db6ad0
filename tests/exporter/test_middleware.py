"""A request becomes a measurement."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from anvil_monitor.exporter import Instrument, instrument
from anvil_monitor.exporter.middleware import Middleware
from anvil_monitor.targets import Configuration, load
from anvil_monitor.targets.load import parse


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/ok")
    async def ok() -> str:
        return "ok"

    @app.get("/broken")
    async def broken() -> str:
        raise ValueError("secret")

    @app.get("/unavailable")
    async def unavailable() -> JSONResponse:
        return JSONResponse({}, 503)

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(time.sleep, 0.3)
        return "ok"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"x"
                await asyncio.sleep(0.05)

        return StreamingResponse(parts())

    @app.get("/half")
    async def half() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"x"
            raise RuntimeError("in the middle")

        return StreamingResponse(parts())

    return app


@pytest.fixture
def measured(tmp_path: Path) -> tuple[TestClient, Instrument]:
    app = application()
    made = instrument(app, configuration=load(None, {}), directory=tmp_path)
    return TestClient(app, raise_server_exceptions=False), made


def samples(instrument: Instrument, name: str) -> list[tuple[dict[str, str], float]]:
    families = text_string_to_metric_families(instrument.metrics())
    return [(s.labels, s.value) for family in families for s in family.samples if s.name == name]


DURATION = "http_server_request_duration_seconds"


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [("/ok", "200", None), ("/broken", "500", "ValueError"), ("/unavailable", "503", "503"),
     ("/half", "200", "RuntimeError"), ("/none", "404", None)],
)  # fmt: skip
def test_status_and_error(measured: tuple[TestClient, Instrument], path: str, status: str, error: str | None) -> None:
    """An exception is named and is a 500; a 5xx that was meant is its own name; a 404 is no error of the server."""
    client, made = measured
    if path == "/half":
        with pytest.raises(RuntimeError):
            TestClient(client.app).get(path)
    else:
        client.get(path)
    ((labels, count),) = samples(made, f"{DURATION}_count")
    assert (labels["http_response_status_code"], labels.get("error_type"), count) == (status, error, 1)
    assert samples(made, "http_server_active_requests") == [({"http_request_method": "GET"}, 0)]


def test_the_duration_ends_with_the_answer(measured: tuple[TestClient, Instrument]) -> None:
    """A streamed answer is timed to its last byte; a background task afterwards is no response time."""
    client, made = measured
    client.get("/background")
    client.get("/stream")
    sums = {labels["http_route"]: value for labels, value in samples(made, f"{DURATION}_sum")}
    assert sums["/background"] < 0.2
    assert 0.15 <= sums["/stream"] < 2


def test_our_own_endpoints_and_the_probe_are_no_traffic(measured: tuple[TestClient, Instrument]) -> None:
    """Scrapes, beacons and probes leave an idle service idle: no family appears."""
    client, made = measured
    assert client.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    assert client.head("/metrics").status_code == 200
    assert client.post("/metrics").status_code == 405
    client.get("/anvil-monitor/beacon.js")
    client.post("/anvil-monitor/beacon", content="{")
    client.get("/ok", headers={"User-Agent": "anvil-monitor-probe"})
    assert "http_server_request" not in made.metrics()


def test_requests_in_flight_and_the_oldest(tmp_path: Path) -> None:
    """While two requests wait the gauge says 2, and the age is that of the older one, until both have ended."""
    app = FastAPI()
    gates = {"a": asyncio.Event(), "b": asyncio.Event()}

    @app.get("/wait/{name}")
    async def wait(name: str) -> str:
        await gates[name].wait()
        return name

    made = instrument(app, configuration=load(None, {}), directory=tmp_path)

    async def ask(name: str) -> None:
        scope = {
            "type": "http", "method": "GET", "path": f"/wait/{name}", "raw_path": b"", "headers": [],
            "query_string": b"", "root_path": "", "scheme": "http", "client": ("10.0.0.1", 1), "http_version": "1.1",
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b""}

        async def send(message: Any) -> None:
            pass

        await app(scope, receive, send)

    def levels() -> tuple[float, float]:
        return (samples(made, "http_server_active_requests")[0][1],
                samples(made, "http_server_oldest_request_age_seconds")[0][1])  # fmt: skip

    async def scenario() -> None:
        first = asyncio.create_task(ask("a"))
        await asyncio.sleep(0.2)
        second = asyncio.create_task(ask("b"))
        await asyncio.sleep(0)
        count, older = levels()
        assert count == 2
        assert older > 0.19
        gates["a"].set()
        await first
        count, age = levels()
        assert count == 1
        assert age < older
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert levels() == (0, 0)

    asyncio.run(scenario())
    errors = [labels.get("error_type") for labels, _ in samples(made, f"{DURATION}_count")]
    assert sorted(errors, key=str) == ["CancelledError", None]


def test_an_instrumented_application_inside_another_is_counted_once(tmp_path: Path) -> None:
    """The outer instrument measures; the inner one stands back."""
    inner, outer = application(), FastAPI()
    instrument(inner, configuration=load(None, {}), directory=tmp_path)
    outer.mount("/inner", inner)
    made = instrument(outer, configuration=load(None, {}), directory=tmp_path)
    TestClient(outer).get("/inner/ok")
    assert [labels["http_route"] for labels, _ in samples(made, f"{DURATION}_count")] == ["/inner/ok"]


def test_instrumenting_is_outermost_and_once(tmp_path: Path) -> None:
    """Middleware that is added later is inside; a second call gives the same instrument."""
    app = application()
    made = instrument(app, configuration=load(None, {}), directory=tmp_path)
    app.add_middleware(lambda app: app)  # type: ignore[arg-type]
    assert instrument(app) is made
    TestClient(app).get("/ok")
    assert isinstance(app.middleware_stack, Middleware)
    assert not isinstance(app.middleware_stack.app, Middleware)


def test_only_what_can_be_instrumented_is(tmp_path: Path) -> None:
    """A wrong application or service is refused with what is allowed."""
    with pytest.raises(TypeError, match="not dict"):
        instrument({})
    with pytest.raises(LookupError, match="no service 'shop' in the configuration; there are: app"):
        instrument(FastAPI(), service="shop", configuration=load(None, {}))


def configured(text: str) -> Configuration:
    return parse(text)


def test_an_edge_at_every_limit(tmp_path: Path) -> None:
    """With the defaults the histograms have edges at 200 ms, 50 ms and 2 s; with other limits, at those. A percentile
    has two more near its limit, a mean needs none."""
    app = application()
    made = instrument(app, configuration=load(None, {}), directory=tmp_path / "a")
    assert 0.2 in made._edges[DURATION]
    assert {0.15, 0.3} <= set(made._edges[DURATION])
    assert 0.05 in made._edges["db_client_operation_duration_seconds"]
    assert 0.075 not in made._edges["db_client_operation_duration_seconds"]
    assert 2.0 in made._edges["browser_page_load_duration_seconds"]
    other = application()
    text = '[targets.api_response_time]\nlimit = "137ms"\n'
    made = instrument(other, configuration=configured(text), directory=tmp_path / "b")
    TestClient(other).get("/ok")
    edges = [labels["le"] for labels, _ in samples(made, f"{DURATION}_bucket")]
    assert {"0.137", "0.10275", "0.2055"} <= set(edges)
    assert edges == sorted(edges, key=float)


def test_metrics_for_the_bearer_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``metrics_token`` the scraper must show it; where it cannot be read nothing is served."""
    app = application()
    text = '[[service]]\nname = "app"\nmetrics_token = "env:SCRAPE"\n'
    instrument(app, configuration=configured(text), directory=tmp_path)
    client = TestClient(app)
    monkeypatch.delenv("SCRAPE", raising=False)
    assert client.get("/metrics").status_code == 503
    monkeypatch.setenv("SCRAPE", "hush")
    assert client.get("/metrics").status_code == 401
    refused = client.get("/metrics", headers={"Authorization": "Bearer wrong"})
    assert refused.status_code == 401
    assert "hush" not in refused.text
    assert client.get("/metrics", headers={"Authorization": "Bearer hush"}).status_code == 200


@pytest.mark.parametrize(
    "names", [("histogram",), ("histogram", "gauge", "oldest", "counter", "series", "_open_users")]
)
def test_a_failing_measurement_never_reaches_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, names: tuple[str, ...]
) -> None:
    """Whatever goes wrong in here is logged once, and every request and WebSocket is answered."""
    app = application()

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    made = instrument(app, configuration=load(None, {}), directory=tmp_path, meters=False, registry=False)

    def fail(*_: object) -> None:
        raise RuntimeError("ours")

    for name in names:
        monkeypatch.setattr(made.recorder, name, fail)
    client = TestClient(app, raise_server_exceptions=False)
    assert [client.get(path).status_code for path in ("/ok", "/ok", "/broken", "/none")] == [200, 200, 500, 404]
    with client.websocket_connect("/ws") as socket:
        assert socket.receive_text() == "hello"
    assert len([record for record in caplog.records if "could not record" in record.message]) == 1
