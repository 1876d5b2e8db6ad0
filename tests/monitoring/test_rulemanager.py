"""One evaluation after another: recorded series, the life of an alert, what is written and what ends."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable

import pytest
from rule_play import OFF, ON, Play, Result, alerting, series

from anvil_monitor.alerts.rulefile import Alerting, Group, Recording
from anvil_monitor.monitoring.promql import Engine, QueryError, Sample, Scalar, Text, Vector
from anvil_monitor.monitoring.rulemanager import (
    GroupState,
    RuleManager,
    evaluate,
    next_slot,
    slot_offset,
)
from anvil_monitor.monitoring.samples import labels_of
from anvil_monitor.monitoring.store import Store
from anvil_monitor.monitoring.threads import Threads


def test_an_alert_without_for_fires_at_once() -> None:
    """With no `for` the first evaluation fires; there is no pending sample."""
    play = alerting()
    state = play.at(100, ON)
    assert state.state == "firing"
    assert play.written == {
        labels_of(__name__="ALERTS", service="a", alertname="Bad", alertstate="firing"): 1.0,
        labels_of(__name__="ALERTS_FOR_STATE", service="a", alertname="Bad"): 100.0,
    }


def test_an_alert_waits_for_its_for() -> None:
    """Pending until the condition has lasted `for`, then firing, and the pending series ends in that instant."""
    play = alerting(hold=10)
    assert play.at(100, ON).state == "pending"
    assert play.at(105).state == "pending"
    state = play.at(110)
    assert state.state == "firing"
    found = play.alerts()
    assert found["firing"] == 1.0
    assert math.isnan(found["pending"])
    (alert,) = state.alerts.values()
    assert (alert.active_at, alert.fired_at) == (100, 110)


def test_what_fires_soon_is_known() -> None:
    """A pending alert is expected once its `for` ends within the time asked for; one that fires is expected no more."""
    play = alerting(hold=10)

    def soon() -> int:
        return len(list(play.state.soon(play.group, 5)))

    play.at(100, ON)
    assert soon() == 0
    play.at(105)
    assert soon() == 1
    play.at(110)
    assert soon() == 0


def test_a_pending_alert_is_forgotten_at_once() -> None:
    """A condition that ends before `for` leaves nothing but stale markers; the next one waits anew."""
    play = alerting(hold=10)
    play.at(100, ON)
    state = play.at(105, OFF)
    assert state.alerts == {}
    assert math.isnan(play.alerts()["pending"])
    play.at(110, ON)
    assert play.at(115).state == "pending"


def test_a_fired_alert_resolves_and_is_remembered_a_quarter_of_an_hour() -> None:
    """Resolved alerts keep their times until 15 min are over, and write nothing."""
    play = alerting()
    play.at(100, ON)
    state = play.at(105, OFF)
    (alert,) = state.alerts.values()
    assert (alert.state, alert.fired_at, alert.resolved_at) == ("inactive", 100, 105)
    assert state.state == "inactive"
    assert play.at(105 + 900).alerts
    assert play.written == {}
    assert not play.at(105 + 901).alerts


def test_a_resolved_alert_that_comes_back_begins_anew() -> None:
    """A new life has its own start."""
    play = alerting(hold=10)
    play.at(100, ON)
    play.at(110)
    play.at(115, OFF)
    state = play.at(120, ON)
    (alert,) = state.alerts.values()
    assert (alert.state, alert.active_at, alert.resolved_at) == ("pending", 120, None)


def test_keep_firing_for_bridges_a_gap() -> None:
    """A firing alert stays firing for `keep_firing_for` after its condition; a return within it changes nothing."""
    play = alerting(keep=10)
    play.at(100, ON)
    assert play.at(105, OFF).state == "firing"
    (alert,) = play.at(110).alerts.values()
    assert (alert.state, alert.keep_since, alert.value) == ("firing", 105, 7.0)
    (alert,) = play.at(112, ON).alerts.values()
    assert (alert.state, alert.keep_since, alert.active_at) == ("firing", None, 100)
    play.at(115, OFF)
    assert play.at(124).state == "firing"
    assert play.at(125).state == "inactive"


def test_an_active_alert_is_refreshed() -> None:
    """Value and annotations follow the newest result."""
    play = Play((Alerting("Bad", "x", annotations={"summary": "{{ $value }}"}),))
    play.at(100, ON)
    (alert,) = play.at(105, [(ON[0][0], 9.0)]).alerts.values()
    assert alert.value == 9.0
    assert alert.annotations["summary"].endswith("9")


def test_templates_see_the_name_and_rule_labels_win() -> None:
    """Templates get the element's own labels, name included; rule labels override, alertname stands last."""
    play = Play((Alerting("Bad", "x", labels={"service": "b", "alertname": "other", "t": "{{ x }}"}),))
    (alert,) = play.at(100, ON).alerts.values()
    assert dict(alert.labels) == {"alertname": "Bad", "service": "b", "t": "{'__name__': 'x', 'service': 'a'}7"}


