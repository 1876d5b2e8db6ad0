"""The HTTP series of one application: what waits for an answer now, and what was answered.

Used by the ASGI and the WSGI middleware alike. An answer is recorded through one look-up: the series of a method,
route, status and error are kept together, so that the cost of a request does not grow with the number of routes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from . import names
from .recorder import Cell, Histogram, Recorder

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


class Waiting:
    """The requests that wait for an answer: how many by method, and since when the oldest does. For one thread."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._oldest: Cell | None = None
        self._active: dict[str, Cell] = {}
        # In order of arrival: the first is the oldest.
        self._began: dict[int, float] = {}

    def enter(self, request: int, method: str, began: float) -> None:
        active = self._active.get(method)
        if active is None:
            active = self._active[method] = self._recorder.gauge(names.HTTP_ACTIVE, (method,))
        active.cells[0] += 1.0
        if not self._began:
            if self._oldest is None:
                self._oldest = self._recorder.oldest(names.HTTP_OLDEST)
            self._oldest.cells[0] = began
        self._began[request] = began

    def leave(self, request: int, method: str) -> None:
        waiting = self._began
        began = waiting.pop(request, 0.0)
        self._active[method].cells[0] -= 1.0
        oldest = self._oldest
        if oldest is not None and oldest.cells[0] == began:
            oldest.cells[0] = next(iter(waiting.values())) if waiting else 0.0


class Measures:
    """The HTTP series of one application in this process. ``edges``: the buckets of each metric by name."""

    def __init__(self, recorder: Recorder, templates: Templates, edges: Mapping[str, tuple[float, ...]]) -> None:
        self.recorder, self.templates, self.edges = recorder, templates, edges
        self.waiting = Waiting(recorder)
        self._answers: dict[tuple[str, int, str, str, str], Answers] = {}
        self._failed = False

    def enter(self, request: int, method: str, began: float, client: Sequence[Any] | None) -> None:
        """A request arrived at ``began`` (monotonic seconds) from ``client``, an address and a port."""
        try:
            if client:
                self.recorder.users.mark(client[0], began)
            self.waiting.enter(request, method, began)
        except Exception as error:  # noqa: BLE001
            self._complain(error)

    def leave(self, request: int, method: str) -> None:
        try:
            self.waiting.leave(request, method)
        except Exception as error:  # noqa: BLE001
            self._complain(error)

    def record(
        self, scope: Any, path: str, method: str, status: int, error: str, took: float, received: int, sent: int
    ) -> None:
        """An answer. ``status`` 0: none was given; ``error``: what went wrong, as semconv error.type, else empty.

        ``took`` in seconds, ``received`` and ``sent``: bytes of the bodies (``received`` 0: there was none).
        """
        try:
            template = self.templates.named(scope, status)
            if template is None:
                answers = self._find(self.templates.template(scope, path, status), method, status, error)
            else:
                key = (method, status, template, scope.get("root_path", ""), error)
                known = self._answers.get(key)
                answers = self._remember(key, scope, path) if known is None else known
            answers.duration.record(took)
            if answers.sent is not None:
                answers.sent.record(sent)
            if received:
                if answers.received is None:
                    answers.received = self._size(names.HTTP_REQUEST_SIZE, answers.labels)
                answers.received.record(received)
        except Exception as error:  # noqa: BLE001
            self._complain(error)

    def _remember(self, key: tuple[str, int, str, str, str], scope: Any, path: str) -> Answers:
        method, status, _, _, error = key
        answers = self._find(self.templates.template(scope, path, status), method, status, error)
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

    def _complain(self, error: Exception) -> None:
        """The application's answer matters more than its measurement: one line in the log, and on."""
        if not self._failed:
            self._failed = True
            logger.error("anvil-monitor could not record a request; further failures are not logged", exc_info=error)


def body_length(text: bytes | str | None) -> int:
    """A ``Content-Length`` in bytes; 0 for none, and for what is none."""
    return int(text) if text and len(text) <= MAX_LENGTH_DIGITS and text.isdigit() else 0
