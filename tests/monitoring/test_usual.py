"""What a target is held against, as the page tells it: the usual, where drift is told, or how long it will learn."""

from __future__ import annotations

import math
from typing import Any

import pytest

from anvil_monitor.alerts import learning
from anvil_monitor.alerts.driftkinds import LATENCY, MEMORY, TRAFFIC
from anvil_monitor.monitoring.promql import Engine
from anvil_monitor.monitoring.samples import Labels, labels_of
from anvil_monitor.monitoring.status import Board
from anvil_monitor.monitoring.store import Store
from anvil_monitor.targets import load

CONFIGURATION = load(None, {})
NOW = 1_700_000_000.0
DAY = 86_400.0


def series(name: str, target: str, **more: str) -> Labels:
    return labels_of(__name__=name, service="app", target=target, **more)


def told(store: Store, target: str, started: float = NOW - 600) -> dict[str, Any]:
    board, engine = Board(CONFIGURATION, started), Engine(store)
    board.update(NOW, engine.instant, engine.range, [])
    assert board.problem == ""
    return next(status.usual.to_json() for status in board.targets if status.target.name == target)


def test_what_is_usual_and_where_drift_is_told() -> None:
    """A point a minute of baseline and bounds, and the newest of them in words; what is no number is left out."""
    store = Store()
    for ago in range(600, -1, -60):
        names = (("target:baseline", 0.12), ("target:upper", 0.18), ("target:lower", math.nan))
        store.append(round((NOW - ago) * 1000), [(series(name, "api_response_time"), value) for name, value in names])
    usual = told(store, "api_response_time")
    assert usual["text"] == "Usually 120 ms; drift is told over 180 ms."
    assert {value for _, value in usual["upper"]} == {0.18}
    assert len(usual["baseline"]) == 11
    assert usual["lower"] == []


def test_users_are_told_of_both_ways() -> None:
    """Of users fewer than usual are news as well."""
    store = Store()
    names = (("target:baseline", 120.0), ("target:upper", 180.0), ("target:lower", 60.0))
    store.append(round(NOW * 1000), [(series(name, "concurrent_users"), value) for name, value in names])
    assert told(store, "concurrent_users")["text"] == (
        "Usually 120 users; drift is told over 180 users or under 60 users."
    )


def test_a_young_monitor_is_learning_since_it_began() -> None:
    """With a signal of minutes only, since its first minute; without any, there is nothing to learn from."""
    store = Store()
    for ago in range(600, -1, -60):
        labels = series("drift:signal", "memory", **{"class": "memory"})
        store.append(round((NOW - ago) * 1000), [(labels, 1e8)])
    text = told(store, "memory")["text"]
    assert "still learning. Speaks after 3 d 18 h of history (since " in text
    assert "in about 3 d 18 h. Its slope is watched after 7 h of uptime." in text
    assert "Nothing was measured yet" in told(store, "api_response_time")["text"]


def test_how_long_it_will_learn_counts_from_the_first_of_the_past() -> None:
    """After a day, four days and six hours are three days and six hours, or an hour more: it is known to the hour."""
    store = Store()
    signal = series("drift:signal", "api_response_time", **{"class": "latency"})
    for ago in range(round(DAY), -1, -60):
        store.append(round((NOW - ago) * 1000), [(signal, 0.1)])
    assert "in about 3 d 7 h" in told(store, "api_response_time", NOW - 60)["text"]


@pytest.mark.parametrize(
    ("kind", "since", "words"),
    [
        (TRAFFIC, NOW - 7.9 * DAY, "Speaks after 8 d of history (since then), in about 2 h."),
        (LATENCY, NOW - 9 * DAY, "There are gaps in the past"),
        (LATENCY, None, "Nothing was measured yet"),
        (MEMORY, NOW - 3.74 * DAY, "in about 1 h."),
    ],
)
def test_learning_in_words(kind: str, since: float | None, words: str) -> None:
    """What is missing, and about how long it takes; never no time at all."""
    assert words in learning.said(kind, since, NOW, lambda _: "then")


def test_versions_are_read_with_the_newest_first() -> None:
    """Also one that has gone within the time that the plot shows."""
    store = Store()
    for version, since, ago in (("1", NOW - 900.0, 300), ("2", NOW - 290.0, 0)):
        labels = labels_of(__name__="service:version_since", service="app", service_version=version)
        store.append(round((NOW - ago) * 1000), [(labels, since)])
    board, engine = Board(CONFIGURATION, NOW - 600), Engine(store)
    board.update(NOW, engine.instant, engine.range, [])
    found = board.past.versions_to_json()["app"]
    assert [(each["version"], each["since"]) for each in found] == [("2", NOW - 290), ("1", NOW - 900)]
