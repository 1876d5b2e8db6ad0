"""``GET /metrics``: who may ask, in which format, and that many who ask at once cost no more than one."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Final

from anvil_monitor.targets import Service

from .asgi import Receive, Scope, Send, header, respond
from .exposition import Negotiated, encode, negotiate

logger = logging.getLogger("anvil_monitor.exporter")
METHODS: Final = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered, however it is sent."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A text as it was written at ``began`` (monotonic seconds)."""

    began: float
    answer: Answer


class Endpoint:
    """``text`` writes the metrics, in OpenMetrics if its argument says so."""

    def __init__(self, service: Service, text: Callable[[bool], str], environ: Mapping[str, str] | None = None) -> None:
        self._service, self._text = service, text
        self._environ = os.environ if environ is None else environ
        self._renew()

    def _renew(self) -> None:
        """What a forked child must not share with its parent's threads."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._pages: dict[Negotiated, Page] = {}
        self._waiting = 0
        self._executor: ThreadPoolExecutor | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application."""

        def field(name: str) -> str:
            return header(scope, name.encode())

        method = scope["method"]
        answer = self.refusal(method, field)
        if answer is None:
            if os.getpid() != self._pid:
                self._renew()
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, "anvil-monitor metrics")
            # In a thread of its own: reading files and writing text is no work for the loop that answers requests, and
            # a storm of scrapes must not take the threads of the application.
            loop, arrived = asyncio.get_running_loop(), self._arrive()
            try:
                answer = await loop.run_in_executor(self._executor, self._page, field, arrived)
            finally:
                self._leave()
        kind = dict(answer.headers).get("content-type", "text/plain; charset=utf-8")
        rest = [each for each in answer.headers if each[0] != "content-type"]
        await respond(send, answer.status, answer.body, kind, rest, method == "HEAD")

    def refusal(self, method: str, field: Callable[[str], str]) -> Answer | None:
        """Why this request is not answered with metrics, if so. ``field`` gives a header by its lower-case name."""
        if method not in METHODS:
            return Answer(405, headers=(("allow", "GET, HEAD"),))
        token = self._service.metrics_token
        if token is None:
            return None
        try:
            expected = f"Bearer {token.reveal(dict(self._environ))}"
        except LookupError as error:
            logger.error("metrics_token of service %s: %s", self._service.name, error.args[0])
            return Answer(503, b"the metrics_token of this service cannot be read; see the server's log\n")
        if hmac.compare_digest(field("authorization").encode(), expected.encode()):
            return None
        reason = b"this service's metrics ask for the bearer token that metrics_token names\n"
        return Answer(401, reason, (("www-authenticate", "Bearer"),))

    def page(self, field: Callable[[str], str]) -> Answer:
        """The metrics, in the format and encoding that ``accept`` and ``accept-encoding`` ask for."""
        if os.getpid() != self._pid:
            self._renew()
        arrived = self._arrive()
        try:
            return self._page(field, arrived)
        finally:
            self._leave()

    def _arrive(self) -> float:
        self._waiting += 1
        return monotonic()

    def _leave(self) -> None:
        self._waiting -= 1
        if self._waiting <= 0:
            self._pages.clear()  # a large text is not kept for nobody

    def _page(self, field: Callable[[str], str], arrived: float) -> Answer:
        """Whoever waits while a text is written gets the next one, all of them the same, and none older than its
        request."""
        negotiated = negotiate(field("accept"), field("accept-encoding"))
        with self._lock:
            page = self._pages.get(negotiated)
            if page is None or page.began < arrived:
                page = self._pages[negotiated] = self._write(negotiated)
            return page.answer

    def _write(self, negotiated: Negotiated) -> Page:
        began = monotonic()
        try:
            body, headers = encode(self._text(negotiated.openmetrics), negotiated)
        except OSError as error:
            logger.error("the metrics of service %s cannot be read: %s", self._service.name, error)
            return Page(began, Answer(503, b"the metrics of this service cannot be read; see the server's log\n"))
        return Page(began, Answer(200, body, tuple(headers)))
