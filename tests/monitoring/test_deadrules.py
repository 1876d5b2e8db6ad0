"""`check` finds rules that can never fire, and `rules test --coverage` those that no test has seen fire."""

from __future__ import annotations

from pathlib import Path

import pytest

from anvil_monitor.alerts import promtest, rulefile
from anvil_monitor.alerts.rules import rule_groups
from anvil_monitor.monitoring import coverage, deadrules, rulecommands
from anvil_monitor.targets.load import parse

OURS = rule_groups(parse('[channels.team]\nurl = "env:A"\n'))


def _dead(expr: str, seen: frozenset[str] | None) -> list[str]:
    text = f"groups:\n- name: g\n  rules:\n  - alert: Mine\n    expr: |-\n      {expr}\n"
    return [str(problem) for problem in deadrules.problems([*OURS, *rulefile.load(text, Path("mine.yml"))], seen)]


@pytest.mark.parametrize("seen", [None, frozenset()], ids=["nobody asked", "servers that emit nothing"])
def test_none_of_our_own_rules_is_dead(seen: frozenset[str] | None) -> None:
    """Every metric and every label that a generated rule asks for is one of exporter/names.py, or recorded before."""
    assert deadrules.problems(OURS, seen) == []


def test_a_slip_in_a_name_is_told_with_what_was_meant() -> None:
    """Also deep inside an expression, and without asking any server."""
    for expr in (
        "rate(http_server_request_duration_second_count[5m]) > 1",
        "max_over_time((1 + http_server_request_duration_second_count)[5m:1m]) > 1",
        "topk(3, abs(http_server_request_duration_second_count)) or vector(0)",
    ):
        (said,) = _dead(expr, None)
        assert "mine.yml: alert Mine asks for http_server_request_duration_second_count, which nothing emits" in said
        assert "did you mean http_server_request_duration_seconds_count?" in said


def test_a_label_that_a_metric_lacks_is_told() -> None:
    """One that must be there; not one that must be absent or may be anything."""
    (said,) = _dead('http_server_request_duration_seconds_count{http_status="500"}', None)
    assert "by the label http_status, which it has not — did you mean http_response_status_code?" in said
    assert _dead('http_server_request_duration_seconds_count{http_status="",mode!="x",le="1",job="server"}', None) == []


def test_what_a_server_emits_decides_about_other_names() -> None:
    """A metric of the user's own is believed while no server could be asked, and looked for once one was."""
    assert _dead("jobs_waiting > 5", None) == []
    assert _dead("jobs_waiting > 5", deadrules.emitted('# HELP jobs_waiting x\njobs_waiting{a="b"} 1\n')) == []
    (said,) = _dead("jobs_waiting > 5", deadrules.emitted("jobs_done_total 1\n"))
    assert "nothing emits" in said
    assert "it can never fire" in said


def test_a_target_of_ones_own_is_told_once() -> None:
    """Its metric is asked for by several rules; the warning names one of them, its service and its target."""
    own = parse('[targets.queue]\nkind = "gauge"\nmetric = "jobs_waitng"\nat_most = 5\n')
    (problem,) = deadrules.problems(rule_groups(own), frozenset({"jobs_waiting"}))
    assert "of app, queue asks for jobs_waitng" in problem.what
    assert problem.todo == "did you mean jobs_waiting?"
    assert problem.severity == "warning"


RULES = """
groups:
- name: g
  rules:
  - record: a:b
    expr: a + 1
  - alert: Either
    expr: a > 5 or b > 5
  - alert: Never
    expr: a > 100
  - alert: Late
    expr: a > 5
    for: 1h
"""
TESTS = """
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
- interval: 1m
  input_series:
  - {series: a, values: 0 10 10}
  - {series: b, values: 0 0 0}
  alert_rule_test:
  - {eval_time: 2m, alertname: Never, exp_alerts: []}
"""


def test_coverage_names_rules_and_branches_that_no_test_exercises(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rule that fired in a test that did not even ask is seen; one that was pending only is not."""
    (tmp_path / "rules.yml").write_text(RULES, encoding="utf-8")
    path = tmp_path / "rules_test.yml"
    path.write_text(TESTS, encoding="utf-8")
    failures, covered = coverage.run(promtest.load(TESTS, path))
    assert failures == []
    assert str(covered) == "2 of 4 rules, 1 of 2 branches"
    assert covered.missing() == [
        "Either{}: no test sees this branch give anything: b > 5",
        "Never{}: no test sees it fire",
        "Late{}: no test sees it fire",
    ]
    assert rulecommands.test([path], coverage=True) == 0
    assert "exercises 2 of 4 rules, 1 of 2 branches" in capsys.readouterr().out


def test_branches_are_the_operands_of_every_or() -> None:
    """At the top and inside other operators; a chain of three is three."""
    assert sorted(coverage.branches("a or (b and (c or on (x) d)) or e")) == [
        "(b and (c or on (x) d))", "a", "c", "d", "e"
    ]  # fmt: skip
