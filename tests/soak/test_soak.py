"""Four workers under load while they are killed one after the other. ``ANVIL_SOAK_SECONDS`` makes it longer."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest
from clients import Clients
from servers import COUNT, UVICORN_WORKER, eventually, get, gunicorn, running, value

SECONDS = float(os.environ.get("ANVIL_SOAK_SECONDS", "10"))
FEWEST, PATIENCE = 6, 30.0
ASGI = """
import asyncio, os
from fastapi import FastAPI
from anvil_monitor.exporter import instrument

app = FastAPI()

@app.get("/items/{number}")
async def item(number: int) -> int:
    return os.getpid()

@app.get("/slow/{number}")
async def slow(number: int) -> int:
    await asyncio.sleep(0.2)
    return os.getpid()

instrument(app)
"""
WSGI = """
import os, time
from flask import Flask
from anvil_monitor.exporter import instrument

app = Flask("served")

@app.get("/items/<number>")
def item(number):
    return str(os.getpid())

@app.get("/slow/<number>")
def slow(number):
    time.sleep(0.2)
    return str(os.getpid())

instrument(app)
"""
PATHS = {"/items/7": "items", "/slow/7": "slow"}


@pytest.mark.timeout(SECONDS + PATIENCE + 60)
@pytest.mark.parametrize(
    ("worker", "application"),
    [(UVICORN_WORKER, ASGI), ("asgi", ASGI), ("gthread", WSGI)],
    ids=["uvicorn", "asgi", "wsgi"],
)
def test_nothing_is_lost_when_workers_are_killed(tmp_path: Path, worker: str, application: str) -> None:
    """Workers are killed with SIGKILL, up to three a second, under load: what clients were answered is what is counted.

    Most are killed by a client at the moment it has the answer, others at any moment of their lives.

    Of each route: answered <= counted <= answered + broken. A request whose connection broke may have been counted,
    because it is counted just before its answer is sent; one that was answered is always counted. Each scrape on the
    way is at or above the last; the first one after the load has no request in flight and no page of a dead worker.
    """

    def command(port: int, *arguments: str) -> list[str]:
        return gunicorn(port, *arguments, worker=worker)

    arguments = ("--workers", "4", *(("--threads", "8") if worker == "gthread" else ()))
    with running(tmp_path, command, *arguments, application=application) as server:
        seen: dict[str, list[float]] = {name: [] for name in PATHS.values()}
        in_flight: list[float] = []
        kills, answers, last = 0, 0, 0.0
        killed: list[int] = []

        def kill(body: bytes) -> None:
            """Now and then the worker that has just answered: the worst moment, unless the request is counted."""
            nonlocal kills, answers, last
            answers += 1
            # A busy machine needs its time to bring the next worker up.
            if time.monotonic() - last > 0.3 and answers > kills * 40:
                kills, last = kills + 1, time.monotonic()
                send_kill(int(body), killed)

        ends = time.monotonic() + SECONDS
        with Clients(server.port, tuple(PATHS), connections=8, on_answer=kill) as clients:
            # A machine that does other work gets more time for as much killing.
            while time.monotonic() < ends or (kills < FEWEST and time.monotonic() < ends + PATIENCE):
                time.sleep(0.2)
                with contextlib.suppress(OSError, http.client.HTTPException):
                    scrape(server.port, seen, in_flight)
                if random.random() < 0.05:  # also one that is only starting
                    send_kill(random.choice(server.process.children()).pid, killed)
        # A process that was killed takes a moment to die: its lock goes with it.
        eventually(lambda: not any(map(alive, killed)))
        text = first_scrape(server.port)
        workers = {child.pid for child in server.process.children()}
        counted = {path: of_route(text, name) for path, name in PATHS.items()}
        print(f"{kills} kills; answered {dict(clients.answered)}, counted {counted}, broken {dict(clients.broken)}")
        assert kills >= FEWEST
        for path, name in PATHS.items():
            assert clients.failed[path] == 0
            assert clients.answered[path] > 3
            assert clients.answered[path] <= counted[path] <= clients.answered[path] + clients.broken[path]
            assert seen[name] == sorted(seen[name])
        assert max(in_flight) > 4
        assert value(text, "http_server_active_requests") == 0
        assert value(text, "http_server_oldest_request_age_seconds") == 0
        assert {int(name.split("-")[1]) for name in server.page_files()} <= workers
        # What a worker left that was killed while it made its page goes after a minute.
        rest = {path.name for path in server.pages.rglob("*") if path.is_file()} - set(server.page_files())
        assert {name for name in rest if not name.startswith(".new-")} <= {"retired", "fold.lock", "salt"}
        assert len(rest) <= 3 + kills / 4


def of_route(text: str, name: str) -> float:
    """The count of ``/name/…``, whose template frameworks spell differently."""
    return sum(value(text, COUNT, http_route=f"/{name}/{spelt}") for spelt in ("{number}", "<number>"))


def send_kill(pid: int, killed: list[int]) -> None:
    killed.append(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def first_scrape(port: int) -> str:
    """The first that is answered: a connection that waited for a killed worker is reset."""
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return get(port, "/metrics")[1]


def scrape(port: int, seen: dict[str, list[float]], in_flight: list[float]) -> None:
    text = get(port, "/metrics")[1]
    for name, values in seen.items():
        values.append(of_route(text, name))
    in_flight.append(value(text, "http_server_active_requests"))
