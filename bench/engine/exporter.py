"""As a program (``python -m bench.engine.exporter PORT SERIES``): a server's ``/metrics`` with that many series.

Every answer is the next scrape of the same made-up server, so counters move as fast as they are asked for.
"""

from __future__ import annotations

import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

from bench.engine.data import INTERVAL, Source, make

ROWS = 720
# What a scraper adds itself.
ADDED = {"instance", "job", "service"}
SYNTHETIC = {"up", "scrape_duration_seconds"}
HISTOGRAM = re.compile("(.+_seconds)_(?:bucket|count|sum)")


def texts(source: Source) -> list[str | None]:
    """For each series what stands before its value, the lines about a new metric included; None: left out."""
    told: set[str] = set()
    found: list[str | None] = []
    for labels in source.labels:
        pairs = dict(labels)
        name = pairs.pop("__name__")
        if name in SYNTHETIC:
            found.append(None)
            continue
        histogram = HISTOGRAM.fullmatch(name)
        family = histogram[1] if histogram else name
        kind = "histogram" if histogram else "counter" if name.endswith("_total") else "gauge"
        inner = ",".join(f'{key}="{value}"' for key, value in pairs.items() if key not in ADDED)
        text = f"{name}{{{inner}}} " if inner else f"{name} "
        if family not in told:
            told.add(family)
            text = f"# HELP {family} Made up.\n# TYPE {family} {kind}\n{text}"
        found.append(text)
    return found


def main(port: int, series: int) -> None:
    source = make(series, ROWS * INTERVAL, instances=1).sources[0]
    before, turn = texts(source), count()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            row = source.values[next(turn) % ROWS].tolist()
            lines = [f"{text}{value!r}\n" for text, value in zip(before, row, strict=True) if text]
            body = "".join(lines).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
