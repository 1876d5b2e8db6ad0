"""An alert's ``for`` over a restart: what was held before counts, what is gone or too old does not."""

from __future__ import annotations

import pytest

from anvil_monitor.alerts.rulefile import Alerting, Group, Recording
from anvil_monitor.monitoring.promql import Engine
from anvil_monitor.monitoring.restore import restore
from anvil_monitor.monitoring.rulemanager import ActiveAlert, GroupState, State, evaluate
from anvil_monitor.monitoring.samples import labels_of
from anvil_monitor.monitoring.store import Store

START = 1_000_000.0
GROUP = Group("g", 5.0, (Recording("r", "x * 1"), Alerting("Big", "x > 5", hold=60.0)))


class Life:
    """One process: its rule state, over a store that outlives it. ``value`` is what x is from now on."""

    def __init__(self, store: Store, *, restored: bool, group: Group = GROUP) -> None:
        self.store, self.group, self.engine = store, group, Engine(store)
        self.state = GroupState.of(group)
        self.evaluations = 0
        for memory in self.state.rules:
            memory.restored = restored

    def at(self, at: float, value: float = 9.0, grace: float = 0.0) -> ActiveAlert | None:
        self.store.append(round(at * 1000), [(labels_of(__name__="x", service="shop"), value)])
        write = self.store.append
        evaluate(self.group, self.state, at, self.engine.instant, write, lambda text, data: text)
        self.evaluations += 1
        if self.evaluations == 2:
            restore(self.group, self.state, at, self.store.select, grace)
            for memory in self.state.rules:
                memory.restored = True
        return next(iter(self.state.rules[-1].alerts.values()), None)


def before(until: float = 40.0) -> Store:
    """What a process leaves that saw x over 5 from START on, for some seconds."""
    store = Store()
    life = Life(store, restored=True)
    at = 0.0
    while at <= until:
        life.at(START + at)
        at += 5
    return store


def test_what_was_held_before_counts() -> None:
    """40 s held, 100 s down: it fires 20 s after it was seen again, not 60; "since" moves by what was missed."""
    life = Life(before(40), restored=False)
    states = {}
    for offset in range(140, 190, 5):
        alert = life.at(START + offset)
        assert alert is not None
        states[offset] = alert.state
    assert states[160] is State.PENDING
    assert states[165] is State.FIRING
    assert alert.active_at == START + 105


def test_what_fired_before_fires_at_once_and_since_the_same_time() -> None:
    """At its third evaluation the new process says what the old one said."""
    life = Life(before(70), restored=False)
    life.at(START + 100)
    life.at(START + 105)
    alert = life.at(START + 110)
    assert alert is not None
    assert (alert.state, alert.active_at) == (State.FIRING, START)


def test_nothing_is_written_over_what_is_to_be_restored() -> None:
    """Restarts in a row, each too short for a second evaluation, lose nothing."""
    store = before(40)
    for offset in (60, 80, 100):
        Life(store, restored=False).at(START + offset)
    life = Life(store, restored=False)
    life.at(START + 120)
    alert = life.at(START + 125)
    assert alert is not None
    assert alert.active_at == START + 85


@pytest.mark.parametrize("down", [3601.0, 5000.0])
def test_what_is_too_old_is_forgotten(down: float) -> None:
    """After more than an hour the `for` begins anew."""
    life = Life(before(40), restored=False)
    life.at(START + 40 + down)
    alert = life.at(START + 45 + down)
    assert alert is not None
    assert alert.active_at == START + 40 + down


def test_an_alert_that_had_ended_begins_anew() -> None:
    """The stale marker at its end says so."""
    store = Store()
    life = Life(store, restored=True)
    life.at(START)
    life.at(START + 30)
    life.at(START + 35, value=1.0)
    life = Life(store, restored=False)
    life.at(START + 50)
    alert = life.at(START + 55)
    assert alert is not None
    assert alert.active_at == START + 50


def test_other_labels_are_another_alert() -> None:
    """Only the very same label set is taken up."""
    other = Group("g", 5.0, (Alerting("Big", "x > 5", hold=60.0, labels={"severity": "critical"}),))
    life = Life(before(40), restored=False, group=other)
    life.at(START + 50)
    alert = life.at(START + 55)
    assert alert is not None
    assert alert.active_at == START + 50


def test_a_grace_period_is_kept() -> None:
    """As in Prometheus: less than the grace left waits for it; a rule that holds for less than it begins anew."""
    life = Life(before(40), restored=False)
    life.at(START + 140, grace=30)
    alert = life.at(START + 145, grace=30)
    assert alert is not None
    assert alert.active_at == START + 145 + 30 - 60
    life = Life(before(40), restored=False)
    life.at(START + 140, grace=61)
    alert = life.at(START + 145, grace=61)
    assert alert is not None
    assert alert.active_at == START + 140


def test_an_alert_that_fires_already_goes_on() -> None:
    """A `for` that is over before anything was restored: what was held before never makes it younger."""
    short = Group("g", 5.0, (Alerting("Big", "x > 5", hold=5.0),))
    store = Store()
    first = Life(store, restored=True, group=short)
    first.at(START)
    life = Life(store, restored=False, group=short)
    life.at(START + 20)
    life.at(START + 25)
    alert = life.at(START + 30)
    assert alert is not None
    assert (alert.state, alert.active_at) == (State.FIRING, START + 20)
