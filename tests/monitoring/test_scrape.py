"""Collecting over HTTP from servers that are healthy, hang, drip, die and answer garbage."""

from __future__ import annotations

import asyncio
import gzip
import math
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from anvil_monitor.monitoring import scrape
from anvil_monitor.monitoring.samples import STALE_NAN, Labels, is_stale, labels_of
from anvil_monitor.monitoring.scrape import Endpoint, Scraper, client, endpoints
from anvil_monitor.targets import Secret, load

LABELS = {"job": "server", "service": "shop", "instance": "a:1"}


class Kept:
    """A store that keeps the batches as they came."""

    def __init__(self) -> None:
        self.batches: list[dict[Labels, float]] = []

    def append(self, time_ms: int, samples: Any) -> None:
        self.batches.append(dict(samples))

    def last(self, name: str) -> float:
        return self.batches[-1][labels_of(__name__=name, **LABELS)]


def scraped(
    url: str, *steps: Callable[[], object], timeout: float = 0.5, token: Secret | None = None
) -> tuple[Kept, Scraper]:
    """Scrape once before each of ``steps`` and once after the last."""
    kept = Kept()

    async def main() -> Scraper:
        async with client() as http:
            scraper = Scraper(Endpoint(url, LABELS, token), kept, http, 5.0, timeout, {"TOKEN": "hush-hush"})
            await scraper.scrape()
            for step in steps:
                step()
                await scraper.scrape()
            return scraper

    return kept, asyncio.run(main())


def test_a_healthy_server_is_up(server: Any) -> None:
    """Its samples carry the target's labels; up, duration and the number of samples stand beside them."""
    server.extra = 'm{service="mine"} 5'
    kept, scraper = scraped(f"{server.url}/metrics")
    assert kept.batches[0][labels_of(__name__="m", exported_service="mine", **LABELS)] == 5.0
    assert kept.last("up") == 1.0
    assert kept.last("scrape_samples_scraped") == len(kept.batches[0]) - 3
    assert 0 < kept.last("scrape_duration_seconds") < 0.5
    assert scraper.health.up
    assert scraper.health.error == ""


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("hang", "no full answer within 300 ms"),
        ("drip", "no full answer within 300 ms"),
        ("garbage", "line 1 .*<html>"),
        ("no http", "answered no HTTP"),
        ("not text", "no UTF-8 text"),
        ("die", "answered no HTTP|incomplete"),
        ("error", "answered HTTP 503 Service Unavailable"),
    ],
)
def test_a_bad_server_is_down_with_a_reason(server: Any, mode: str, reason: str) -> None:
    """Whatever a server does wrong: up is 0, nothing of its answer is kept, its series end, and the reason is told."""
    server.extra = "m 1"

    def turn() -> None:
        server.mode = mode

    begin = time.monotonic()
    kept, scraper = scraped(f"{server.url}/metrics", turn, timeout=0.3)
    assert time.monotonic() - begin < 2
    good, bad = kept.batches
    assert good[labels_of(__name__="m", **LABELS)] == 1.0
    assert kept.last("up") == 0.0
    assert kept.last("scrape_samples_scraped") == 0
    rest = [
        value for labels, value in bad.items() if dict(labels)["__name__"].startswith(("m", "http_", "db_", "browser_"))
    ]
    assert len(rest) == len(good) - 3
    assert is_stale(np.array(rest)).all()
    assert re.search(reason, scraper.health.error), scraper.health.error


def test_a_server_that_is_gone_is_down(new_server: Callable[..., Any]) -> None:
    """A refused connection is a reason like another, and the server coming back is seen."""
    first = new_server()
    kept, scraper = scraped(f"{first.url}/metrics", first.close, lambda: new_server(first.port))
    ups = [batch[labels_of(__name__="up", **LABELS)] for batch in kept.batches]
    assert ups == [1.0, 0.0, 1.0]
    assert scraper.health.up


def test_a_series_that_vanishes_goes_stale_once(server: Any) -> None:
    """A series that is missing from a good scrape gets one stale marker in that scrape, and none in the next."""
    server.extra = "m 1"
    kept, _ = scraped(f"{server.url}/metrics", lambda: setattr(server, "extra", ""), lambda: None)
    key = labels_of(__name__="m", **LABELS)
    assert kept.batches[0][key] == 1.0
    assert math.isnan(kept.batches[1][key])
    assert kept.batches[1][key] is STALE_NAN
    assert key not in kept.batches[2]


def test_a_body_that_is_too_long_is_refused(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit nothing is read and nothing kept."""
    monkeypatch.setattr(scrape, "BODY_LIMIT", 1000)
    server.extra = "m 1\n" * 1000
    kept, scraper = scraped(f"{server.url}/metrics")
    assert "answered more than" in scraper.health.error
    assert kept.last("up") == 0.0


def test_gzip_is_read_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compressed body that was not asked for is read; one that unpacks to too much is refused."""
    assert scrape._gunzip(gzip.compress(b"m 1\n")) == b"m 1\n"
    monkeypatch.setattr(scrape, "BODY_LIMIT", 1000)
    with pytest.raises(scrape.ScrapeError, match="more than"):
        scrape._gunzip(gzip.compress(b"0" * 10_000_000))
    with pytest.raises(scrape.ScrapeError, match="broken gzip"):
        scrape._gunzip(b"no gzip")


def test_the_metrics_token_is_sent_and_never_told(server: Any) -> None:
    """The token goes out as Bearer; one that cannot be read is a reason that names its origin only."""
    _, scraper = scraped(f"{server.url}/metrics", token=Secret("env:TOKEN"))
    assert server.headers["Authorization"] == "Bearer hush-hush"
    assert "hush" not in repr(scraper.endpoint) + repr(scraper.health)
    _, scraper = scraped(f"{server.url}/metrics", token=Secret("env:MISSING"))
    assert scraper.health.error == "the metrics token: the environment variable MISSING is not set"


def test_a_hanging_target_delays_no_other(new_server: Callable[..., Any], until: Callable[..., Any]) -> None:
    """While one target hangs through every timeout, another is scraped in its own rhythm."""
    server, hanging = new_server(), new_server()
    hanging.mode = "hang"
    kept, other = Kept(), Kept()

    async def main() -> None:
        async with client() as http:
            tasks = [
                asyncio.create_task(Scraper(Endpoint(f"{url}/metrics", LABELS), store, http, 0.1, 0.09, {}).run())
                for url, store in ((server.url, kept), (hanging.url, other))
            ]
            await asyncio.to_thread(until, lambda: len(kept.batches) >= 10 and len(other.batches) >= 5)
            assert not any(task.done() for task in tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert {batch[labels_of(__name__="up", **LABELS)] for batch in kept.batches} == {1.0}
    assert {batch[labels_of(__name__="up", **LABELS)] for batch in other.batches} == {0.0}


def test_what_is_scraped() -> None:
    """Every service under job server with its name; the exporter under its own job, without a service."""
    found = endpoints(load(None, {}), "http://127.0.0.1:9109/metrics")
    assert [(each.url, dict(each.labels)) for each in found] == [
        ("http://127.0.0.1:8000/metrics", {"job": "server", "service": "app", "instance": "127.0.0.1:8000"}),
        ("http://127.0.0.1:9109/metrics", {"job": "exporter", "instance": "127.0.0.1:9109"}),
    ]
