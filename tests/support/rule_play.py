"""A group of rules that is played: the test says what the query answers, and sees what is written."""

from __future__ import annotations

from dataclasses import dataclass, field

from anvil_monitor.alerts.rulefile import Alerting, Group, Rule
from anvil_monitor.monitoring.promql import Sample, Value, Vector
from anvil_monitor.monitoring.rulemanager import GroupState, RuleState, evaluate
from anvil_monitor.monitoring.samples import Labels, labels_of

Result = list[tuple[Labels, float]]


@dataclass
class Play:
    """A group with a query that answers what the test says, and a record of what was written."""

    rules: tuple[Rule, ...]
    result: Result | Value | Exception = field(default_factory=list)
    written: dict[Labels, float] = field(default_factory=dict)
    state: GroupState = field(init=False)

    limit: int = 0
    offset: float = 0.0
    asked: list[float] = field(default_factory=list)
    written_at: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.group = Group("g", 5.0, self.rules, limit=self.limit, query_offset=self.offset)
        self.state = GroupState.of(self.group)

    def query(self, expr: str, at: float) -> Value:
        self.asked.append(at)
        if isinstance(self.result, Exception):
            raise self.result
        if isinstance(self.result, list):
            return Vector([Sample(labels, at, value) for labels, value in self.result])
        return self.result

    def write(self, time_ms: int, batch: Result) -> None:
        self.written |= dict(batch)
        self.written_at.append(time_ms / 1000)

    def at(self, at: float, result: Result | Value | Exception | None = None) -> RuleState:
        if result is not None:
            self.result = result
        self.written = {}
        evaluate(self.group, self.state, at, self.query, self.write, lambda text, data: f"{data.labels}{data.value:g}")
        return self.state.rules[0]

    def alerts(self) -> dict[str, float]:
        """alertstate of each ALERTS series written, with its value; a stale marker is NaN."""
        return {
            dict(labels)["alertstate"]: value
            for labels, value in self.written.items()
            if ("__name__", "ALERTS") in labels
        }


ON: Result = [(labels_of(__name__="x", service="a"), 7.0)]
OFF: Result = []


def alerting(hold: float = 0.0, keep: float = 0.0, **labels: str) -> Play:
    return Play((Alerting("Bad", "x > 1", hold, keep, labels, {"summary": "plain"}),))


def series(*names: str) -> Result:
    return [(labels_of(__name__="x", service=name), 1.0) for name in names]
