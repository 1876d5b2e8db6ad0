"""Which rules, and which branches of them, a file of rule tests exercises: what nobody has seen fire may be unable to.

A branch is an operand of ``or``. It is seen when it gives something in an evaluation of some test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import promql_parser

from anvil_monitor.alerts import promtest
from anvil_monitor.alerts.rulefile import Alerting, Group, Rule

from . import ruletest
from .promql import QueryError
from .rulemanager import State

Place: TypeAlias = tuple[int, int]  # of a rule: the number of its group, its own number in it


@dataclass(slots=True)
class Coverage:
    """What the tests of ``groups`` have seen: rules that fired or recorded something, branches that gave something."""

    groups: Sequence[Group]
    rules: set[Place] = field(default_factory=set)
    branches: set[tuple[Place, str]] = field(default_factory=set)

    def missing(self) -> list[str]:
        """A sentence for each rule, and for each branch of a rule that was seen, that no test exercises."""
        found: list[str] = []
        for place, rule in self.places():
            if place not in self.rules:
                found.append(f"{_name(rule)}: no test sees it {'fire' if isinstance(rule, Alerting) else 'record'}")
                continue
            unseen = [text for text in branches(rule.expr) if (place, text) not in self.branches]
            found += [f"{_name(rule)}: no test sees this branch give anything: {text}" for text in unseen]
        return found

    def places(self) -> Iterator[tuple[Place, Rule]]:
        for number, group in enumerate(self.groups):
            for index, rule in enumerate(group.rules):
                yield (number, index), rule

    def __str__(self) -> str:
        every = list(self.places())
        all_ = [(place, text) for place, rule in every for text in branches(rule.expr)]
        return f"{len(self.rules)} of {len(every)} rules, {len(self.branches)} of {len(all_)} branches"


def run(file: promtest.TestFile) -> tuple[list[promtest.Failure], Coverage]:
    """Run the tests of ``file``; the failures, and what was exercised."""
    groups = file.groups()
    coverage = Coverage(groups)

    def make(file: promtest.TestFile, test: promtest.Test) -> _Watched:
        return _Watched(groups, file.evaluation_interval, test.external_labels, coverage)

    return promtest.run(file, make), coverage


@lru_cache(4096)
def branches(expr: str) -> tuple[str, ...]:
    """The operands of every ``or`` in ``expr``, as text."""
    texts = (" ".join(str(node.prettify()).split()) for node in _operands(promql_parser.parse(expr)))
    return tuple(dict.fromkeys(texts))


class _Watched(ruletest.Embedded):
    """An evaluator that notes what it sees. What was seen once is not asked again."""

    def __init__(self, groups: Sequence[Group], interval: float, external: Any, coverage: Coverage) -> None:
        super().__init__(groups, interval, external)
        self._coverage = coverage

    def evaluate(self, at: float) -> None:
        super().evaluate(at)
        seen = self._coverage
        for number, (group, state) in enumerate(self._groups):
            for index, (rule, memory) in enumerate(zip(group.rules, state.rules, strict=True)):
                place = (number, index)
                fires = any(alert.state is State.FIRING for alert in memory.alerts.values())
                if place not in seen.rules and (fires if isinstance(rule, Alerting) else memory.written):
                    seen.rules.add(place)
                for text in branches(rule.expr):
                    if (place, text) not in seen.branches and self._gives(text, at):
                        seen.branches.add((place, text))

    def _gives(self, expr: str, at: float) -> bool:
        try:
            return any(True for _ in self.query(expr, at))
        except QueryError:
            return False


def _operands(root: Any) -> Iterator[Any]:
    nodes = [root]
    while nodes:
        node = nodes.pop()
        if isinstance(node, promql_parser.BinaryExpr) and str(node.op) == "or":
            yield from (each for each in (node.lhs, node.rhs) if not _is_or(each))
        children = (getattr(node, part, None) for part in ("lhs", "rhs", "expr", "param"))
        nodes += [each for each in children if each is not None and not isinstance(each, str | float)]
        nodes += list(getattr(node, "args", None) or ())


def _is_or(node: Any) -> bool:
    return isinstance(node, promql_parser.BinaryExpr) and str(node.op) == "or"


def _name(rule: Rule) -> str:
    labels = ", ".join(f"{name}={value!r}" for name, value in sorted(rule.labels.items()))
    return f"{rule.alert if isinstance(rule, Alerting) else rule.record}{{{labels}}}"
