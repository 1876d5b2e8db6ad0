"""Does the service answer, seen from outside: one GET of its URL at each collection."""

from __future__ import annotations

import http.client
import threading
import time
from urllib.parse import urlsplit

from anvil_monitor.targets import Service

from . import names
from .exposition import Family, Sample


class Probe:
    """Asks one service; not thread-safe.

    A service that hangs delays a collection by ``patience`` seconds at most, and is asked again only when the question
    before has ended.
    """

    def __init__(self, service: Service, *, patience: float = 1.0, timeout: float = 10.0) -> None:
        self.service = service
        self._patience, self._timeout = patience, timeout
        self._running: threading.Thread | None = None
        self._began = 0.0
        self._answer = (False, 0.0)

    def start(self) -> None:
        """Ask, in a thread of its own; :meth:`collect` has the answer."""
        if self._running is None or not self._running.is_alive():
            self._began = time.monotonic()
            self._running = threading.Thread(target=self._ask, name=f"probe {self.service.name}", daemon=True)
            self._running.start()

    def collect(self) -> list[Family]:
        """``probe_success`` (1: an answer below 500 within the patience) and ``probe_duration_seconds``."""
        running = self._running
        if running is not None:
            running.join(max(0.0, self._began + self._patience - time.monotonic()))
        if running is None or running.is_alive():
            success, took = False, time.monotonic() - self._began
        else:
            success, took = self._answer
        labels = (("service", self.service.name), ("url", self.service.url))
        return [
            Family(names.PROBE_SUCCESS, [Sample("", labels, float(success))]),
            Family(names.PROBE_DURATION, [Sample("", labels, took)]),
        ]

    def _ask(self) -> None:
        parts = urlsplit(self.service.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        began, success = time.monotonic(), False
        connection = kind(parts.hostname or "", parts.port, timeout=self._timeout)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            # By this name an instrumented server knows that the request is no traffic.
            connection.request("GET", path, headers={"User-Agent": names.PROBE_AGENT, "Connection": "close"})
            success = connection.getresponse().status < 500
        except (OSError, http.client.HTTPException, ValueError):
            pass
        finally:
            connection.close()
            self._answer = success, time.monotonic() - began
