"""Four gunicorn workers under load, killed one after the other: what is counted, beside what clients were answered.

Most are killed by a client at the moment it has its answer. ``application()`` is what gunicorn serves.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from bench.exporter.variants import ByHand, _sdk
from bench.machine import free_port
from tests.support.clients import Clients

KINDS = ("ours", "prometheus_client", "otel")
COUNT = re.compile(r'^http_server_request_duration_seconds_count\{.*"/(?:items|slow)/.*\} (\S+)$', re.MULTILINE)
ACTIVE = re.compile(r"^http_server_active_requests(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
SCRAPES = 20


def application() -> Any:
    """The small application of this bench under the instrument that ``BENCH_KIND`` names, with ``GET /metrics``."""
    from fastapi import FastAPI, Response
    from prometheus_client import CollectorRegistry, generate_latest

    kind = os.environ["BENCH_KIND"]
    if kind == "otel":
        _sdk()
    app = FastAPI()

    @app.get("/items/{number}")
    async def item(number: int) -> int:
        return os.getpid()

    @app.get("/slow/{number}")
    async def slow(number: int) -> int:
        await asyncio.sleep(0.2)
        return os.getpid()

    if kind == "ours":
        from anvil_monitor.exporter import instrument
        from anvil_monitor.targets import load

        instrument(app, configuration=load(None, {}), directory=os.environ["BENCH_PAGES"])
        return app

    @app.get("/metrics")
    def metrics() -> Response:
        if kind == "otel":
            return Response(generate_latest())
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return Response(generate_latest(registry))

    return ByHand(app) if kind == "prometheus_client" else app


@dataclass(frozen=True)
class Outcome:
    """``counted``, ``active``: the least and the most of twenty scrapes after the load had ended."""

    kills: int
    answered: int
    broken: int
    counted: tuple[float, float]
    active: tuple[float, float]
    files: int

    @property
    def lost(self) -> float:
        return max(0.0, self.answered - self.counted[0])


def measure(
    kind: str, seconds: float, command: Callable[..., list[str]], environ: dict[str, str], folder: Path
) -> Outcome:
    pages = folder / f"killed-{kind}"
    pages.mkdir()
    port = free_port()
    variables = dict(environ, BENCH_KIND=kind, BENCH_PAGES=str(pages), PROMETHEUS_MULTIPROC_DIR=str(pages))
    if kind != "prometheus_client":
        variables.pop("PROMETHEUS_MULTIPROC_DIR")
    line = command("gunicorn", "bench.exporter.killed:application()", "--bind", f"127.0.0.1:{port}", "--workers", "4",
                   "--worker-class", "uvicorn_worker.UvicornWorker", "--log-level", "critical", "--no-control-socket",
                   "--graceful-timeout", "5")  # fmt: skip
    server = subprocess.Popen(line, env=variables, stderr=subprocess.DEVNULL)
    try:
        scrape(port, patience=30)
        kills, answers, last = 0, 0, 0.0
        killed: list[int] = []

        def kill(body: bytes) -> None:
            nonlocal kills, answers, last
            answers += 1
            if time.monotonic() - last > 0.4 and answers > kills * 40 and (pid := int(body)) not in killed:
                kills, last = kills + 1, time.monotonic()
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

        with Clients(port, ("/items/7", "/slow/7"), connections=8, on_answer=kill) as clients:
            time.sleep(seconds)
        while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in killed):
            time.sleep(0.05)
        with ThreadPoolExecutor(8) as pool:  # several at once, so that several workers answer
            texts = list(pool.map(lambda _: scrape(port), range(SCRAPES)))
        counted = [sum(map(float, COUNT.findall(text))) for text in texts]
        active = [sum(map(float, ACTIVE.findall(text))) for text in texts]
        return Outcome(
            kills, sum(clients.answered.values()), sum(clients.broken.values()), (min(counted), max(counted)),
            (min(active), max(active)), len(list(pages.iterdir())),
        )  # fmt: skip
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(server.pid).children(recursive=True):
                child.kill()
            server.kill()
            server.wait()


def scrape(port: int, patience: float = 10) -> str:
    deadline = time.monotonic() + patience
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return str(answer.read(), "utf-8")
        except (URLError, OSError) as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"bench: the server that is killed does not answer: {error}") from None
            time.sleep(0.1)