def test_a_broken_template_does_not_silence_its_alert() -> None:
    """An expansion that raises becomes a text; the alert fires."""
    group = Group("g", 5.0, (Alerting("Bad", "x", annotations={"summary": "{{ x }}"}),))
    state = GroupState.of(group)

    def broken(*_: object) -> str:
        raise ValueError("no such function")

    evaluate(group, state, 1.0, lambda e, t: Vector([Sample((), t, 1.0)]), lambda t, b: None, broken)
    (alert,) = state.rules[0].alerts.values()
    assert alert.annotations == {"summary": "<error expanding template: no such function>"}


@pytest.mark.parametrize("error", [QueryError("execution", "found duplicate series"), ZeroDivisionError("oh")])
def test_a_failing_query_changes_nothing(error: Exception) -> None:
    """While a rule fails nothing is written, no stale marker either, and its alerts stay as they were."""
    play = alerting(hold=10)
    play.at(100, ON)
    state = play.at(105, error)
    assert (state.health, play.written, state.state) == ("err", {}, "pending")
    assert str(error) in state.error
    state = play.at(110, ON)
    assert (state.health, state.error, state.state) == ("ok", "", "firing")


def test_two_alerts_with_the_same_labels_are_an_error() -> None:
    """Rule labels that make two alerts one: the rule fails and keeps its state."""
    play = alerting(service="all")
    state = play.at(100, [(labels_of(service="a"), 1.0), (labels_of(service="b"), 1.0)])
    assert state.health == "err"
    assert "same labelset" in state.error
    assert not state.alerts


def test_a_recording_rule_renames_and_labels() -> None:
    """The record's name replaces the result's; rule labels override."""
    play = Play((Recording("r:x", "x", {"unit": "s", "service": "b"}),))
    play.at(100, ON)
    assert play.written == {labels_of(__name__="r:x", service="b", unit="s"): 7.0}


def test_a_recorded_scalar_has_no_labels() -> None:
    """A scalar result is one sample."""
    play = Play((Recording("r:x", "1"),))
    play.at(100, Scalar(100, 3.0))
    assert play.written == {labels_of(__name__="r:x"): 3.0}


def test_a_recorded_series_that_vanishes_goes_stale() -> None:
    """What was written last time and not now gets a stale marker, once."""
    play = Play((Recording("r:x", "x"),))
    play.at(100, ON)
    play.at(105, OFF)
    assert [math.isnan(value) for value in play.written.values()] == [True]
    play.at(110)
    assert play.written == {}


def test_a_result_that_is_no_vector_is_an_error() -> None:
    """A string has no place in a rule."""
    assert "not a vector" in Play((Recording("r:x", '"x"'),)).at(100, Text(100, "x")).error


