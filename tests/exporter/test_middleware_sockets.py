"""Under a real uvicorn, with real sockets: clients that leave, and WebSockets."""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from prometheus_client.parser import text_string_to_metric_families
from starlette.websockets import WebSocketDisconnect

from anvil_monitor.exporter import Instrument, instrument
from anvil_monitor.targets import load

COUNT = "http_server_request_duration_seconds_count"


class Server:
    """The application in a thread, until the test is over."""

    def __init__(self, app: FastAPI, folder: Path) -> None:
        self.made: Instrument = instrument(app, configuration=load(None, {}), directory=folder)
        self.uvicorn = uvicorn.Server(
            uvicorn.Config(app, port=0, log_config=None, ws="websockets-sansio", timeout_graceful_shutdown=1)
        )
        self.thread = threading.Thread(target=self.uvicorn.run)
        self.thread.start()
        self.until(lambda: self.uvicorn.started)
        self.port: int = self.uvicorn.servers[0].sockets[0].getsockname()[1]

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "did not happen within 10 s"
            time.sleep(0.01)

    def connect(self, text: str) -> socket.socket:
        """A connection on which ``text`` (an HTTP request) has been sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        connection.sendall(text.replace("\n", "\r\n").encode())
        return connection

    def answers(self) -> list[tuple[str, str | None, str | None]]:
        """Route, status and error of each series of answers."""
        return [
            (labels["http_route"], labels.get("http_response_status_code"), labels.get("error_type"))
            for labels, _ in self.samples(COUNT)
        ]

    def level(self, name: str) -> float | None:
        return next((value for _, value in self.samples(name)), None)

    def samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        families = text_string_to_metric_families(self.made.metrics())
        return [(s.labels, s.value) for family in families for s in family.samples if s.name == name]

    def close(self) -> None:
        self.uvicorn.should_exit = True
        self.thread.join(10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    app = FastAPI()

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.01)

        return StreamingResponse(parts())

    @app.get("/slow")
    async def slow() -> str:
        await asyncio.sleep(0.3)
        return "slow"

    @app.post("/upload")
    async def upload(request: Request) -> int:
        return len(await request.body())

    @app.post("/short")
    async def short(request: Request) -> None:
        async for _ in request.stream():
            pass

    @app.websocket("/ws/{name}")
    async def ws(websocket: WebSocket, name: str) -> None:
        if name == "denied":
            await websocket.close()
            return
        if name == "teapot":
            await websocket.send_denial_response(PlainTextResponse("short and stout", 418))
            return
        if name == "broken":
            raise ValueError("before the handshake")
        await websocket.accept()
        try:
            await websocket.receive_text()
        except WebSocketDisconnect:
            return
        raise ValueError("in an open connection")

    made = Server(app, tmp_path)
    yield made
    made.close()


def test_a_client_that_leaves_in_the_middle_of_a_stream(server: Server) -> None:
    """Its request has the status that was sent, and says that the client left; nothing is in flight afterwards."""
    connection = server.connect("GET /endless HTTP/1.1\nHost: x\n\n")
    assert b"200 OK" in connection.recv(5000)
    connection.close()
    server.until(server.answers)
    assert server.answers() == [("/endless", "200", "client_disconnected")]
    assert server.level("http_server_active_requests") == 0
    assert server.level("http_server_oldest_request_age_seconds") == 0


def test_a_client_that_leaves_before_its_whole_request(server: Server) -> None:
    """No answer reached anybody: there is no status, and the size that it announced is not recorded."""
    server.connect("POST /short HTTP/1.1\nHost: x\nContent-Length: 1000000\n\nabc").close()
    server.until(server.answers)
    assert server.answers() == [("/short", None, "client_disconnected")]
    assert server.samples("http_server_request_body_size_bytes_count") == []


def test_a_client_that_leaves_while_an_endpoint_works(server: Server) -> None:
    """The endpoint is not told and answers: uvicorn drops the answer, and it is counted as it was given, in full."""
    server.connect("GET /slow HTTP/1.1\nHost: x\n\n").close()
    server.until(server.answers)
    assert server.answers() == [("/slow", "200", None)]
    assert (server.level("http_server_request_duration_seconds_sum") or 0) > 0.29


def handshake(server: Server, path: str) -> socket.socket:
    key = base64.b64encode(b"0123456789abcdef").decode()
    return server.connect(
        f"GET {path} HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\n"
        f"Sec-WebSocket-Key: {key}\nSec-WebSocket-Version: 13\n\n"
    )


def test_an_open_websocket_is_no_request(server: Server) -> None:
    """The handshake is answered with 101 at once; the open connection is a level of its own, and no response time."""
    connection = handshake(server, "/ws/room")
    assert b"101 Switching" in connection.recv(5000)
    server.until(lambda: server.level("http_server_active_websockets") == 1)
    assert server.answers() == [("/ws/{name}", "101", None)]
    assert server.level("http_server_active_requests") == 0
    took = server.level("http_server_request_duration_seconds_sum")
    connection.close()
    server.until(lambda: server.level("http_server_active_websockets") == 0)
    assert server.answers() == [("/ws/{name}", "101", None)]
    assert server.level("http_server_request_duration_seconds_sum") == took


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [("denied", "403", None), ("teapot", "418", None), ("broken", "500", "ValueError")],
)
def test_a_websocket_that_is_not_accepted(server: Server, path: str, status: str, error: str | None) -> None:
    """A close before the accept is a 403, a denial has its own status, an exception is a 500."""
    connection = handshake(server, f"/ws/{path}")
    assert f" {status} ".encode() in connection.recv(5000)
    connection.close()
    server.until(server.answers)
    assert server.answers() == [("/ws/{name}", status, error)]
    assert server.level("http_server_active_websockets") is None
    assert server.level("http_server_active_requests") == 0


def test_an_unknown_websocket_is_unmatched(server: Server) -> None:
    """A path without a route shares the one value."""
    connection = handshake(server, "/nowhere")
    assert b" 403 " in connection.recv(5000)
    connection.close()
    server.until(server.answers)
    assert server.answers() == [("(unmatched)", "403", None)]


def test_an_exception_in_an_open_websocket_is_no_failed_request(server: Server) -> None:
    """The handshake was answered; the connection's end brings the level back."""
    connection = handshake(server, "/ws/room")
    assert b"101 Switching" in connection.recv(5000)
    connection.sendall(b"\x81\x82\x00\x00\x00\x00hi")
    server.until(lambda: server.level("http_server_active_websockets") == 0)
    connection.close()
    assert server.answers() == [("/ws/{name}", "101", None)]
