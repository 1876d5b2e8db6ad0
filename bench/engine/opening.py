"""How long a history takes to open: hourly blocks as they lie on disk after days of running."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from anvil_monitor.monitoring.history.history import History
from anvil_monitor.monitoring.history.joined import HistoryStore
from anvil_monitor.monitoring.samples import Panel
from bench.engine.data import make

HOUR = 3600


@dataclass(frozen=True)
class Opened:
    """``seconds``: from the folder to a store that answers, each time anew."""

    hours: int
    series: int
    size: int
    seconds: list[float]


def measure(series: int, hours: int, rounds: int, folder: Path, progress: Callable[..., None]) -> Opened:
    """One hour's samples, written as the blocks of ``hours``, and opened ``rounds`` times. The page cache is warm."""
    data = make(series, HOUR)
    end = data.start + hours * HOUR

    def history() -> History:
        return History(folder, 2 * hours * HOUR, 1e12, lambda: end)

    written = history()
    for hour in range(hours):
        progress("opening: writing hours", hour + 1, hours)
        later = hour * HOUR * 1000
        written.seal(
            data.start * 1000 + later, [Panel(one.labels, one.times + later, one.values) for one in data.sources]
        )
    written.close()
    taken = []
    for turn in range(rounds):
        progress("opening", turn + 1, rounds)
        begin = time.perf_counter()
        opened = history()
        found = len(HistoryStore(opened, clock=lambda: end).series((), 0, end * 1000))
        taken.append(time.perf_counter() - begin)
        size = opened.size
        opened.close()
        if found != data.series or opened.blocks.damaged:
            raise SystemExit(
                f"bench: {found} of {data.series} series came back, {opened.blocks.damaged} blocks damaged"
            )
    return Opened(hours, data.series, size, taken)