def test_rules_of_a_group_see_each_other() -> None:
    """A rule reads what the one before it wrote in the same evaluation; a failing one does not stop the next."""
    store = Store()
    store.append(100_000, [(labels_of(__name__="x"), 3.0)])
    engine = Engine(store)
    rules = (
        Recording("double", "x * 2"),
        Recording("bad", "x + on() group_left y * z("),
        Alerting("Big", "double > 5"),
    )
    group = Group("g", 5.0, rules)
    state = GroupState.of(group)
    evaluate(group, state, 100.0, engine.instant, store.append, lambda text, data: text)
    assert [rule.health for rule in state.rules] == ["ok", "err", "ok"]
    assert state.rules[2].state == "firing"
    assert engine.instant("ALERTS", 100.0) == Vector(
        [Sample(labels_of(__name__="ALERTS", alertname="Big", alertstate="firing"), 100.0, 1.0)]
    )


def test_a_firing_alert_whose_for_is_not_over_waits_again() -> None:
    """A `for` that has become longer than what the alert has held: pending, as if it had never fired."""
    play = alerting()
    (alert,) = play.at(100, ON).alerts.values()
    assert (alert.state, alert.fired_at) == ("firing", 100)
    play.group = Group("g", 5.0, alerting(hold=30).rules)
    (alert,) = play.at(105).alerts.values()
    assert (alert.state, alert.fired_at, alert.active_at) == ("pending", None, 100)
    assert math.isnan(play.alerts()["firing"])
    assert play.at(130).state == "firing"


def test_a_kept_alert_is_frozen() -> None:
    """While it is only kept, neither its value nor its annotations change, and its series go on."""
    play = Play((Alerting("Bad", "x", keep=60, annotations={"summary": "{{ $value }}"}),))
    play.at(100, ON)
    for at in (105, 110):
        (alert,) = play.at(at, OFF).alerts.values()
        assert (alert.value, alert.annotations["summary"][-1], alert.keep_since) == (7.0, "7", 105)
        assert play.alerts() == {"firing": 1.0}
    assert play.at(164).state == "firing"
    (alert,) = play.at(165).alerts.values()
    assert (alert.state, alert.resolved_at) == ("inactive", 165)


def test_a_pending_alert_is_not_kept() -> None:
    """`keep_firing_for` is for what fires; what only waits is forgotten at its first miss."""
    play = alerting(hold=10, keep=60)
    play.at(100, ON)
    assert play.at(105, OFF).alerts == {}


def test_equal_alerts_leave_everything_as_it_was() -> None:
    """The rule errs; the alerts that it had go on, and no series ends."""
    play = alerting(service="all")
    play.at(100, ON)
    state = play.at(105, series("a", "b"))
    assert (state.health, state.state, play.written) == ("err", "firing", {})
    (alert,) = state.alerts.values()
    assert (alert.value, alert.active_at) == (7.0, 100)


def test_what_vanished_during_a_failure_ends_after_it() -> None:
    """The last set that was written is kept over failures: the next good evaluation ends what is no longer there."""
    play = Play((Recording("r:x", "x"),))
    play.at(100, series("a", "b"))
    play.at(105, QueryError("execution", "no"))
    assert play.written == {}
    play.at(110, series("b"))
    assert {dict(labels)["service"]: math.isnan(value) for labels, value in play.written.items()} == {
        "a": True,
        "b": False,
    }


def test_since_when_an_alert_holds_is_written_in_whole_seconds() -> None:
    """ALERTS_FOR_STATE is ActiveAt without its fraction, and carries no alertstate."""
    play = alerting()
    play.at(100.75, ON)
    assert play.written[labels_of(__name__="ALERTS_FOR_STATE", service="a", alertname="Bad")] == 100.0


