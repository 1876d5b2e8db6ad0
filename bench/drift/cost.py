"""What the drift rules cost: the shipped targets with a history of 15 days in the store that ``up`` keeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anvil_monitor.alerts.rulefile import Group
from anvil_monitor.monitoring.history.history import History
from anvil_monitor.monitoring.history.joined import HistoryStore
from anvil_monitor.monitoring.promql import Engine
from anvil_monitor.monitoring.rulemanager import GroupState, evaluate
from anvil_monitor.monitoring.samples import Labels, Panel, is_absent
from bench.drift.play import Memory, play

HOUR = 3600
SCRAPED = 5
SERIES_BESIDE = 200
"""Other series in the history, every minute: drift must not pay for its neighbours."""


@dataclass(frozen=True)
class Cost:
    """CPU seconds of one evaluation by group, ``first`` after a start and ``later``; ``share`` of one core."""

    first: dict[str, float]
    later: dict[str, list[float]]
    share: float
    bytes_on_disk: int
    samples: int


def measure(
    groups: tuple[Group, ...],
    memory: Memory,
    start: float,
    end: float,
    folder: Path,
    rounds: int,
    progress: Callable[..., None],
) -> Cost:
    """``memory`` holds what is measured from ``start`` to ``end`` (s): what the rules make of it is recorded, written
    as hourly blocks, and then the rules are evaluated on it for ``rounds`` minutes as ``up`` does it."""
    progress("cost: 15 days of history")
    given = memory.targets
    play(groups, memory, start, end)
    clock = [end]
    last = int(end) // HOUR * HOUR
    history = History(folder, 16 * 86_400.0, 5e9, lambda: clock[0])
    for hour in range(int(start) // HOUR * HOUR, last, HOUR):
        panels = memory.between(hour * 1000, (hour + HOUR) * 1000 - 1)
        history.seal(hour * 1000, [*panels, _beside(hour)])
    store = HistoryStore(history, clock=lambda: clock[0])
    for at, batch in _batches(memory.between(last * 1000, round(end * 1000))):
        store.append(at, batch)
    now = [
        (labels, value)
        for labels, value in batch
        if (dict(labels)["__name__"], dict(labels).get("target", "")) in given
    ]
    engine = Engine(store)
    states = [GroupState.of(group) for group in groups]
    first: dict[str, float] = {}
    later: dict[str, list[float]] = {group.name: [] for group in groups}
    for turn in range(rounds):
        progress("cost: evaluations", turn + 1, rounds)
        clock[0] += 60.0
        for second in range(0, 60, SCRAPED):
            store.append(round((clock[0] - 60 + SCRAPED + second) * 1000), now)
        for group, state in zip(groups, states, strict=True):
            if turn % round(group.interval / 60):
                continue
            begin = time.process_time()
            evaluate(group, state, clock[0], engine.instant, store.append, lambda text, *_: text)
            spent = time.process_time() - begin
            if first.setdefault(group.name, spent) != spent:
                later[group.name].append(spent)
            if errors := [rule.error for rule in state.rules if rule.health == "err"]:
                raise SystemExit(f"bench: {group.name}: {errors[0]}")
        store.maintain()
    share = sum(float(np.median(later[group.name])) / group.interval for group in groups)
    found = Cost(first, later, share, history.size, history.blocks.samples)
    history.close()
    return found


def _batches(panels: list[Panel]) -> list[tuple[int, list[tuple[Labels, float]]]]:
    """Samples in the order of their times."""
    found: dict[int, list[tuple[Labels, float]]] = {}
    for panel in panels:
        for row, at in enumerate(panel.times.tolist()):
            there = ~is_absent(panel.values[row])
            values = panel.values[row].tolist()
            batch = found.setdefault(at, [])
            batch += [(one, values[column]) for column, one in enumerate(panel.labels) if there[column]]
    return sorted(found.items())


def _beside(hour: int) -> Panel:
    labels = tuple((("__name__", f"other_{number:03d}"), ("service", "app")) for number in range(SERIES_BESIDE))
    times = np.arange(hour * 1000, (hour + HOUR) * 1000, 60_000, dtype=np.int64)
    rng = np.random.default_rng(hour)
    return Panel(labels, times, rng.standard_normal((len(times), SERIES_BESIDE)).round(3))
