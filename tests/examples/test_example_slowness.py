"""The example server is slow for real when it is told to be, and in all its workers."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from pathlib import Path

import psutil
import pytest
from fastapi import HTTPException, Request

from examples.slowness import Slowness, State, nap, this_machine


@pytest.fixture
def two_workers(tmp_path: Path) -> tuple[Slowness, Slowness]:
    """The state as two workers see it: one file, two objects."""
    return Slowness(tmp_path / "slow.json"), Slowness(tmp_path / "slow.json")


def test_without_a_file_nothing_is_slow(two_workers: tuple[Slowness, Slowness]) -> None:
    """A server that was never slowed down is not slow."""
    assert two_workers[0].now == State()


def test_what_one_worker_is_told_every_worker_does(two_workers: tuple[Slowness, Slowness]) -> None:
    """Slowing down and recovering, told to one worker, holds in the other at its next query."""
    told, other = two_workers
    told.set(0.8, 0)
    assert other.now.seconds == told.now.seconds == 0.8
    told.set(0, 0)
    assert other.now.seconds == 0


def test_a_query_really_takes_longer(two_workers: tuple[Slowness, Slowness]) -> None:
    """The time is spent inside the database's own query, once a query however many rows it has."""
    told, other = two_workers
    connection = sqlite3.connect(":memory:")
    try:
        connection.create_function("nap", 0, lambda: nap(other.now.seconds))
        connection.execute("CREATE TABLE item (id INTEGER)")
        connection.executemany("INSERT INTO item VALUES (?)", [(n,) for n in range(100)])
        told.set(0.1, 0)
        began = time.perf_counter()
        rows = connection.execute("SELECT * FROM item WHERE (SELECT nap()) = 0").fetchall()
        took = time.perf_counter() - began
    finally:
        connection.close()
    assert len(rows) == 100
    assert 0.1 <= took < 1


def test_memory_is_really_taken_and_given_back(two_workers: tuple[Slowness, Slowness]) -> None:
    """The resident set of the process grows by what was asked, and shrinks again at once."""
    told, _ = two_workers
    process = psutil.Process()
    before = process.memory_info().rss
    told.set(0, 64)
    told.hold()
    taken = process.memory_info().rss - before
    told.set(0, 0)
    told.hold()
    given_back = before + taken - process.memory_info().rss
    assert taken == pytest.approx(64e6, rel=0.1)
    assert given_back == pytest.approx(64e6, rel=0.1)


def test_only_one_worker_takes_the_memory(tmp_path: Path) -> None:
    """Memory that another process was told to take is not taken a second time."""
    path = tmp_path / "slow.json"
    path.write_text(f'{{"seconds": 0, "memory_mb": 64, "holder": {os.getpid() + 1}}}')
    other = Slowness(path)
    other.hold()
    assert other.held_mb == 0


def test_a_worker_follows_by_itself(two_workers: tuple[Slowness, Slowness]) -> None:
    """While the server runs, its workers take and give back memory without a request."""
    told, _ = two_workers

    async def run() -> None:
        async with told.followed():
            for wanted in (8, 0):
                told.set(0, wanted)
                async with asyncio.timeout(5):
                    while told.held_mb != wanted:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("client", "allowed"), [(("127.0.0.1", 1), True), (("::1", 1), True), (("10.0.0.7", 1), False), (None, False)]
)
def test_only_this_machine_can_slow_it(client: tuple[str, int] | None, allowed: bool) -> None:
    """A caller from another machine, or from nowhere known, is refused."""
    request = Request({"type": "http", "client": client, "headers": []})
    if allowed:
        this_machine(request)
        return
    with pytest.raises(HTTPException, match="403"):
        this_machine(request)
