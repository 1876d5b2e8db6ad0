"""What browsers measured: the endpoint that ``beacon.js`` posts to, and the script itself.

Anybody can post anything here. A beacon is small, of a known shape, rate-limited, and is recorded whole or not at all;
its page becomes one of the application's own route templates, so that no browser can invent a label value.
"""

from __future__ import annotations

import asyncio
import json
import math
from importlib import resources
from time import monotonic
from typing import Any, Final, NoReturn

from . import names
from .asgi import BodyTooLargeError, Receive, Scope, Send, header, read_body, respond
from .names import Metric
from .recorder import Recorder
from .routes import Routes

MAX_BODY: Final = 4096
MAX_PATH: Final = 2048
MAX_VALUES: Final = {"load": 600.0, "lcp": 600.0, "fcp": 600.0, "inp": 600.0, "ttfb": 600.0, "cls": 1000.0}
BODY_SECONDS: Final = 5.0
# One page view sends two beacons. A worker takes this many a second, and this many at once after a rest; one client
# (an address: it may be a whole office behind a proxy) a tenth of it.
RATE: Final = 500.0
BURST: Final = 1000.0
CLIENT_SHARE: Final = 0.1
MAX_CLIENTS: Final = 4096
SCALE_EDGES: Final = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0)


class RefusedError(Exception):
    """A beacon is not taken. ``status`` is the HTTP status, the message says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Rate:
    """A token bucket for everybody together and one for each client."""

    def __init__(self, rate: float = RATE, burst: float = BURST) -> None:
        self._rate, self._burst = rate, burst
        self._all = (burst, 0.0)
        self._clients: dict[str, tuple[float, float]] = {}

    def take(self, client: str, now: float) -> bool:
        """Whether ``client`` may send one more at ``now`` (seconds)."""
        share = CLIENT_SHARE
        own = self._level(self._clients.get(client, (self._burst * share, now)), self._rate * share, now)
        everybody = self._level(self._all, self._rate, now)
        if own < 1 or everybody < 1:
            return False
        if len(self._clients) >= MAX_CLIENTS and client not in self._clients:
            self._clients.clear()
        self._clients[client] = own - 1, now
        self._all = everybody - 1, now
        return True

    def _level(self, bucket: tuple[float, float], rate: float, now: float) -> float:
        most = self._burst * (rate / self._rate)
        return min(most, bucket[0] + (now - bucket[1]) * rate)


class Beacon:
    """The two endpoints. ``edges``: the buckets of each metric by name."""

    def __init__(self, recorder: Recorder, routes: Routes, edges: dict[str, tuple[float, ...]]) -> None:
        self._recorder, self._routes, self._edges = recorder, routes, edges
        self._rate = Rate()
        self._script = resources.files(__package__).joinpath("beacon.js").read_bytes()

    async def script(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await respond(send, 405, headers=[("allow", "GET, HEAD")])
            return
        await respond(
            send, 200, self._script, "text/javascript; charset=utf-8",
            [("cache-control", "public, max-age=3600")], scope["method"] == "HEAD",
        )  # fmt: skip

    async def ingest(self, scope: Scope, receive: Receive, send: Send) -> None:
        """204, or 4xx and the reason as JSON."""
        try:
            page, values = await self._read(scope, receive)
        except RefusedError as refused:
            self._recorder.counter(names.BEACONS, ("refused",)).add(1.0)
            body = json.dumps({"error": str(refused)}, ensure_ascii=False).encode()
            extra = [("allow", "POST")] if refused.status == 405 else []
            await respond(send, refused.status, body, "application/json", extra)
            return
        template = self._routes.of_page(page, scope.get("root_path", ""))
        for metric, value in values.items():
            self._recorder.histogram(metric, (template,), self._edges[metric.name]).record(value)
        self._recorder.counter(names.BEACONS, ("taken",)).add(1.0)
        await respond(send, 204)

    async def _read(self, scope: Scope, receive: Receive) -> tuple[str, dict[Metric, float]]:
        if scope["method"] != "POST":
            raise RefusedError(405, "a beacon is posted")
        if header(scope, b"sec-fetch-site") == "cross-site":
            raise RefusedError(403, "a beacon comes from a page of this site")
        client = scope.get("client")
        if not self._rate.take(client[0] if client else "", monotonic()):
            raise RefusedError(429, "too many beacons; the next is taken in a second")
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await read_body(receive, MAX_BODY)
        except BodyTooLargeError:
            raise RefusedError(413, f"a beacon has at most {MAX_BODY} bytes") from None
        except TimeoutError:
            raise RefusedError(408, f"the body did not arrive within {BODY_SECONDS:g} s") from None
        if body is None:
            raise RefusedError(400, "the client left before its body had arrived")
        return parse(body)


METRICS: Final = {"load": names.PAGE_LOAD, "cls": names.WEB_VITAL_CLS, **names.WEB_VITALS}


def parse(body: bytes) -> tuple[str, dict[Metric, float]]:
    """The page's path and what was measured on it. Raises :class:`RefusedError` (400) with what is wrong."""
    try:
        found: Any = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise RefusedError(400, "the body is not JSON") from None
    if not isinstance(found, dict):
        raise RefusedError(400, 'the body must be an object, as in {"page": "/", "load": 1.84}')
    page = found.pop("page", None)
    if not isinstance(page, str) or not page.startswith("/") or len(page) > MAX_PATH:
        raise RefusedError(400, f'page must be a path that begins with "/", of at most {MAX_PATH} characters')
    unknown = sorted(set(found) - set(METRICS))
    if unknown:
        raise RefusedError(400, f"unknown field {unknown[0][:40]!r}; allowed: page, {', '.join(METRICS)}")
    if not found:
        raise RefusedError(400, f"nothing was measured; allowed: {', '.join(METRICS)}")
    for name, value in found.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not 0 <= value <= MAX_VALUES[name]:
            raise RefusedError(400, f"{name} must be a number from 0 to {MAX_VALUES[name]:g}")
    return page.partition("?")[0].partition("#")[0], {METRICS[name]: float(value) for name, value in found.items()}


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)
