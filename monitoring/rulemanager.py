"""Rule groups, evaluated as Prometheus evaluates them: recording rules, and the life of an alert.

:func:`evaluate` is one evaluation of one group at one instant. Query, write and template expansion are arguments and
all state is in :class:`GroupState`, so a test plays an hour in a millisecond. Semantics: Prometheus ``rules/group.go``,
``rules/alerting.go`` and ``rules/recording.go``.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TypeAlias

from anvil_monitor.alerts import templates
from anvil_monitor.alerts.rulefile import Alerting, Group, Recording, Rule

from .promql import QueryError, Scalar, Value, Vector
from .rulestate import ActiveAlert, GroupState, RuleState, State
from .samples import STALE_NAN, Labels

__all__ = [
    "ActiveAlert",
    "GroupState",
    "RuleError",
    "RuleManager",
    "RuleState",
    "State",
    "evaluate",
    "for_state",
    "next_slot",
    "slot_offset",
]

logger = logging.getLogger(__name__)

# How long a resolved alert is remembered (Prometheus: resolvedRetention), so that "resolved" reaches who missed it.
RESOLVED_RETENTION = 15 * 60.0

Batch: TypeAlias = list[tuple[Labels, float]]
Result: TypeAlias = Sequence[tuple[Labels, float]]
Query: TypeAlias = Callable[[str, float], Value]
Write: TypeAlias = Callable[[int, Batch], object]
Restore: TypeAlias = Callable[[Group, "GroupState", float], object]
Expand: TypeAlias = Callable[[str, templates.Data], str]


class RuleError(Exception):
    """A rule whose result cannot be used."""


def evaluate(group: Group, state: GroupState, at: float, query: Query, write: Write, expand: Expand) -> None:
    """Evaluate the rules of ``group`` in order at ``at`` (Unix seconds); each rule sees what those before it wrote.

    A rule that fails keeps its last state and writes nothing, not even stale markers; the next rule goes on. The
    group's ``query_offset`` is taken off the time that is asked for and written at, not off that of its alerts.
    """
    begin = time.perf_counter()
    for rule, memory in zip(group.rules, state.rules, strict=True):
        start = time.perf_counter()
        try:
            _write(_samples(rule, group, memory, at, query, expand), memory, at - group.query_offset, write)
        except (RuleError, QueryError) as error:
            memory.health, memory.error = "err", str(error)
        except Exception as error:  # noqa: BLE001  a defect in one rule's evaluation must not end the others
            memory.health, memory.error = "err", f"{type(error).__name__}: {error}"
        else:
            memory.health, memory.error = "ok", ""
        memory.evaluated_at, memory.duration = at, time.perf_counter() - start
    state.evaluated_at, state.duration = at, time.perf_counter() - begin


def _write(batch: Batch, memory: RuleState, at: float, write: Write) -> None:
    """Store what a rule gave, and end the series that it gave last time and not now."""
    present = frozenset(labels for labels, _ in batch)
    batch += [(labels, STALE_NAN) for labels in sorted(memory.written - present)]
    write(round(at * 1000), batch)
    memory.written = present


def _samples(rule: Rule, group: Group, memory: RuleState, at: float, query: Query, expand: Expand) -> Batch:
    """What ``rule`` gives at ``at``. Raises RuleError and QueryError."""
    found = _vector(query(rule.expr, at - group.query_offset))
    if isinstance(rule, Recording):
        batch = _recording(rule, found)
        if 0 < group.limit < len(batch):
            raise RuleError(f"exceeded limit of {group.limit} with {len(batch)} series")
        return batch
    batch = _alerting(rule, memory, at, found, query, expand)
    active = sum(alert.state is not State.INACTIVE for alert in memory.alerts.values())
    if 0 < group.limit < active:
        memory.alerts.clear()
        raise RuleError(f"exceeded limit of {group.limit} with {active} alerts")
    return batch


def _recording(rule: Recording, found: Result) -> Batch:
    batch: Batch = []
    for labels, value in found:
        merged = {**dict(labels), "__name__": rule.record, **rule.labels}
        batch.append((_labels(merged), value))
    if len({labels for labels, _ in batch}) != len(batch):
        raise RuleError("vector contains metrics with the same labelset after applying rule labels")
    return batch


def _alerting(rule: Alerting, memory: RuleState, at: float, result: Result, query: Query, expand: Expand) -> Batch:
    found = _found(rule, at, result, query, expand)
    for labels, alert in found.items():
        known = memory.alerts.get(labels)
        if known is not None and known.state is not State.INACTIVE:
            known.value, known.annotations = alert.value, alert.annotations
        else:
            memory.alerts[labels] = alert
    batch: Batch = []
    for labels, alert in list(memory.alerts.items()):
        if labels in found:
            alert.keep_since = None
        elif not _stays(rule, alert, at):
            forgotten = alert.resolved_at is not None and at - alert.resolved_at > RESOLVED_RETENTION
            if alert.state is State.PENDING or forgotten:
                del memory.alerts[labels]
            elif alert.state is State.FIRING:
                alert.state, alert.resolved_at = State.INACTIVE, at
            continue
        if alert.state is State.PENDING and at - alert.active_at >= rule.hold:
            alert.state, alert.fired_at = State.FIRING, at
        elif alert.state is State.FIRING and at - alert.active_at < rule.hold:
            alert.state, alert.fired_at = State.PENDING, None
        if memory.restored:
            batch += _series(rule, alert)
    return batch


def _found(rule: Alerting, at: float, result: Result, query: Query, expand: Expand) -> dict[Labels, ActiveAlert]:
    """The result's elements as fresh alerts. Templates see the element's own labels, its name included."""
    found: dict[Labels, ActiveAlert] = {}

    def ask(expr: str) -> list[templates.Element]:
        return [templates.Element(dict(labels), value) for labels, value in _vector(query(expr, at))]

    for element, value in result:
        original = dict(element)
        data = templates.Data(original, value, query=ask, at=at)

        def fill(text: str, data: templates.Data = data) -> str:
            try:
                return expand(text, data) if "{{" in text else text
            except Exception as error:  # noqa: BLE001  as in Prometheus: a bad template never silences its alert
                return f"<error expanding template: {error}>"

        merged = {key: text for key, text in original.items() if key != "__name__"}
        merged.update({key: fill(text) for key, text in rule.labels.items()})
        labels = _labels({**merged, "alertname": rule.alert})
        if labels in found:
            raise RuleError("vector contains metrics with the same labelset after applying alert labels")
        annotations = {key: fill(text) for key, text in rule.annotations.items()}
        found[labels] = ActiveAlert(labels, annotations, value, at)
    return found


def _stays(rule: Alerting, alert: ActiveAlert, at: float) -> bool:
    """Whether an alert whose condition is gone goes on firing for ``keep_firing_for``."""
    if alert.state is not State.FIRING or rule.keep <= 0:
        return False
    if alert.keep_since is None:
        alert.keep_since = at
    return at - alert.keep_since < rule.keep


def _series(rule: Alerting, alert: ActiveAlert) -> Batch:
    # As in Prometheus, a label whose template came out empty is here with the text of the template.
    labels = {**rule.labels, **dict(alert.labels)}
    return [
        (_labels({**labels, "__name__": "ALERTS", "alertstate": str(alert.state)}), 1.0),
        (for_state(rule, alert), float(math.floor(alert.active_at))),
    ]


def for_state(rule: Alerting, alert: ActiveAlert) -> Labels:
    """The series that says since when ``alert`` holds."""
    return _labels({**rule.labels, **dict(alert.labels), "__name__": "ALERTS_FOR_STATE"})


def _vector(value: Value) -> Result:
    if isinstance(value, Vector):
        return [(sample.labels, sample.value) for sample in value.samples]
    if isinstance(value, Scalar):
        return [((), value.value)]
    raise RuleError("rule result is not a vector or scalar")


def _labels(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted((key, value) for key, value in labels.items() if value))


def slot_offset(group: Group) -> float:
    """Where in its interval a group runs: groups of one interval are spread, and always at the same instants."""
    return zlib.crc32(f"{group.file}\0{group.name}".encode()) % max(1, round(group.interval * 1000)) / 1000


def next_slot(now: float, interval: float, offset: float) -> float:
    """The first instant ``k * interval + offset`` after ``now``."""
    return (math.floor((now - offset) / interval) + 1) * interval + offset


class RuleManager:
    """Runs every group in its slots for ever. ``thread`` runs the evaluations, one at a time.

    ``after`` is called in that thread, after each evaluation, with its instant. ``clock`` gives Unix seconds.
    ``restore`` is called once a group, after its second evaluation, to take up what the process before this one knew.
    """

    def __init__(
        self,
        groups: Iterable[Group],
        query: Query,
        write: Write,
        expand: Expand,
        thread: Executor,
        after: Callable[[float], object],
        clock: Callable[[], float] = time.time,
        restore: Restore | None = None,
    ) -> None:
        self.groups = tuple((group, GroupState.of(group)) for group in groups)
        self._restore = restore
        for _, state in self.groups:
            for memory in state.rules:
                memory.restored = restore is None
        self._query, self._write, self._expand = query, write, expand
        self._thread, self._after, self._clock = thread, after, clock

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for group, state in self.groups:
                tasks.create_task(self._loop(group, state), name=f"rules {group.name}")

    async def _loop(self, group: Group, state: GroupState) -> None:
        loop = asyncio.get_running_loop()
        offset = slot_offset(group)
        slot = next_slot(self._clock(), group.interval, offset)
        while True:
            # Never longer than one interval: a wall clock that was set back must not stop the evaluation.
            await asyncio.sleep(min(max(0.0, slot - self._clock()), group.interval))
            await loop.run_in_executor(self._thread, self._evaluate, group, state, slot)
            following = next_slot(max(self._clock(), slot), group.interval, offset)
            # The clock was set: begin anew from it. A slot is never evaluated more than an interval before its time.
            if following > slot + 3600 or self._clock() < slot - group.interval:
                following = next_slot(self._clock(), group.interval, offset)
            else:
                state.missed += max(0, round((following - slot) / group.interval) - 1)
            slot = following

    def _evaluate(self, group: Group, state: GroupState, at: float) -> None:
        evaluate(group, state, at, self._query, self._write, self._expand)
        state.evaluations += 1
        if self._restore is not None and state.evaluations == 2:  # by now every source has been read
            try:
                self._restore(group, state, at)
            except Exception:
                logger.exception("group %s: what was known before the restart cannot be read", group.name)
            for memory in state.rules:
                memory.restored = True
        self._after(at)

    def alerts(self) -> list[ActiveAlert]:
        """Every alert that is known: pending, firing, and resolved in the last quarter of an hour."""
        return [alert for _, state in self.groups for alert in state.alerts()]

    def soon(self, seconds: float) -> list[ActiveAlert]:
        """Alerts that fire within ``seconds`` of the last evaluation, should they hold until then."""
        return [alert for group, state in self.groups for alert in state.soon(group, seconds)]
