"""WSGI (Flask, Django, any other): a request becomes a measurement, in the thread that answers it.

The twin of ``middleware.py``: the same series, through the same recorder. The duration ends when the last byte is
handed to the server; where nothing says which one is the last, when the server asks for more and there is none. What a
framework does in ``close()`` afterwards is no response time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import monotonic
from typing import Any, Final, TypeAlias

from . import names
from .asgi import Application, Message, Scope
from .endpoint import Endpoint
from .frameworks import keep_rule
from .measures import CLIENT_LEFT, ERROR, INCOMPLETE, METHODS, Measures, ThreadedMeasures, body_length

Environ: TypeAlias = dict[str, Any]
StartResponse: TypeAlias = Callable[..., Callable[[bytes], object]]
WsgiApplication: TypeAlias = Callable[[Environ, StartResponse], Iterable[bytes]]

MEASURED: Final = "anvil_monitor.measured"
EMPTY: Final = (204, 304)  # statuses without a body, of which a server need not ask for any part
# More than any of our own endpoints takes; they say so themselves.
MAX_OWN_BODY: Final = 65_536


class WsgiMiddleware:
    """Measures each request that it lets through to ``app``; ``own`` are endpoints that it answers itself."""

    def __init__(self, app: WsgiApplication, measures: ThreadedMeasures, own: Mapping[str, WsgiApplication]) -> None:
        self.app, self.measures, self.own = app, measures, own
        self.instrument: object = None  # set by instrument(): whose this is

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if MEASURED in environ:
            return self.app(environ, start_response)
        own = self.own.get(environ.get("PATH_INFO", ""))
        if own is not None:
            return own(environ, start_response)
        if environ.get("HTTP_USER_AGENT") == names.PROBE_AGENT:
            return self.app(environ, start_response)
        environ[MEASURED] = True
        exchange = WsgiExchange(self.measures, environ)
        try:
            return exchange.body(self.app(environ, exchange.starting(start_response)))
        except BaseException as error:
            if isinstance(error, SystemExit):  # gunicorn ends a worker that has been silent for too long
                self.measures.recorder.torn = True
            exchange.failed(error)
            raise


class WsgiExchange:
    """One request and its answer."""

    __slots__ = (
        "began", "ended", "error", "length", "measures", "method", "path", "received", "recorded", "scope", "sent",
        "status",
    )  # fmt: skip

    def __init__(self, measures: Measures, environ: Environ) -> None:
        self.measures, self.scope = measures, environ
        self.method = METHODS.get(environ.get("REQUEST_METHOD", ""), "_OTHER")
        self.path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        self.received = body_length(environ.get("CONTENT_LENGTH"))
        if not self.received and "HTTP_TRANSFER_ENCODING" in environ and "wsgi.input" in environ:
            environ["wsgi.input"] = CountedInput(environ["wsgi.input"], self)
        self.status = self.sent = 0
        self.length = -1
        self.error = ""
        self.recorded = False
        self.began, self.ended = monotonic(), 0.0
        address = environ.get("REMOTE_ADDR")
        measures.enter(self, (address,) if address else None)

    def starting(self, start_response: StartResponse) -> StartResponse:
        """``start_response`` for the application."""

        def started(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
            self.status = int(status[:3]) if status[:3].isdigit() else 0
            announced = next((value for name, value in headers if name.lower() == "content-length"), "")
            keep_rule(self.scope)
            self.length = int(announced) if announced.isdigit() else -1
            if exc_info is None:
                write = start_response(status, headers)
            else:
                self.error = exc_info[0].__name__
                write = start_response(status, headers, exc_info)

            def counted(data: bytes) -> object:
                self.sent += len(data)
                return write(data)

            return counted

        return started

    def body(self, parts: Iterable[bytes]) -> Iterable[bytes]:
        """What the application returned, with its bytes and its end noticed."""
        wrapper = self.scope.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(parts, wrapper):
            # Left as it is: the server may have the kernel send the file.
            closing = getattr(parts, "close", None)
            parts.close = lambda: self._sent_file(closing)  # type: ignore[attr-defined]
            return parts
        if not hasattr(parts, "__iter__"):  # a server's own object, whose end is not to be seen
            self._sent_file(None)
            return parts
        return Body(self, parts)

    def _sent_file(self, closing: Callable[[], object] | None) -> None:
        self.sent = max(self.length, 0)
        try:
            if closing is not None:
                closing()
        finally:
            self.finish("")

    def failed(self, error: BaseException) -> None:
        """The application raised ``error``."""
        if not self.status and isinstance(error, Exception):
            self.status = 500
        self.finish(type(error).__name__)

    def closed(self) -> None:
        """The server wants no more: at the end, or because its client has left."""
        self.finish("" if self.method == "HEAD" or self.status in EMPTY else CLIENT_LEFT)

    def finish(self, error: str) -> None:
        """The last byte is there, or there will be none."""
        if self.recorded:
            return
        self.recorded = True
        error = error or self.error or self.scope.get(ERROR, "")
        if not error and not 0 < self.status < 500:
            error = str(self.status) if self.status else INCOMPLETE
        self.ended = monotonic()
        self.measures.leave(self)
        self.measures.record(self, error)


class Body:
    """An answer's parts on their way to the server."""

    def __init__(self, exchange: WsgiExchange, parts: Iterable[bytes]) -> None:
        self._exchange, self._parts = exchange, parts
        self._iterator = iter(parts)
        # A server that is given one part need not frame it (PEP 3333); that it is the only one is kept visible.
        self._only = isinstance(parts, list | tuple) and len(parts) == 1

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        exchange = self._exchange
        try:
            part = next(self._iterator)
        except StopIteration:
            exchange.finish("")
            raise
        except BaseException as error:
            exchange.failed(error)
            raise
        exchange.sent += len(part)
        # Counted, then sent, wherever the last byte is known to be in this part: see middleware.py.
        if self._only or exchange.sent == exchange.length:
            exchange.finish("")
        return part

    def __len__(self) -> int:
        return len(self._parts)  # type: ignore[arg-type]  # where it has no length, the TypeError that servers expect

    def __bool__(self) -> bool:
        return True

    def close(self) -> None:
        try:
            closing = getattr(self._parts, "close", None)
            if closing is not None:
                closing()
        finally:
            self._exchange.closed()


