"""Real traffic for the example shop: people, each at an address of their own, who look at pages and search.

``python -m examples.traffic --users 120 --rate 40``. Every user keeps one connection open, fetches the page and what
the page needs, asks the API a few things, and posts the load time that it really measured to the beacon. Users come
from 127.x.y.z, one address each (Linux answers on all of 127.0.0.0/8), so the server counts distinct people.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import time
from collections import Counter
from contextlib import suppress

import httpx

PICTURES = 2  # of the six: the others are in the browser's cache
QUESTIONS = 2
WORDS = ("anvil", "tongs", "bellows", "no. 7", "vise")
VISIT = 1 + PICTURES + QUESTIONS + 1  # requests: page, pictures, API calls, beacon


def address(user: int) -> str:
    """The loopback address that is user number ``user``'s own: 127.1.0.1 and on, far from what others listen on."""
    return f"127.1.{user // 250}.{user % 250 + 1}"


class Traffic:
    """``users`` people who together send about ``rate`` requests a second to ``url``, until cancelled."""

    def __init__(self, url: str, users: int, rate: float, seed: int = 1) -> None:
        self.url, self.users = url, users
        self.pause = users * VISIT / rate  # seconds from one visit of a user to the next
        self.random = random.Random(seed)
        self.count: Counter[str] = Counter()
        self.loads: list[float] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for user in range(self.users):
                group.create_task(self.live(user))
            group.create_task(self.tell())

    async def live(self, user: int) -> None:
        """One user's life: all have come after one pause; later visits are about a pause apart."""
        # verify=False: plain HTTP, and a TLS context for each of a hundred users takes seconds to make.
        transport = httpx.AsyncHTTPTransport(
            verify=False, local_address=address(user), limits=httpx.Limits(keepalive_expiry=120)
        )
        await asyncio.sleep(self.random.random() * self.pause)
        async with httpx.AsyncClient(base_url=self.url, transport=transport, timeout=30) as client:
            while True:
                began = time.monotonic()
                try:
                    await self.visit(client)
                except httpx.HTTPError as error:
                    self.count[f"failed: {type(error).__name__}"] += 1
                took = time.monotonic() - began
                await asyncio.sleep(max(1.0, self.pause * self.random.uniform(0.7, 1.3) - took))

    async def visit(self, client: httpx.AsyncClient) -> None:
        began = time.monotonic()
        await self.get(client, "/")
        chosen = self.random.sample(range(1, 7), PICTURES)
        await asyncio.gather(*(self.get(client, f"/pictures/{number}.svg") for number in chosen))
        loaded = time.monotonic() - began
        self.loads.append(loaded)
        await self.post_beacon(client, loaded)
        for _ in range(QUESTIONS):
            what = self.random.random()
            if what < 0.4:
                await self.get(client, f"/api/items/{self.random.randint(1, 300)}")
            elif what < 0.8:
                await self.get(client, "/api/search", q=self.random.choice(WORDS))
            else:
                await self.get(client, "/api/items", page=self.random.randint(0, 14))

    async def get(self, client: httpx.AsyncClient, path: str, **query: str | int) -> None:
        response = await client.get(path, params=query)
        self.count[f"{response.status_code // 100}xx"] += 1

    async def post_beacon(self, client: httpx.AsyncClient, seconds: float) -> None:
        """What the beacon script of a browser would send now; see ``exporter/beacon.js``."""
        response = await client.post("/anvil-monitor/beacon", json={"page": "/", "load": seconds})
        self.count["beacon" if response.is_success else f"beacon refused: {response.status_code}"] += 1

    async def tell(self, every: float = 5.0) -> None:
        """Print a line of counters every few seconds."""
        while True:
            await asyncio.sleep(every)
            loads, self.loads = sorted(self.loads), []
            middle = f", page load {loads[len(loads) // 2]:.3f} s" if loads else ""
            counts = ", ".join(f"{name} {count}" for name, count in sorted(self.count.items()))
            print(f"{time.strftime('%H:%M:%S')} {self.users} users: {counts}{middle}", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.traffic", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--users", type=int, default=120)
    parser.add_argument("--rate", type=float, default=40, help="requests a second, all users together")
    options = parser.parse_args()
    if options.users < 1 or options.rate <= 0:
        parser.error("it takes at least one user and a rate above 0")
    running = asyncio.ensure_future(Traffic(options.url, options.users, options.rate).run())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with suppress(asyncio.CancelledError):
        await running


if __name__ == "__main__":
    asyncio.run(main())
