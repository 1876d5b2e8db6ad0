"""Bytes of a sample on disk: our hourly blocks, and a snapshot of Prometheus, which writes its head out, too."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from anvil_monitor.monitoring.samples import Panel
from bench.engine import server
from bench.engine.data import Data, Source, make

HOUR = 3_600_000
BLOCK = "anvil_monitor.monitoring.history.block"


def encoder() -> Callable[[Sequence[Panel]], bytes] | None:
    """What makes a block of our history on disk; None where this version keeps none."""
    try:
        module: Any = importlib.import_module(BLOCK)
    except ModuleNotFoundError:
        return None
    encode: Callable[[Sequence[Panel]], bytes] = module.encode
    return encode


def counters(data: Data) -> Data:
    """Only the histograms' counters (buckets and counts), which are whole numbers."""
    return replace(data, sources=tuple(_counters(source) for source in data.sources[:-1]))


def _counters(source: Source) -> Source:
    names = [dict(labels)["__name__"] for labels in source.labels]
    places = [at for at, name in enumerate(names) if name.endswith(("_bucket", "_seconds_count"))]
    labels = tuple(source.labels[at] for at in places)
    return Source(labels, source.times, np.ascontiguousarray(source.values[:, places]))


def measure(
    size: tuple[int, int], folder: Path, pin: list[str], progress: Callable[..., None]
) -> dict[str, tuple[float | None, float]]:
    """Bytes a sample of (ours, theirs) by what is kept."""
    mixed, encode = make(*size), encoder()
    found: dict[str, tuple[float | None, float]] = {}
    for number, (name, data) in enumerate(
        {"histogram counters": counters(mixed), "all that servers and rules give": mixed}.items()
    ):
        progress(f"bytes a sample: {name}")
        mine = sum(len(encode(hour)) for hour in _hours(data)) / data.samples if encode else None
        with server.prometheus(folder / f"disk{number}", pin) as theirs:
            server.fill(theirs, data)
            theirs.settle()
            theirs.fetch("POST", "/api/v1/admin/tsdb/snapshot")
            snapshots = folder / f"disk{number}" / "data" / "snapshots"
            size_there = sum(path.stat().st_size for path in snapshots.rglob("*") if path.is_file())
        found[name] = mine, size_there / data.samples
    return found


def _hours(data: Data) -> Iterator[list[Panel]]:
    for begin in range(data.start * 1000, data.end * 1000, HOUR):
        panels = []
        for source in data.sources:
            low, high = np.searchsorted(source.times, [begin, begin + HOUR]).tolist()
            if low < high:
                panels.append(Panel(source.labels, source.times[low:high], source.values[low:high]))
        yield panels
