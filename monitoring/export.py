"""``anvil-monitor export``: the history as OpenMetrics text, for the day on which a real Prometheus takes over.

``promtool tsdb create-blocks-from openmetrics FILE DIR`` makes blocks of it that any Prometheus, Thanos or Mimir takes.
It is read through the API, so it comes from a monitor that runs, and from any Prometheus. Stale markers are no part of
the format: a series that ended just has no further samples.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from anvil_monitor.exporter.exposition import label_text

from .remote import Remote

# Seconds that one request asks for: a bounded answer, whatever the length of the history.
CHUNK: Final = 3600
PLAIN: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


@dataclass(slots=True)
class Written:
    """What an export holds."""

    series: int = 0
    samples: int = 0


def export(remote: Remote, path: Path, since: float, until: float) -> Written:
    """Write the samples with ``since < t <= until`` (Unix seconds) to ``path``, which appears when it is whole.

    Raises :class:`RemoteError` and ``OSError``.
    """
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", encoding="utf-8", delete=False
    ) as file:
        try:
            written = write(remote, file, since, until)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    return written


def write(remote: Remote, file: IO[str], since: float, until: float) -> Written:
    """As :func:`export`, to a file that is open."""
    written = Written()
    for name, ends in sorted(_held(remote, since, until).items()):
        seen: dict[str, float] = {}
        for end in ends:
            for lines in _chunk(remote, name, since, end, seen):
                written.samples += len(lines)
                file.writelines(lines)
        written.series += len(seen)
    file.write("# EOF\n")
    return written


def _held(remote: Remote, since: float, until: float) -> dict[str, list[float]]:
    """By metric, the ends of the chunks that have samples of it."""
    held: dict[str, list[float]] = {}
    for number in range(math.ceil((until - since) / CHUNK)):
        end = min(since + (number + 1) * CHUNK, until)
        for name in remote.data("label/__name__/values", start=f"{end - CHUNK:.3f}", end=f"{end:.3f}"):
            if PLAIN.fullmatch(name):
                held.setdefault(name, []).append(end)
    return held


def _chunk(remote: Remote, name: str, since: float, end: float, seen: dict[str, float]) -> Iterator[list[str]]:
    """The lines of one metric up to ``end``, series by series; ``seen`` keeps each series' last time."""
    query = f'{{__name__="{name}"}}[{CHUNK}s]'
    for one in remote.data("query", query=query, time=f"{end:.3f}")["result"]:
        labels = tuple((key, value) for key, value in one["metric"].items() if key != "__name__")
        series = f"{name}{label_text(labels)}"
        last = seen.get(series, since)
        points = [(at, value) for at, value in one["values"] if at > last]  # both ends of a chunk, in Prometheus 2
        if points:
            seen[series] = points[-1][0]
            yield [f"{series} {value} {at:.3f}\n" for at, value in points]
