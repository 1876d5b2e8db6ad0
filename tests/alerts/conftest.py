"""What the tests of pipeline, outbox and delivery share: a configuration, a clock, and sinks on loopback."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.targets import Channel, Configuration, Secret, load

START = 1_800_000_000.0


class WebhookSink:
    """An HTTP server that keeps what it is sent. ``statuses`` are its first answers; then 200. ``hang``: no answer."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.hang = False
        self.released = threading.Event()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if sink.hang:
                    sink.times.append(time.monotonic())
                    sink.released.wait(60)
                    return
                status = sink.statuses.pop(0) if sink.statuses else 200
                sink.times.append(time.monotonic())
                if status < 300:
                    sink.received.append(json.loads(body))
                self.send_response(status)
                for name, value in sink.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"json://127.0.0.1:{self.port}/secret-path"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def make_sink() -> Iterator[Callable[[], WebhookSink]]:
    """Webhook sinks, ended after the test."""
    sinks: list[WebhookSink] = []

    def make() -> WebhookSink:
        sinks.append(WebhookSink())
        return sinks[-1]

    yield make
    for sink in sinks:
        sink.close()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """An outbox of its own."""
    box = Outbox(tmp_path / "outbox.sqlite3")
    yield box
    box.close()


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Configuration]:
    """The shipped configuration with given channels: ``configure({"team": URL}, group_wait=0)``."""
    shipped = load(None, {})

    def make(channels: dict[str, Any] | None = None, **monitor: Any) -> Configuration:
        found = tuple(
            value if isinstance(value, Channel) else Channel(name, Secret("monitor.toml", value))
            for name, value in (channels or {}).items()
        )
        return replace(shipped, channels=found, monitor=replace(shipped.monitor, data=tmp_path, **monitor))

    return make


@dataclass
class Clock:
    """A time that only the test moves."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass
class Alerts:
    """Makes alerts as our rules raise them."""

    annotations: dict[str, str] = field(
        default_factory=lambda: {
            "summary": "API response time missed", "title": "API response time", "measure": "p95 over 1 min",
            "value": "0.312", "limit": "0.2", "unit": "seconds", "description": "The API answers slowly.",
            "dashboard": "http://127.0.0.1:9109/", "runbook_url": "https://example.test/runbooks/target-missed"}
    )  # fmt: skip

    def missed(self, target: str = "api_response_time", service: str = "app", at: float = START, **more: str) -> Alert:
        labels = {"alertname": "TargetMissed", "service": service, "target": target, "unit": "seconds",
                  "severity": "critical"}  # fmt: skip
        return Alert(labels, {**self.annotations, **more}, at)

    def other(
        self, name: str, service: str = "app", at: float = START, severity: str = "critical", **more: str
    ) -> Alert:
        labels = {"alertname": name, "service": service, "severity": severity, **more}
        return Alert(labels, {"summary": f"{service}: {name}"}, at)

    def over(self, alert: Alert, at: float) -> Alert:
        return replace(alert, ends_at=at)


@pytest.fixture
def alerts() -> Alerts:
    return Alerts()


async def poll(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until ``condition`` holds; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


@pytest.fixture
def until() -> Callable[..., Any]:
    return poll
