"""Where a question of the API is worked on, and what becomes of it when its client leaves."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from anvil_monitor.monitoring import endpoints, serving
from anvil_monitor.monitoring.api import query
from anvil_monitor.monitoring.apistate import Sources
from anvil_monitor.monitoring.endpoints import Endpoint, Quick
from anvil_monitor.monitoring.parameters import TIMED_OUT, ApiError, Parameters
from anvil_monitor.monitoring.promql import Engine
from anvil_monitor.monitoring.samples import Panel
from anvil_monitor.monitoring.store import Store
from anvil_monitor.monitoring.threads import Threads

PATIENCE = 20.0


@pytest.fixture
def sources() -> Iterator[Sources]:
    store = Store()
    with Threads(1, "questions") as threads:
        yield Sources(store, Engine(store), [], [], time.time, threads)


async def ask(endpoint: Endpoint, question: str = "up", receive: Any = None) -> list[Any]:
    sent: list[Any] = []

    async def never() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": f"query={question}".encode(), "headers": []}
    await endpoint(scope, receive or never, send)
    return sent


def test_what_was_quick_is_answered_in_place_and_what_was_not_in_the_threads(sources: Sources) -> None:
    """The first time in a thread; then in place, until it has taken long once."""
    where: list[str] = []
    slow = [False, False, True, False, False]

    def run(_sources: Sources, _parameters: Parameters) -> str:
        where.append(threading.current_thread().name)
        if slow[len(where) - 1]:
            time.sleep(2 * endpoints.QUICK)
        return "answer"

    async def all_() -> None:
        endpoint = Endpoint(sources, run, Quick())
        for _ in slow:
            assert (await ask(endpoint))[1]["body"] == b'{"status":"success","data":"answer"}'

    asyncio.run(all_())
    here = threading.current_thread().name
    assert where == ["questions-0", here, here, "questions-0", here]


def test_an_answer_in_place_that_takes_too_long_is_begun_anew_in_a_thread(sources: Sources) -> None:
    """It has its little time in place and all of its time in the thread."""
    given: list[float | None] = []

    def run(_sources: Sources, parameters: Parameters) -> str:
        given.append(parameters.patience)
        if parameters.patience is not None:
            raise ApiError("timeout", TIMED_OUT)
        return "answer"

    async def twice() -> list[Any]:
        endpoint = Endpoint(sources, run, Quick())
        await ask(endpoint)
        return await ask(endpoint)

    assert asyncio.run(twice())[0]["status"] == 200
    assert given == [None, endpoints.PATIENCE, None]


def test_quick_questions_are_few() -> None:
    """Whoever asks something new every time fills no memory."""
    quick = Quick()
    for number in range(3 * endpoints.REMEMBERED):
        quick.took(f"up + {number}", 0.0)
    assert sum(f"up + {number}" in quick for number in range(3 * endpoints.REMEMBERED)) <= endpoints.REMEMBERED


class Endless(Store):
    """Every selection takes a while, as one that reads a long history from a disk."""

    def __init__(self) -> None:
        super().__init__()
        self.selections = 0

    def select(self, matchers: Any, start_ms: int, end_ms: int) -> list[Panel]:
        self.selections += 1
        time.sleep(0.02)
        return super().select(matchers, start_ms, end_ms)


def serve(application: Any, use: Callable[[str, int], Any]) -> Any:
    """What ``use`` gives, run in a thread, while a real server answers."""

    async def both() -> Any:
        listener = serving._listening("127.0.0.1", 0)
        host, port = listener.getsockname()
        async with serving.served(application, listener):
            return await asyncio.to_thread(use, host, port)

    return asyncio.run(both())


def test_a_client_that_leaves_ends_its_query() -> None:
    """A query of 128 selections stops before its end, and the only thread is free for the next one."""
    store, expr = Endless(), "up"
    for _ in range(7):
        expr = f"({expr})%2B({expr})"

    def use(host: str, port: int) -> int:
        with socket.create_connection((host, port), 5) as connection:
            connection.sendall(f"GET /query?query={expr} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            deadline = time.monotonic() + PATIENCE
            while store.selections < 5 and time.monotonic() < deadline:
                time.sleep(0.01)
        answer = httpx.get(f"http://{host}:{port}/query", params={"query": "1"}, timeout=PATIENCE)
        assert answer.json()["data"]["result"][1] == "1"
        return store.selections

    with Threads(1, "questions") as threads:
        sources = Sources(store, Engine(store), [], [], time.time, threads)
        selections = serve(Starlette(routes=[Route("/query", Endpoint(sources, query))]), use)
    assert 5 <= selections < 128


def test_kept_connections_do_not_wait_for_each_other(sources: Sources) -> None:
    """Nagle's algorithm is off on what a listener of ours accepts: with it each answer in two parts takes 40 ms."""

    async def accepted() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = serving._listening("127.0.0.1", 0)
        async with await asyncio.start_server(connected, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            nodelay = await found
            writer.close()
            return nodelay

    assert asyncio.run(accepted()) == 1
