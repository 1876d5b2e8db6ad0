"""Real servers for tests: an instrumented application under uvicorn or gunicorn, clients that count, a scraper.

Nothing here decides; the tests do. Everything is on loopback, on free ports, in folders of the test.
"""

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

APPLICATION = """
import multiprocessing, os, time
from fastapi import FastAPI
from anvil_monitor.exporter import instrument, names

app = FastAPI()

@app.get("/items/{number}")
async def item(number: int) -> int:
    return os.getpid()

@app.get("/hang")
def hang() -> int:
    time.sleep(60)
    return 0

def query(count):
    series = made.recorder.histogram(names.DB_DURATION, ("sqlite", "SELECT", "items"), (0.05,))
    for _ in range(count):
        series.record(0.01)

@app.get("/children/{how}")
def children(how: str) -> int:
    query(1)
    started = [multiprocessing.get_context(how).Process(target=query, args=(10,)) for _ in range(2)]
    for each in started:
        each.start()
    for each in started:
        each.join()
    return sum(each.exitcode for each in started)

made = instrument(app)
if os.environ.get("MEASURED_BEFORE_THE_FORK"):
    query(1)
"""
COUNT = "http_server_request_duration_seconds_count"
QUERIES = "db_client_operation_duration_seconds_count"
UVICORN_WORKER = "uvicorn_worker.UvicornWorker"


@dataclass(frozen=True)
class Server:
    port: int
    process: psutil.Process
    pages: Path
    log: Path

    def up(self, workers: int) -> tuple[set[int], int]:
        """Ask for items until that many processes have answered; which, and how many requests that took."""
        pids: set[int] = set()
        asked = 0

        def all_there() -> bool:
            nonlocal asked
            asked += 40
            pids.update(answering(self.port, 40))
            return len(pids) >= workers

        eventually(all_there)
        return pids, asked

    def page_files(self) -> list[str]:
        return sorted(path.name for path in self.pages.rglob("worker-*"))


def uvicorn(port: int, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "uvicorn", "served:app", "--port", str(port), "--no-access-log", *arguments]


def gunicorn(port: int, *arguments: str, worker: str = UVICORN_WORKER) -> list[str]:
    # gunicorn makes a socket for its control program in a folder of the user, unless told not to.
    return [sys.executable, "-m", "gunicorn", "served:app", "--bind", f"127.0.0.1:{port}", "--worker-class", worker,
            "--graceful-timeout", "5", "--no-control-socket", *arguments]  # fmt: skip


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(
    folder: Path, command: Callable[..., list[str]], *arguments: str, environ: Mapping[str, str] | None = None,
    before: Sequence[str] = (), application: str = APPLICATION,
) -> Iterator[Server]:  # fmt: skip
    """``command(port, *arguments)`` in ``folder``, answering; ``before``: words before the command."""
    folder.mkdir(exist_ok=True)
    (folder / "served.py").write_text(application)
    port = free_port()
    environment = {**os.environ, "ANVIL_MONITOR_PAGES": str(folder / "pages"), **(environ or {})}
    log = folder / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*before, *command(port, *arguments)], cwd=folder, env=environment, stdout=output, stderr=output
        )
    try:
        eventually(lambda: process.poll() is not None or get(port, "/metrics")[0] == 200, seconds=40)
        assert process.poll() is None, log.read_text()
        yield Server(port, psutil.Process(process.pid), Path(environment["ANVIL_MONITOR_PAGES"]), log)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and after a while SIGKILL for it and its children."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
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
        return ask(connection, path)
    finally:
        connection.close()


def ask(connection: http.client.HTTPConnection, path: str) -> tuple[int, str]:
    """One request on a connection that is kept: always the same worker."""
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read().decode()


def value(text: str, name: str, **labels: str) -> float:
    """The sum of the samples of ``name`` that have ``labels`` in an exposition."""
    samples = (
        sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    )  # fmt: skip
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def total(port: int, name: str, **labels: str) -> float:
    """The sum of the samples of ``name`` that have ``labels``, as some worker tells it."""
    return value(get(port, "/metrics")[1], name, **labels)


def items(port: int) -> float:
    """How many requests for items were counted, from whoever answers: a killed worker's connection is tried again."""
    found = [0.0]

    def look() -> bool:
        found[0] = total(port, COUNT, http_route="/items/{number}")
        return True

    eventually(look)
    return found[0]


def answering(port: int, number: int) -> list[int]:
    """``number`` requests, eight at once; the process that answered each."""
    with ThreadPoolExecutor(8) as pool:
        return [int(body) for _, body in pool.map(lambda n: get(port, f"/items/{n}"), range(number))]


class Traffic:
    """Clients that ask for items, each request on a connection of its own, and a scraper beside them.

    ``answered``: whole answers with status 200. ``broken``: requests that were sent and whose connection then broke, so
    that the client cannot know whether they were served. ``scraped``: the totals that /metrics gave, in order.
    """

    def __init__(self, port: int, clients: int = 4, pause: float = 0.002) -> None:
        self.port, self.pause = port, pause
        self.answered = self.broken = 0
        self.pids: set[int] = set()
        self.scraped: list[float] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        self._threads.append(threading.Thread(target=self._scrape))

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _ask(self) -> None:
        while not self._stop.wait(self.pause):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            try:
                connection.connect()
            except OSError:
                continue
            try:
                status, body = ask(connection, "/items/7")
            except (OSError, http.client.HTTPException):
                with self._lock:
                    self.broken += 1
            else:
                with self._lock:
                    self.answered += status == 200
                    self.pids.add(int(body))
            finally:
                connection.close()

    def _scrape(self) -> None:
        while not self._stop.wait(0.1):
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.scraped.append(total(self.port, COUNT, http_route="/items/{number}"))

    def holds(self, before: float = 0.0) -> None:
        """Totals never fell, and at once every answered request is counted, and nothing that was not asked."""
        assert self.scraped
        assert self.scraped == sorted(self.scraped)
        counted = items(self.port) - before
        assert self.answered <= counted <= self.answered + self.broken