class CountedInput:
    """A request's body of unknown length, as it is read."""

    def __init__(self, stream: Any, exchange: WsgiExchange) -> None:
        self._stream, self._exchange = stream, exchange

    def _count(self, data: bytes) -> bytes:
        self._exchange.received += len(data)
        return data

    def read(self, *size: int) -> bytes:
        return self._count(self._stream.read(*size))

    def readline(self, *size: int) -> bytes:
        return self._count(self._stream.readline(*size))

    def readlines(self, *hint: int) -> list[bytes]:
        return [self._count(line) for line in self._stream.readlines(*hint)]

    def __iter__(self) -> Iterator[bytes]:
        return map(self._count, self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def metrics(endpoint: Endpoint) -> WsgiApplication:
    """``/metrics`` for WSGI: in the thread that was asked."""

    def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def field(name: str) -> str:
            text: str = environ.get("HTTP_" + name.upper().replace("-", "_"), "")
            return text

        method = environ["REQUEST_METHOD"]
        found = endpoint.refusal(method, field) or endpoint.page(field)
        length = ("Content-Length", str(len(found.body)))
        start_response(f"{found.status} {REASONS.get(found.status, '')}", [length, *found.headers])
        return [b"" if method == "HEAD" else found.body]

    return answer


def bridge(app: Application) -> WsgiApplication:
    """One of our own ASGI endpoints for WSGI. Its body is read beforehand: nothing in it waits for a network."""

    def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body = b""
        if environ.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" in environ:
            length = environ.get("CONTENT_LENGTH") or ""
            body = environ["wsgi.input"].read(min(int(length) if length.isdigit() else MAX_OWN_BODY, MAX_OWN_BODY))
        status, headers, parts = asyncio.run(_ask(app, _scope(environ), body))
        start_response(f"{status} {REASONS.get(status, '')}", headers)
        return parts

    return answer


async def _ask(app: Application, scope: Scope, body: bytes) -> tuple[int, list[tuple[str, str]], list[bytes]]:
    status, headers, parts = 500, [], []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return status, headers, parts


def _scope(environ: Environ) -> Scope:
    fields = {name[5:]: value for name, value in environ.items() if name.startswith("HTTP_")}
    fields |= {name: environ[name] for name in ("CONTENT_LENGTH", "CONTENT_TYPE") if environ.get(name)}
    address, root = environ.get("REMOTE_ADDR"), environ.get("SCRIPT_NAME", "")
    return {
        "type": "http", "method": environ["REQUEST_METHOD"], "root_path": root,
        "path": root + environ.get("PATH_INFO", ""), "scheme": environ.get("wsgi.url_scheme", "http"),
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "headers": [
            (name.lower().replace("_", "-").encode("latin-1"), str(value).encode("latin-1", "replace"))
            for name, value in fields.items()
        ],
        "client": (address, 0) if address else None,
    }  # fmt: skip


REASONS: Final = {
    200: "OK", 204: "No Content", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 413: "Content Too Large", 415: "Unsupported Media Type",
    429: "Too Many Requests", 503: "Service Unavailable",
}  # fmt: skip
