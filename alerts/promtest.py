"""promtool's unit tests of rules, run by whoever can evaluate rules.

:func:`load` reads a test file (``promtool test rules FILE``), :func:`run` plays its series to an :class:`Evaluator`
and compares, exactly in the order in which promtool does it. So one file of tests holds for Prometheus and for the
embedded evaluator. https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/
"""

from __future__ import annotations

import datetime
import glob
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from anvil_monitor.targets import ConfigurationError, Problem

from . import rulefile, yamltext
from .promseries import Item, Labels, Stale, parse_labels, parse_values
from .rulefile import Group
from .yamltext import Node, parse_duration


@dataclass(frozen=True, slots=True)
class Alert:
    """A firing alert as a test compares it; ``alertname`` is among the labels."""

    labels: Labels
    annotations: Labels


@dataclass(frozen=True, slots=True)
class AlertTest:
    """At ``at`` seconds exactly ``expected`` fire under the name ``alertname``."""

    at: float
    alertname: str
    expected: tuple[Alert, ...]


@dataclass(frozen=True, slots=True)
class ExpressionTest:
    """At ``at`` seconds ``expr`` gives exactly ``expected``."""

    at: float
    expr: str
    expected: tuple[tuple[Labels, float], ...]


@dataclass(frozen=True, slots=True)
class Test:
    """One test: its series, one value every ``interval`` seconds from ``start`` on, and what is asked."""

    name: str
    interval: float
    start: float
    series: tuple[tuple[Labels, tuple[Item, ...]], ...]
    alerts: tuple[AlertTest, ...]
    expressions: tuple[ExpressionTest, ...]
    external_labels: Mapping[str, str]
    external_url: str
    line: int


@dataclass(frozen=True, slots=True)
class TestFile:
    """A file of tests. Times in seconds; ``order`` names the groups that come first."""

    path: Path
    rule_files: tuple[str, ...]
    evaluation_interval: float
    order: tuple[str, ...]
    fuzzy: bool
    tests: tuple[Test, ...]

    def unmatched(self) -> tuple[str, ...]:
        """The patterns of ``rule_files`` that match no file, which promtool says and passes over."""
        return tuple(each for each in self.rule_files if not glob.glob(str(self.path.parent / each)))  # noqa: PTH207

    def groups(self) -> tuple[Group, ...]:
        """The rules under test, read from disk, in the order of evaluation. Raises :class:`ConfigurationError`."""
        found: list[Group] = []
        for pattern in self.rule_files:
            paths = sorted(Path(path) for path in glob.glob(str(self.path.parent / pattern)))  # noqa: PTH207
            for path in paths:
                try:
                    text = path.read_text(encoding="utf-8")
                except (OSError, UnicodeDecodeError) as error:
                    raise ConfigurationError([Problem(f"cannot be read: {error}", path)]) from None
                found += rulefile.load(text, path, default_interval=self.evaluation_interval)
        place = {name: number for number, name in enumerate(self.order)}
        return tuple(sorted(found, key=lambda group: place.get(group.name, len(place))))


class Evaluator(Protocol):
    """What a test is played to: a store, the rules under test and their state, all new for every test."""

    def append(self, at: float, samples: Sequence[tuple[Labels, float | Stale]]) -> None:
        """Store ``samples``, all of them from ``at``."""

    def evaluate(self, at: float) -> None:
        """Evaluate every group, in order, at ``at``. Raises when a rule fails."""

    def firing(self) -> Iterable[tuple[Mapping[str, str], Mapping[str, str]]]:
        """Labels (``alertname`` among them) and annotations of the alerts that fire after the last evaluation."""

    def query(self, expr: str, at: float) -> Iterable[tuple[Labels, float]]:
        """The result of ``expr``; a scalar is one sample without labels."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What was asked where, what was expected and what came."""

    test: Test
    asked: str
    at: float
    expected: object
    got: object

    def __str__(self) -> str:
        name = self.test.name or f"test in line {self.test.line}"
        return f"{name}: {self.asked} at {self.at:g} s:\n  expected {self.expected}\n  got      {self.got}"


