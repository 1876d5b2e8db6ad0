"""``anvil-monitor rules check`` and ``rules test`` against promtool: the same verdict and exit status on every file."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from anvil_monitor.monitoring.cli import main

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "alerts" / "generated"
# Prometheus's own examples, where this machine has them.
UPSTREAM = Path(os.environ.get("ANVIL_PROMQL_DATA", ROOT.parent / "shared" / "promql")) / "rules"

RULES = """\
groups:
  - name: jobs
    interval: 1m
    rules:
      - record: job:up:sum
        expr: sum by (job) (up)
      - alert: JobDown
        expr: job:up:sum == 0
        for: 2m
        labels: {severity: critical}
        annotations:
          summary: "{{ $labels.job }} is down ({{ $value | humanize }})"
"""
TESTS = """\
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'up{job="a", instance="1"}'
        values: "1x3 0x7"
    alert_rule_test:
      - eval_time: 5m
        alertname: JobDown
      - eval_time: 6m
        alertname: JobDown
        exp_alerts:
          - exp_labels: {job: a, severity: critical}
            exp_annotations: {summary: "a is down (0)"}
    promql_expr_test:
      - expr: job:up:sum
        eval_time: 3m
        exp_samples: [{labels: 'job:up:sum{job="a"}', value: 1}]
