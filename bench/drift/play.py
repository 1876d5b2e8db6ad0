"""The drift rules as they are shipped, played over weeks of many series at once.

Each expression is asked of our PromQL engine as one range query over all series, in the order in which the rules rest
on each other; what it gives is recorded, with the end of every series marked, as the rule manager does it. A rule that
reads itself at an offset is asked in pieces no longer than that offset. tests/house/test_bench_drift.py holds this
against the rule manager itself, step by step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from anvil_monitor.alerts.rulefile import Alerting, Group, Recording
from anvil_monitor.alerts.yamltext import parse_duration
from anvil_monitor.monitoring.promql import Engine
from anvil_monitor.monitoring.samples import (
    ABSENT,
    STALE_NAN,
    Booleans,
    Floats,
    Integers,
    Labels,
    Matcher,
    Panel,
    is_absent,
    matches,
)

PIECE = 2_880
"""Steps of one query: what lies between has to fit into memory."""
SERIES = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*:[a-zA-Z0-9_:]+|ALERTS\b")
OFFSET = re.compile(r"\boffset (\w+)")


@dataclass
class _Kept:
    """All series of one name: a column each, a row for every step."""

    times: Integers
    labels: tuple[Labels, ...]
    values: Floats
    chosen: dict[tuple[Matcher, ...], tuple[tuple[Labels, ...], Integers]] = field(default_factory=dict)

    def choose(self, matchers: tuple[Matcher, ...]) -> tuple[tuple[Labels, ...], Integers]:
        if matchers not in self.chosen:
            columns = [at for at, labels in enumerate(self.labels) if matches(labels, matchers)]
            self.chosen[matchers] = tuple(self.labels[at] for at in columns), np.array(columns, dtype=np.int64)
        return self.chosen[matchers]

    def add(self, rows: slice, labels: Sequence[Labels], values: Floats) -> None:
        known = {one: at for at, one in enumerate(self.labels)}
        new = tuple(one for one in labels if one not in known)
        if new:
            self.values = np.hstack([self.values, np.full((len(self.times), len(new)), ABSENT)])
            self.labels += new
            known |= {one: at + len(known) for at, one in enumerate(new)}
            self.chosen.clear()
        for one, column in zip(labels, values.T, strict=True):
            there = ~is_absent(column)
            self.values[rows, known[one]][there] = column[there]

    def end_series(self) -> None:
        """A stale marker after the last sample of each run."""
        gone = is_absent(self.values)
        ends = gone[1:] & ~gone[:-1]
        self.values[1:][ends] = STALE_NAN


class Memory:
    """A storage for the engine, in which a series' samples lie on one grid of times."""

    def __init__(self) -> None:
        self._kept: dict[str, list[_Kept]] = {}

    @property
    def targets(self) -> set[tuple[str, str]]:
        """Names of series, and of which targets they are."""
        found = {(name, labels) for name, each in self._kept.items() for kept in each for labels in kept.labels}
        return {(name, dict(labels).get("target", "")) for name, labels in found}

    def add(self, name: str, times: Integers, labels: Iterable[Labels] = (), values: Floats | None = None) -> _Kept:
        named = tuple(tuple(sorted((*one, ("__name__", name)))) for one in labels)
        kept = _Kept(times, named, np.empty((len(times), 0)) if values is None else values)
        self._kept.setdefault(name, []).append(kept)
        return kept

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[Panel]:
        name = next(each.value for each in matchers if each.name == "__name__")
        found = []
        for kept in self._kept.get(name, ()):
            labels, columns = kept.choose(tuple(matchers))
            low, high = np.searchsorted(kept.times, [start_ms, end_ms + 1]).tolist()
            values = kept.values[low:high, columns]
            there: Booleans = ~np.asarray(is_absent(values).all(axis=0))
            if there.all() and len(labels):
                found.append(Panel(labels, kept.times[low:high], values))
            elif there.any():
                some = tuple(one for one, here in zip(labels, there.tolist(), strict=True) if here)
                found.append(Panel(some, kept.times[low:high], values[:, there]))
        return found

    def between(self, start_ms: int, end_ms: int) -> list[Panel]:
        """All that is kept, as a store would give it: a panel for every rule."""
        found = []
        for kept in (one for each in self._kept.values() for one in each):
            low, high = np.searchsorted(kept.times, [start_ms, end_ms + 1]).tolist()
            there = ~is_absent(kept.values[low:high])
            rows, columns = np.asarray(there.any(axis=1)), np.asarray(there.any(axis=0))
            if rows.any():
                labels = tuple(one for one, here in zip(kept.labels, columns.tolist(), strict=True) if here)
                found.append(Panel(labels, kept.times[low:high][rows], kept.values[low:high][rows][:, columns]))
        return found


@dataclass(frozen=True)
class Firing:
    """One alert: when (s) it began to fire, and when it was over (the end of the play where it was not)."""

    alert: str
    labels: Labels
    since: float
    until: float

    @property
    def service(self) -> str:
        return dict(self.labels)["service"]


def widened(groups: Iterable[Group], service: str) -> tuple[Group, ...]:
    """Rules of one service as rules of all that are in the memory."""
    every = (f'service="{service}"', 'service=~".+"')
    return tuple(
        replace(group, rules=tuple(replace(rule, expr=rule.expr.replace(*every)) for rule in group.rules))
        for group in groups
    )


