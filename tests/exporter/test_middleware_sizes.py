"""Bytes of requests and answers, as they went over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from anvil_monitor.exporter import Instrument, instrument
from anvil_monitor.targets import load

RESPONSE, REQUEST = "http_server_response_body_size_bytes", "http_server_request_body_size_bytes"


@pytest.fixture
def measured(tmp_path: Path) -> tuple[TestClient, Instrument]:
    app = FastAPI()
    (tmp_path / "file").write_bytes(b"f" * 3000)

    @app.get("/big")
    async def big() -> PlainTextResponse:
        return PlainTextResponse("b" * 100_000)

    @app.api_route("/stream", methods=["GET", "HEAD"])
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"12345"
                await asyncio.sleep(0)

        return StreamingResponse(parts())

    @app.get("/file")
    async def file() -> FileResponse:
        return FileResponse(tmp_path / "file")

    @app.post("/upload")
    async def upload(request: Request) -> int:
        return len(await request.body())

    made = instrument(app, configuration=load(None, {}), directory=tmp_path / "pages")
    return TestClient(app), made


def sums(instrument: Instrument, name: str) -> dict[str, tuple[float, float]]:
    """Sum of bytes and count of records by route."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(instrument.metrics()):
        for sample in family.samples:
            if sample.name in (f"{name}_sum", f"{name}_count"):
                found.setdefault(sample.labels["http_route"], {})[sample.name] = sample.value
    return {route: (values[f"{name}_sum"], values[f"{name}_count"]) for route, values in found.items()}


def test_a_streamed_answer_is_its_own_bytes(measured: tuple[TestClient, Instrument]) -> None:
    """Bytes are counted as they are sent: after /big with its content-length, /stream without one is not as long.

    (OpenTelemetry's ASGI middleware keeps the last content-length on the middleware and records it for the stream.)
    """
    client, made = measured
    client.get("/big")
    client.get("/stream")
    assert sums(made, RESPONSE) == {"/big": (100_000, 1), "/stream": (15, 1)}


def test_answers_without_a_body_are_empty(measured: tuple[TestClient, Instrument]) -> None:
    """HEAD sends no body, whatever the application wrote; a file is as long as it is."""
    client, made = measured
    client.head("/stream")
    client.get("/file")
    assert sums(made, RESPONSE) == {"/stream": (0, 1), "/file": (3000, 1)}


def test_a_file_that_the_server_sends_itself(tmp_path: Path) -> None:
    """With the pathsend extension the application sends a path: the size is what its headers announced."""

    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        headers = [(b"content-length", b"4321")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]
        await send({"type": "http.response.pathsend", "path": "/somewhere"})  # type: ignore[operator]

    outer = FastAPI()
    outer.mount("/files", app)  # type: ignore[arg-type]
    made = instrument(outer, configuration=load(None, {}), directory=tmp_path)

    async def scenario() -> None:
        async def nothing(*_: object) -> None: ...

        scope = {"type": "http", "method": "GET", "path": "/files/x", "headers": [], "query_string": b""}
        await outer(scope, nothing, nothing)  # type: ignore[arg-type]

    asyncio.run(scenario())
    assert sums(made, RESPONSE) == {"/files/{path}": (4321, 1)}


def test_request_bodies(measured: tuple[TestClient, Instrument]) -> None:
    """Announced or chunked, a body is counted; a request without one leaves no record."""
    client, made = measured

    def chunks() -> Iterator[bytes]:
        yield b"x" * 1000
        yield b"y" * 500

    client.get("/big")
    assert REQUEST not in made.metrics()
    assert client.post("/upload", content=b"z" * 2000).json() == 2000
    assert client.post("/upload", content=chunks()).json() == 1500
    assert client.post("/upload").json() == 0
    assert sums(made, REQUEST) == {"/upload": (3500, 2)}


@pytest.mark.parametrize("length", ["-5", "x", "9" * 30, "1_000", "٣", ""])
def test_a_made_up_length_is_none(measured: tuple[TestClient, Instrument], length: str) -> None:
    """A content-length that is no number of bytes, or beyond all measure, is not recorded and breaks nothing."""
    client, made = measured
    assert client.post("/upload", headers={"Content-Length": length.encode()}).status_code == 200  # type: ignore[dict-item]
    assert REQUEST not in made.metrics()


def test_few_series_on_purpose(measured: tuple[TestClient, Instrument]) -> None:
    """Sizes have method and route, no status: a label more would double the series for little."""
    client, made = measured
    client.get("/big")
    for family in text_string_to_metric_families(made.metrics()):
        if family.name == RESPONSE:
            assert {key for sample in family.samples for key in sample.labels} == {
                "http_request_method", "http_route", "le",
            }  # fmt: skip