"""
# What the two say differently, and why.
DIFFERENT = {
    "no-test-group-interval.yml": "2.42's promtool has no interval where none is given; newer ones take the default",
    "start-time-test.yml": "2.42's promtool does not know start_timestamp",
}
# (part of the rules or tests, what stands there instead)
MISTAKES = (
    ("groups:", "group:"),
    ("name: jobs", "nam: jobs"),
    ("interval: 1m", "interval: 1minute"),
    ("record: job:up:sum", "record: job-up"),
    ("sum by (job) (up)", "sum by (job) (up"),
    ("sum by (job) (up)", "summ(up)"),
    ("job:up:sum == 0", "job:up:sum == 1"),
    ("for: 2m", "for: 3m"),
    ("for: 2m", "for: 2x"),
    ("for: 2m", "forr: 2m"),
    ("severity: critical", "severity: warning"),
    ("{{ $labels.job }}", "{{ $labels.job"),
    ("{{ $labels.job }}", "{{ nosuch }}"),
    ("humanize", "nosuch"),
    ("alert: JobDown", "alert: Other"),
    ("alert: JobDown", "record: Other"),
    ("      - record: job:up:sum\n", "      - expr: up\n"),
    ("labels: {severity: critical}", "labels: {se-verity: critical}"),
    ("labels: {severity: critical}", "labels: [a]"),
    ("groups:\n", "groups:\n  - name: jobs\n    rules: []\n"),
    ("expr: job:up:sum == 0", "expr: ''"),
    ("rule_files: [rules.yml]", "rule_files: [none.yml]"),
    ("rule_files", "rulefiles"),
    ("1x3 0x7", "1x3 0x7y"),
    ("1x3 0x7", "1x9"),
    ("eval_time: 6m", "eval_time: 5m"),
    ("eval_time: 6m", "eval_time: soon"),
    ("exp_labels: {job: a,", "exp_labels: {job: b,"),
    ("a is down (0)", "a is up"),
    ("value: 1}", "value: 2}"),
    ("value: 1}", "value: one}"),
    ("expr: job:up:sum\n", "expr: sum(\n"),
    ('series: \'up{job="a", instance="1"}\'', "series: 'up{job='"),
    ("alertname: JobDown\n      - eval", "alertname: None\n      - eval"),
    ("tests:", "test:"),
    ("1x3 0x7", "1x3 _x2 0x5"),
    ("1x3 0x7", "1x3 0x2 stale"),
)


def promtool(what: str, path: Path) -> int:
    command = [shutil.which("promtool") or "", what, "rules", path.name]
    return subprocess.run(command, cwd=path.parent, capture_output=True, timeout=60, check=False).returncode


def both(what: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Exit status of ours and of promtool's."""
    monkeypatch.chdir(path.parent)
    return main(["rules", what, path.name]), promtool(what, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules.yml").write_text(RULES, encoding="utf-8")
    (tmp_path / "rules_test.yml").write_text(TESTS, encoding="utf-8")
    return tmp_path


@pytest.mark.needs("promtool")
@pytest.mark.parametrize(
    "number", range(len(MISTAKES)), ids=lambda i: f"{MISTAKES[i][0]} {MISTAKES[i][1]}"[:50].replace("\n", " ")
)
def test_a_mistake_gets_promtools_verdict(folder: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mistake in rules or tests: the same exit status of ``check`` and of ``test``; no traceback."""
    before, after = MISTAKES[number]
    for name in ("rules.yml", "rules_test.yml"):
        path = folder / name
        path.write_text(path.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
    assert (folder / "rules.yml").read_text() + (folder / "rules_test.yml").read_text() != RULES + TESTS
    ours, true = both("check", folder / "rules.yml", monkeypatch)
    assert ours == true
    ours, true = both("test", folder / "rules_test.yml", monkeypatch)
    assert ours == true


@pytest.mark.needs("promtool")
def test_our_own_rules(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The generated rules pass both; that their tests do is held by test_ruletest."""
    assert both("check", GENERATED / "rules.yml", monkeypatch) == (0, 0)
    assert "ok" in capsys.readouterr().out


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("seed", range(4))
def test_a_comparison_turned_round(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One comparison of our own rules turned round: promtool and we agree on whether the tests still pass."""
    choice = random.Random(seed)
    lines = (GENERATED / "rules.yml").read_text(encoding="utf-8").splitlines()
    places = [i for i, line in enumerate(lines) if any(f" {op} " in line for op in ("<", ">", ">=", "<=", "=="))]
    place = choice.choice(places)
    old, new = choice.choice([(" > ", " < "), (" < ", " > "), (" == ", " != "), (" >= ", " < ")])
    lines[place] = lines[place].replace(old, new)
    (tmp_path / "rules.yml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tests = yaml.safe_load((GENERATED / "rules_test.yml").read_text(encoding="utf-8"))
    tests["tests"] = choice.sample(tests["tests"], 6)
    (tmp_path / "rules_test.yml").write_text(yaml.safe_dump(tests), encoding="utf-8")
    ours, true = both("test", tmp_path / "rules_test.yml", monkeypatch)
    assert ours == true


@pytest.mark.needs("promtool")
def test_prometheus_own_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of Prometheus's own, as rules and as tests; what differs is listed, and still differs."""
    for path in sorted(UPSTREAM.glob("*.yml")):
        ours, true = both("check", path, monkeypatch)
        assert ours == true, path.name
        ours, true = both("test", path, monkeypatch)
        assert (ours == true) != (path.name in DIFFERENT), path.name


def test_what_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a file; problems with file and line; duplicates and patterns without a file are warnings."""
    (folder / "bad.yml").write_text(RULES.replace("for: 2m", "for: 2x"), encoding="utf-8")
    (folder / "twice.yml").write_text(
        RULES.replace("- alert: JobDown", "- record: job:up:sum\n        expr: up\n      - alert: X")
    )
    files = [str(folder / name) for name in ("rules.yml", "bad.yml", "twice.yml", "none.yml")]
    assert main(["rules", "check", *files]) == 1
    said = capsys.readouterr()
    assert f"{folder}/rules.yml: ok, 2 rules in 1 group" in said.out
    assert f"{folder}/bad.yml:9: " in said.err
    assert "job:up:sum is there more than once" in said.err
    assert "none.yml: cannot be read" in said.err
    assert main(["rules", "test", str(folder / "rules_test.yml"), str(folder / "none.yml")]) == 1
    said = capsys.readouterr()
    assert f"{folder}/rules_test.yml: ok" in said.out
    (folder / "rules_test.yml").write_text(
        TESTS.replace("value: 1}", "value: 2}").replace("[rules.yml]", "[rules.yml, x.yml]")
    )
    assert main(["rules", "test", str(folder / "rules_test.yml")]) == 1
    said = capsys.readouterr()
    assert "no rule file matches 'x.yml'" in said.err
    assert "expected" in said.err
