"""What the tests of pipeline, outbox and delivery share: a configuration, a clock, and sinks on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.pipeline import Pipeline
from anvil_monitor.targets import Channel, Configuration, Secret, load

START = 1_800_000_000.0


class BusyServer(ThreadingHTTPServer):
    """Takes more than five calls at once."""

    request_queue_size = 128


class WebhookSink:
    """An HTTP server that keeps what it is sent. ``statuses`` are its first answers; then 200.

    ``hang``: no answer. ``drip``: an answer that never ends, a byte at a time. ``pem``: it speaks TLS with this key.
    """

    def __init__(self, pem: Path | None = None) -> None:
        self.received: list[dict[str, Any]] = []
        self.posts: list[tuple[dict[str, str], bytes]] = []
        self.drip = False
        self.answer = b""
        self.answers: list[bytes] = []
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
                if sink.drip:
                    sink.times.append(time.monotonic())
                    with contextlib.suppress(OSError):
                        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                        while not sink.released.wait(0.05):
                            self.wfile.write(b"x")
                            self.wfile.flush()
                    return
                status = sink.statuses.pop(0) if sink.statuses else 200
                sink.times.append(time.monotonic())
                sink.posts.append((dict(self.headers), body))
                if status < 300:
                    sink.received.append(json.loads(body))
                self.send_response(status)
                for name, value in sink.headers.items():
                    self.send_header(name, value)
                answer = sink.answers.pop(0) if sink.answers else sink.answer
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                with contextlib.suppress(OSError):  # who has read enough hangs up
                    self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = BusyServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if pem is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who hangs up is the test's matter
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
def make_sink() -> Iterator[Callable[..., WebhookSink]]:
    """Webhook sinks, ended after the test."""
    sinks: list[WebhookSink] = []

    def make(pem: Path | None = None) -> WebhookSink:
        sinks.append(WebhookSink(pem))
        return sinks[-1]

    yield make
    for sink in sinks:
        sink.close()


class Mailbox:
    """An SMTP handler that keeps the messages; ``refuse`` is the answer to every recipient, if set."""

    def __init__(self) -> None:
        self.messages: list[email.message.EmailMessage] = []
        self.refuse = ""

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        if self.refuse:
            return self.refuse
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.messages.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 OK"


class MailServer(Controller):
    """A controller on a free port: aiosmtpd's own takes port 0 literally when it tries itself out."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.fixture
def mail() -> Iterator[tuple[Mailbox, str]]:
    """A mailbox and the Apprise URL of its server."""
    box = Mailbox()
    controller = MailServer(
        box, hostname="127.0.0.1", port=0, auth_require_tls=False,
        authenticator=lambda *_: AuthResult(success=True),
    )  # fmt: skip
    controller.start()
    url = f"mailto://user:word@127.0.0.1:{controller.port}?mode=insecure&from=monitor@example.test&to=team@example.test"
    yield box, url
    controller.stop()


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    """A key and a certificate of 127.0.0.1 that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
    return path


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


@pytest.fixture
def build(configure: Any, outbox: Outbox, clock: Any) -> Callable[..., Pipeline]:
    """Makes a pipeline that tells these channels (default: one, ``team``)."""
    team = Channel("team", Secret("monitor.toml", "json://127.0.0.1/"))

    def make(*channels: Channel) -> Pipeline:
        return Pipeline(configure({channel.name: channel for channel in channels or (team,)}), outbox, clock)

    return make


@pytest.fixture
def run(clock: Any) -> Callable[..., None]:
    """Let ``seconds`` pass, with an evaluation every five of them."""

    def pass_(pipeline: Pipeline, seconds: float, *alerts: Any) -> None:
        for _ in range(int(seconds // 5)):
            clock.now += 5
            pipeline.update(alerts)

    return pass_