def run(file: TestFile, make: Callable[[TestFile, Test], Evaluator]) -> list[Failure]:
    """Every failure in ``file``; ``make`` gives a new evaluator for each test."""
    return [failure for test in file.tests for failure in run_test(file, test, make(file, test))]


def run_test(file: TestFile, test: Test, evaluator: Evaluator) -> list[Failure]:
    """Play ``test``: samples up to each evaluation, the evaluation, the alerts; the expressions at the end."""
    failures: list[Failure] = []
    step = file.evaluation_interval
    last = max([asked.at for asked in test.alerts] + [asked.at for asked in test.expressions], default=0.0)
    played = 0
    for number in range(math.floor(last / step + 1e-9) + 1):
        at = number * step
        played = play(test, evaluator, played, at)
        try:
            evaluator.evaluate(test.start + at)
        except Exception as error:  # noqa: BLE001 - whatever the rules under test raise is this test's result
            return [*failures, Failure(test, "evaluation", at, "no error", error)]
        for asked in test.alerts:
            if at <= asked.at < at + step:
                failures += _alerts(test, asked, evaluator)
    for expression in test.expressions:
        failures += _expression(file, test, expression, evaluator)
    return failures


def play(test: Test, evaluator: Evaluator, played: int, until: float) -> int:
    """Append the values of ``test`` from number ``played`` on up to ``until`` seconds; the number of the next."""
    end = math.floor(until / test.interval + 1e-9) + 1
    for number in range(played, end):
        scraped = [(labels, values[number]) for labels, values in test.series if number < len(values)]
        samples = [(labels, value) for labels, value in scraped if value is not None]
        if samples:
            evaluator.append(test.start + number * test.interval, samples)
    return end


def _alerts(test: Test, asked: AlertTest, evaluator: Evaluator) -> list[Failure]:
    found = [Alert(_pairs(labels), _pairs(annotations)) for labels, annotations in evaluator.firing()]
    got = sorted((each for each in found if ("alertname", asked.alertname) in each.labels), key=repr)
    expected = sorted(asked.expected, key=repr)
    return [] if got == expected else [Failure(test, f"alert {asked.alertname}", asked.at, expected, got)]


def _expression(file: TestFile, test: Test, asked: ExpressionTest, evaluator: Evaluator) -> list[Failure]:
    try:
        got = sorted(evaluator.query(asked.expr, test.start + asked.at), key=lambda each: each[0])
    except Exception as error:  # noqa: BLE001 - whatever the query raises is this test's result
        return [Failure(test, asked.expr, asked.at, list(asked.expected), error)]
    expected = sorted(asked.expected, key=lambda each: each[0])
    same = len(got) == len(expected) and all(
        labels == wanted and _equal(value, number, file.fuzzy)
        for (labels, value), (wanted, number) in zip(got, expected, strict=True)
    )
    return [] if same else [Failure(test, asked.expr, asked.at, expected, got)]


def _equal(a: float, b: float, fuzzy: bool) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b or (fuzzy and math.nextafter(a, b) == b)


def _pairs(texts: Mapping[str, str]) -> Labels:
    return tuple(sorted((name, value) for name, value in texts.items()))


def load(text: str, path: Path) -> TestFile:
    """The tests in ``text``. Raises :class:`ConfigurationError` with every problem found, each with its line."""
    root, problems = yamltext.read(text, path, "the test file")
    fields = root.known(("rule_files", "evaluation_interval", "group_eval_order", "fuzzy_compare", "tests"))
    interval = _duration(fields.get("evaluation_interval"), 60.0) or 60.0
    file = TestFile(
        path,
        _texts(fields.get("rule_files")),
        interval,
        _texts(fields.get("group_eval_order")),
        "fuzzy_compare" in fields and fields["fuzzy_compare"].text() == "true",
        tuple(_test(node, interval) for node in (fields["tests"].items() if "tests" in fields else ())),
    )
    if problems:
        raise ConfigurationError(sorted(dict.fromkeys(problems), key=lambda problem: problem.line))
    return file


