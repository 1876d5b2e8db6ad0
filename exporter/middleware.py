"""A request becomes a measurement: the one piece of this project that runs inside every request.

A pure ASGI middleware. A request's state lives in locals: nothing is kept on the middleware that two requests could
overwrite. The duration ends when the application hands the last byte of the answer to the server (a background task is
no response time). Our own endpoints, the probe of the exporter, WebSockets, and what an instrumented application
further out measures, are not counted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from time import monotonic
from typing import Final

from . import names
from .asgi import Application, Message, Receive, Scope, Send
from .recorder import Cell, Histogram, Recorder
from .routes import Routes, relative_template

logger = logging.getLogger("anvil_monitor.exporter")
# semconv http.request.method: anything else is _OTHER, so that no client can invent label values.
METHODS: Final = {
    method: method
    for method in ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
}
# The exporter's probe says who it is: its requests are no traffic, and an idle service stays idle.
PROBE: Final = (b"user-agent", names.PROBE_AGENT.encode())
# Bounded, because prefixes of mounts may hold values that clients choose.
MAX_REMEMBERED: Final = 4096


class Measures:
    """The HTTP series of one application in this process, and its requests that wait for an answer."""

    def __init__(self, recorder: Recorder, routes: Routes, edges: tuple[float, ...]) -> None:
        self.recorder, self.routes, self.edges = recorder, routes, edges
        self._oldest: Cell | None = None
        self._active: dict[str, Cell] = {}
        self._durations: dict[tuple[str, int, str, str], Histogram] = {}
        # In order of arrival: the first is the oldest.
        self._waiting: dict[int, float] = {}
        self._failed = False

    def enter(self, request: int, method: str, began: float) -> None:
        active = self._active.get(method)
        if active is None:
            active = self._active[method] = self.recorder.gauge(names.HTTP_ACTIVE, (method,))
        active.cells[0] += 1.0
        waiting = self._waiting
        if not waiting:
            if self._oldest is None:
                self._oldest = self.recorder.oldest(names.HTTP_OLDEST)
            self._oldest.cells[0] = began
        waiting[request] = began

    def leave(self, request: int, method: str) -> None:
        began = self._waiting.pop(request, 0.0)
        self._active[method].cells[0] -= 1.0
        if self._oldest is not None and self._oldest.cells[0] == began:
            self._oldest.cells[0] = next(iter(self._waiting.values()), 0.0)

    def record(self, scope: Scope, path: str, method: str, status: int, error: str, took: float) -> None:
        """An answer. ``status`` 0: none was given; ``error``: what went wrong, as semconv error.type, else empty."""
        try:
            if error:
                self._find(scope, path, method, status, error).record(took)
            else:
                self._record(scope, path, method, status, took)
        except Exception:  # the application's answer matters more than its measurement
            if not self._failed:
                self._failed = True
                logger.exception("anvil-monitor could not record a request; further failures are not logged")

    def _record(self, scope: Scope, path: str, method: str, status: int, took: float) -> None:
        template = relative_template(scope, scope.get("route"))
        if template is None or status == 405:
            self._find(scope, path, method, status, "").record(took)
            return
        key = (method, status, template, scope.get("root_path", ""))
        series = self._durations.get(key)
        if series is None:
            series = self._find(scope, path, method, status, "")
            if self.recorder.remembers(series):
                if len(self._durations) >= MAX_REMEMBERED:
                    self._durations.clear()
                self._durations[key] = series
        series.record(took)

    def _find(self, scope: Scope, path: str, method: str, status: int, error: str) -> Histogram:
        template = self.routes.template(scope, path, status)
        labels = (method, template, str(status) if status else "", error)
        return self.recorder.histogram(names.HTTP_DURATION, labels, self.edges)


class Middleware:
    """Measures each HTTP request that it lets through to ``app``; ``own`` are endpoints that it answers itself."""

    def __init__(self, app: Application, measures: Measures, own: Mapping[str, Application]) -> None:
        self.app, self.measures, self.own = app, measures, own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or "anvil_monitor" in scope:
            await self.app(scope, receive, send)
            return
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        own = self.own.get(path.removeprefix(root) if root else path)
        if own is not None:
            await own(scope, receive, send)
            return
        if PROBE in scope["headers"]:
            await self.app(scope, receive, send)
            return
        scope["anvil_monitor"] = True

        measures, request = self.measures, id(scope)
        method = METHODS.get(scope["method"], "_OTHER")
        status, ended, recorded = 0, 0.0, False
        began = monotonic()
        client = scope.get("client")
        if client is not None:
            measures.recorder.users.mark(client[0], began)
        measures.enter(request, method, began)

        async def measured(message: Message) -> None:
            nonlocal status, ended, recorded
            kind = message["type"]
            if kind == "http.response.start":
                status = message["status"]
            elif kind == "http.response.pathsend" or (
                kind == "http.response.body" and not message.get("more_body", False)
            ):
                # Counted, then sent: a worker may be killed between the two, and a client that has its whole answer
                # must find it counted (tests/soak). The write itself is not awaited by servers and takes no time.
                ended = monotonic()
                measures.leave(request, method)
                # After an error of the server the exception may still be on its way: it names the error.
                if status < 500:
                    recorded = True
                    measures.record(scope, path, method, status, "", ended - began)
            await send(message)

        failure = ""
        try:
            await self.app(scope, receive, measured)
        except BaseException as error:
            failure = type(error).__name__
            # What was cancelled was not answered with 500, nor with anything else.
            status = status or (500 if isinstance(error, Exception) else 0)
            raise
        finally:
            if not ended:
                measures.leave(request, method)
                failure = failure or "incomplete_response"
            if not recorded:
                what = failure or str(status)
                took = (ended or monotonic()) - began
                measures.record(scope, path, method, status, what, took)
