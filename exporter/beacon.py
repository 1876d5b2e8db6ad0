"""What browsers measured: the endpoint that ``beacon.js`` posts to, and the script itself.

Anybody can post anything here. A beacon is small, of a known shape, comes from a page of this site or of a listed
origin, is rate-limited, and is recorded whole or not at all; its page becomes one of the templates that the server or
``monitor.toml`` has, so that no browser can invent a label value. No address, cookie or id is kept.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import blake2b
from importlib import resources
from time import monotonic
from typing import Any, Final, NoReturn
from urllib.parse import unquote

from . import names
from .asgi import BodyTooLargeError, Receive, Scope, Send, header, read_body, respond
from .names import Metric
from .origins import Origins
from .pagetemplates import Templates
from .rate import Rate
from .recorder import Recorder

MAX_BODY: Final = 4096
MAX_PATH: Final = 2048
MAX_VALUES: Final = {
    "load": 600.0, "soft": 600.0, "lcp": 600.0, "fcp": 600.0, "inp": 600.0, "ttfb": 600.0, "cls": 1000.0}  # fmt: skip
BODY_SECONDS: Final = 5.0
SCALE_EDGES: Final = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0)
METRICS: Final = {
    "load": names.PAGE_LOAD, "soft": names.SOFT_NAVIGATION, "cls": names.WEB_VITAL_CLS, **names.WEB_VITALS}  # fmt: skip


class RefusedError(Exception):
    """A beacon is not taken. ``status`` is the HTTP status, the message says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Beacon:
    """An ASGI application: a path that ends in ``.js`` is the script, any other takes what it posts.

    ``templates``: what a page's path becomes (:class:`~.pagetemplates.PageTemplates`, :class:`~.routes.Routes`).
    ``edges``: the buckets of each metric by name. ``origins``: whose pages may post besides this site's own.
    """

    def __init__(
        self, recorder: Recorder, templates: Templates, edges: Mapping[str, tuple[float, ...]],
        origins: Iterable[str] = (),
    ) -> None:  # fmt: skip
        self._recorder, self._templates, self._edges = recorder, templates, edges
        self._origins = Origins(origins)
        self._rate = Rate()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.script if scope["path"].endswith(".js") else self.ingest)(scope, receive, send)

    async def script(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``GET`` and ``HEAD``: the script, compressed for whom takes that, 304 for whom has it."""
        allow = ("allow", "GET, HEAD, OPTIONS")
        if scope["method"] not in ("GET", "HEAD"):
            await respond(send, 204 if scope["method"] == "OPTIONS" else 405, headers=[allow])
            return
        plain, packed, tag = script()
        headers = [
            ("cache-control", "public, max-age=3600"),
            ("etag", tag),
            ("vary", "Accept-Encoding"),
            # It is for any page to load, also one that isolates itself (COEP).
            ("access-control-allow-origin", "*"),
            ("cross-origin-resource-policy", "cross-origin"),
            ("x-content-type-options", "nosniff"),
        ]
        if tag in header(scope, b"if-none-match"):
            await respond(send, 304, headers=headers)
            return
        body = plain
        if _takes_gzip(header(scope, b"accept-encoding")):
            body = packed
            headers.append(("content-encoding", "gzip"))
        await respond(send, 200, body, "text/javascript; charset=utf-8", headers, scope["method"] == "HEAD")

    async def ingest(self, scope: Scope, receive: Receive, send: Send) -> None:
        """``POST``: 204, or 4xx and the reason as JSON. ``OPTIONS``: what a browser asks before."""
        if scope["method"] == "OPTIONS" and self._origins.allows(scope):
            await respond(send, 204, headers=[("allow", "POST, OPTIONS"), *self._origins.preflight(scope)])
            return
        headers = self._origins.headers(scope)
        try:
            page, values = await self._read(scope, receive)
        except RefusedError as refused:
            self._recorder.counter(names.BEACONS, ("refused",)).add(1.0)
            if refused.status == 405:
                headers.append(("allow", "POST, OPTIONS"))
            if refused.status == 429:
                headers.append(("retry-after", "1"))
            body = json.dumps({"error": str(refused)}).encode()
            await respond(send, refused.status, body, "application/json", headers)
            return
        template = self._templates.of_page(unquote(page), scope.get("root_path", ""))
        series = [
            (self._recorder.histogram(metric, (template,), self._edges[metric.name]), value)
            for metric, value in values.items()
        ]
        for histogram, value in series:
            histogram.record(value)
        self._recorder.counter(names.BEACONS, ("taken",)).add(1.0)
        await respond(send, 204, headers=headers)

    async def _read(self, scope: Scope, receive: Receive) -> tuple[str, dict[Metric, float]]:
        if not self._origins.allows(scope):
            raise RefusedError(403, "a beacon comes from a page of this site, or of an origin that the service lists")
        if scope["method"] != "POST":
            raise RefusedError(405, "a beacon is posted")
        client = scope.get("client")
        if not self._rate.take(client[0] if client else None, monotonic()):
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


@cache
def script() -> tuple[bytes, bytes, str]:
    """The script as it is served, the same in gzip, and its entity tag.

    Lines that are comments stay here, and so does the indentation: that is all that happens to the source.
    """
    source = resources.files(__package__).joinpath("beacon.js").read_text(encoding="utf-8")
    lines = (line.strip() for line in source.splitlines())
    plain = "\n".join(line for line in lines if line and not line.startswith("//")).encode()
    return plain, gzip.compress(plain, 9, mtime=0), f'W/"{blake2b(plain, digest_size=8).hexdigest()}"'


def _takes_gzip(accepted: str) -> bool:
    for each in accepted.lower().split(","):
        coding, _, weight = each.partition(";")
        if coding.strip() in ("gzip", "*"):
            return weight.replace(" ", "").rstrip("0.") != "q="
    return False


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
        # The bounds first: a whole number may be too long to become a float.
        if not number or not 0 <= value <= MAX_VALUES[name]:
            raise RefusedError(400, f"{name} must be a number from 0 to {MAX_VALUES[name]:g}")
    return page.partition("?")[0].partition("#")[0], {METRICS[name]: float(value) for name, value in found.items()}


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)
