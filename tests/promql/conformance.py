"""Runs Prometheus' own ``.test`` files (plain float cases) against our engine.

    python -m tests.promql.conformance [--verbose] FILE…

prints ``FILE passed/total`` for each, and exits 1 if a case failed. As Prometheus does, each instant case runs again as
the middle step of a range query, and with ``@`` on its outermost selectors at five other times. Cases that touch native
histograms, and syntax that promql-parser does not read (anchored, smoothed, duration expressions), are not counted;
``--verbose`` names the failures and tells how many cases were left out. Names are dropped at the end of a query, as in
Prometheus' own runner of these files; ``--immediate`` drops them at once, as Prometheus does by default.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anvil_monitor.monitoring.promql import Engine, Matrix, QueryError, Scalar, Text, Vector
from anvil_monitor.monitoring.promql.nodes import Node, Selector, Subquery
from anvil_monitor.monitoring.promql.parse import parse
from anvil_monitor.monitoring.samples import Labels, Matcher, is_stale, matches
from anvil_monitor.monitoring.store import Store

from .testfile import Case, case_in, milliseconds, series_in


@dataclass
class Outcome:
    passed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.passed + len(self.failures)


class Script:
    """One file: what is loaded, and the cases in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = [line.strip() for line in path.read_text().splitlines()]
        self.data: dict[Labels, dict[int, float]] = defaultdict(dict)
        self.histograms: list[Labels] = []

    def blocks(self) -> Iterator[tuple[int, str, list[str]]]:
        """Line number, command, the lines under it. A comment counts as an empty line, which ends a block."""
        position = 0
        while position < len(self.lines):
            head, start = self.lines[position], position + 1
            position += 1
            if not head or head.startswith("#"):
                continue
            body = []
            while position < len(self.lines) and self.lines[position] and not self.lines[position].startswith("#"):
                if re.match(r"(clear|load|load_with_nhcb|eval\w*)\b", self.lines[position]):
                    break
                body.append(self.lines[position])
                position += 1
            yield start, head, body

    def load(self, step: int, body: list[str], convert: bool) -> None:
        loaded: dict[Labels, dict[int, float]] = {}
        for line in body:
            labels, points, histogram = series_in(line)
            if histogram:
                self.histograms.append(labels)
            name = dict(labels).get("__name__", "")
            if convert and name.endswith("_bucket"):
                rest = [(key, value) for key, value in labels if key not in ("le", "__name__")]
                self.histograms.append(tuple(sorted([*rest, ("__name__", name.removesuffix("_bucket"))])))
            loaded[labels] = {at * step: value for at, value in enumerate(points) if value is not None}
        for labels, samples in loaded.items():
            self.data[labels].update(samples)

    def store(self) -> Store:
        by_time: dict[int, list[tuple[Labels, float]]] = defaultdict(list)
        for labels, samples in self.data.items():
            for at, value in samples.items():
                by_time[at].append((labels, value))
        store = Store()
        for at in sorted(by_time):
            store.append(at, by_time[at])
        return store

    def run(self, delayed: bool = True) -> Outcome:
        outcome = Outcome()
        store: Store | None = None
        for line, head, body in self.blocks():
            word = head.split()[0]
            if word == "clear":
                self.data.clear()
                self.histograms.clear()
                store = None
            elif word in ("load", "load_with_nhcb"):
                self.load(milliseconds(head.split()[1]), body, word == "load_with_nhcb")
                store = None
            else:
                store = store or self.store()
                engine = Engine(store, delayed_name_removal=delayed)
                self.try_case(case_in(f"{self.path.name}:{line}", head, body), engine, outcome)
        return outcome

    def try_case(self, case: Case, engine: Engine, outcome: Outcome) -> None:
        try:
            selectors = list(selectors_in(parse(case.query)))
        except QueryError as error:
            if case.fail:
                outcome.passed += 1
            elif case.histograms or re.search(r"invalid promql|not supported|brackets|duration|unexpected", str(error)):
                outcome.skipped += 1
            else:
                outcome.failures.append(f"{case.where}: {error}")
            return
        touched = any(matches(labels, one) for labels in self.histograms for one in selectors)
        if case.histograms or touched:
            outcome.skipped += 1
            return
        try:
            wrong = difference(case, engine)
            if not wrong and case.end is None and not case.ordered and case.matrix is None:
                wrong = range_difference(case, engine)
            if not wrong and case.end is None:
                wrong = pinned_difference(case, engine)
        except Exception as error:  # noqa: BLE001  (a fault of the engine is what this looks for)
            wrong = f"{type(error).__name__}: {error}"
        if wrong and "not supported" in wrong:
            outcome.skipped += 1
        elif wrong:
            outcome.failures.append(f"{case.where}: {case.query}\n    {wrong}")
        else:
            outcome.passed += 1


def selectors_in(node: object) -> Iterator[tuple[Matcher, ...]]:
    if isinstance(node, Selector):
        yield node.matchers
    elif isinstance(node, tuple):
        for part in node:
            yield from selectors_in(part)
    elif dataclasses.is_dataclass(node):
        for part in dataclasses.fields(node):
            yield from selectors_in(getattr(node, part.name))


def same(a: float, b: float) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    if a == b:
        return True
    gap = abs(a - b)
    if a == 0 or b == 0:
        return gap < 1e-6 * sys.float_info.min
    return gap / min(abs(a) + abs(b), sys.float_info.max) < 1e-6


