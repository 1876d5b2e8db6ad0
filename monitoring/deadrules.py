"""Rules that can never fire: they ask for series that nothing in this configuration emits, or for labels these lack.

What is known: every metric of ours (``exporter/names.py``), what the rules themselves record, and, where the servers
could be asked, what they say now. Where one could not, only a name that looks like a slip of one that is known is told.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import promql_parser

from anvil_monitor.alerts.rulefile import Alerting, Group, Recording, Rule
from anvil_monitor.exporter import names
from anvil_monitor.targets import Problem

# What whoever scrapes and evaluates writes by itself. https://prometheus.io/docs/concepts/jobs_instances/
WRITTEN: Final = (
    "up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling",
    "scrape_series_added", "ALERTS", "ALERTS_FOR_STATE",
)  # fmt: skip
# Labels that come with the scrape, and those of a histogram's parts.
SCRAPED: Final = ("job", "instance", "service", "le", "quantile")
# How alike two names are that are one name and a slip of it (difflib's ratio).
SLIP: Final = 0.85


def problems(groups: Sequence[Group], seen: frozenset[str] | None) -> list[Problem]:
    """A warning for each rule and metric. ``seen``: what the servers emit now; ``None``: not all could be asked."""
    recorded = {rule.record for group in groups for rule in group.rules if isinstance(rule, Recording)}
    ours = {part: metric for metric in names.BY_NAME.values() for part in _parts(metric)}
    known = {*ours, *recorded, *WRITTEN}
    found: dict[tuple[str, str], Problem] = {}  # the first of each kind
    for group in groups:
        for rule in group.rules:
            for name, labels in selectors(rule.expr):
                if name not in known and name not in (seen or ()):
                    near = difflib.get_close_matches(name, sorted(known | (seen or frozenset())), 1, SLIP)
                    if near or seen is not None:
                        what = f"{_name(rule)} asks for {name}, which nothing emits"
                        found.setdefault((_about(rule), name), _warning(group, what, near))
                elif name in ours and ours[name].labels and name not in (seen or ()):
                    allowed = (*ours[name].labels, *SCRAPED)
                    for label in labels:
                        if label not in allowed:
                            what = f"{_name(rule)} asks for {name} by the label {label}, which it has not"
                            near = difflib.get_close_matches(label, allowed, 1)
                            found.setdefault((_about(rule), f"{name} {label}"), _warning(group, what, near))
    return list(found.values())


def selectors(expr: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The metrics that ``expr`` asks for by name, each with the labels that must be there."""
    nodes: list[Any] = [promql_parser.parse(expr)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, promql_parser.VectorSelector):
            # A matcher that the empty text satisfies asks for nothing to be there.
            needed = [each for each in node.matchers.matchers if str(each.op).endswith("Equal") and each.value]
            if node.name:
                yield node.name, tuple(each.name for each in needed if not str(each.op).endswith("NotEqual"))
            continue
        children = (getattr(node, part, None) for part in ("expr", "lhs", "rhs", "param", "vector_selector"))
        nodes += [each for each in children if each is not None and not isinstance(each, str | float)]
        nodes += list(getattr(node, "args", None) or ())


def emitted(text: str) -> frozenset[str]:
    """The names of the series in an exposition."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return frozenset(line.split("{", 1)[0].split(" ", 1)[0] for line in lines)


def _parts(metric: names.Metric) -> tuple[str, ...]:
    return (metric.bucket, metric.sum, metric.count) if metric.kind == "histogram" else (metric.name,)


def _about(rule: Rule) -> str:
    """One warning for all the rules of a target, each rule of another kind has its own."""
    target = ", ".join(rule.labels[name] for name in ("service", "target") if name in rule.labels)
    return target if "target" in rule.labels else f"{_name(rule)} {target}"


def _name(rule: Rule) -> str:
    labels = [rule.labels[name] for name in ("service", "target") if name in rule.labels]
    about = f" of {', '.join(labels)}" if labels else ""
    return f"{'alert ' + rule.alert if isinstance(rule, Alerting) else 'rule ' + rule.record}{about}"


def _warning(group: Group, what: str, near: Sequence[str]) -> Problem:
    todo = f"did you mean {near[0]}?" if near else "emit it, or take the rule out: it can never fire"
    return Problem(what, Path(group.file) if group.file else None, todo=todo, severity="warning")
