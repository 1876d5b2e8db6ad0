"""WorkersCrashing tells a loop of crashes from workers that are recycled by design."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from anvil_monitor.alerts import rulefile
from anvil_monitor.alerts.rulefile import Alerting
from anvil_monitor.alerts.rules import rule_groups
from anvil_monitor.monitoring import cli
from anvil_monitor.targets.load import parse

GROUPS = rule_groups(parse(""))
RULE = next(
    rule for group in GROUPS for rule in group.rules if isinstance(rule, Alerting) and rule.alert == "WorkersCrashing"
)


def rising(*steps: tuple[int, int]) -> str:
    """Values every 5 s of a counter that rises by 1 at each of these ``(scrape, amount)``, for 25 minutes."""
    values, value, rises = [], 0, dict(steps)
    for number in range(301):
        value += rises.get(number, 0)
        values.append(str(value))
    return " ".join(values)


def every(seconds: int, late: int = 0, end: int = 301) -> tuple[tuple[int, int], ...]:
    """A rise every so many seconds, seen ``late`` scrapes later."""
    return tuple((number + late, 1) for number in range(12, end - late, seconds // 5))


# What was replaced, how many of these counted their end, and at which minutes it is told.
LIVES = {
    "a worker is recycled every minute": (every(60), every(60), {10: False, 20: False}),
    "seen by the one scrape a little later than by the other": (every(60), every(60, late=2), {10: False, 20: False}),
    "recycled every two minutes and a half, as many as are needed": (every(150), every(150, 1), {15: False, 24: False}),
    "a worker crashes every minute": (every(60), (), {3: False, 6: True, 20: True}),
    "one is recycled while another crashes twice as often": (
        every(60) + tuple((at + 6, 2) for at, _ in every(60)), every(60), {20: True}),
    "a deploy ends four in an orderly way, and what it brought crashes": (
        ((12, 4), *every(60)[1:]), ((12, 4),), {9: True, 20: True}),
}  # fmt: skip


def test_file(folder: Path, what: str) -> Path:
    replaced, ended, told = LIVES[what]
    (folder / "rules.yml").write_text(rulefile.dump(GROUPS), encoding="utf-8")
    series = [
        {"series": 'process_restarts_total{service="app",process_role="worker"}', "values": rising(*replaced)},
        {"series": 'anvil_monitor_workers_ended_total{service="app",job="server"}', "values": rising(*ended)},
    ]
    asked = [
        {
            "expr": f'count(ALERTS{{alertname="{RULE.alert}",alertstate="firing"}}) or vector(0)',
            "eval_time": f"{minute}m30s",
            "exp_samples": [{"labels": "{}", "value": float(fires)}],
        }
        for minute, fires in told.items()
    ]
    test = {"interval": "5s", "input_series": series, "promql_expr_test": asked}
    path = folder / "crashing_test.yml"
    path.write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "5s", "tests": [test]}))
    return path


test_file.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("what", LIVES)
def test_in_prometheus(what: str, tmp_path: Path) -> None:
    """Recycling by design is no crash, whichever scrape sees it first; a loop of crashes is, also beside it."""
    command = ["promtool", "test", "rules", str(test_file(tmp_path, what))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("what", LIVES)
def test_in_the_embedded_monitor(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same."""
    assert cli.main(["rules", "test", str(test_file(tmp_path, what))]) == 0, capsys.readouterr()
