"""What rules remember from one evaluation to the next: the alerts of each, what it wrote, and how it went."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from anvil_monitor.alerts.rulefile import Alerting, Group

from .samples import Labels


class State(enum.StrEnum):
    """Of one alert; a rule's state is the greatest of its alerts."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"


@dataclass(slots=True)
class ActiveAlert:
    """One label set of one alerting rule. ``labels`` have no ``__name__``; times are Unix seconds."""

    labels: Labels
    annotations: Mapping[str, str]
    value: float
    active_at: float
    state: State = State.PENDING
    fired_at: float | None = None
    resolved_at: float | None = None
    keep_since: float | None = None


@dataclass(slots=True)
class RuleState:
    """What one rule remembers between evaluations."""

    health: str = "unknown"
    error: str = ""
    evaluated_at: float = 0.0
    duration: float = 0.0
    written: frozenset[Labels] = frozenset()
    alerts: dict[Labels, ActiveAlert] = field(default_factory=dict)
    restored: bool = True  # while it is not, nothing is written over what is to be restored from

    @property
    def state(self) -> str:
        """``unknown`` before the first evaluation, else the greatest state of its alerts."""
        if self.health == "unknown":
            return "unknown"
        states = {alert.state for alert in self.alerts.values()}
        return next((str(each) for each in (State.FIRING, State.PENDING) if each in states), str(State.INACTIVE))


@dataclass(slots=True)
class GroupState:
    """What one group remembers; ``missed`` counts the slots that were skipped because an evaluation came late."""

    rules: list[RuleState]
    evaluated_at: float = 0.0
    duration: float = 0.0
    missed: int = 0
    evaluations: int = 0

    @classmethod
    def of(cls, group: Group) -> GroupState:
        return cls([RuleState() for _ in group.rules])

    def alerts(self) -> Iterator[ActiveAlert]:
        for rule in self.rules:
            yield from list(rule.alerts.values())

    def soon(self, group: Group, seconds: float) -> Iterator[ActiveAlert]:
        """Those of ``group`` that wait for their ``for``, which ends within ``seconds`` of the last evaluation."""
        for rule, memory in zip(group.rules, self.rules, strict=True):
            if not isinstance(rule, Alerting):
                continue
            for alert in list(memory.alerts.values()):
                if alert.state is State.PENDING and alert.active_at + rule.hold <= memory.evaluated_at + seconds:
                    yield alert
