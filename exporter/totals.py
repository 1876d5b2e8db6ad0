"""What several pages hold together: the plain way, a dictionary by series. See exposer.py for the fast one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import add
from typing import Final

from . import layout, users
from .layout import Key
from .names import Metric

Records = list[tuple[Key, int, int]]  # (key, first word, number of values)


@dataclass(slots=True)
class Reading:
    """One page as it was read: its records with their values, and whether its worker lives."""

    name: str
    alive: bool
    header: layout.Header
    data: bytes
    records: Records

    @property
    def values(self) -> memoryview[float]:
        """The whole page as numbers."""
        return memoryview(self.data).cast("d")


@dataclass(slots=True)
class Totals:
    """The sum over pages.

    ``lasting``: counters and histograms; ``levels``: gauges of live workers; ``oldest``: ages in seconds; ``metrics``:
    those that names.py does not have; ``edges``: of each histogram as the youngest worker has them; ``pids``: of live
    workers.
    """

    lasting: dict[Key, list[float]] = field(default_factory=dict)
    levels: dict[Key, float] = field(default_factory=dict)
    oldest: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    edges: dict[str, tuple[float, ...]] = field(default_factory=dict)
    pids: tuple[int, ...] = ()
    clients: float = 0.0
    workers: int = 0
    refused: int = 0


LEVELS: Final[dict[str, Callable[[float, float], float]]] = {"gauge": add, "gauge_max": max, "gauge_min": min}


def total(pages: Iterable[Reading], refused: int, now: float) -> Totals:
    """The sum of ``pages``, the youngest last, at ``now`` (seconds of the monotonic clock)."""
    found = Totals(refused=refused)
    lasting, levels = found.lasting, found.levels
    bitmaps = []
    stamps: dict[Key, float] = {}
    pids = set()
    for page in pages:
        if page.alive:
            found.workers += 1
            pids.add(page.header.pid)
        values = page.values
        for key, first, count in page.records:
            if key.kind in layout.LASTING:
                known = lasting.get(key)
                mine = list(values[first : first + count])
                lasting[key] = mine if known is None else list(map(add, known, mine))
                if key.kind == "histogram":
                    found.edges[key.name] = key.edges
            elif key.kind == "metric":
                found.metrics[key.name] = layout.described(key)
            elif not page.alive:
                continue
            elif key.kind == "oldest":
                age = max(0.0, now - values[first]) if values[first] else 0.0
                found.oldest[key.name] = max(found.oldest.get(key.name, 0.0), age)
            elif key.kind == "users":
                bitmaps.append(users.recent(values[first : first + count], now))
            elif key.kind == "gauge_recent":
                if values[first + 1] > stamps.get(key, 0.0):
                    levels[key], stamps[key] = values[first], values[first + 1]
            elif key.kind in LEVELS:
                value = values[first]
                if key.kind == "gauge" or value == value:  # no number: never set
                    levels[key] = LEVELS[key.kind](levels[key], value) if key in levels else value
    found.clients = users.estimate(bitmaps)
    found.pids = tuple(sorted(pids))
    return found
