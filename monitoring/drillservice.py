"""The service of a drill: a metrics endpoint in this process whose numbers keep the target, or miss it when told to."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from anvil_monitor.exporter.exposition import CONTENT_TYPE
from anvil_monitor.targets import Target

from .drillnumbers import Numbers, numbers_of


@dataclass(slots=True)
class Instrument:
    """The metrics of ``targets``: ``missed`` turns good values into bad ones; they grow with each exposition.

    ``step``: seconds from one scrape to the next. Raises :class:`~.drillnumbers.CannotDrillError`.
    """

    targets: tuple[Target, ...]
    step: float
    missed: bool = False
    scrapes: int = 0
    _numbers: list[Numbers] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._numbers = [numbers_of(target, self.targets, self.step) for target in self.targets]

    def text(self) -> str:
        """The exposition, after another scrape's worth of requests."""
        with self._lock:
            self.scrapes += 1
            lines = [line for each in self._numbers for line in each.lines(self.missed)]
        return "\n".join(lines) + "\n"


@contextlib.contextmanager
def served(instrument: Instrument, received: list[bytes]) -> Iterator[str]:
    """The URL of ``instrument`` on loopback; what is posted there (a drill that tells nobody) lands in ``received``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(instrument.text().encode() if self.path == "/metrics" else b"a drill\n")

        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
