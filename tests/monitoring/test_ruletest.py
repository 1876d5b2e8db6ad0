"""The rules' own tests, run by the embedded evaluator and by promtool."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from anvil_monitor.alerts import rulefile, ruletests
from anvil_monitor.alerts.rules import rule_groups
from anvil_monitor.monitoring import ruletest
from anvil_monitor.targets import load

RULES = """
groups:
  - name: g
    rules:
      - record: job:up
        expr: sum by (job) (up)
      - alert: Down
        expr: up == 0
        for: 2m
        keep_firing_for: 1m
        labels: {severity: critical}
        annotations:
          summary: "{{ $labels.job }} is {{ $value }} for {{ $labels.instance }}"
"""

TESTS = """
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: up{job="a", instance="1"}
        values: "1 0 0 0 0 1 1 1 1"
      - series: up{job="a", instance="2"}
        values: "1 1 1 stale _ _ 1 1 1"
    alert_rule_test:
      - {eval_time: 2m, alertname: Down}
      - eval_time: 3m
        alertname: Down
        exp_alerts: &alerts
          - exp_labels: {severity: critical, job: a, instance: "1"}
            exp_annotations: {summary: "a is 0 for 1"}
      - {eval_time: 5m, alertname: Down, exp_alerts: *alerts}
      - {eval_time: 6m, alertname: Down}
    promql_expr_test:
      - expr: job:up
        eval_time: 2m
        exp_samples: [{labels: 'job:up{job="a"}', value: 1}]
      - expr: job:up
        eval_time: 3m
        exp_samples: [{labels: 'job:up{job="a"}', value: 0}]
      - expr: ALERTS
        eval_time: 1m
        exp_samples:
          - {labels: 'ALERTS{alertname="Down",alertstate="pending",instance="1",job="a",severity="critical"}', value: 1}
      - expr: ALERTS_FOR_STATE
        eval_time: 4m
        exp_samples:
          - {labels: 'ALERTS_FOR_STATE{alertname="Down",instance="1",job="a",severity="critical"}', value: 60}
      - expr: count_over_time(ALERTS{alertstate="firing"}[10m])
        eval_time: 8m
        exp_samples:
          - {labels: '{alertname="Down",alertstate="firing",instance="1",job="a",severity="critical"}', value: 3}
"""


def written(folder: Path, rules: str, tests: str) -> Path:
    (folder / "rules.yml").write_text(rules, encoding="utf-8")
    path = folder / "rules_test.yml"
    path.write_text(tests, encoding="utf-8")
    return path


@pytest.mark.timeout(600)  # 300,000 evaluations of a rule: 40 s of a core that may be busy with others
def test_the_tests_of_the_shipped_rules_pass_here(tmp_path: Path) -> None:
    """What is generated from the five Phase 2 targets holds in the embedded evaluator."""
    configuration = load(None, {})
    groups = [group for group in rule_groups(configuration) if not group.name.startswith("drift ")]  # tested elsewhere
    path = written(tmp_path, rulefile.dump(groups), ruletests.dump(configuration))
    assert [str(failure) for failure in ruletest.run(path)] == []


def test_a_life_of_an_alert_passes_here(tmp_path: Path) -> None:
    """for, keep_firing_for, stale series, ALERTS and ALERTS_FOR_STATE, templates: as the file says."""
    assert [str(failure) for failure in ruletest.run(written(tmp_path, RULES, TESTS))] == []


@pytest.mark.needs("promtool")
def test_a_life_of_an_alert_passes_in_prometheus(tmp_path: Path) -> None:
    """The very same file holds for Prometheus."""
    command = ["promtool", "test", "rules", str(written(tmp_path, RULES, TESTS))]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_wrong_expectation_fails_here(tmp_path: Path) -> None:
    """A test that expects what does not happen is a failure that says what came instead."""
    tests = TESTS.replace("{eval_time: 2m, alertname: Down}", "{eval_time: 3m, alertname: Down}")
    (failure,) = ruletest.run(written(tmp_path, RULES, tests))
    assert "alert Down" in str(failure)
    assert "a is 0 for 1" in str(failure)


@pytest.mark.needs("promtool")
@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("record: few, expr: up", "exceeded limit of 1 with 2 series"),
        ("alert: Up, expr: up >= 0", "exceeded limit of 1 with 2 alerts"),
        ("alert: Up, expr: up >= 0, for: 1h", "exceeded limit of 1 with 2 alerts"),
        ("alert: Kept, expr: up == 0 or up offset 1m == 2, keep_firing_for: 1h", "exceeded limit of 1 with 2 alerts"),
        ("record: one, expr: sum(up)", ""),
        ("alert: Down, expr: up == 0", ""),
    ],
)
def test_a_limit_is_promtools(tmp_path: Path, rule: str, says: str) -> None:
    """A group that exceeds its limit fails here and in promtool, in the same words, and else passes in both."""
    rules = f"groups: [{{name: g, limit: 1, rules: [{{{rule}}}]}}]"
    tests = TESTS.split("    alert_rule_test", maxsplit=1)[0].replace('"1 1 1 stale _ _ 1 1 1"', '"2 1 1 1"')
    path = written(tmp_path, rules, tests + "    promql_expr_test: [{expr: vector(1), eval_time: 8m, exp_samples: [")
    path.write_text(path.read_text(encoding="utf-8") + "{labels: '{}', value: 1}]}]\n", encoding="utf-8")
    theirs = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, timeout=60)
    ours = [str(failure) for failure in ruletest.run(path)]
    assert (theirs.returncode == 0, ours == []) == (not says, not says), (theirs, ours)
    assert says in theirs.stdout + theirs.stderr
    assert says in "".join(ours)


def test_a_rule_that_fails_fails_its_test(tmp_path: Path) -> None:
    """An evaluation error is a failure of the test, not a silent nothing."""
    rules = RULES.replace("expr: up == 0", "expr: up + on (job) up")
    found = ruletest.run(written(tmp_path, rules, TESTS))
    assert "evaluation" in str(found[0])


OUTSIDE = """
rule_files: [rules.yml]
tests:
  - external_labels: {cluster: eu}
    external_url: http://monitor.example.com/x
    input_series: [{series: "m", values: "1"}]
    alert_rule_test:
      - eval_time: 0m
        alertname: A
        exp_alerts: [{exp_labels: {of: eu}, exp_annotations: {url: "http://monitor.example.com/x/graph"}}]
"""


@pytest.mark.needs("promtool")
def test_a_test_says_what_is_outside(tmp_path: Path) -> None:
    """The external labels and URL of a test are what its templates see, here and in promtool."""
    annotations = "{url: '{{ $externalURL }}/graph'}"
    rule = f"{{alert: A, expr: m, labels: {{of: '{{{{ $externalLabels.cluster }}}}'}}, annotations: {annotations}}}"
    path = written(tmp_path, f"groups: [{{name: g, rules: [{rule}]}}]", OUTSIDE)
    theirs = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, timeout=60)
    assert theirs.returncode == 0, theirs.stdout + theirs.stderr
    assert [str(failure) for failure in ruletest.run(path)] == []
