"""As a program (``python -m bench.engine.ours PORT SERIES SECONDS [FOLDER]``): our engine behind its API.

Without a folder all samples are in memory; with one the store keeps history there, and only the last hours in memory.

Besides the API: ``/loaded`` says what the samples cost to take in, ``/inside/query`` and ``/inside/query_range`` run a
query without HTTP and answer with the CPU seconds that it took, its JSON included.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from anvil_monitor.monitoring import allocator, api, serving
from anvil_monitor.monitoring.answers import encode
from anvil_monitor.monitoring.apistate import Sources
from anvil_monitor.monitoring.history.history import History
from anvil_monitor.monitoring.history.joined import HistoryStore
from anvil_monitor.monitoring.parameters import Parameters
from anvil_monitor.monitoring.promql import Engine
from anvil_monitor.monitoring.store import Store
from anvil_monitor.monitoring.threads import Threads
from bench.engine.data import Data, make

MAINTAINED = 60.0
"""Seconds between two visits of the store's housekeeping."""


def filled(data: Data, folder: Path | None = None) -> tuple[Store, float]:
    """A store with all samples, appended scrape by scrape; the CPU seconds of the appending, sealing of hours included.

    With a folder it is closed then and opened anew: nothing of what is on disk has been read yet.
    """
    now, took = [float(data.start)], 0.0
    store = _kept(folder, data, now) if folder else Store(max_series=2 * data.series)
    for at, source, row in data.scrapes():
        values = source.values[row].tolist()
        before = time.process_time()
        store.append(at, list(zip(source.labels, values, strict=True)))
        if isinstance(store, HistoryStore) and at / 1000 > now[0] + MAINTAINED:
            now[0] = at / 1000
            store.maintain()
        took += time.process_time() - before
    if folder and isinstance(store, HistoryStore):
        store.history.close()
        store = _kept(folder, data, [float(data.end)])
    return store, took


def _kept(folder: Path, data: Data, now: list[float]) -> HistoryStore:
    def clock() -> float:
        return now[0]

    history = History(folder, 15 * 86400, 1e12, clock)
    return HistoryStore(history, 2 * data.series, clock=clock)


def application(store: Store, loaded: dict[str, Any], threads: Threads) -> Starlette:
    sources = Sources(store, Engine(store), [], [], time.time, threads)

    def inside(request: Request) -> Response:
        parameters, run = Parameters(request.query_params.multi_items()), getattr(api, request.path_params["what"])
        before = time.thread_time()
        encode({"status": "success", "data": run(sources, parameters).data})
        return Response(str(time.thread_time() - before))

    def told(request: Request) -> Response:
        return Response(json.dumps(loaded))

    return Starlette(routes=[*api.routes(sources), Route("/inside/{what}", inside), Route("/loaded", told)])


async def serve(port: int, series: int, seconds: int, folder: Path | None) -> None:
    allocator.keep_freed_pages()
    data = make(series, seconds)
    store, took = filled(data, folder)
    loaded = {"seconds": took, "samples": store.sample_count, "series": store.series_count}
    with ExitStack() as stack:
        threads = stack.enter_context(Threads(2, "queries"))
        listener = stack.enter_context(serving._listening("127.0.0.1", port))

        async def run(stop: asyncio.Event) -> None:
            async with serving.served(application(store, loaded, threads), listener):
                await stop.wait()

        await serving.until_signalled(run)


if __name__ == "__main__":
    asyncio.run(serve(*map(int, sys.argv[1:4]), Path(sys.argv[4]) if sys.argv[4:] else None))
