"""When the heartbeat is withheld: rules that hang or all fail, an outbox that cannot be written; and on a monitor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.pipeline import Pipeline
from anvil_monitor.alerts.rulefile import Alerting, Group, Recording
from anvil_monitor.monitoring import alive
from anvil_monitor.monitoring.alive import ailing
from anvil_monitor.monitoring.cli import main
from anvil_monitor.monitoring.rulemanager import GroupState
from anvil_monitor.targets import Configuration, Secret

NOW = 1_800_000_000.0


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "outbox.sqlite3")
    yield box
    box.close()


def evaluated(at: float, *health: str) -> tuple[Group, GroupState]:
    rules = (Recording("a", "up"), Alerting("B", "up"))
    group = Group("g", 5.0, rules)
    state = GroupState.of(group)
    state.evaluated_at = at
    for memory, said in zip(state.rules, health, strict=False):
        memory.health, memory.error = said, "no such series" if said == "err" else ""
    return group, state


def test_what_ails(outbox: Outbox) -> None:
    """Nothing evaluated, one group too long ago, every rule failing; one that fails of two is an alert's business."""

    def said(*groups: tuple[Group, GroupState], started: float = NOW - 3600) -> str:
        return ailing(groups, outbox, NOW, started)

    assert said(evaluated(NOW - 3, "ok", "ok")) == ""
    assert said(evaluated(NOW - 3, "ok", "err")) == ""
    assert said(evaluated(0.0)) == "no rule was evaluated yet"
    assert said(evaluated(NOW, "ok"), evaluated(NOW - 20, "ok")).endswith("'g' were not evaluated for 20 s")
    assert said(evaluated(NOW, "ok"), evaluated(0.0), started=NOW - 10) == ""
    assert said(evaluated(NOW, "ok"), evaluated(0.0), started=NOW - 16).endswith("'g' were not evaluated for 16 s")
    assert said(evaluated(NOW - 3, "err", "err")) == "every rule fails: no such series"


def test_an_outbox_that_cannot_be_written_ails(outbox: Outbox) -> None:
    """A write is tried, each time anew; it leaves no message behind."""
    assert ailing([evaluated(NOW, "ok")], outbox, NOW, NOW) == ""
    assert outbox.ledger() == []
    outbox.rows("PRAGMA query_only=1")  # as on a disk that was mounted again, read-only
    assert "cannot be used" in ailing([evaluated(NOW, "ok")], outbox, NOW, NOW)


def test_a_monitor_beats_until_its_rules_hang(
    server: Any,
    configuration: Configuration,
    start: Callable[..., Any],
    until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Real calls arrive while it runs; when an evaluation hangs they stop, are counted as withheld, and come back."""
    monkeypatch.setattr(alive, "LEAST", 0.0)
    hanging, gate = threading.Event(), threading.Event()
    update = Pipeline.update

    def slow(self: Pipeline, alerts: Any) -> Any:
        if hanging.is_set():
            gate.wait(30)
        return update(self, alerts)

    monkeypatch.setattr(Pipeline, "update", slow)
    monitor = replace(configuration.monitor, heartbeat=Secret("env:BEAT"), heartbeat_interval=0.2)
    running = start(replace(configuration, monitor=monitor), BEAT=f"{server.url}/hush-hush")

    def count(outcome: str) -> float:
        for line in running.http.get("/metrics").text.splitlines():
            if line.startswith(f'anvil_monitor_heartbeats_total{{outcome="{outcome}"}} '):
                return float(line.rpartition(" ")[2])
        return -1.0

    until(lambda: count("sent") >= 2)
    withheld = count("withheld")
    hanging.set()
    until(lambda: count("withheld") >= withheld + 2)
    sent, withheld = count("sent"), count("withheld")
    until(lambda: count("withheld") >= withheld + 2)
    assert count("sent") == sent
    hanging.clear()
    gate.set()
    until(lambda: count("sent") > sent)
    assert "hush-hush" not in running.http.get("/metrics").text + running.http.get("/api/v1/targets-state").text


def test_check_reads_the_url_and_never_shows_it(
    configuration_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unset, no URL, and good."""
    configuration_file.write_text('[monitor]\nheartbeat = "env:BEAT"\n', encoding="utf-8")
    arguments = ["check", "--offline", "--config", str(configuration_file)]
    assert main(arguments) == 2
    assert "[monitor] heartbeat: env:BEAT: the environment variable BEAT is not set" in capsys.readouterr().err
    monkeypatch.setenv("BEAT", "hush-hush")
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert "[monitor] heartbeat: env:BEAT is no URL that can be called" in said.err
    assert "hush-hush" not in said.out + said.err
    monkeypatch.setenv("BEAT", "https://127.0.0.1/hush-hush")
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "heartbeat: every 1 min, <secret from env:BEAT>" in said.out
    assert "hush-hush" not in said.out + said.err