def test_an_empty_label_takes_one_away() -> None:
    """A rule label that comes out empty is no label of the alert; its series carry the text of the template."""
    play = Play((Alerting("Bad", "x", labels={"service": "", "t": "{{ x }}"}),))
    play.group = Group("g", 5.0, play.rules)
    evaluate(play.group, play.state, 100, lambda e, t: Vector([Sample(ON[0][0], t, 7.0)]), play.write, lambda t, d: "")
    (alert,) = play.state.rules[0].alerts.values()
    assert dict(alert.labels) == {"alertname": "Bad"}
    assert labels_of(__name__="ALERTS", alertname="Bad", alertstate="firing", t="{{ x }}") in play.written


def test_a_rule_is_in_the_greatest_state_of_its_alerts() -> None:
    """unknown before the first evaluation, then inactive < pending < firing."""
    play = Play((Alerting("Bad", "x", hold=10),))
    assert play.state.rules[0].state == "unknown"
    assert play.at(100, OFF).state == "inactive"
    assert play.at(105, series("a")).state == "pending"
    assert play.at(115, series("a", "b")).state == "firing"
    assert play.at(120, series("b")).state == "pending"


def test_a_write_that_fails_fails_its_rule_alone() -> None:
    """What cannot be stored is an error of that rule; the next rule goes on, and nothing counts as written."""
    group = Group("g", 5.0, (Recording("a", "x"), Alerting("Bad", "x")))
    state = GroupState.of(group)

    def full(time_ms: int, batch: Result) -> None:
        if ("__name__", "a") in batch[0][0]:
            raise OSError("no space left on device")

    evaluate(group, state, 1.0, lambda e, t: Vector([Sample((), t, 1.0)]), full, lambda text, data: text)
    assert [rule.health for rule in state.rules] == ["err", "ok"]
    assert "no space left" in state.rules[0].error
    assert state.rules[0].written == frozenset()


def test_slots_are_fixed_instants() -> None:
    """A group runs at k * interval + its own offset, whenever the monitor was started."""
    group = Group("g", 5.0, ())
    offset = slot_offset(group)
    assert 0 <= offset < 5
    assert offset == slot_offset(Group("g", 5.0, ()))
    for now in (0.0, 1.0, 1e9, 1e9 + 4.999):
        slot = next_slot(now, 5.0, offset)
        assert now < slot <= now + 5.0
        assert math.isclose((slot - offset) / 5.0, round((slot - offset) / 5.0))


def test_slots_are_spread_by_file_and_name() -> None:
    """Groups of one interval do not all run at once, those of one name in several files neither."""
    groups = [Group(f"g{i % 10}", 60.0, (), f"/rules/{i // 10}.yml") for i in range(100)]
    offsets = sorted(slot_offset(group) for group in groups)
    assert len(set(offsets)) > 95
    assert max(b - a for a, b in itertools.pairwise([0.0, *offsets, 60.0])) < 6


def test_the_manager_evaluates_each_slot_once_and_counts_the_missed() -> None:
    """The loop hands every slot to `after`, in order; a slow evaluation skips whole slots and counts them."""
    slots: list[float] = []
    manager: RuleManager

    async def main(slow: Callable[[], None]) -> None:
        nonlocal manager
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def after(at: float) -> None:
            slots.append(at)
            if len(slots) == 2:
                slow()
            if len(slots) == 5:
                loop.call_soon_threadsafe(done.set)

        with Threads(1, "rules") as thread:
            manager = RuleManager(
                [Group("g", 0.02, ())],
                lambda e, t: Scalar(t, 1),
                lambda t, b: None,
                lambda t, d: t,
                thread,
                after,
            )
            task = asyncio.create_task(manager.run())
            await asyncio.wait_for(done.wait(), 10)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    import time

    asyncio.run(main(lambda: time.sleep(0.1)))
    steps = [round((b - a) / 0.02) for a, b in itertools.pairwise(slots)]
    assert all(step >= 1 for step in steps)
    assert max(steps) >= 5
    assert manager.groups[0][1].missed >= 4
