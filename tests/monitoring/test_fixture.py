"""The fixture ``alert_rules`` in a test run of its own, as a user has it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

RULES = """\
groups:
  - name: jobs
    rules:
      - record: job:up:sum
        expr: sum by (job) (up)
      - alert: JobDown
        expr: job:up:sum == 0
        for: 2m
        keep_firing_for: 2m
        labels: {severity: critical}
        annotations: {summary: "{{ $labels.job }} is down in {{ $externalLabels.region }}"}
"""
TESTS = """\
import pytest

DOWN = {"alertname": "JobDown", "job": "a", "severity": "critical"}


def test_it_fires_and_recovers(alert_rules):
    play = alert_rules("rules.yml", external_labels={"region": "eu"})
    play.series('up{job="a", instance="1"}', "1x3 0x4 1x10").series('up{job="b"}', "1x20")
    assert play.firing(at="3m") == play.pending(at="3m") == []
    assert play.pending(at="5m") == [DOWN]
    assert play.firing(at="6m") == [DOWN]
    assert play.firing(at="6m", alertname="Other") == []
    assert play.firing(at="10m") == [DOWN]
    assert play.firing(at=660) == []
    (alert,) = play.alerts(at="6m")  # back in time: played again
    assert (alert.annotations, alert.value, alert.since) == ({"summary": "a is down in eu"}, 0.0, 240.0)


def test_a_query(alert_rules):
    play = alert_rules("rules.yml", interval="15s", evaluation_interval="30s").series('up{job="a"}', "1x3 0x20")
    assert play.query("job:up:sum", at="30s") == {'job:up:sum{job="a"}': 1.0}
    assert play.query("1 + 1", at=0) == {"{}": 2.0}
    assert play.query("job:up:sum", at="2m") == {'job:up:sum{job="a"}': 0.0}


def test_what_is_wrong_is_said(alert_rules, tmp_path):
    (tmp_path / "bad.yml").write_text("groups: [{name: a, rules: [{alert: B, expr: 'sum('}]}]")
    with pytest.raises(Exception, match="expr is not PromQL"):
        alert_rules(tmp_path / "bad.yml")
    with pytest.raises(Exception, match="cannot be read"):
        alert_rules("none.yml")
    with pytest.raises(ValueError, match="no series"):
        alert_rules("rules.yml").series("up{", "1")
    with pytest.raises(ValueError, match="already"):
        alert_rules("rules.yml").series("up", "1").series("up", "1")
    with pytest.raises(ValueError, match="longer than nothing"):
        alert_rules("rules.yml", interval=0)
"""
UNUSED = """\
import sys


def test_nothing_is_loaded_that_is_not_used():
    heavy = ("numpy", "promql_parser", "httpx", "yaml", "anvil_monitor.alerts", "anvil_monitor.monitoring.promql")
    assert [name for name in heavy if name in sys.modules] == []
"""
PLUGIN = "anvil_monitor.monitoring.testing"


def run(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "rules.yml").write_text(RULES, encoding="utf-8")
    (folder / "test_rules.py").write_text(text, encoding="utf-8")
    # Where the package is installed -p adds nothing: the entry point has the module's name.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        PLUGIN,
        "--rootdir",
        str(folder),
        "test_rules.py",
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_rules_are_tested_without_a_binary(tmp_path: Path) -> None:
    """Pending, firing, kept firing, over; annotations; queries; mistakes: as the documentation says."""
    ran = run(tmp_path, TESTS)
    assert "3 passed" in ran.stdout, ran.stdout + ran.stderr


def test_who_does_not_use_it_pays_nothing(tmp_path: Path) -> None:
    """The plugin is loaded in every run of pytest, so it must load nothing itself."""
    ran = run(tmp_path, UNUSED)
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


def test_it_is_an_entry_point() -> None:
    """pytest finds it by itself, under the module's own name."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {PLUGIN: PLUGIN}
