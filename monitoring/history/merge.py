"""Panels of several hours as one: each series ends up in one panel, with all its samples.

What one source appended hour after hour has the same label sets, or nearly, and becomes one panel over all hours. Where
that would be mostly empty (series come and go) or is not possible, series that appear in the same hours become one.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from ..samples import ABSENT, Floats, Integers, Labels, Panel, as_slice

SPARSE = 2
"""Cells that a joined panel may have for each cell of its parts."""
PLANS = 64


class Part(Protocol):
    """Some series over some rows, at least one of each. The values are only read when they are asked for."""

    @property
    def labels(self) -> tuple[Labels, ...]: ...
    @property
    def times(self) -> Integers: ...
    def fill(self, target: Floats) -> None:
        """Write the values into an array [time, series]."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A panel that is in memory, as a part."""

    panel: Panel

    @property
    def labels(self) -> tuple[Labels, ...]:
        return self.panel.labels

    @property
    def times(self) -> Integers:
        return self.panel.times

    def fill(self, target: Floats) -> None:
        target[:] = self.panel.values


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """Parts (by their place) that share series, and the series of them all with the columns of each part."""

    parts: tuple[int, ...]
    labels: tuple[Labels, ...]
    columns: tuple[Integers | slice | None, ...]


class Merger:
    """Joins parts. How parts of certain label sets are joined is remembered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The label sets are kept with their plans, so that their ids are not those of others.
        self._plans: dict[tuple[int, ...], tuple[object, list[_Plan]]] = {}

    def merge(self, parts: Sequence[Part]) -> list[Panel]:
        """Panels in which each series appears once. No two parts have samples of one series at the same time."""
        if not parts:
            return []
        parts = sorted(parts, key=lambda one: int(one.times[0]))
        key = tuple([id(part.labels) for part in parts])
        with self._lock:
            known = self._plans.get(key)
        if known is None:
            known = [part.labels for part in parts], _plans([part.labels for part in parts])
            with self._lock:
                if len(self._plans) >= PLANS:
                    self._plans.clear()
                self._plans[key] = known
        found: list[Panel] = []
        for plan in known[1]:
            own = [parts[place] for place in plan.parts]
            if len(own) == 1 and isinstance(own[0], Held):
                found.append(own[0].panel)
            elif len(own) == 1 or (_in_turn(own) and _dense(own, plan)):
                found.append(_joined(own, plan))
            else:
                found += _by_presence(own)
        return found


def _plans(label_sets: Sequence[tuple[Labels, ...]]) -> list[_Plan]:
    """Parts that share a series, directly or through others, belong together."""
    distinct: dict[int, list[int]] = defaultdict(list)
    for place, labels in enumerate(label_sets):
        distinct[id(labels)].append(place)
    parent = list(range(len(label_sets)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = place = parent[parent[place]]
        return place

    owner: dict[Labels, int] = {}
    for places in distinct.values():
        for place in places[1:]:
            parent[place] = places[0]
        for one in label_sets[places[0]]:
            other = owner.setdefault(one, places[0])
            if other != places[0]:
                parent[root(places[0])] = root(other)
    together: dict[int, list[int]] = defaultdict(list)
    for place in range(len(label_sets)):
        together[root(place)].append(place)
    found = []
    for places in together.values():
        whole = max((label_sets[place] for place in places), key=len)
        column = {one: number for number, one in enumerate(whole)}
        for place in places:
            for one in label_sets[place]:
                column.setdefault(one, len(column))
        labels = whole if len(column) == len(whole) else tuple(column)
        known: dict[int, Integers | slice | None] = {}
        for place in places:
            own = label_sets[place]
            if id(own) not in known:
                at = np.array([column[one] for one in own], dtype=np.int64)
                same = len(at) == len(labels) and bool((at == np.arange(len(at))).all())
                known[id(own)] = None if same else as_slice(at)
        found.append(_Plan(tuple(places), labels, tuple([known[id(label_sets[place])] for place in places])))
    return found


def _in_turn(parts: Sequence[Part]) -> bool:
    return all(one.times[-1] < other.times[0] for one, other in pairwise(parts))


def _dense(parts: Sequence[Part], plan: _Plan) -> bool:
    rows = sum(len(part.times) for part in parts)
    cells = sum(len(part.times) * len(part.labels) for part in parts)
    return rows * len(plan.labels) <= SPARSE * cells


def _joined(parts: Sequence[Part], plan: _Plan) -> Panel:
    values = np.empty((sum(len(part.times) for part in parts), len(plan.labels)))
    at = 0
    for part, columns in zip(parts, plan.columns, strict=True):
        target = values[at : at + len(part.times)]
        if columns is None:
            part.fill(target)
        else:
            if len(part.labels) < len(plan.labels):
                target[:] = ABSENT
            own = np.empty((len(part.times), len(part.labels)))
            part.fill(own)
            target[:, columns] = own
        at += len(part.times)
    times = parts[0].times if len(parts) == 1 else np.concatenate([part.times for part in parts])
    return Panel(plan.labels, times, values)


def _by_presence(parts: Sequence[Part]) -> list[Panel]:
    """Series that are in the same parts become one panel."""
    places: dict[Labels, list[tuple[int, int]]] = defaultdict(list)
    for number, part in enumerate(parts):
        for column, labels in enumerate(part.labels):
            places[labels].append((number, column))
    groups: dict[tuple[int, ...], list[Labels]] = defaultdict(list)
    for labels, where in places.items():
        groups[tuple([number for number, _ in where])].append(labels)
    read = []
    for part in parts:
        values = np.empty((len(part.times), len(part.labels)))
        part.fill(values)
        read.append(values)
    found = []
    for numbers, members in groups.items():
        # For each part the columns of the members.
        columns = np.array([[column for _, column in places[labels]] for labels in members], dtype=np.int64).T
        values = np.concatenate([read[number][:, own] for number, own in zip(numbers, columns, strict=True)])
        times = np.concatenate([parts[number].times for number in numbers])
        found.append(Panel(tuple(members), times, values))
    return found
