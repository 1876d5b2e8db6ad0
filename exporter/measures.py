"""The HTTP series of one application: what waits for an answer now, and what was answered.

Used by the ASGI and the WSGI middleware alike. An answer is recorded through one look-up: the series of a method,
route, status and error are kept together, so that the cost of a request does not grow with the number of routes.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol
from weakref import WeakSet

from . import names
from .cells import Cell, Histogram
from .recorder import Recorder

logger = logging.getLogger("anvil_monitor.exporter")
# semconv http.request.method: anything else is _OTHER, so that no client can invent label values.
METHODS: Final = {
    method: method
    for method in ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
}
# semconv error.type for a request whose client closed the connection before it had the whole answer.
CLIENT_LEFT: Final = "client_disconnected"
# semconv error.type for an application that returned without an answer, or without the end of one.
INCOMPLETE: Final = "incomplete_response"
# Where a hook leaves the name of an exception that its framework has answered itself.
ERROR: Final = "anvil_monitor.error"
# Bounded, because prefixes of mounts may hold values that clients choose.
MAX_REMEMBERED: Final = 4096
# A client may announce any length; this many digits fit a sum of 64-bit floats without harm.
MAX_LENGTH_DIGITS: Final = 13


class Templates(Protocol):
    """Knows which route template answered a request, described by an ASGI scope or a WSGI environ."""

    def named(self, scope: Any, status: int) -> str | None:
        """What the request itself says, at once: the template below ``root_path``, or ``None`` for "ask further"."""

    def template(self, scope: Any, path: str, status: int) -> str:
        """The whole template; ``path`` as it was requested."""

    def of_page(self, path: str, root: str = "") -> str:
        """The template of a page that a browser names."""


class Answers:
    """The histograms of the answers with one method, route, status and error."""

    __slots__ = ("duration", "labels", "received", "sent")

    def __init__(self, duration: Histogram, sent: Histogram | None, labels: tuple[str, str]) -> None:
        self.duration, self.sent, self.labels = duration, sent, labels
        self.received: Histogram | None = None  # most routes never get a body


class Exchanged(Protocol):
    """A request and what is known of its answer, as the middleware of ASGI or WSGI has it.

    ``began``, ``ended``: monotonic seconds; ``status`` 0: no answer was given; ``received``, ``sent``: bytes of the
    bodies (``received`` 0: the request had none); ``scope``: the ASGI scope or the WSGI environ.
    """

    began: float
    ended: float
    method: str
    path: str
    received: int
    scope: Any
    sent: int
    status: int


class Measures:
    """The HTTP series of one application in this process. ``edges``: the buckets of each metric by name.

    Everything here is called inside a request: no method raises. For one thread; see :class:`ThreadedMeasures`.
    """

    def __init__(self, recorder: Recorder, templates: Templates, edges: Mapping[str, tuple[float, ...]]) -> None:
        self.recorder, self.templates, self.edges = recorder, templates, edges
        self._answers: dict[tuple[str, int, str, str, str], Answers] = {}
        # The requests that wait for an answer, in order of arrival: the first is the oldest.
        self._waiting: dict[Exchanged, float] = {}
        self._active: dict[str, Cell] = {}
        self._oldest: Cell | None = None
        self._since = 0.0
        self._mark: Callable[[str, float], None] | None = None
        self._failed = False
        _living.add(self)

    def enter(self, exchange: Exchanged, client: Sequence[Any] | None) -> None:
        """A request has arrived from ``client``, an address and a port."""
        try:
            began, method = exchange.began, exchange.method
            if client:
                (self._mark or self._open_users())(client[0], began)
            active = self._active.get(method)
            if active is None:
                active = self._active[method] = self.recorder.gauge(names.HTTP_ACTIVE, (method,))
            active.cells[0] += 1.0
            waiting = self._waiting
            if not waiting:
                if self._oldest is None:
                    self._oldest = self.recorder.oldest(names.HTTP_OLDEST)
                self._oldest.cells[0] = self._since = began
            waiting[exchange] = began
        except Exception as error:  # noqa: BLE001
            self._complain(error)

    def leave(self, exchange: Exchanged) -> None:
        """The request waits no longer."""
        try:
            waiting = self._waiting
            began = waiting.pop(exchange, None)
            if began is not None and self._oldest is not None:
                self._active[exchange.method].cells[0] -= 1.0
                if began == self._since:
                    self._oldest.cells[0] = self._since = next(iter(waiting.values())) if waiting else 0.0
        except Exception as error:  # noqa: BLE001
            self._complain(error)

    def record(self, exchange: Exchanged, error: str) -> None:
        """The answer is known. ``error``: what went wrong, as semconv error.type, else empty."""
        try:
            scope, method, status = exchange.scope, exchange.method, exchange.status
            template = self.templates.named(scope, status)
            if template is None:
                answers = self._find(self.templates.template(scope, exchange.path, status), method, status, error)
            else:
                key = (template, status, method, scope.get("root_path", ""), error)
                answers = self._answers.get(key) or self._remember(key, exchange)
            answers.duration.record(exchange.ended - exchange.began)
            if answers.sent is not None:
                answers.sent.record(0 if method == "HEAD" else exchange.sent)
            # A body that was announced may not have come when the client left.
            if exchange.received and error != CLIENT_LEFT:
                if answers.received is None:
                    answers.received = self._size(names.HTTP_REQUEST_SIZE, answers.labels)
                answers.received.record(exchange.received)
        except Exception as problem:  # noqa: BLE001
            self._complain(problem)

    def _remember(self, key: tuple[str, int, str, str, str], exchange: Exchanged) -> Answers:
        _, status, method, _, error = key
        answers = self._find(self.templates.template(exchange.scope, exchange.path, status), method, status, error)
        if self.recorder.remembers(answers.duration):
            if len(self._answers) >= MAX_REMEMBERED:
                self._answers.clear()
            self._answers[key] = answers
        return answers

    def _find(self, route: str, method: str, status: int, error: str) -> Answers:
        labels = (method, route, str(status) if status else "", error)
        duration = self.recorder.histogram(names.HTTP_DURATION, labels, self.edges[names.HTTP_DURATION.name])
        sent = self._size(names.HTTP_RESPONSE_SIZE, (method, route)) if status and status != 101 else None
        return Answers(duration, sent, (method, route))

    def _size(self, metric: names.Metric, labels: tuple[str, str]) -> Histogram:
        return self.recorder.histogram(metric, labels, self.edges[metric.name])

    def guard(self, work: Callable[[], object]) -> None:
        """Do ``work``, which must never break the application."""
        try:
            work()
        except Exception as error:  # noqa: BLE001
            self._complain(error)

    def _open_users(self) -> Callable[[str, float], None]:
        self._mark = self.recorder.users.mark
        return self._mark

    def renew(self) -> None:
        """In a forked child: none of the parent's requests is this process's to answer."""
        self._mark = None  # of the parent's page
        self._waiting = {}

    def _complain(self, error: Exception) -> None:
        """The application's answer matters more than its measurement: one line in the log, and on."""
        if not self._failed:
            self._failed = True
            logger.error("anvil-monitor could not record a request; further failures are not logged", exc_info=error)


class ThreadedMeasures(Measures):
    """For requests in several threads."""

    def __init__(self, recorder: Recorder, templates: Templates, edges: Mapping[str, tuple[float, ...]]) -> None:
        super().__init__(recorder, templates, edges)
        self._lock = threading.Lock()

    def enter(self, exchange: Exchanged, client: Sequence[Any] | None) -> None:
        with self._lock:
            super().enter(exchange, client)

    def leave(self, exchange: Exchanged) -> None:
        with self._lock:
            super().leave(exchange)

    def renew(self) -> None:
        super().renew()
        self._lock = threading.Lock()  # another thread of the parent may have held it


_living: WeakSet[Measures] = WeakSet()


def _after_fork() -> None:
    for measures in list(_living):
        measures.renew()


os.register_at_fork(after_in_child=_after_fork)


def body_length(text: bytes | str | None) -> int:
    """A ``Content-Length`` in bytes; 0 for none, and for what is none."""
    return int(text) if text and len(text) <= MAX_LENGTH_DIGITS and text.isdigit() else 0
