"""A server on loopback that behaves as a test says: healthy, hanging, dripping, garbage, broken."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from anvil_monitor.monitoring import embedded
from anvil_monitor.targets import Configuration, load

EDGES = (0.05, 0.1, 0.2, 0.5, 1.0)


class Server:
    """Serves metrics of made-up traffic: each scrape finds 40 more requests, queries and page loads.

    ``latency`` (seconds) is how long each of them took; ``mode`` how the server behaves; what is posted to it is kept.
    """

    def __init__(self, port: int = 0) -> None:
        self.mode = "healthy"
        self.latency = 0.08
        self.users = 12
        self.extra = ""
        self.posted: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.released = threading.Event()
        self._counts = [0] * (len(EDGES) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.headers = dict(self.headers)
                server.answer(self)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                server.posted.append(json.loads(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self.port: int = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        if self.released.is_set():
            return
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        mode, send = self.mode, handler.wfile.write
        if mode == "hang":
            self.released.wait(30)
            return
        if mode == "drip":
            send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not self.released.wait(0.05):
                try:
                    send(b"#")
                except OSError:
                    return
            return
        if mode == "no http":
            send(b"\x00\x01\x02 this is no HTTP\r\n\r\n")
            return
        if mode == "die":
            send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nup 1\n")
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        text = {"garbage": "<html>It works!</html>", "not text": "\udcff"}.get(mode) or self.text()
        body = text.encode("utf-8", "surrogateescape")
        handler.send_response(503 if mode == "error" else 200)
        handler.send_header("Content-Type", "text/plain; version=0.0.4")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        send(body)

    def text(self) -> str:
        """Forty more of everything, and the exposition that says so."""
        with self._lock:
            index = next((i for i, edge in enumerate(EDGES) if self.latency <= edge), len(EDGES))
            self._counts[index] += 40
            self._sum += 40 * self.latency
            lines = [f"http_server_active_users {self.users}"]
            for name in ("http_server_request", "db_client_operation", "browser_page_load"):
                total = 0
                for edge, count in zip((*EDGES, "+Inf"), self._counts, strict=True):
                    total += count
                    lines.append(f'{name}_duration_seconds_bucket{{le="{edge}"}} {total}')
                lines += [f"{name}_duration_seconds_sum {self._sum}", f"{name}_duration_seconds_count {total}"]
        return "\n".join([*lines, self.extra]) + "\n"


@pytest.fixture
def new_server() -> Iterator[Callable[..., Server]]:
    """Makes servers, on a port where one is given; all are closed at the end."""
    made: list[Server] = []

    def make(port: int = 0) -> Server:
        made.append(Server(port))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def server(new_server: Callable[..., Server]) -> Server:
    return new_server()


@pytest.fixture
def configuration_file(tmp_path: Path, server: Server) -> Path:
    """A monitor.toml with short times that watches ``server`` and tells its /sink."""
    seconds = "\n".join(
        f'[targets.{name}]\nwindow = "3s"\nfor = "1s"\nkeep_firing_for = "1s"\nsilence = "3s"'
        for name in ("api_response_time", "frontend_load_time", "db_query_time", "memory", "concurrent_users")
    )
    # The server's processes are those of this test, a browser among them.
    seconds = seconds.replace("[targets.memory]", '[targets.memory]\nlimit = "50GB"')
    path = tmp_path / "monitor.toml"
    path.write_text(
        f"""
        [service]
        name = "shop"
        url = "{server.url}"
        [channels.hook]
        url = "env:HOOK_URL"
        [monitor]
        listen = "127.0.0.1:0"
        otlp = "127.0.0.1:0"
        data = "data"
        scrape_interval = "500ms"
        evaluation_interval = "500ms"
        group_wait = "100ms"
        group_interval = "500ms"
        {seconds}
        """,
        encoding="utf-8",
    )
    return path


@pytest.fixture
def hook_url(server: Server) -> str:
    return f"json://127.0.0.1:{server.port}/sink"


@pytest.fixture
def until() -> Callable[..., Any]:
    """Waits for what a function gives to be true, and gives it; fails after ``seconds``."""

    def wait(what: Callable[[], Any], seconds: float = 30.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < deadline, f"not within {seconds} s"
            time.sleep(0.02)
        return found

    return wait


class Quiet:
    """A view that keeps what it was shown."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.overviews = 0

    def show(self, overview: Any) -> None:
        self.overviews += 1

    def say(self, text: str) -> None:
        self.said.append(text)

    def close(self) -> None:
        pass


class Running:
    """``embedded.run`` in a thread of its own, and what a test asks it over HTTP."""

    def __init__(self, configuration: Configuration, environ: dict[str, str]) -> None:
        self.view = Quiet()
        self.url = ""
        self.error: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(configuration, environ), daemon=True)
        self._thread.start()
        self._ready.wait(20)
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=10)

    def _run(self, configuration: Configuration, environ: dict[str, str]) -> None:
        async def main() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            await embedded.run(
                configuration, environ=environ, stop=self._stop, ready=self._set, view=lambda url: self.view
            )

        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001  the test reads it
            self.error = error
        finally:
            self._ready.set()

    def _set(self, url: str) -> None:
        self.url = url
        self._ready.set()

    def close(self) -> float:
        """Stop it; how many seconds that took."""
        begin = time.monotonic()
        self.http.close()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()
        return time.monotonic() - begin

    def state(self) -> dict[str, Any]:
        return dict(self.http.get("/api/v1/targets-state").raise_for_status().json()["data"])

    def target(self, name: str) -> dict[str, Any]:
        return next(each for each in self.state()["targets"] if each["target"] == name)

    def firing(self) -> set[str]:
        return {each["name"] for each in self.state()["alerts"] if each["state"] == "firing"}


@pytest.fixture
def configuration(configuration_file: Path) -> Configuration:
    return load(configuration_file, {})


@pytest.fixture
def start(configuration: Configuration, hook_url: str) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def begin(changed: Configuration = configuration, **environ: str) -> Running:
        made.append(Running(changed, {"HOOK_URL": hook_url, **environ}))
        return made[-1]

    yield begin
    for each in made:
        each.close()
