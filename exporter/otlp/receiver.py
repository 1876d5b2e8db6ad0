"""``POST /v1/metrics``: a request is taken, taken in part and told so, or refused with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from urllib.parse import urlsplit

from ..asgi import Receive, Scope, Send, header, respond
from ..rate import Rate
from . import body as bodies
from . import jsonform
from .points import RefusedError
from .protobuf import Decoder
from .totals import Totals

PATH = "/v1/metrics"


class Receiver:
    """The endpoint, an ASGI application. Who may send is decided in front of it, as for everything that is served.

    Bodies are decoded one at a time, in a thread of their own: the largest costs forty times its size in memory
    for a moment, and the event loop is never held up.
    """

    def __init__(self, totals: Totals) -> None:
        self._totals = totals
        self._limits = totals.limits
        self._decoder = Decoder(self._limits)
        self._rate = Rate(self._limits.rate, self._limits.burst)
        self._thread = ThreadPoolExecutor(1, "anvil-monitor-otlp")
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        encoding: bodies.Encoding = "protobuf"
        try:
            encoding = self._admit(scope)
            self._open += 1
            try:
                rejected = await self._take(scope, receive, encoding)
            finally:
                self._open -= 1
        except RefusedError as refused:
            self._totals.refuse()
            extra = {405: [("allow", "POST")], 429: [("retry-after", "5")]}
            answer = bodies.failure(encoding, refused.status, str(refused))
            await respond(send, refused.status, answer, bodies.NAMES[encoding], extra.get(refused.status, []))
            return
        answer = bodies.success(encoding, rejected)
        # An empty answer is a whole message in protobuf: it still says what it is.
        kind = [] if answer else [("content-type", bodies.NAMES[encoding])]
        await respond(send, 200, answer, bodies.NAMES[encoding], kind)

    def close(self) -> None:
        """Take nothing more: 503 from now on."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _admit(self, scope: Scope) -> bodies.Encoding:
        """What can be said before the body: how it is encoded. Raises :class:`RefusedError`."""
        if scope["method"] != "POST":
            raise RefusedError(405, "metrics are posted")
        # A page of another site cannot make a browser send these types without asking first; nobody answers it.
        encoding = bodies.encoding_of(header(scope, b"content-type"))
        client = scope.get("client")
        if not self._rate.take(client[0] if client else None, monotonic()):
            raise RefusedError(429, "too many requests; export less often, or through a Collector")
        if self._open >= self._limits.requests:
            raise RefusedError(429, f"{self._limits.requests} requests are being read already")
        return encoding

    async def _take(self, scope: Scope, receive: Receive, encoding: bodies.Encoding) -> Mapping[str, int]:
        zipped = bodies.check_content_encoding(header(scope, b"content-encoding"))
        length = header(scope, b"content-length")
        if length.isdecimal() and len(length) < 20 and int(length) > self._limits.body:
            raise RefusedError(413, f"a body has at most {self._limits.body} bytes")
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                body = await bodies.read(receive, self._limits.body)
        except TimeoutError:
            raise RefusedError(408, f"the body did not arrive within {self._limits.body_seconds:g} s") from None
        own = _addressed(header(scope, b"host"))
        loop = asyncio.get_running_loop()
        try:
            decoded = loop.run_in_executor(self._thread, self._decode, body, zipped, encoding, own)
        except RuntimeError:  # closed: it is sent again, to our successor
            raise RefusedError(503, "the monitor is ending") from None
        return await decoded

    def _decode(
        self, body: bytes, zipped: bool, encoding: bodies.Encoding, own: frozenset[tuple[str, str]]
    ) -> Mapping[str, int]:
        try:
            if zipped:
                body = bodies.unzip(body, self._limits.body)
            if encoding == "json":
                return self._totals.apply(jsonform.decode(body, self._limits, own))
            return self._totals.apply(self._decoder.decode(body, own))
        except RefusedError as refused:
            # Its traceback would keep the decoded message, forty times the body, until the next collection of garbage.
            raise refused.with_traceback(None) from None


def _addressed(host: str) -> frozenset[tuple[str, str]]:
    """The address that a sender calls this receiver by: its own metrics about that are left out."""
    try:
        parts = urlsplit(f"//{host}")
        return frozenset({(parts.hostname or "", str(parts.port or 80))})
    except ValueError:
        return frozenset()
