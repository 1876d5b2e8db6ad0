"""The service of a drill: a metrics endpoint in this process whose numbers keep the target, or miss it when told to."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from anvil_monitor.exporter.exposition import CONTENT_TYPE
from anvil_monitor.targets import Capacity, Direction, Level, Mean, Percentile, Target

# So many times the limit is what a miss measures: a mean over the window is over the limit with the first bad scrape.
FAR: Final = 10.0
# Requests, queries or page loads that each scrape finds: at least, and so many times the target's floor.
LEAST: Final = 100
OVER_FLOOR: Final = 2
BREAKABLE: Final = (Percentile, Mean, Level, Capacity)


class CannotDrillError(Exception):
    """Why a target cannot be missed on purpose."""


@dataclass(slots=True)
class Instrument:
    """The metrics of ``targets``: ``missed`` turns good values into bad ones; they grow with each exposition."""

    targets: Sequence[Target]
    missed: bool = False
    scrapes: int = 0
    _histograms: dict[str, _Histogram] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        for target in self.targets:
            kind = type(target.indicator)
            if kind not in BREAKABLE:
                what = f"{target.name} is a {kind.__name__.lower()}, which a drill cannot break; choose another target"
                raise CannotDrillError(what)
            if isinstance(target.indicator, Percentile | Mean):
                limits = [each.limit for each in self.targets if _metric(each) == _metric(target)]
                self._histograms[_metric(target)] = _Histogram(min(limits), max(limits), max(
                    LEAST, *(OVER_FLOOR * each.floor for each in self.targets)))  # fmt: skip

    def text(self) -> str:
        """The exposition, after another scrape's worth of requests."""
        with self._lock:
            self.scrapes += 1
            lines = []
            for name, histogram in self._histograms.items():
                histogram.record(self.missed)
                lines += histogram.lines(name)
            for target in self.targets:
                if isinstance(target.indicator, Level | Capacity):
                    lines.append(f"{_metric(target)} {_level(target, self.missed)!r}")
        return "\n".join(dict.fromkeys(lines)) + "\n"


def _metric(target: Target) -> str:
    return target.indicator.metric


def _level(target: Target, missed: bool) -> float:
    """A gauge. Of users there are fewer than promised in any case: it is the other target that breaks."""
    if isinstance(target.indicator, Capacity):
        return max(1.0, target.limit // 2)
    good, bad = (0.5, FAR) if target.direction is Direction.BELOW else (2.0, 1 / FAR)
    return target.limit * (bad if missed else good)


@dataclass(slots=True)
class _Histogram:
    low: float
    high: float
    count: int
    good: int = 0
    bad: int = 0

    def record(self, missed: bool) -> None:
        if missed:
            self.bad += self.count
        else:
            self.good += self.count

    def lines(self, name: str) -> list[str]:
        total = self.good + self.bad
        edges = sorted({self.low / 2, self.low, self.high, self.high * FAR})
        buckets = [f'{name}_bucket{{le="{edge!r}"}} {self.good if edge <= self.high else total}' for edge in edges]
        whole = self.good * self.low / 2 + self.bad * self.high * FAR
        return [*buckets, f'{name}_bucket{{le="+Inf"}} {total}', f"{name}_sum {whole!r}", f"{name}_count {total}"]


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
