"""The demo's traffic is real: distinct people, kept connections, load times that were measured."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from ipaddress import ip_address

import uvicorn
from fastapi import FastAPI, Request, Response

from examples.traffic import VISIT, Traffic, address


def test_every_user_has_an_address_of_their_own() -> None:
    """A thousand users are a thousand loopback addresses, none of which others commonly listen on."""
    addresses = {address(user) for user in range(1000)}
    assert len(addresses) == 1000
    assert all(ip_address(each).is_loopback for each in addresses)
    assert "127.0.0.1" not in addresses


def test_the_rate_is_that_of_all_users_together() -> None:
    """So many users, each with so long a pause between visits, give the rate that was asked for."""
    traffic = Traffic("http://127.0.0.1:1", users=120, rate=40)
    assert 120 * VISIT / traffic.pause == 40


def test_users_look_at_pages_and_tell_how_long_they_took() -> None:
    """Users arrive from their own addresses over kept connections, and post the load time that they measured."""
    app = FastAPI()
    clients: set[str] = set()
    connections: set[tuple[str, int]] = set()
    paths: Counter[str] = Counter()
    told: list[float] = []

    @app.post("/anvil-monitor/beacon")
    async def beacon(request: Request) -> Response:
        told.append((await request.json())["load"])
        return Response(status_code=204)

    @app.get("/{path:path}")
    async def anything(path: str, request: Request) -> dict[str, str]:
        assert request.client
        clients.add(request.client.host)
        connections.add((request.client.host, request.client.port))
        paths[path.split("/")[0]] += 1
        if not path:
            await asyncio.sleep(0.05)
        return {}

    async def run() -> None:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_keep_alive=60))
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        traffic = Traffic(f"http://127.0.0.1:{port}", users=3, rate=18)
        running = asyncio.create_task(traffic.run())
        with suppress(TimeoutError):
            async with asyncio.timeout(20):
                while min(paths[""], len(told)) < 8 or len(clients) < 3:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        server.should_exit = True
        await serving
        assert not [name for name in traffic.count if "failed" in name or "refused" in name]

    asyncio.run(run())
    assert clients == {address(user) for user in range(3)}
    assert len(connections) <= 6, "two a user at most: one page load uses two at the same time"
    assert len(told) >= 8
    assert all(0.05 <= load < 5 for load in told)
    assert {"", "pictures", "api"} <= set(paths)
