"""The runner of promtool's unit tests: its notation, its order of things, its verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from anvil_monitor.alerts import promtest
from anvil_monitor.alerts.promseries import STALE, Labels, Stale, parse_labels, parse_values
from anvil_monitor.targets import ConfigurationError

VALUES = {
    "1 2.5 -3": [1, 2.5, -3],
    "0x3": [0, 0, 0, 0],
    "0x10": [0] * 11,
    "0+10x3": [0, 10, 20, 30],
    "10-2x2": [10, 8, 6],
    "-1+0x1": [-1, -1],
    "_ 1 _x2 2": [None, 1, None, None, 2],
    "1 stale 2": [1, STALE, 2],
    "1e3 1e-2x1": [1000, 0.01, 0.01],
    "+Inf -Inf": [float("inf"), float("-inf")],
    "": [],
}


@pytest.mark.parametrize(("text", "values"), VALUES.items(), ids=list(VALUES))
def test_values(text: str, values: list[object]) -> None:
    """The notation of values is promtool's: repeats count from the first value on."""
    assert parse_values(text) == values


def test_steps_are_added_one_by_one() -> None:
    """`0+0.1x3` is repeated addition, as in promtool: the third sum is not 0.3."""
    assert parse_values("0+0.1x3")[3] == 0.1 + 0.1 + 0.1


@pytest.mark.parametrize(
    "text", ["1+2", "1+-2x1", "stalex2", "x3", "a", "1x", "{{schema:1}}", "1++2x3", "0x99999999999", "1+1x1e3"]
)
def test_bad_values_are_refused(text: str) -> None:
    """What promtool would not read, and what would fill the memory, is refused."""
    with pytest.raises(ValueError, match=r"value|histogram"):
        parse_values(text)


def test_labels() -> None:
    """A series is a name, labels in any quotes, or both; an empty label is no label."""
    assert parse_labels('up{b="x", a=\'y"\', c=`z\\n`,}') == (
        ("__name__", "up"),
        ("a", 'y"'),
        ("b", "x"),
        ("c", "z\\n"),
    )
    assert parse_labels('{a="\\"q\\"", e=""}') == (("a", '"q"'),)
    assert parse_labels("{}") == ()
    for bad in ("up{", 'up{a="1" b="2"}', "up{a=1}", 'up{a="1",a="2"}', "up}", 'up{a!="1"}'):
        with pytest.raises(ValueError, match="no series"):
            parse_labels(bad)


class Recorder:
    """An evaluator that notes what it is asked; the alert `Up` fires while the last value of the first series is 0."""

    def __init__(self, fail_at: float | None = None) -> None:
        self.log: list[tuple[object, ...]] = []
        self.value: float | Stale = 1
        self.fail_at = fail_at

    def append(self, at: float, samples: Sequence[tuple[Labels, float | Stale]]) -> None:
        self.log.append(("append", at, list(samples)))
        self.value = samples[0][1]

    def evaluate(self, at: float) -> None:
        self.log.append(("evaluate", at))
        if at == self.fail_at:
            raise ArithmeticError("boom")

    def firing(self) -> Iterable[tuple[Mapping[str, str], Mapping[str, str]]]:
        return [({"alertname": "Up", "job": "a"}, {"summary": "s"})] if self.value == 0 else []

    def query(self, expr: str, at: float) -> Iterable[tuple[Labels, float]]:
        self.log.append(("query", expr, at))
        return [((), 2.0)]


FILE = """
rule_files: [rules.yml]
evaluation_interval: 30s
tests:
- interval: 1m
  name: first
  input_series:
  - {series: 'up{job="a"}', values: '1 0 _ 1'}
  alert_rule_test:
  - {eval_time: 30s, alertname: Up}
  - eval_time: 1m45s
    alertname: Up
    exp_alerts: [{exp_labels: {job: a}, exp_annotations: {summary: s}}]
  - {eval_time: 1m, alertname: Other, exp_alerts: []}
  promql_expr_test:
  - {expr: 1 + 1, eval_time: 2m, exp_samples: [{labels: '{}', value: 2}]}
"""


def _run(text: str, evaluator: Recorder) -> list[promtest.Failure]:
    return promtest.run(promtest.load(text, Path("rules_test.yml")), lambda file, test: evaluator)


