"""A request becomes a measurement: the one piece of this project that runs inside every request.

A pure ASGI middleware. A request's state lives in an object of its own: nothing is kept on the middleware that two
requests could overwrite. The duration ends when the application hands the last byte of the answer to the server (a
background task is no response time). Our own endpoints, the probe of the exporter, and what an instrumented application
further out measures, are not counted.

Of a WebSocket the handshake is the request, answered with 101 when the application accepts it; the open connection is
a level of its own, because the hours that it stays open are no response time.
"""

from __future__ import annotations

import sys
from asyncio import CancelledError
from collections.abc import Awaitable, Mapping
from time import monotonic
from typing import Any, Final

from . import names
from .asgi import Application, Message, Receive, Scope, Send
from .eventloop import LoopLag
from .measures import CLIENT_LEFT, ERROR, INCOMPLETE, METHODS, Measures, body_length

# The exporter's probe says who it is: its requests are no traffic, and an idle service stays idle.
LOOKED_AT: Final = frozenset((b"content-length", b"transfer-encoding", b"user-agent"))
PROBE: Final = names.PROBE_AGENT.encode()
# What frameworks and servers raise into an application whose client has left.
GONE: Final = frozenset(("ClientDisconnect", "ClientDisconnected", "WebSocketDisconnect"))
ACCEPTED: Final = 101
DENIED: Final = 403


class Middleware:
    """Measures each request that it lets through to ``app``; ``own`` are endpoints that it answers itself."""

    def __init__(
        self, app: Application, measures: Measures, own: Mapping[str, Application], lag: LoopLag | None = None
    ) -> None:
        self.app, self.measures, self.own = app, measures, own
        self.lag, self.look_at = lag, 0.0
        self.instrument: object = None  # set by instrument(): whose this is

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind != "http" or "anvil_monitor" in scope:
            if kind == "websocket" and "anvil_monitor" not in scope:
                await self._websocket(scope, receive, send)
            else:
                if kind == "lifespan" and self.lag is not None:
                    self.lag.watch()
                await self.app(scope, receive, send)
            return
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        own = self.own.get(path.removeprefix(root) if root else path)
        if own is not None:
            await own(scope, receive, send)
            return
        received, chunked = 0, False
        for name, value in scope["headers"]:
            if name in LOOKED_AT:
                if name == b"content-length":
                    received = body_length(value)
                elif name == b"transfer-encoding":
                    chunked = True
                elif value == PROBE:
                    await self.app(scope, receive, send)
                    return

        scope["anvil_monitor"] = True
        exchange = Exchange()
        exchange.measures = measures = self.measures
        exchange.scope, exchange.path, exchange.send = scope, path, send
        exchange.method = METHODS.get(scope["method"], "_OTHER")
        exchange.received, exchange.sent, exchange.status, exchange.length = received, 0, 0, None
        exchange.ended, exchange.recorded = 0.0, False
        exchange.began = began = monotonic()
        measures.enter(exchange, scope.get("client"))
        if began > self.look_at and self.lag is not None:
            self.lag.watch()
            self.look_at = self.lag.due
        if chunked or (not received and exchange.method in BODIES and scope.get("http_version", "") >= "2"):
            receive = exchange.counting(receive)
        try:
            await self.app(scope, receive, exchange.forward)
        except BaseException as error:
            exchange.failed(error, receive)
            raise
        if not exchange.recorded:
            exchange.returned(receive)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["anvil_monitor"] = True
        handshake = Handshake(self.measures, scope, send)
        try:
            await self.app(scope, receive, handshake.forward)
        except BaseException as error:
            handshake.failed(error, receive)
            raise
        finally:
            handshake.closed()
        if not handshake.recorded:
            handshake.returned(receive)


# HTTP/2 frames a body without either header, so that these methods' bodies are counted as they are read.
BODIES: Final = frozenset(("PATCH", "POST", "PUT", "QUERY"))
# Answers that are whole with their headers.
BODYLESS: Final = frozenset((204, 304))