def difference(case: Case, engine: Engine, query: str | Node | None = None, at: int | None = None) -> str:
    """What is not as expected; empty if nothing."""
    query = case.query if query is None else query
    try:
        if case.end is not None:
            value = engine.range(query, case.start / 1000, case.end / 1000, case.step / 1000)
        else:
            value = engine.instant(query, (case.start if at is None else at) / 1000)
    except QueryError as error:
        return "" if case.fail else f"error: {error}"
    for kind, how, text in case.notes:
        told = value.infos if kind.endswith("info") else value.warnings
        if kind.startswith("no_"):
            if told:
                return f"tells {told}"
        elif not any(noted(how, text, one) for one in told):
            return f"{kind} {text} is not among {told}"
    if case.fail:
        return f"should fail, gives {value}"
    if isinstance(value, Scalar):
        return "" if case.scalar is not None and same(value.value, case.scalar) else f"gives {value.value}"
    if isinstance(value, Text):
        return "" if value.value == case.text else f"gives {value.value!r}"
    if isinstance(value, Matrix):
        start, _, step = case.matrix or (case.start, case.end, case.step)
        wanted = {
            labels: {start + at * step: point for at, point in enumerate(points) if point is not None}
            for labels, points in case.lines
        }
        given = {
            one.labels: dict(zip(one.timestamps.tolist(), one.values.tolist(), strict=True)) for one in value.series
        }
        return compare(wanted, given)
    instant = {labels: {0: points[0]} for labels, points in case.lines if points and points[0] is not None}
    if isinstance(value, Vector):
        order = [one.labels for one in value.samples]
        if case.ordered and order != list(instant):
            return f"order is {order}"
        return compare(instant, {one.labels: {0: one.value} for one in value.samples})
    return f"gives {value}"


def range_difference(case: Case, engine: Engine) -> str:
    """The same instant as the middle step of a range query."""
    if case.fail or case.text is not None or re.search(r"\b(start|end|range|step)\(\)", case.query):
        return ""
    try:
        value = engine.range(case.query, case.start / 1000 - 60, case.start / 1000 + 60, 60)
    except QueryError as error:
        return f"as a range: error: {error}"
    given = {}
    for one in value.series:
        middle = one.values[one.timestamps == case.start]
        if len(middle):
            given[one.labels] = {0: float(middle[0])}
    wanted = {labels: {0: points[0]} for labels, points in case.lines if points and points[0] is not None}
    wrong = compare({(): {0: case.scalar}} if case.scalar is not None else wanted, given)
    return f"as a range: {wrong}" if wrong else ""


def noted(how: str, wanted: str, told: str) -> bool:
    """Whether an annotation is as expected; the place in the query, which we do not know, does not count."""
    wanted = re.sub(r" ?\\?\([^ ]*:[^ ]*\)$", "", wanted)
    if how == "regex":
        return re.search(wanted, told) is not None
    return how != "msg" or wanted == told


MOVING = re.compile(
    r"\b(days_in_month|day_of_\w+|hour|minute|month|year|predict_linear|time|timestamp|start|end|range|step)\s*\("
)
"""Functions whose value depends on the time of evaluation even where all selectors are pinned."""


def pinned(node: Any, at: int) -> Any:
    """The expression with ``@`` on every outermost selector or subquery that has none."""
    if isinstance(node, Selector | Subquery):
        return node if node.at is not None else dataclasses.replace(node, at=at)
    if isinstance(node, tuple):
        return tuple([pinned(part, at) for part in node])
    if isinstance(node, Matcher) or not dataclasses.is_dataclass(node) or isinstance(node, type):
        return node
    parts = {part.name: pinned(getattr(node, part.name), at) for part in dataclasses.fields(node)}
    return dataclasses.replace(node, **parts)


def pinned_difference(case: Case, engine: Engine) -> str:
    """The same instant, asked for at other times with ``@``."""
    node = parse(case.query)
    query = pinned(node, case.start)
    if case.fail or query == node or MOVING.search(case.query):
        return ""
    times = [-10 * case.start, 0, case.start // 5, case.start, 10 * case.start] if case.start else [-1000, 0, 1000]
    for at in times:
        wrong = difference(case, engine, query, at)
        if wrong:
            return f"with @ {case.start / 1000} at {at / 1000}: {wrong}"
    return ""


def compare(wanted: dict[Labels, dict[int, float]], given: dict[Labels, dict[int, float]]) -> str:
    wanted = {labels: points for labels, points in wanted.items() if points}
    if set(wanted) != set(given):
        return f"missing {sorted(set(wanted) - set(given))}, too much {sorted(set(given) - set(wanted))}"
    for labels, points in wanted.items():
        if set(points) != set(given[labels]):
            return f"{labels}: at {sorted(given[labels])} instead of {sorted(points)}"
        for at, point in points.items():
            got = given[labels][at]
            if is_stale(np.array([got]))[0] or not same(point, got):
                return f"{labels} at {at}: {got!r} instead of {point!r}"
    return ""


def main(arguments: list[str]) -> int:
    flags = {one for one in arguments if one.startswith("--")}
    paths = [Path(one) for one in arguments if not one.startswith("--")]
    failed = passed = 0
    for path in paths:
        outcome = Script(path).run(delayed="--immediate" not in flags)
        print(f"{path} {outcome.passed}/{outcome.total}")
        if "--verbose" in flags:
            print("\n".join([f"  {line}" for line in [*outcome.failures, f"left out: {outcome.skipped}"]]))
        failed += len(outcome.failures)
        passed += outcome.passed
    print(f"all {passed}/{passed + failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