def play(groups: Iterable[Group], memory: Memory, start: float, end: float, steps: float | None = None) -> list[Firing]:
    """Every alert of ``groups`` between ``start`` and ``end`` (s). ``steps``: seconds that all groups are evaluated at,
    instead of their own. What is in the memory already, under a name that a rule records, stays."""
    given = memory.targets
    engine = Engine(memory, timeout=3600.0, max_samples=1 << 40)
    found: list[Firing] = []
    for rule, interval in _ordered(groups, given):
        every = steps or interval
        times = np.arange(round(start * 1000), round(end * 1000) + 1, round(every * 1000), dtype=np.int64)
        if isinstance(rule, Recording):
            _record(rule, engine, memory, times)
        else:
            found += _told(rule, engine, memory, times)
    return found


def _ordered(groups: Iterable[Group], given: set[tuple[str, str]]) -> list[tuple[Recording | Alerting, float]]:
    """Rules after all those that they rest on, else as they are written."""
    rest = [(rule, group.interval) for group in groups for rule in group.rules]
    rest = [
        (rule, every)
        for rule, every in rest
        if isinstance(rule, Alerting) or (rule.record, rule.labels.get("target", "")) not in given
    ]
    ordered: list[tuple[Recording | Alerting, float]] = []
    while rest:
        missing = {_name(rule) for rule, _ in rest}
        for place, (rule, _) in enumerate(rest):
            names = set(SERIES.findall(rule.expr)) - {_name(rule)}
            if isinstance(rule, Alerting):
                names.discard("ALERTS")
                told = re.findall(r'alertname="(\w+)"', rule.expr)
                if any(isinstance(one, Alerting) and one.alert in told for one, _ in rest):
                    continue
            if not names & missing and all(_name(one) != _name(rule) for one, _ in rest[:place]):
                ordered.append(rest.pop(place))
                break
        else:
            raise SystemExit(f"bench: rules that rest on each other in a circle: {sorted(missing)}")
    return ordered


def _name(rule: Recording | Alerting) -> str:
    return rule.record if isinstance(rule, Recording) else f"alert {rule.alert} {rule.labels.get('target', '')}"


def _pieces(rule: Recording | Alerting, times: Integers) -> Iterable[slice]:
    size = PIECE
    if isinstance(rule, Recording) and rule.record in SERIES.findall(rule.expr) and OFFSET.search(rule.expr):
        shortest = min(parse_duration(each) for each in OFFSET.findall(rule.expr))
        size = max(1, int(shortest * 1000 // int(times[1] - times[0])))
    return (slice(begin, min(begin + size, len(times))) for begin in range(0, len(times), size))


def _asked(rule: Recording | Alerting, engine: Engine, times: Integers) -> Iterable[tuple[slice, list[Labels], Floats]]:
    step = int(times[1] - times[0]) / 1000
    for rows in _pieces(rule, times):
        answer = engine.range(rule.expr, int(times[rows][0]) / 1000, int(times[rows][-1]) / 1000, step)
        values = np.full((rows.stop - rows.start, len(answer.series)), ABSENT)
        for column, one in enumerate(answer.series):
            values[np.searchsorted(times[rows], one.timestamps), column] = one.values
        if answer.series:
            yield rows, [one.labels for one in answer.series], values


def _record(rule: Recording, engine: Engine, memory: Memory, times: Integers) -> None:
    kept = memory.add(rule.record, times)
    for rows, labels, values in _asked(rule, engine, times):
        kept.add(rows, [_labels({**dict(one), **_own(rule, one), "__name__": rule.record}) for one in labels], values)
    kept.end_series()


def _own(rule: Recording, labels: Labels) -> dict[str, str]:
    """The labels that a rule sets, but for the service, which is that of the series."""
    return {name: text for name, text in rule.labels.items() if name != "service" or name not in dict(labels)}


def _told(rule: Alerting, engine: Engine, memory: Memory, times: Integers) -> list[Firing]:
    active: dict[Labels, Booleans] = {}
    for rows, labels, values in _asked(rule, engine, times):
        for one, column in zip(labels, values.T, strict=True):
            active.setdefault(one, np.zeros(len(times), dtype=bool))[rows] = ~is_absent(column)
    found: list[Firing] = []
    fires = np.full((len(times), len(active)), ABSENT)
    for column, (one, there) in enumerate(active.items()):
        for low, high in firing(there, times / 1000, rule.hold, rule.keep):
            until = min(high, len(times) - 1)
            found.append(Firing(rule.alert, one, float(times[low]) / 1000, float(times[until]) / 1000))
            fires[low:high, column] = 1.0
    state = {"alertname": rule.alert, "alertstate": "firing"}
    memory.add("ALERTS", times, [_labels({**dict(one), **state}) for one in active], fires).end_series()
    return found


def firing(there: Booleans, times: Floats, hold: float, keep: float) -> list[tuple[int, int]]:
    """Steps (from, up to) in which an alert fires whose condition is ``there``, as the rule manager does it."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], there, [False]]).astype(np.int8)))
    found: list[tuple[int, int]] = []
    for low, high in edges.reshape(-1, 2).tolist():
        since = low if found and low <= found[-1][1] else int(np.searchsorted(times, times[low] + hold))
        if since >= high:
            continue
        until = int(np.searchsorted(times, times[high] + keep)) if high < len(times) else high
        if found and low <= found[-1][1]:
            found[-1] = found[-1][0], until
        else:
            found.append((since, until))
    return found


def _labels(pairs: dict[str, str]) -> Labels:
    return tuple(sorted(pairs.items()))
