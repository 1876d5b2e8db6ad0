"""Collecting over HTTP, as Prometheus does: every target in a task of its own, on its own deadline.

Each scrape, good or bad, is one append to the store: the target's samples, stale markers for the series that are gone,
and ``up``, ``scrape_duration_seconds`` and ``scrape_samples_scraped``. A target that hangs, drips, dies or answers
garbage says so in ``up`` and in :class:`Health`; it delays no other target and never ends the loop.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import chain
from typing import Protocol

import httpx

from anvil_monitor.targets import Configuration, Secret, format_duration

from .parse import ExpositionError, Parser, merge
from .samples import STALE_NAN, Labels

BODY_LIMIT = 16 * 2**20
ACCEPT = "text/plain;version=0.0.4;q=1,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"


class Appender(Protocol):
    def append(self, time_ms: int, samples: Iterable[tuple[Labels, float]]) -> object: ...


class ScrapeError(Exception):
    """Why a scrape gave nothing, in words for a person."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to scrape and what to put on every sample."""

    url: str
    labels: Mapping[str, str]
    token: Secret | None = None


@dataclass(slots=True)
class Health:
    """How the last scrape of an endpoint went. ``up`` is None before the first one; times are Unix seconds."""

    up: bool | None = None
    error: str = ""
    at: float = 0.0
    duration: float = 0.0
    samples: int = 0
    since: float = 0.0


def endpoints(configuration: Configuration, exporter_url: str | None) -> tuple[Endpoint, ...]:
    """What ``up`` scrapes: each service's own metrics, and the exporter, whose series name their service themselves."""
    found = [
        Endpoint(
            service.metrics_url,
            {"job": "server", "service": service.name, "instance": _instance(service.metrics_url)},
            service.metrics_token,
        )
        for service in configuration.services
        if not service.pushes
    ]
    if exporter_url:
        labels = {"job": "exporter", "instance": _instance(exporter_url)}
        found.append(Endpoint(exporter_url, labels, configuration.monitor.token))
    return tuple(found)


@dataclass(slots=True)
class Scraper:
    """Scrapes one endpoint into ``store``. ``clock`` gives Unix seconds."""

    endpoint: Endpoint
    store: Appender
    client: httpx.AsyncClient
    interval: float
    timeout: float
    environ: Mapping[str, str]
    clock: Callable[[], float] = time.time
    health: Health = field(default_factory=Health)
    _parser: Parser = field(init=False)
    _last: list[Labels] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._parser = Parser(self.endpoint.labels)

    @property
    def comments(self) -> frozenset[str]:
        """What the target's texts have said of their metrics."""
        return frozenset(self._parser.comments)

    async def run(self) -> None:
        """Scrape every ``interval`` for ever; a scrape that comes late skips whole intervals, it never piles up."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        while True:
            await self.scrape()
            late = loop.time() - start
            await asyncio.sleep(self.interval - late % self.interval)

    async def scrape(self) -> None:
        """One scrape. Does not raise for anything that a target can do."""
        at, begin = self.clock(), time.perf_counter()
        present: list[Labels] = []
        values: list[float] = []
        error = ""
        try:
            present, values = self._parser.parse(await self._fetch())
        except (ScrapeError, ExpositionError) as problem:
            error = str(problem)
        duration = time.perf_counter() - begin
        self._record(at, present, values, error, duration)

    def _record(self, at: float, present: list[Labels], values: list[float], error: str, duration: float) -> None:
        report = {"up": float(not error), "scrape_duration_seconds": duration, "scrape_samples_scraped": len(present)}
        extra = [(merge({}, self.endpoint.labels, name), float(value)) for name, value in report.items()]
        if present != self._last:  # nearly always equal, and then by identity
            gone = set(self._last).difference(present)
            extra += [(labels, STALE_NAN) for labels in gone]
        self._last = present
        self.store.append(round(at * 1000), chain(zip(present, values, strict=True), extra))
        health = self.health
        if health.up is not (not error):
            health.since = at
        health.up, health.error, health.at = not error, error, at
        health.duration, health.samples = duration, len(present)

    async def _fetch(self) -> str:
        headers = {"Accept": ACCEPT, "Accept-Encoding": "identity", "User-Agent": "anvil-monitor"}
        headers["X-Prometheus-Scrape-Timeout-Seconds"] = f"{self.timeout:g}"
        try:
            if self.endpoint.token is not None:
                headers["Authorization"] = f"Bearer {self.endpoint.token.reveal(dict(self.environ))}"
            async with (
                asyncio.timeout(self.timeout),
                self.client.stream("GET", self.endpoint.url, headers=headers) as answer,
            ):
                if answer.status_code != HTTPStatus.OK:
                    raise ScrapeError(f"answered HTTP {answer.status_code} {answer.reason_phrase}".rstrip())
                return await _body(answer)
        except TimeoutError:
            raise ScrapeError(f"no full answer within {format_duration(self.timeout)}") from None
        except LookupError as error:
            raise ScrapeError(f"the metrics token: {error}") from None
        except httpx.HTTPError as error:
            raise ScrapeError(_reason(error)) from None
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise ScrapeError(f"cannot be asked: {type(error).__name__}") from None


def client() -> httpx.AsyncClient:
    """For all scrapes: no proxy from the environment, and no kept connections.

    A server closes an idle connection after a few seconds (uvicorn: 5 s, the very scrape interval); a request sent into
    that moment would fail and look like a server that is down.
    """
    return httpx.AsyncClient(
        trust_env=False,
        follow_redirects=True,
        max_redirects=5,
        timeout=None,  # noqa: S113  asyncio.timeout bounds the whole scrape, which also catches an answer that drips
        limits=httpx.Limits(max_keepalive_connections=0),
    )


async def _body(answer: httpx.Response) -> str:
    parts, size = [], 0
    async for part in answer.aiter_raw():
        parts.append(part)
        size += len(part)
        if size > BODY_LIMIT:
            raise ScrapeError(f"answered more than {BODY_LIMIT // 2**20} MiB")
    body = b"".join(parts)
    encoding = answer.headers.get("content-encoding", "identity")
    if encoding == "gzip":
        body = await asyncio.to_thread(_gunzip, body)
    elif encoding != "identity":
        raise ScrapeError(f"answered in the encoding {encoding!r}, which was not asked for")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ScrapeError(f"answered no UTF-8 text: {error.reason} at byte {error.start}") from None


def _gunzip(body: bytes) -> bytes:
    unzip = zlib.decompressobj(31)
    try:
        text = unzip.decompress(body, BODY_LIMIT + 1)
    except zlib.error:
        raise ScrapeError("answered broken gzip") from None
    if len(text) > BODY_LIMIT:
        raise ScrapeError(f"answered more than {BODY_LIMIT // 2**20} MiB")
    return text


def _reason(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.ConnectError):
        return f"no connection: {str(error) or 'refused'}"
    if isinstance(error, httpx.TooManyRedirects):
        return "answered too many redirects"
    if isinstance(error, httpx.RemoteProtocolError):
        return f"answered no HTTP: {error}"
    return f"{type(error).__name__}: {error}"


def _instance(url: str) -> str:
    parts = httpx.URL(url)
    return f"{parts.host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