def test_samples_evaluations_and_questions_come_in_promtools_order() -> None:
    """Samples up to an instant, its evaluation, then the alerts asked before the next; expressions at the end."""
    evaluator = Recorder()
    assert _run(FILE, evaluator) == []
    up = (("__name__", "up"), ("job", "a"))
    assert evaluator.log == [
        ("append", 0, [(up, 1)]),
        ("evaluate", 0),
        ("evaluate", 30),
        ("append", 60, [(up, 0)]),
        ("evaluate", 60),
        ("evaluate", 90),
        ("evaluate", 120),
        ("query", "1 + 1", 120),
    ]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("summary: s}}", "summary: t}}", "alert Up"),
        ("job: a}, exp", "job: b}, exp", "alert Up"),
        ("1m45s", "15s", "alert Up"),
        ("value: 2}", "value: 3}", "1 + 1"),
        ("labels: '{}'", "labels: 'x'", "1 + 1"),
        ("eval_time: 30s", "eval_time: 1m", "alert Up"),
    ],
)
def test_a_difference_is_a_failure(old: str, new: str, says: str) -> None:
    """A wrong annotation, label, time, value or sample name is one failure that says what was asked."""
    failures = _run(FILE.replace(old, new), Recorder())
    assert [failure.asked for failure in failures] == [says]
    assert "first" in str(failures[0])


def test_a_rule_that_fails_ends_its_test() -> None:
    """An evaluation that raises is the verdict; nothing is asked after it."""
    (failure,) = _run(FILE, Recorder(fail_at=60))
    assert (failure.asked, failure.at) == ("evaluation", 60)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("rule_filez: []", 1, "did you mean"),
        ("tests:\n- input_series:\n  - {series: up, values: 'x'}", 3, "no value"),
        ("tests:\n- input_series:\n  - {series: 'up{', values: '1'}", 3, "no series"),
        ("tests:\n- input_series:\n  - {values: '1'}", 3, "no series"),
        ("tests:\n- alert_rule_test:\n  - {eval_time: 1m}", 3, "no alertname"),
        ("tests:\n- alert_rule_test:\n  - {eval_time: soon, alertname: A}", 3, "no duration"),
        ("tests:\n- promql_expr_test:\n  - {expr: 'sum(', eval_time: 1m}", 3, "not PromQL"),
        (
            "tests:\n- promql_expr_test:\n  - {expr: up, exp_samples: [{labels: up, value: many}]}",
            3,
            "could not convert",
        ),
        ("tests:\n- promql_expr_test:\n  - {expr: up, exp_samples: [{histogram: '{{}}'}]}", 3, "native histograms"),
        ("tests:\n- start_timestamp: never", 2, "no time"),
    ],
)
def test_a_mistake_in_a_test_file_is_named_with_its_line(text: str, line: int, says: str) -> None:
    """Test files are read as strictly as rule files."""
    with pytest.raises(ConfigurationError) as caught:
        promtest.load(text, Path("rules_test.yml"))
    assert [problem.line for problem in caught.value.problems if says in str(problem)] == [line]


def test_start_fuzzy_order_and_globs(tmp_path: Path) -> None:
    """Newer fields are understood: the start time, the one-ulp comparison, the order of groups; and globs."""
    for name in ("b", "a"):
        (tmp_path / f"{name}.rules.yml").write_text(f"groups: [{{name: {name}, rules: []}}]", encoding="utf-8")
    text = """
rule_files: ["*.rules.yml"]
fuzzy_compare: true
group_eval_order: [b, a]
tests:
- start_timestamp: 2026-01-31T12:00:00Z
  promql_expr_test:
  - {expr: "1 + 1", eval_time: 0s, exp_samples: [{value: 2.0000000000000004}]}
"""
    file = promtest.load(text, tmp_path / "t.yml")
    assert [group.name for group in file.groups()] == ["b", "a"]
    evaluator = Recorder()
    assert promtest.run(file, lambda file, test: evaluator) == []
    assert evaluator.log[0] == ("evaluate", 1769860800.0)
    none = promtest.load("rule_files: [none.yml]", tmp_path / "t.yml")  # promtool warns of it, and goes on
    assert (none.unmatched(), none.groups()) == (("none.yml",), ())
