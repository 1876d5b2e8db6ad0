"""Real uvicorn with four workers over HTTP: one truth, whichever worker answers and whichever dies."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

SERVER = """
import os, time
from fastapi import FastAPI
from anvil_monitor.exporter import instrument
app = FastAPI()

@app.get("/items/{number}")
async def item(number: int) -> int:
    return os.getpid()

@app.get("/hang")
def hang() -> int:
    time.sleep(60)
    return 0

instrument(app)
"""


@contextmanager
def server(folder: Path, workers: int = 4) -> Iterator[tuple[int, psutil.Process]]:
    """A uvicorn on a free port, ready when all its workers have answered."""
    (folder / "served.py").write_text(SERVER)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {**os.environ, "ANVIL_MONITOR_PAGES": str(folder / "pages")}
    command = [sys.executable, "-m", "uvicorn", "served:app", "--port", str(port), "--workers", str(workers),
               "--log-level", "warning", "--no-access-log"]  # fmt: skip
    process = subprocess.Popen(command, cwd=folder, env=environ)
    try:
        eventually(lambda: get(port, "/metrics")[0] == 200, seconds=40)
        yield port, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()


def eventually(fact: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if fact():
                return
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def get(port: int, path: str) -> tuple[int, str]:
    """One request on a connection of its own, so that the kernel may give it to any worker."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def total(port: int, name: str, **labels: str) -> float:
    """The sum of the samples of ``name`` that have ``labels``, as some worker tells it."""
    families = text_string_to_metric_families(get(port, "/metrics")[1])
    samples = (sample for family in families for sample in family.samples if sample.name == name)
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


COUNT = "http_server_request_duration_seconds_count"


def answering(port: int, number: int) -> list[int]:
    """``number`` requests, eight at once; the process that answered each."""
    with ThreadPoolExecutor(8) as pool:
        return [int(body) for _, body in pool.map(lambda n: get(port, f"/items/{n}"), range(number))]


@pytest.mark.timeout(180)
def test_totals_are_exact_and_survive_sigkill(tmp_path: Path) -> None:
    """400 requests over four workers count 400 on every scrape; after SIGKILL of one, still, and its gauge is gone."""
    with server(tmp_path) as (port, root):
        pids = set(answering(port, 400))
        assert len(pids) > 1
        eventually(lambda: total(port, COUNT, http_route="/items/{number}") == 400)
        assert {total(port, COUNT, http_route="/items/{number}") for _ in range(20)} == {400}

        def hang() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                get(port, "/hang")

        hanging = threading.Thread(target=hang)
        hanging.start()
        eventually(lambda: total(port, "http_server_active_requests") == 1)
        eventually(lambda: total(port, "http_server_oldest_request_age_seconds") > 0.2)
        # Whoever hangs has the connection with an answer outstanding; kill workers until that one is gone.
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            assert {total_when_up(port) for _ in range(5)} == {400}
            if not hanging.is_alive() or not hanging_is_there(port):
                break
        hanging.join(20)
        assert not hanging.is_alive()
        eventually(lambda: total(port, "http_server_active_requests") == 0)
        assert total(port, "http_server_oldest_request_age_seconds") == 0

        answering(port, 100)
        eventually(lambda: total(port, COUNT, http_route="/items/{number}") == 500)
        live = {child.pid for child in root.children(recursive=True)}
        pages = [path.name for path in (tmp_path / "pages").glob("worker-*")]
        assert {int(name.split("-")[1]) for name in pages} <= live


def hanging_is_there(port: int) -> bool:
    found = [1.0]

    def look() -> bool:
        found[0] = total(port, "http_server_active_requests")
        return True

    eventually(look)
    return found[0] > 0


def total_when_up(port: int) -> float:
    """The count from whoever answers: a connection that waited for the killed worker is refused, then tried again."""
    found = [0.0]

    def look() -> bool:
        found[0] = total(port, COUNT, http_route="/items/{number}")
        return True

    eventually(look)
    return found[0]


def test_totals_go_on_after_a_restart(tmp_path: Path) -> None:
    """A server that was stopped and started again counts on from where it was."""
    with server(tmp_path, workers=2) as (port, _):
        answering(port, 50)
        eventually(lambda: total(port, COUNT, http_route="/items/{number}") == 50)
    with server(tmp_path, workers=2) as (port, _):
        answering(port, 10)
        eventually(lambda: total(port, COUNT, http_route="/items/{number}") == 60)
        assert total(port, "anvil_monitor_workers") <= 2
        assert total(port, "http_server_active_users") == 1
