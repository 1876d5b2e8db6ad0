"""Rule files of the user's own: evaluated by ``up``, checked by ``check``, shown, and their alerts told."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.pipeline import Pipeline
from anvil_monitor.alerts.rules import rule_groups
from anvil_monitor.monitoring import userrules
from anvil_monitor.monitoring.cli import main
from anvil_monitor.targets import ConfigurationError, load

RULES = """\
groups:
  - name: mine
    rules:
      - record: users:twice
        expr: 2 * http_server_active_users
      - alert: ManyUsers
        expr: users:twice > 20
        annotations: {summary: "{{ $value }} users, twice"}
      - alert: Foreign
        expr: vector(1)
        labels: {severity: critical}
      - alert: Page
        expr: vector(1)
        labels: {severity: page}
"""


@pytest.fixture
def with_rules(configuration_file: Path) -> Callable[..., Path]:
    """Names rule files in monitor.toml and writes them."""

    def write(text: str = RULES, rules: str = '["rules/*.yml"]') -> Path:
        folder = configuration_file.parent / "rules"
        folder.mkdir(exist_ok=True)
        (folder / "mine.yml").write_text(text, encoding="utf-8")
        before = configuration_file.read_text(encoding="utf-8")
        configuration_file.write_text(
            before.replace("[monitor]", f"[monitor]\n        rules = {rules}"), encoding="utf-8"
        )
        return configuration_file

    return write


def test_they_are_evaluated_shown_and_told(
    with_rules: Callable[..., Path], start: Callable[..., Any], server: Any
) -> None:
    """A rule of the user's own records, fires and reaches the channel, with a service and without one."""
    monitor = start(load(with_rules(), {}))
    deadline = time.monotonic() + 30

    def told() -> str:
        return " | ".join(str(post.get("title")) + str(post.get("message")) for post in server.posted)

    while "24 users, twice" not in told() or "Foreign" not in told():
        assert time.monotonic() < deadline, told()
        time.sleep(0.1)
    groups = monitor.http.get("/api/v1/rules", params={"rule_group[]": "mine"}).json()["data"]["groups"]
    assert groups[0]["file"].endswith("rules/mine.yml")
    assert groups[0]["interval"] == 0.5
    assert [rule["health"] for rule in groups[0]["rules"]] == ["ok"] * 4
    answer = monitor.http.get("/api/v1/query", params={"query": "users:twice"}).json()["data"]["result"]
    assert answer[0]["value"][1] == "24"
    shown = {each["name"]: each for each in monitor.state()["alerts"]}
    assert shown["ManyUsers"]["summary"] == "24 users, twice"
    assert shown["Foreign"]["service"] == ""
    assert "Page" not in told()


def test_check_reads_them(with_rules: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    """``check`` warns of an alert that no channel would be told; a mistake is an error with its line, and exit 2."""
    path = with_rules()
    assert [(p.severity, "'page'" in str(p)) for p in userrules.problems(load(path, {}))] == [("warning", True)]
    (path.parent / "rules" / "mine.yml").write_text(
        RULES.replace("2 *", "2 * *").replace("users:twice\n", "target:value\n")
    )
    assert main(["check", "--offline", "--config", str(path)]) == 2
    said = capsys.readouterr().err
    assert "rules/mine.yml:5: " in said
    assert "expr is not PromQL" in said


@pytest.mark.parametrize(
    ("text", "rules", "words"),
    [
        (RULES.replace("for", "fro").replace("expr: vector(1)", "exp: 1"), '["rules/*.yml"]', "mine.yml:1"),
        (RULES.replace("record: users:twice", "record: target:value"), '["rules/*.yml"]', "target:"),
        (RULES, '["rules/no*.yml"]', "no file matches"),
        (RULES, '"rules"', "must be rule files"),
        (RULES, "[5]", "must be rule files"),
    ],
)
def test_up_starts_only_with_good_ones(with_rules: Callable[..., Path], text: str, rules: str, words: str) -> None:
    """Any problem with them ends it before anything has begun."""
    path = with_rules(text, rules)
    with pytest.raises(ConfigurationError) as raised:
        userrules.load(load(path, {}))
    assert words in "\n".join(map(str, raised.value.problems))
    assert main(["up", "--config", str(path)]) == 2


def test_a_restart_waits_for_the_for_of_such_a_rule(with_rules: Callable[..., Path], tmp_path: Path) -> None:
    """What was told before a restart is not taken for over while its rule's ``for`` runs anew; then it is."""
    configuration = load(with_rules(RULES.replace("- alert: Foreign", "- alert: Foreign\n        for: 10m")), {})
    alert = Alert({"alertname": "Foreign", "severity": "critical"}, {}, 900.0)
    now = [1000.0]
    with contextlib.closing(Outbox(tmp_path / "outbox.db")) as outbox:
        first = Pipeline(configuration, outbox, lambda: now[0])
        for _ in range(5):
            now[0] += 1
            first.update([alert])
        told = len(outbox.ledger(10))
        again = Pipeline(configuration, outbox, lambda: now[0], holds=userrules.holds(userrules.load(configuration)))
        for _ in range(100):
            now[0] += 5
            again.update([])
        assert len(outbox.ledger(10)) == told == 1
        for _ in range(60):
            now[0] += 5
            again.update([])
        assert len(outbox.ledger(10)) == 2


def test_a_restart_waits_for_rules_that_are_evaluated_seldom() -> None:
    """Since when an alert of drift holds is known after two evaluations, a minute apart; it fires with the third."""
    holds = userrules.holds(rule_groups(load(None, {})))
    assert holds["TargetDrifting"] == 300 + 3 * 60
    assert holds["TargetMissed"] == 120 + 3 * 5
