"""A request becomes a measurement: the one piece of this project that runs inside every request.

A pure ASGI middleware. State of a request lives in its own :class:`_Request`; nothing is kept on the middleware that two
requests could overwrite. The duration ends with the last byte of the answer: a background task is no response time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic, perf_counter, time
from typing import Any, Final

from . import names
from .recorder import Gauge, Histogram, Oldest, Recorder
from .routes import template
from .users import WINDOW_SECONDS

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# semconv http.request.method: anything else is _OTHER, so that no client can invent label values.
METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})


class Measures:
    """The HTTP families of one recorder, and the requests of this worker that wait for an answer."""

    def __init__(self, recorder: Recorder, edges: tuple[float, ...]) -> None:
        self.recorder = recorder
        self.duration = Histogram(recorder, names.HTTP_DURATION, edges)
        self.active = Gauge(recorder, names.HTTP_ACTIVE)
        self.oldest = Oldest(recorder, names.HTTP_OLDEST)
        # In order of arrival, so that the first is the oldest; on a clock that all processes share.
        self.waiting: dict[int, float] = {}

    def began(self, request: int, method: str) -> None:
        waiting = self.waiting
        waiting[request] = began = monotonic()
        if len(waiting) == 1:
            self.oldest.set(began)
        self.active.add(1.0, (method,))

    def ended(self, request: int, method: str) -> None:
        waiting = self.waiting
        first = next(iter(waiting), None) == request
        waiting.pop(request, None)
        if first:
            self.oldest.set(next(iter(waiting.values()), 0.0))
        self.active.add(-1.0, (method,))


class Middleware:
    """Measures every HTTP request that it lets through to ``app``; ``own`` are the paths answered by ``answer``."""

    def __init__(self, app: Application, measures: Measures, own: frozenset[str], answer: Application) -> None:
        self.app, self.measures, self.own, self.answer = app, measures, own, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        root = scope.get("root_path", "")
        path = scope["path"]
        if path in self.own or (root and path.startswith(root) and path[len(root) :] in self.own):
            await self.answer(scope, receive, send)
            return
        await _Request(self.measures, scope, send, root).run(self.app, receive)


class _Request:
    """One request on its way."""

    __slots__ = ("began", "measures", "method", "root", "scope", "send", "status")

    def __init__(self, measures: Measures, scope: Scope, send: Send, root: str) -> None:
        self.measures, self.scope, self.send, self.root = measures, scope, send, root
        method = scope["method"]
        self.method = method if method in METHODS else "_OTHER"
        self.status = 0
        self.began = 0.0

    async def run(self, app: Application, receive: Receive) -> None:
        measures = self.measures
        client = self.scope.get("client")
        if client is not None:
            measures.recorder.users.seen(client[0], int(time()) // WINDOW_SECONDS)
        measures.began(id(self), self.method)
        self.began = perf_counter()
        try:
            await app(self.scope, receive, self._send)
        except BaseException as error:
            if self.began:
                self._finish(self.status or 500, type(error).__name__)
            raise
        if self.began:  # no complete answer: the client left, or the application said nothing
            self._finish(self.status, "" if self.status else "no_response")

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self.status = message["status"]
            await self.send(message)
        elif kind == "http.response.body" and not message.get("more_body", False):
            try:
                await self.send(message)
            finally:
                if self.began:
                    self._finish(self.status, "")
        else:
            await self.send(message)

    def _finish(self, status: int, error: str) -> None:
        measures = self.measures
        took = perf_counter() - self.began
        self.began = 0.0
        measures.ended(id(self), self.method)
        text = str(status) if status else ""
        # semconv error.type: the exception, else the status where the server is at fault
        error = error or (text if status >= 500 else "")
        route = template(self.scope, status, self.root)  # type: ignore[arg-type]
        measures.duration.record(took, (self.method, route, text, error))
