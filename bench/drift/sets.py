"""Which worlds are judged, and how: what was found when, and what was told for nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from anvil_monitor.alerts.drift import drift_groups
from anvil_monitor.alerts.rulefile import Group
from anvil_monitor.monitoring.samples import ABSENT, Floats, Labels
from anvil_monitor.targets.load import parse
from bench.drift import worlds
from bench.drift.play import Firing, Memory, play, widened
from bench.drift.worlds import MINUTES, World

START = 1_767_225_600.0
"""Of every world: a midnight, in Unix seconds."""
TOGETHER = 40
"""Worlds that are played at once."""
WEEK = 7 * MINUTES
TARGETS = {"p95": "api_response_time", "mean": "db_query_time", "users": "concurrent_users", "memory": "memory"}
SIGNALS = {
    "p95": ("latency", "up"),
    "mean": ("latency", "up"),
    "users": ("traffic", "both"),
    "memory": ("memory", "up"),
}
UNITS = {"p95": "seconds", "mean": "seconds", "users": "users", "memory": "bytes"}
MEMORY_LIMIT = 500e6


@dataclass(frozen=True)
class Judged:
    """What was said of one world. Minutes: ``delay`` from the start of its drift on (None: not found), ``told`` the
    beginnings and ends of alerts that began after it; ``false`` alarms in ``weeks`` without a drift."""

    world: World
    delay: float | None
    told: tuple[tuple[float, float], ...]
    false: int
    weeks: float


def rules() -> tuple[Group, ...]:
    """The drift rules of the shipped targets, of one service."""
    return drift_groups(parse(""))


def judge(some: Sequence[World], progress: Callable[..., None], what: str) -> list[Judged]:
    """Play ``some`` worlds, in which those of one length are next to each other."""
    groups, found = widened(rules(), "app"), []
    for days in sorted({world.days for world in some}):
        alike = [world for world in some if world.days == days]
        for begin in range(0, len(alike), TOGETHER):
            progress(what, begin + 1, len(alike))
            batch = alike[begin : begin + TOGETHER]
            memory = Memory()
            for number, world in enumerate(batch):
                fill(memory, world, f"w{number}")
            firing = play(groups, memory, START, START + 60 * (days * MINUTES - 1))
            for number, world in enumerate(batch):
                found.append(verdict_of(world, [one for one in firing if one.service == f"w{number}"]))
    return found


def fill(memory: Memory, world: World, service: str, target: str = "") -> None:
    """What is measured in ``world``, as ``target`` or the one that has such a signal."""
    values = worlds.made(world)
    times = round(START * 1000) + 60_000 * np.arange(len(values), dtype=np.int64)
    labels: Labels = (
        ("service", service), ("target", target or TARGETS[world.signal]), ("unit", UNITS[world.signal]),
    )  # fmt: skip
    kind, side = SIGNALS[world.signal]
    there = np.where(np.isnan(values), ABSENT, values)[:, None]
    allowed = limit(world, values)
    if world.signal == "memory":
        memory.add("target:value", times, [labels], there)
        memory.add("process_uptime_seconds", times, [labels[:1]], worlds.uptime(world)[:, None])
    else:
        memory.add("drift:signal", times, [(*labels, ("class", kind), ("side", side))], there)
    memory.add("target:limit", times, [labels], np.full((len(values), 1), allowed))


def limit(world: World, values: Floats) -> float:
    """Twice the level before any drift: what matters against it is then about what matters of the level itself."""
    usual = values[: world.start] if world.drifts and world.start else values
    return MEMORY_LIMIT if world.signal == "memory" else 2 * float(np.nanmedian(usual))


def verdict_of(world: World, firing: Iterable[Firing]) -> Judged:
    spans = sorted(((one.since - START) / 60, (one.until - START) / 60) for one in firing)
    if not world.drifts:
        return Judged(world, None, (), len(spans), world.days / 7)
    told = tuple((low - world.start, high - world.start) for low, high in spans if low >= world.start)
    return Judged(world, told[0][0] if told else None, told, len(spans) - len(told), world.start / WEEK)


def middle(some: Iterable[Judged]) -> float | None:
    """The median delay of those that were found."""
    found = [one.delay for one in some if one.delay is not None]
    return median(found) if found else None


def drifts(of: int) -> dict[str, list[World]]:
    """Steps, ramps and more users, ``of`` each: after 8 to 11 days of quiet, in every hour of the day."""
    made: dict[str, list[World]] = {}
    seed = 10_000
    for size in (0.3, 0.6, 1.0):
        made[f"+{size:.0%}, at once"] = [World("step", "", 0, grows=size)] * of
    for size in (0.3, 0.6, 1.0):
        made[f"+{size:.0%}, over 6 h"] = [World("ramp", "", 0, grows=size, ramp=360)] * of
    for size in (0.5, 1.0):
        made[f"users +{size:.0%}, at once"] = [World("users", "users", 0, grows=size)] * (of // 2)
    for name, each in made.items():
        for number, world in enumerate(each):
            seed += 1
            signal = world.signal or ("p95", "mean")[number % 2]
            begin = 8 * MINUTES + seed * 317 % (3 * MINUTES)
            each[number] = replace(world, signal=signal, seed=seed, start=begin)
        made[name] = each
    return made


def quiet(of: int) -> dict[str, list[World]]:
    """Worlds without a drift: seasons, bursts and nightly jobs, little traffic, gaps and restarts."""
    made = {
        "a season of the day": _several(World("daily", "", 20_000), 2 * of),
        "seasons of the day and the week, 28 days": _several(World("weekly", "", 21_000, days=28, weekly=0.4), 2 * of),
        "bursts and a nightly job": _several(World("bursts", "", 22_000, bursts=3, nightly=0.8), of),
        "little traffic (0.02 and 0.005 a second)": [
            replace(world, rate=(0.02, 0.005)[number // 2 % 2])
            for number, world in enumerate(_several(World("little", "", 23_000), of))
        ],
        "gaps of 10 to 90 minutes": _several(World("gaps", "", 24_000, gaps=1.5), of),
        "users, seasons of the day and the week, 28 days": [
            replace(world, signal="users") for world in _several(World("users", "", 25_000, days=28, weekly=0.4), of)
        ],
    }
    return made


def leaks(of: int) -> dict[str, list[World]]:
    """Five kinds of memory, each without a leak and with one of 5, 20 and 80 MB an hour."""
    kinds: tuple[dict[str, Any], ...] = (
        {},
        {"swing": 24e6, "collected": 80e6},
        {"warm_up": 80e6, "restarts": 14},
        {"gaps": 1.5, "restarts": 3},
        {"swing": 24e6, "warm_up": 40e6, "restarts": 6, "gaps": 0.5},
    )
    made: dict[str, list[World]] = {}
    seed = 30_000
    for rate in (0, 5, 20, 80):
        each = []
        for number in range(of):
            seed += 1
            begin = 8 * MINUTES + seed * 317 % (3 * MINUTES) if rate else 0
            each.append(World("memory", "memory", seed, start=begin, leak=rate * 1e6, **kinds[number % len(kinds)]))
        made[f"{rate} MB an hour"] = each
    return made


def deploys(of: int) -> list[World]:
    """A new normal: 40 % more from some moment on, for good."""
    some = _several(World("deploy", "", 40_000, grows=0.4), of)
    return [replace(world, start=8 * MINUTES + world.seed * 317 % (3 * MINUTES)) for world in some]


def _several(world: World, of: int) -> list[World]:
    return [replace(world, signal=("p95", "mean")[number % 2], seed=world.seed + number) for number in range(of)]
