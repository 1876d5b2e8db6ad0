"""What a group says for all its rules: how much they may give, and how late they look."""

from __future__ import annotations

import math

from rule_play import OFF, ON, Play, series

from anvil_monitor.alerts import templates
from anvil_monitor.alerts.rulefile import Alerting, Group, Recording
from anvil_monitor.monitoring.promql import Engine, Sample, Vector
from anvil_monitor.monitoring.rulemanager import GroupState, evaluate
from anvil_monitor.monitoring.samples import labels_of
from anvil_monitor.monitoring.store import Store


def test_a_recording_rule_over_its_limit_stores_nothing() -> None:
    """More series than `limit`: an error in Prometheus's words, nothing written, no series ended."""
    play = Play((Recording("r:x", "x"),), limit=2)
    assert play.at(100, series("a", "b")).health == "ok"
    state = play.at(105, series("a", "b", "c"))
    assert (state.health, state.error, play.written) == ("err", "exceeded limit of 2 with 3 series", {})
    play.at(110, series("a"))
    assert {dict(labels)["service"]: math.isnan(value) for labels, value in play.written.items()} == {
        "a": False,
        "b": True,
    }


def test_an_alerting_rule_over_its_limit_loses_its_alerts() -> None:
    """More active alerts than `limit`: all of them are dropped, and begin anew when there are fewer."""
    play = Play((Alerting("Bad", "x", hold=10),), limit=2)
    play.at(100, series("a", "b"))
    state = play.at(105, series("a", "b", "c"))
    assert (state.health, state.error) == ("err", "exceeded limit of 2 with 3 alerts")
    assert (state.alerts, play.written) == ({}, {})
    state = play.at(110, series("a", "b"))
    assert [(alert.state, alert.active_at) for alert in state.alerts.values()] == [("pending", 110), ("pending", 110)]


def test_only_active_alerts_count_against_the_limit() -> None:
    """Pending, firing and kept ones do; one that has ended does not."""
    play = Play((Alerting("Bad", "x"),), limit=1)
    play.at(100, series("a"))
    assert play.at(105, series("b")).health == "ok"
    kept = Play((Alerting("Bad", "x", keep=60),), limit=1)
    kept.at(100, series("a"))
    assert kept.at(105, series("b")).error == "exceeded limit of 1 with 2 alerts"


def test_a_limit_below_zero_is_none() -> None:
    """As in Prometheus, where only a limit above 0 limits."""
    assert Play((Alerting("Bad", "x"),), limit=-1).at(100, series("a", "b")).health == "ok"


def test_a_query_offset_moves_what_is_asked_and_written_and_no_alert() -> None:
    """The query and the samples are as of ts - query_offset, stale markers too; ActiveAt and `for` go by ts."""
    play = Play((Alerting("Bad", "x", hold=10),), offset=60)
    (alert,) = play.at(100, ON).alerts.values()
    assert (alert.active_at, play.asked, play.written_at) == (100, [40], [40])
    assert play.written[labels_of(__name__="ALERTS_FOR_STATE", service="a", alertname="Bad")] == 100
    assert play.at(110).state == "firing"
    play.at(115, OFF)
    assert play.written_at == [40, 50, 55]
    assert math.isnan(play.alerts()["firing"])


def test_a_recorded_series_with_an_offset_is_where_its_data_is() -> None:
    """The recorded sample has the time that was asked for; `query` in a template asks as of the evaluation."""
    store = Store()
    for at in range(0, 100, 10):
        store.append(at * 1000, [(labels_of(__name__="x"), float(at))])
    engine = Engine(store)
    rules = (Recording("r:x", "x"), Alerting("Bad", "x", annotations={"summary": '{{ query "x" | first | value }}'}))
    group = Group("g", 5.0, rules, query_offset=60)
    state = GroupState.of(group)
    evaluate(group, state, 90.0, engine.instant, store.append, lambda text, data: templates.parse(text).expand(data))
    assert engine.instant("r:x", 35.0) == Vector([Sample(labels_of(__name__="r:x"), 35.0, 30.0)])
    assert engine.instant("r:x", 25.0) == Vector([])
    (alert,) = state.rules[1].alerts.values()
    assert (alert.value, alert.annotations) == (30.0, {"summary": "90"})
