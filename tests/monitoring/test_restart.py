"""``anvil-monitor up`` ends and begins again: history and alerts go on where they were."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from anvil_monitor.monitoring.history.history import History
from anvil_monitor.targets import Configuration, ConfigurationError


def count(running: Any, at: float) -> float:
    body = running.http.get("/api/v1/query", params={"query": "count_over_time(up[1h])", "time": at}).json()
    return sum(float(each["value"][1]) for each in body["data"]["result"])


def test_a_restart_keeps_samples_and_the_time_an_alert_began(
    server: Any, start: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """What was answered before is answered after; an alert that fired fires again since the same second."""
    server.latency = 0.4
    running = start()
    until(lambda: "TargetMissed" in running.firing())
    at = time.time()
    known = count(running, at)
    alert = next(each for each in running.state()["alerts"] if each["name"] == "TargetMissed")
    running.close()
    assert known > 0
    running = start()
    assert count(running, at) >= known
    until(lambda: "TargetMissed" in running.firing())
    again = next(each for each in running.state()["alerts"] if each["name"] == "TargetMissed")
    until(lambda: abs(again["since"] - alert["since"]) <= 1 or again.update(_alert(running)))


def _alert(running: Any) -> dict[str, Any]:
    return next((each for each in running.state()["alerts"] if each["name"] == "TargetMissed"), {"since": 0.0})


def test_history_in_use_is_a_configuration_error(configuration: Configuration, start: Callable[..., Any]) -> None:
    """A second process on one history is refused before anything is started, and told why."""
    monitor = configuration.monitor
    held = History(monitor.data / "history", monitor.retention, monitor.retention_size)
    try:
        running = start()
        assert isinstance(running.error, ConfigurationError)
        assert "in use by another process" in str(running.error)
    finally:
        held.close()


def test_what_is_wrong_with_the_disk_is_shown(
    configuration: Configuration, start: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """A damaged block is a problem on the page, and nothing else changes."""
    blocks = configuration.monitor.data / "history" / "blocks"
    blocks.mkdir(parents=True)
    (blocks / "000001700000.block").write_bytes(b"no block at all")
    running = start()
    until(lambda: any("damaged" in each for each in running.state()["problems"]))
    until(lambda: running.target("memory")["value"] is not None)