def _test(node: Node, interval: float) -> Test:
    node.what = "the test"
    fields = node.known(
        ("name", "interval", "input_series", "alert_rule_test", "promql_expr_test", "external_labels", "external_url",
         "start_timestamp")
    )  # fmt: skip
    return Test(
        fields["name"].text() if "name" in fields else "",
        _duration(fields.get("interval"), interval) or interval,
        _start(fields["start_timestamp"]) if "start_timestamp" in fields else 0.0,
        tuple(_series(each) for each in _items(fields.get("input_series"))),
        tuple(_alert_test(each) for each in _items(fields.get("alert_rule_test"))),
        tuple(_expression_test(each) for each in _items(fields.get("promql_expr_test"))),
        fields["external_labels"].texts() if "external_labels" in fields else {},
        fields["external_url"].text() if "external_url" in fields else "",
        node.line,
    )


def _series(node: Node) -> tuple[Labels, tuple[Item, ...]]:
    node.what = "the series"
    fields = node.known(("series", "values"), {"start_timestamp": "native start times are not"})
    labels: Labels = ()
    values: list[Item] = []
    for name in ("series", "values"):
        if name not in fields:
            node.problem(f"a series has no {name}", f"add {name}: …")
            continue
        try:
            if name == "series":
                labels = parse_labels(fields[name].text())
            else:
                values = parse_values(fields[name].text())
        except (ValueError, SyntaxError) as error:
            fields[name].problem(str(error))
    return labels, tuple(values)


def _alert_test(node: Node) -> AlertTest:
    node.what = "the alert test"
    fields = node.known(("eval_time", "alertname", "exp_alerts"))
    name = fields["alertname"].text() if "alertname" in fields else ""
    if not name:
        node.problem("an alert test has no alertname", "add alertname: …")
    expected: list[Alert] = []
    for each in _items(fields.get("exp_alerts")):
        given = each.known(("exp_labels", "exp_annotations"))
        labels = given["exp_labels"].texts() if "exp_labels" in given else {}
        annotations = given["exp_annotations"].texts() if "exp_annotations" in given else {}
        expected.append(Alert(_pairs({**labels, "alertname": name}), _pairs(annotations)))
    return AlertTest(_duration(fields.get("eval_time"), 0.0), name, tuple(expected))


def _expression_test(node: Node) -> ExpressionTest:
    node.what = "the expression test"
    fields = node.known(("expr", "eval_time", "exp_samples"))
    expected: list[tuple[Labels, float]] = []
    for each in _items(fields.get("exp_samples")):
        given = each.known(("labels", "value"), {"histogram": "native histograms are not supported"})
        try:
            labels = parse_labels(given["labels"].text()) if "labels" in given else ()
            text = given["value"].text() if "value" in given else "0"
            expected.append((labels, float(text.replace(".inf", "inf").replace(".nan", "nan").lower())))
        except (ValueError, SyntaxError) as error:
            each.problem(str(error))
    expr = fields["expr"].text().strip() if "expr" in fields else ""
    if reason := rulefile.promql_problem(expr):
        node.problem(f"expr is not PromQL: {reason}")
    return ExpressionTest(_duration(fields.get("eval_time"), 0.0), expr, tuple(expected))


def _items(node: Node | None) -> Iterable[Node]:
    return node.items() if node is not None else ()


def _texts(node: Node | None) -> tuple[str, ...]:
    return tuple(each.text() for each in _items(node))


def _duration(node: Node | None, default: float) -> float:
    return default if node is None else node.duration()


def _start(node: Node) -> float:
    text = node.text()
    for read in (float, parse_duration, lambda each: datetime.datetime.fromisoformat(each).timestamp()):
        try:
            return float(read(text))
        except ValueError:
            continue
    node.problem(f"start_timestamp {text!r} is no time", 'unix seconds, or as in "2026-01-31T12:00:00Z"')
    return 0.0
