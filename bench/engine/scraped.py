"""Taking in scrapes: CPU for 1,000 samples, fetching and parsing included, of our scraper and of Prometheus.

As a program (``python -m bench.engine.scraped PORT URL INTERVAL``) it is our scraper over our store; ``/samples`` on
that port says how many it has taken in.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from anvil_monitor.monitoring import serving
from anvil_monitor.monitoring.scrape import Endpoint, Scraper, client
from anvil_monitor.monitoring.store import Store
from bench.engine import server
from bench.engine.data import SERVICE
from bench.machine import command, free_port

APPENDED = re.compile(rb"^prometheus_tsdb_head_samples_appended_total(?:\{[^}]*float[^}]*\})? (\S+)$", re.MULTILINE)
WARM = 2.0


def exporter(stack: ExitStack, series: int, folder: Path, pin: list[str]) -> str:
    """Start the made-up server; where it answers."""
    port = free_port()
    line = [*pin, *command("bench.engine.exporter", str(port), str(series))]
    stack.enter_context(server.started("the exporter", line, port, "/metrics", folder / "exporter.log"))
    return f"127.0.0.1:{port}"


def scrape_config(address: str, interval: str, more: str = "") -> str:
    """Of a Prometheus that scrapes the made-up server and puts the same labels on it as ``up``."""
    target = f"{{targets: ['{address}'], labels: {{service: {SERVICE}}}}}"
    return (
        f"global: {{scrape_interval: {interval}, scrape_timeout: {interval}, evaluation_interval: {interval}}}\n{more}"
        f"scrape_configs: [{{job_name: server, static_configs: [{target}]}}]\n"
    )


def measure(
    series: int, interval: float, rounds: int, seconds: float, folder: Path, pins: tuple[list[str], list[str]],
    progress: Callable[..., None],
) -> dict[str, list[float]]:  # fmt: skip
    """CPU milliseconds for 1,000 samples of ``ours`` and ``theirs``, in ``rounds`` of ``seconds``, both at once."""
    taken: dict[str, list[float]] = {"ours": [], "theirs": []}
    folder.mkdir()
    with ExitStack() as stack:
        progress("scrapes: starting")
        address = exporter(stack, series, folder, pins[1])
        port, config = free_port(), scrape_config(address, f"{round(interval * 1000)}ms")
        theirs = stack.enter_context(server.prometheus(folder / "prometheus", pins[0], config))
        line = [*pins[0], *command("bench.engine.scraped", str(port), f"http://{address}/metrics", str(interval))]
        ours = stack.enter_context(server.started("our scraper", line, port, "/samples", folder / "scraper.log"))
        time.sleep(WARM)
        both = {"ours": (ours, _samples), "theirs": (theirs, _appended)}
        before = {name: (one.cpu(), count(one)) for name, (one, count) in both.items()}
        for turn in range(rounds):
            progress("scrapes", turn + 1, rounds)
            time.sleep(seconds)
            for name, (one, count) in both.items():
                now = one.cpu(), count(one)
                spent, samples = now[0] - before[name][0], now[1] - before[name][1]
                if samples <= 0:
                    raise SystemExit(f"bench: {one.name} took in no sample in {seconds:g} s")
                taken[name].append(spent / samples * 1e6)
                before[name] = one.cpu(), now[1]
    return taken


def _samples(one: server.Server) -> float:
    return float(one.fetch("GET", "/samples"))


def _appended(one: server.Server) -> float:
    return sum(map(float, APPENDED.findall(one.fetch("GET", "/metrics"))))


async def serve(port: int, url: str, interval: float) -> None:
    store = Store()

    def samples(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(store.sample_count))

    listener = serving._listening("127.0.0.1", port)
    labels = {"job": "server", "service": SERVICE, "instance": url.split("/")[2]}
    async with client() as http:
        scraper = Scraper(Endpoint(url, labels), store, http, interval, interval, {})

        async def run(stop: asyncio.Event) -> None:
            async with serving.served(Starlette(routes=[Route("/samples", samples)]), listener):
                task = asyncio.create_task(scraper.run())
                await stop.wait()
                task.cancel()

        await serving.until_signalled(run)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
