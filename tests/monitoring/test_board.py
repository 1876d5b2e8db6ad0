"""How the targets stand, for page and terminal."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from anvil_monitor.monitoring.promql import Engine, QueryError, Value
from anvil_monitor.monitoring.samples import Labels, labels_of
from anvil_monitor.monitoring.status import Board, TargetStatus
from anvil_monitor.monitoring.store import Store
from anvil_monitor.monitoring.terminal import spark
from anvil_monitor.targets import load

CONFIGURATION = load(None, {})
NOW = 1_700_000_000.0


def series(name: str, target: str) -> Labels:
    return labels_of(__name__=name, service="app", target=target, unit="seconds")


def judged(
    target: str, value: float | None, ratio: float = 0.0, samples: float | None = None, after: float = 0.0
) -> TargetStatus:
    store, board = Store(), Board(CONFIGURATION, NOW - after)
    if value is not None:
        store.append(
            round(NOW * 1000), [(series("target:value", target), value), (series("target:ratio", target), ratio)]
        )
    if samples is not None:
        store.append(round(NOW * 1000), [(series("target:samples", target), samples)])
    engine = Engine(store)
    board.update(NOW, engine.instant, engine.range, [])
    return next(status for status in board.targets if status.target.name == target)


@pytest.mark.parametrize(
    ("what", "arguments", "state", "text"),
    [
        ("kept", ("api_response_time", 0.142, 0.71, 500), "ok", "142 ms"),
        ("missed", ("api_response_time", 0.312, 1.56, 500), "missed", "312 ms"),
        ("over the limit with too few requests", ("api_response_time", 0.312, 1.56, 3), "idle", "312 ms"),
        ("no traffic", ("api_response_time", math.nan, math.nan, 0), "idle", "no traffic"),
        ("nothing yet", ("api_response_time", None), "waiting", "waiting"),
        ("nothing for longer than its silence", ("api_response_time", None, 0, None, 400.0), "no_data", "no data"),
        ("memory missed", ("memory", 512e6, 1.024), "missed", "512 MB"),
        ("fewer users than promised, all well", ("concurrent_users", 37, 0.6), "ok", "37 users"),
        ("few users and no response times", ("concurrent_users", 37, math.nan), "idle", "37 users"),
        ("response time broke with few users", ("concurrent_users", 37, 1.6), "missed", "37 users"),
    ],
)
def test_the_state_of_a_target(what: str, arguments: tuple[str, float], state: str, text: str) -> None:
    """Each situation has its state and its words."""
    status = judged(*arguments)
    assert (status.state, status.text) == (state, text), what
    if state not in ("ok", "waiting"):
        assert status.note


def test_an_estimate_is_marked() -> None:
    """Where ``target:estimate`` stands beside the value, the text says ``≈`` and the JSON says so too."""
    store, board = Store(), Board(CONFIGURATION, NOW)
    name = "api_response_time"
    store.append(round(NOW * 1000), [(series("target:value", name), 0.142), (series("target:estimate", name), 1)])
    engine = Engine(store)
    board.update(NOW, engine.instant, engine.range, [])
    status = next(status for status in board.targets if status.target.name == name)
    assert (status.text, status.to_json()["estimated"]) == ("≈ 142 ms", True)
    assert not judged(name, 0.142).estimated


def test_a_target_that_falls_silent_has_no_data_at_once() -> None:
    """After a first value an absent one is no data, not waiting, and since counts from the change."""
    store, board = Store(), Board(CONFIGURATION, NOW)
    engine = Engine(store, lookback=5)
    store.append(round(NOW * 1000), [(series("target:value", "memory"), 1e8)])
    board.update(NOW, engine.instant, engine.range, [])
    board.update(NOW + 4, engine.instant, engine.range, [])
    board.update(NOW + 10, engine.instant, engine.range, [])
    status = next(status for status in board.targets if status.target.name == "memory")
    assert (status.state, status.since, status.value) == ("no_data", NOW + 10, None)


def test_history_is_on_a_grid_with_gaps() -> None:
    """The history has a point for every step of the quarter of an hour, None where nothing was measured."""
    store, board = Store(), Board(CONFIGURATION, NOW - 3600)
    for ago in (600, 595, 590, 5, 0):
        store.append(round((NOW - ago) * 1000), [(series("target:value", "memory"), 1e8 + ago)])
    engine = Engine(store, lookback=6)
    board.update(NOW, engine.instant, engine.range, [])
    history = next(status for status in board.targets if status.target.name == "memory").history
    times = [at for at, _ in history]
    assert len(history) == 181
    assert set(np.diff(times)) == {5.0}
    known = [at for at, value in history if value is not None]
    assert known[0] == pytest.approx(NOW - 600, abs=5)
    assert 4 <= len(known) <= 8
    assert all(value is None or value >= 1e8 for _, value in history)


def test_history_grows_from_the_start() -> None:
    """Two minutes after the start the history is two minutes long, not a quarter of an hour of nothing."""
    store, board = Store(), Board(CONFIGURATION, NOW - 120)
    store.append(round(NOW * 1000), [(series("target:value", "memory"), 1e8)])
    engine = Engine(store)
    board.update(NOW, engine.instant, engine.range, [])
    history = next(status for status in board.targets if status.target.name == "memory").history
    assert history[-1][0] - history[0][0] == pytest.approx(120, abs=5)


def test_json_has_no_nan() -> None:
    """What goes to the page is JSON: not-a-number and infinity are null."""
    shown = judged("api_response_time", math.nan, math.inf, 0).to_json()
    assert (shown["value"], shown["ratio"], shown["fill"]) == (None, None, None)


def test_a_failing_query_is_told_and_keeps_the_last_state() -> None:
    """The board says that it could not read, rather than showing nothing."""
    board = Board(CONFIGURATION, NOW)
    before = board.targets

    def broken(query: str, at: float) -> Value:
        raise QueryError("timeout", "too slow")

    board.update(NOW, broken, Engine(Store()).range, [])
    assert board.targets == before
    assert "too slow" in board.problem


def test_another_service_is_told_apart() -> None:
    """Targets of two services of one name keep their own values."""
    both = replace(
        CONFIGURATION, targets=(*CONFIGURATION.targets, *(replace(t, service="b") for t in CONFIGURATION.targets))
    )
    store, board = Store(), Board(both, NOW)
    for service, value in (("app", 0.1), ("b", 0.3)):
        labels = labels_of(__name__="target:value", service=service, target="api_response_time", unit="seconds")
        store.append(round(NOW * 1000) + (service == "b"), [(labels, value)])
    engine = Engine(store)
    board.update(NOW + 1, engine.instant, engine.range, [])
    found = {(s.target.service, s.value) for s in board.targets if s.target.name == "api_response_time"}
    assert found == {("app", 0.1), ("b", 0.3)}


def test_a_spark_line_has_gaps_and_ends_now() -> None:
    """Blocks rise to the highest value; a gap is a blank."""
    assert spark([None, 1.0, 2.0, 4.0]) == " ▃▅█"
    assert spark([]) == ""
    assert spark([0.0, None]) == "▁ "
    assert len(spark([1.0] * 181)) <= 24
