"""The probe, at real sockets: a service that answers, fails, hangs, or is not there."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from anvil_monitor.exporter.probe import Probe
from anvil_monitor.targets import ProcessFinder, Service


@contextmanager
def answering(text: bytes | None) -> Iterator[tuple[str, list[bytes]]]:
    """A service that answers every connection with ``text`` and closes; ``None``: it says nothing until the end."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            asked.append(connection.recv(1000))
            if text is None:
                held.append(connection)
                continue
            connection.sendall(text)
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/health?x=1", asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in held:
            connection.close()
        thread.join()


def probe(url: str, **settings: float) -> tuple[float, float]:
    """Success and duration of one collection."""
    made = Probe(Service("shop", url, url, ProcessFinder.PORT, "1"), **settings)
    made.start()
    success, took = (family.samples[0] for family in made.collect())
    assert success.labels == took.labels == (("service", "shop"), ("url", url))
    return success.value, took.value


@pytest.mark.parametrize(
    ("text", "success"),
    [(b"HTTP/1.1 200 OK\r\n\r\n", 1), (b"HTTP/1.1 404 Not Found\r\n\r\n", 1), (b"HTTP/1.1 302 Found\r\n\r\n", 1),
     (b"HTTP/1.1 500 Oh\r\n\r\n", 0), (b"garbage\r\n", 0), (b"", 0)],
)  # fmt: skip
def test_answers(text: bytes, success: float) -> None:
    """Below 500 is a success, also a redirect; 5xx, garbage and nothing at all are none."""
    with answering(text) as (url, asked):
        assert probe(url, patience=10)[0] == success
    assert asked[0].startswith(b"GET /health?x=1 HTTP/1.1\r\n")
    assert b"anvil-monitor-probe" in asked[0]


def test_nobody_there() -> None:
    """A refused connection is no success, at once."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert probe(f"http://127.0.0.1:{port}", patience=10)[0] == 0


def test_a_service_that_hangs() -> None:
    """It delays a collection by the patience, not more, and is not asked again meanwhile."""
    with answering(None) as (url, asked):
        made = Probe(Service("shop", url, url, ProcessFinder.PORT, "1"), patience=0.2, timeout=2.0)
        began = time.monotonic()
        for _ in range(3):
            made.start()
            success, took = (family.samples[0].value for family in made.collect())
            assert success == 0
            assert took >= 0.2
        assert time.monotonic() - began < 1.5
        assert len(asked) == 1
        assert made._running is not None
        made._running.join()
