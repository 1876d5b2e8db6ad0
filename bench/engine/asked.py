"""The sixteen queries, asked of both in turn: CPU of each process by the kernel's count, and whether they agree."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.engine import compare, queries, server
from bench.engine.data import make

STEP = 15
# Seconds that steps lie beside the whole minutes of a subquery: a point on a bound counts in one of the two only.
BESIDE = 7


@dataclass
class Asked:
    """``theirs``, ``ours``: CPU seconds of one question over HTTP, a round each; ``inside``: ours without HTTP.

    ``first``: ours when asked for the first time. ``apart``: the largest relative difference of two values.
    """

    name: str
    path: str
    query: str
    theirs: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    first: float = 0.0
    apart: float = 0.0
    points: int = 0

    def parameters(self, start: int, end: int, turn: int) -> dict[str, str]:
        if self.path == "query":
            return {"query": self.query, "time": str(end - 1 - STEP * turn)}
        return {"query": self.query, "start": str(start + BESIDE), "end": str(end), "step": str(STEP)}


@dataclass(frozen=True)
class Measured:
    """``written``, ``appended``: CPU milliseconds to take in 1,000 samples, theirs (remote write) and ours (append)."""

    asked: tuple[Asked, ...]
    series: int
    seconds: int
    written: float
    appended: float

    @property
    def wrong(self) -> list[str]:
        return [f"{one.name}: they differ by {one.apart:.2g}" for one in self.asked if not one.apart <= compare.WITHIN]


def measure(
    size: tuple[int, int], rounds: int, turns: int, folder: Path, pin: list[str], progress: Callable[..., None]
) -> Measured:
    """``size``: series and seconds. ``turns``: how often an instant query is asked in one round."""
    asked = [Asked(name, "query_range", query) for name, query in queries.RANGES.items()]
    asked += [Asked(name, "query", query) for name, query in queries.instants().items()]
    what = f"{size[0]:,} series x {size[1] / 3600:g} h"
    progress(f"{what}: making the samples, filling anvil-monitor")
    data = make(*size)
    with server.ours(folder, size, pin) as ours, server.prometheus(folder / "prometheus", pin) as theirs:
        loaded = ours.json("/loaded")
        if loaded["samples"] != data.samples:
            raise SystemExit(f"bench: {loaded['samples']} of {data.samples} samples were taken in")
        progress(f"{what}: filling Prometheus")
        written = server.fill(theirs, data)
        theirs.settle()
        for one in asked:
            progress(f"{what}: comparing {one.name}")
            _compare(one, ours, theirs, data.start, data.end)
        for turn in range(rounds):
            for number, one in enumerate(asked):
                progress(f"{what}: queries", turn * len(asked) + number + 1, rounds * len(asked))
                times = turns if one.path == "query" else 1
                parameters = one.parameters(data.start, data.end, turn)
                one.theirs.append(theirs.ask(f"/api/v1/{one.path}", parameters, times)[1])
                one.ours.append(ours.ask(f"/api/v1/{one.path}", parameters, times)[1])
                inside = [float(ours.ask(f"/inside/{one.path}", parameters)[0]) for _ in range(times)]
                one.inside.append(math.fsum(inside) / times)
    per = 1e6 / data.samples
    return Measured(tuple(asked), data.series, size[1], written * per, loaded["seconds"] * per)


@dataclass
class Kept:
    """The quantile over a history that is mostly on disk, CPU seconds: asked ``first`` after the start, and ``again``.

    ``appended``: CPU milliseconds for 1,000 samples, log and sealed hours included. ``apart`` from memory.
    """

    first: float
    again: list[float]
    appended: float
    apart: float


def measure_kept(
    size: tuple[int, int], rounds: int, folder: Path, pin: list[str], progress: Callable[..., None]
) -> Kept:
    what = f"{size[0]:,} series x {size[1] / 3600:g} h, history on disk"
    one = Asked(queries.QUANTILE, "query_range", queries.RANGES[queries.QUANTILE])
    progress(f"{what}: filling")
    data = make(*size)
    parameters = one.parameters(data.start, data.end, 0)
    folder.mkdir(parents=True, exist_ok=True)
    with server.ours(folder, size, pin, folder / "history") as kept, server.ours(folder, size, pin) as memory:
        loaded = kept.json("/loaded")
        body, first = kept.ask("/api/v1/query_range", parameters)
        again = []
        for turn in range(rounds):
            progress(what, turn + 1, rounds)
            again.append(kept.ask("/api/v1/query_range", parameters)[1])
        same = memory.ask("/api/v1/query_range", parameters)[0]
    apart = compare.difference(compare.read(body), compare.read(same))
    return Kept(first, again, loaded["seconds"] / data.samples * 1e6, apart)


def _compare(one: Asked, ours: server.Server, theirs: server.Server, start: int, end: int) -> None:
    for turn in range(3 if one.path == "query" else 1):
        parameters = one.parameters(start, end, turn)
        body, took = ours.ask(f"/api/v1/{one.path}", parameters)
        one.first = one.first or took
        mine = compare.read(body)
        other = compare.read(theirs.ask(f"/api/v1/{one.path}", parameters)[0])
        one.points += sum(map(len, mine.values()))
        one.apart = max(one.apart, compare.difference(mine, other))
