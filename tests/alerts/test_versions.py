"""Since which deploy: what counts as one, and how a message says it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import yaml

from anvil_monitor.alerts import messages, rulefile
from anvil_monitor.alerts.examples import examples
from anvil_monitor.alerts.model import Alert, Notification
from anvil_monitor.alerts.rulefile import Alerting
from anvil_monitor.alerts.rules import rule_groups
from anvil_monitor.monitoring import cli
from anvil_monitor.targets.load import parse

# Every 5 s. 1 from the start; 2 beside it from minute 10, alone from 11; an outage from 15 to 20; 1 again at 25.
VERSIONS = {"1": "1x132 stale _x166 1x60", "2": "_x120 1x60 stale _x58 1x59 stale"}
SINCE = {"9m": {"1": 0}, "10m30s": {"1": 0, "2": 600}, "14m": {"2": 600}, "24m": {"2": 600}, "26m": {"1": 1500}}


RULES = [rule for group in rule_groups(parse("")) for rule in group.rules]


def test_file(folder: Path) -> Path:
    """A rule test, of the rules of a plain configuration, for promtool and for the embedded evaluator."""
    (folder / "rules.yml").write_text(rulefile.dump(rule_groups(parse(""))), encoding="utf-8")
    series = [
        {"series": f'service_version_info{{service="app",service_version="{version}"}}', "values": values}
        for version, values in VERSIONS.items()
    ]
    asked = [
        {
            "expr": "service:version_since",
            "eval_time": at,
            "exp_samples": [
                {"labels": f'service:version_since{{service="app",service_version="{version}"}}', "value": value}
                for version, value in since.items()
            ],
        }
        for at, since in SINCE.items()
    ]
    series.append({"series": 'up{job="server",service="app"}', "values": "0x400"})
    down = next(rule for rule in RULES if isinstance(rule, Alerting) and rule.alert == "ServiceDown")
    told = {
        "exp_labels": {"service": "app", "severity": "critical"},
        "exp_annotations": {**down.annotations, "version": "2", "deploy": "600"},
    }
    alerts = [{"alertname": "ServiceDown", "eval_time": "10m30s", "exp_alerts": [told]}]
    test = {"interval": "5s", "input_series": series, "promql_expr_test": asked, "alert_rule_test": alerts}
    path = folder / "versions_test.yml"
    path.write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "5s", "tests": [test]}))
    return path


test_file.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.needs("promtool")
def test_a_deploy_in_prometheus(tmp_path: Path) -> None:
    """A new version and one gone back to are deploys; a worker that lingers, a restart and an outage are none."""
    done = subprocess.run(
        ["promtool", "test", "rules", test_file(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_deploy_in_the_embedded_monitor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same."""
    assert cli.main(["rules", "test", str(test_file(tmp_path))]) == 0, capsys.readouterr()


def test_every_alert_about_a_server_says_since_which_deploy() -> None:
    """The newest version and its time are asked for by each rule that has a service of the user's."""
    rules = [rule for group in rule_groups(parse("")) for rule in group.rules if isinstance(rule, Alerting)]
    for rule in rules:
        mine = rule.labels.get("service") == "app"
        assert ('service:version_since{service="app"}' in rule.annotations.get("version", "")) == mine, rule.alert


def said(**annotations: str) -> str:
    began = 1_700_000_000.0
    alert = Alert({"alertname": "TargetMissed", "service": "shop"}, {"summary": "slow", **annotations}, began)
    return messages.message(Notification("shop", began + 60, "new alerts", (alert,)))[1]


def test_a_message_says_since_which_deploy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version, when it was first seen, and how long that was before or after the alert began."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    before = said(version="1.4.2", deploy="1.6999994e+09")
    assert "Version: 1.4.2, first seen 22:03:20 UTC, 10 min before it began" in before
    assert "4 s after it began" in said(version="1.4.2", deploy="1700000004.5")


@pytest.mark.parametrize("deploy", ["", "soon", "nan", "inf", "-1", "1e300"])
def test_a_time_that_is_none_is_left_out(deploy: str) -> None:
    """What is posted from outside breaks no message."""
    body = said(version="1.4.2\n<!channel>", deploy=deploy)
    assert "Version: 1.4.2" in body
    assert "<!channel>" not in body


def test_without_a_version_nothing_is_said() -> None:
    """No deploy is made up."""
    assert "Version" not in said(version="", deploy="")


def test_an_example_names_a_version() -> None:
    """A preview of a message shows since which deploy as a real one does."""
    found = {example.name: example.message.body for example in examples(parse(""), 1_700_000_000.0)}
    assert "Version: 1.4.2, first seen" in found["TargetMissed"]
    assert "9 min before it began" in found["ServiceDown"]
    assert "In 5 of the last 10 spans" in found["WorkersCrashing"]