class Exchange:
    """One request and its answer, from its arrival to the answer's last byte."""

    __slots__ = (
        "began", "ended", "length", "measures", "method", "path", "received", "recorded", "scope", "send", "sent",
        "status",
    )  # fmt: skip

    # Filled in by Middleware: an __init__ would be a third of what all of this costs.
    measures: Measures
    scope: Scope
    path: str
    method: str
    send: Send
    received: int
    sent: int
    status: int
    length: bytes | None  # as the answer's headers announce it
    began: float
    ended: float
    recorded: bool

    def forward(self, message: Message) -> Awaitable[None]:
        """The application's ``send``. Not a coroutine itself: most messages pass without another frame."""
        kind = message["type"]
        if kind == "http.response.body":
            self.sent += len(message.get("body", b""))
            if not message.get("more_body", False) or 0 < body_length(self.length) <= self.sent:
                self._end()
        elif kind == "http.response.start":
            self.status = status = message["status"]
            headers = message.get("headers")
            if type(headers) is list:  # any other iterable may only be good for one look, which is the server's
                for name, value in headers:
                    if name == b"content-length":
                        self.length = value
                        break
            if self.length == b"0" or self.method == "HEAD" or status in BODYLESS:
                self._end()
        elif kind == "http.response.pathsend":
            self.sent = body_length(self.length)
            self._end()
        return self.send(message)

    def _end(self) -> None:
        # Counted, then sent: a worker may be killed between the two, and a client that has its whole answer must find
        # it counted (tests/soak). The write itself is not awaited by servers and takes no time.
        if not self.ended:
            self.ended = monotonic()
            self.measures.leave(self)
            if self.status < 500:
                self.recorded = True
                self.measures.record(self, "")
            else:
                self._end_with_error(sys.exception())

    def _end_with_error(self, error: BaseException | None) -> None:
        """``error``: the exception that is being answered, which names it, unless it is only a way to give a status."""
        if error is None or getattr(error, "status_code", 0) == self.status:
            self._record(self.scope.get(ERROR) or str(self.status))
        elif type(error).__name__ not in GONE:
            self._record(type(error).__name__)

    def failed(self, error: BaseException, receive: Receive) -> None:
        """The application raised ``error``."""
        if self.recorded:
            return  # in a background task: the answer was whole
        name = type(error).__name__
        if name in GONE or (
            # What a closed connection looks like to an application differs between servers.
            not self.ended and isinstance(error, OSError | EOFError | CancelledError) and left(receive)
        ):
            name = CLIENT_LEFT
            if self.status >= 500:
                self.status = 0  # the framework's answer to its own exception, which nobody got
        elif not self.status and isinstance(error, Exception):
            self.status = 500  # the server's answer for it; what was cancelled was not answered at all
        self._finish(name)

    def returned(self, receive: Receive) -> None:
        """The application came back; no exception explains what is missing."""
        if self.ended:
            self._finish(self.scope.get(ERROR) or str(self.status))
        else:
            self._finish(CLIENT_LEFT if left(receive) else INCOMPLETE)

    def counting(self, receive: Receive) -> Receive:
        """``receive`` for a body of unknown length."""

        async def counted() -> Message:
            message = await receive()
            self.received += len(message.get("body", b""))
            return message

        return counted

    def _finish(self, error: str) -> None:
        if not self.ended:
            self.ended = monotonic()
            self.measures.leave(self)
        self._record(error)

    def _record(self, error: str) -> None:
        self.recorded = True
        self.measures.record(self, error)


class Handshake(Exchange):
    """The opening of a WebSocket, and then the count of the open ones."""

    __slots__ = ("opened",)

    def __init__(self, measures: Measures, scope: Scope, send: Send) -> None:
        self.measures, self.scope, self.path, self.send, self.method = measures, scope, scope["path"], send, "GET"
        self.received = self.sent = self.status = 0
        self.length, self.ended, self.recorded, self.opened = None, 0.0, False, False
        self.began = monotonic()
        measures.enter(self, scope.get("client"))

    def forward(self, message: Message) -> Awaitable[None]:
        if not self.recorded:
            kind = message["type"]
            if kind == "websocket.accept":
                self.opened = True
                self.measures.guard(lambda: self._count(1.0))
                self._answered(ACCEPTED)
            elif kind == "websocket.close":
                self._answered(DENIED)
            elif kind == "websocket.http.response.start":
                self.status = message["status"]
            elif kind == "websocket.http.response.body":
                self.sent += len(message.get("body", b""))
                if not message.get("more_body", False):
                    self._answered(self.status)
        return self.send(message)

    def _answered(self, status: int) -> None:
        self.status = status
        self._finish(str(status) if status >= 500 else "")

    def closed(self) -> None:
        """The application is done with the connection."""
        if self.opened:
            self.opened = False
            self.measures.guard(lambda: self._count(-1.0))

    def _count(self, amount: float) -> None:
        self.measures.recorder.gauge(names.HTTP_WEBSOCKETS).add(amount)


def left(receive: Receive) -> bool:
    """Whether the client has closed the connection: asked in one step of ``receive``, without waiting for anything."""
    try:
        for _ in range(3):  # what is left of a body comes first
            step: Any = receive().__await__()
            try:
                next(step)
            except StopIteration as answer:
                if answer.value["type"] in ("http.disconnect", "websocket.disconnect"):
                    return True
            else:
                step.close()  # it would wait: the client is still there
                return False
    except Exception:  # noqa: BLE001  a server with another notion of receive: then nothing is known
        return False
    return False
