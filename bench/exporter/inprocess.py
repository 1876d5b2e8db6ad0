"""CPU time of a request, in process: ``await app(scope, receive, send)`` in a subprocess for each variant.

As a program (``python -m bench.exporter.inprocess VARIANT ROUTES``) it is that subprocess: it reads a number of
requests from standard input and answers with the CPU microseconds of one, until standard input ends.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

WARM_UP = 300


class Drive:
    """Calls an application as a server would, with the parts of a request made beforehand."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.statuses: list[int] = []
        self.inbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.statuses.append(message["status"])

    async def start(self) -> asyncio.Task[None]:
        """Run the application's lifespan, as a server does; the task ends on ``lifespan.shutdown``."""
        started = asyncio.Event()

        async def send(_message: Any) -> None:
            started.set()

        state: dict[str, Any] = {}
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
        task: asyncio.Task[None] = asyncio.ensure_future(self.app(scope, self.inbox.get, send))
        self.inbox.put_nowait({"type": "lifespan.startup"})
        await started.wait()
        return task

    async def requests(self, count: int) -> float:
        """CPU seconds of ``count`` requests."""
        host = [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"bench"), (b"accept", b"*/*")]
        self.statuses.clear()
        gc.collect()
        began = time.process_time()
        for _ in range(count):
            scope = {
                "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1",
                "method": "GET", "scheme": "http", "path": "/items/7", "raw_path": b"/items/7", "query_string": b"",
                "root_path": "", "headers": host, "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 8000),
                "state": {},
            }  # fmt: skip
            await self.app(scope, self.receive, self.send)
        took = time.process_time() - began
        if self.statuses != [200] * count:
            raise SystemExit(f"{count} requests, but {self.statuses.count(200)} answers with status 200")
        return took


async def serve(variant: str, routes: int) -> None:
    from bench.exporter.variants import VARIANTS

    drive = Drive(VARIANTS[variant](routes))
    lifespan = await drive.start()
    await drive.requests(WARM_UP)
    if os.environ.get("BENCH_COLLECTS") == "no":  # where instructions are counted: a collection walks all that is there
        gc.disable()
    print("ready", flush=True)
    for line in sys.stdin:
        count = int(line)
        print(await drive.requests(count) / count * 1e6, flush=True)
    drive.inbox.put_nowait({"type": "lifespan.shutdown"})
    await lifespan


def measure(
    variants: Sequence[str], routes: int, rounds: int, count: int, command: Callable[..., list[str]],
    environ: dict[str, str], progress: Callable[..., None],
) -> dict[str, list[float]]:  # fmt: skip
    """CPU microseconds of a request, ``rounds`` of them a variant; the rounds are interleaved: A B C A B C …"""
    results: dict[str, list[float]] = {variant: [] for variant in variants}
    with ExitStack() as stack:
        workers: dict[str, subprocess.Popen[str]] = {}
        for variant in variants:
            line = command("bench.exporter.inprocess", variant, str(routes))
            worker = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)
            workers[variant] = stack.enter_context(worker)
            stack.callback(workers[variant].terminate)
        what = f"in process, {routes} route{'s' * (routes > 1)}"
        for variant, worker in workers.items():
            progress(f"{what}: starting {variant}")
            answer(worker, variant)
        for turn in range(rounds):
            progress(what, turn + 1, rounds)
            for variant, worker in workers.items():
                assert worker.stdin
                print(count, file=worker.stdin, flush=True)
                results[variant].append(float(answer(worker, variant)))
        for worker in workers.values():
            worker.communicate(timeout=10)
    return results


def answer(worker: subprocess.Popen[str], variant: str) -> str:
    assert worker.stdout
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"bench: {variant} ended with status {worker.wait()}; its error is above")
    return line


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
    except ImportError:
        asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
