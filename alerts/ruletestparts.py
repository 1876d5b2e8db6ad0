"""What the generated tests of the rules are written with: an expected alert, and the form of promtool's test file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from anvil_monitor.targets import format_promql_duration

from . import templates
from .rulefile import Alerting
from .scenes import Series

# What the queries in an alert's annotations find: by a piece of the query, its elements.
Answers: TypeAlias = Mapping[str, Sequence[templates.Element]]


@dataclass(frozen=True, slots=True)
class Condition:
    """A rule whose expression gives ``value`` from ``since`` until (not with) ``until``, in seconds.

    ``labels`` are those of the element, ``answers`` what the queries in its annotations find; others find nothing.
    """

    rule: Alerting
    value: float
    since: float
    until: float = math.inf
    labels: Mapping[str, str] = field(default_factory=dict)
    answers: Answers = field(default_factory=dict)

    def fired(self, step: float) -> float:
        """When the alert fires, evaluated every ``step`` seconds from 0 on."""
        return self.since + up(self.rule.hold, step)

    def ended(self, step: float) -> float:
        """The first evaluation in which it fires no longer."""
        return self.until + up(self.rule.keep, step)

    def fires(self, at: float, step: float) -> bool:
        """Whether the alert fires in the evaluation at ``at``, evaluated every ``step`` seconds from 0 on."""
        if at < self.fired(step) or self.fired(step) >= self.until:
            return False
        return at < self.until or at - self.until < self.rule.keep

    def edges(self, step: float) -> tuple[float, ...]:
        """The evaluations round its beginning and its end."""
        times = (self.fired(step) - step, self.fired(step), self.ended(step) - step, self.ended(step))
        return tuple(each for each in times if 0 <= each < math.inf)

    @property
    def alert(self) -> dict[str, Any]:
        labels = {**self.labels, **self.rule.labels}
        texts = {
            name: templates.expand(text, self.labels, self.value, query=self._find)
            for name, text in self.rule.annotations.items()
        }
        return {"exp_labels": dict(sorted(labels.items())), "exp_annotations": dict(sorted(texts.items()))}

    def _find(self, query: str) -> Sequence[templates.Element]:
        return next((found for piece, found in self.answers.items() if piece in query), ())


# Of each alert the times at which it is asked for, and the conditions that may make it fire then.
Asked: TypeAlias = Mapping[str, tuple[Sequence[float], Sequence[Condition]]]


def up(seconds: float, step: float) -> float:
    """The next multiple of ``step``; the small number forgives a float just above one."""
    return math.ceil(seconds / step - 1e-9) * step


def document(
    who: str, name: str, step: float, series: Series, alerts: Asked, expressions: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """One test as promtool reads it: scraped and evaluated every ``step`` seconds."""
    asked = [
        {
            "eval_time": format_promql_duration(at),
            "alertname": alert,
            "exp_alerts": [each.alert for each in conditions if each.fires(at, step)],
        }
        for alert, (times, conditions) in alerts.items()
        for at in sorted({time for time in times if time >= 0})
    ]
    test: dict[str, Any] = {"name": f"{who}: {name}", "interval": format_promql_duration(step)}
    test["input_series"] = [{"series": each, "values": values} for each, values in series.items()]
    test["alert_rule_test"] = asked
    if expressions:
        test["promql_expr_test"] = list(expressions)
    return test


def expression(expr: str, at: float, labels: str, value: float) -> dict[str, Any]:
    """That ``expr`` gives one sample."""
    samples = [{"labels": labels, "value": value if value % 1 else int(value)}]
    return {"expr": expr, "eval_time": format_promql_duration(at), "exp_samples": samples}
