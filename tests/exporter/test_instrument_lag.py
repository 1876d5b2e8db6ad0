"""The lag of the event loop, under a real uvicorn."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from anvil_monitor.exporter import Instrument, instrument
from anvil_monitor.exporter.eventloop import LoopLag, lag_of
from anvil_monitor.exporter.recorder import Recorder
from anvil_monitor.targets import load

LAG = "python_event_loop_lag_seconds"


def value(made: Instrument, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(made.metrics())
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    )


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 10 s"
        time.sleep(0.02)


def test_a_blocking_endpoint_shows(tmp_path: Path) -> None:
    """An endpoint that holds the loop for 0.8 s makes a tick at least 0.3 s late; the server still ends at once."""
    app = FastAPI()

    @app.get("/blocks")
    async def blocks() -> None:
        time.sleep(0.8)  # noqa: ASYNC251 - the mistake that is to be seen

    made = instrument(app, configuration=load(None, {}), directory=tmp_path, meters=False, registry=False)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        until(lambda: value(made, f"{LAG}_count"))  # started with the lifespan: no request was needed
        quiet = value(made, f"{LAG}_sum")
        port = server.servers[0].sockets[0].getsockname()[1]
        assert httpx.get(f"http://127.0.0.1:{port}/blocks", timeout=10, trust_env=False).status_code == 200
        until(lambda: value(made, f"{LAG}_sum") > quiet + 0.29)
    finally:
        server.should_exit = True
        thread.join(10)
    assert not thread.is_alive()


def test_one_timer_a_loop(tmp_path: Path) -> None:
    """However many applications and requests ask for it, a loop has one timer, and a new loop gets its own."""
    recorder = Recorder(tmp_path)
    lag = lag_of(recorder, (0.1,))
    assert lag_of(recorder, (0.1,)) is lag

    class Loop(asyncio.SelectorEventLoop):
        timers = 0

        def call_later(self, delay: float, *more: object, **other: object) -> asyncio.TimerHandle:  # type: ignore[override]
            Loop.timers += 1
            return super().call_later(delay, *more, **other)  # type: ignore[arg-type]

    async def ask() -> None:
        for _ in range(5):
            lag.watch()

    for _ in range(2):
        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(ask())
    assert Loop.timers == 2


def test_without_a_loop_nothing_happens(tmp_path: Path) -> None:
    """Under trio no asyncio loop runs: nothing is recorded and nothing breaks."""
    LoopLag(Recorder(tmp_path), (0.1,)).watch()
