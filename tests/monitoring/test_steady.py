"""The monitor's own time goes on when the clock of the machine is set back."""

from __future__ import annotations

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anvil_monitor.alerts import rulefile
from anvil_monitor.monitoring import rulemanager
from anvil_monitor.monitoring.promql import Value, Vector
from anvil_monitor.monitoring.rulemanager import RuleManager
from anvil_monitor.monitoring.steady import FARTHEST, SLOWER, Steady

START = 1_700_000_000.0


class Machine:
    """A clock on the wall that can be set, and one that counts."""

    def __init__(self) -> None:
        self.wall, self.counted = START, 50.0
        self.steady = Steady(lambda: self.wall, lambda: self.counted)

    def pass_(self, seconds: float) -> float:
        self.wall += seconds
        self.counted += seconds
        return self.steady()


def test_it_is_the_clock_of_the_machine() -> None:
    """Where nobody sets the clock it is told as it is, also after a night in which the machine was suspended."""
    machine = Machine()
    assert machine.steady() == START
    assert machine.pass_(5) == START + 5
    machine.wall += 8 * 3600
    assert machine.pass_(5) == machine.wall


def test_it_goes_on_where_the_clock_is_set_back(caplog: pytest.LogCaptureFixture) -> None:
    """Ten minutes back: the times go on, a little slower, until the machine's clock has come up; told once."""
    machine = Machine()
    machine.wall -= 600
    assert machine.steady() == pytest.approx(START)
    assert machine.pass_(100) == pytest.approx(START + 100 * (1 - SLOWER))
    assert machine.pass_(600 / SLOWER) == machine.wall
    assert [record.getMessage() for record in caplog.records] == [
        "the clock of this machine was set back by 10 min: times go on from where they were"
    ]


def test_it_follows_a_clock_that_was_wrong_by_hours() -> None:
    """What is more than an hour ahead was never the time."""
    machine = Machine()
    machine.wall -= FARTHEST + 60
    assert machine.pass_(1) == machine.wall


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(-FARTHEST, FARTHEST)), max_size=30))
def test_it_never_goes_back_and_is_never_behind(steps: list[tuple[float, float]]) -> None:
    """Whatever the clock does within the hour: each time is at least the last, and at least the machine's."""
    machine = Machine()
    last = machine.steady()
    for passed, jump in steps:
        machine.wall = max(machine.wall + jump, last - FARTHEST + 1)
        now = machine.pass_(passed)
        assert now >= last
        assert now >= machine.wall
        last = now


@pytest.mark.parametrize("jump", [-1800.0, -600.0, -7200.0, 600.0, 7200.0])
def test_rules_are_evaluated_by_the_clock_even_after_it_was_set(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way the clock is set, two evaluations later the rules are evaluated as of now, in their slots."""
    now = START + 0.5
    seen: list[tuple[float, float]] = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        assert 0 <= seconds <= 5
        now += seconds

    def after(at: float) -> None:
        nonlocal now
        seen.append((at, now))
        if len(seen) == 4:
            now += jump
        if len(seen) == 12:
            raise EOFError

    def query(expr: str, at: float) -> Value:
        return Vector(())

    groups = rulefile.load("groups: [{name: g, interval: 5s, rules: [{record: a, expr: b}]}]", Path("rules.yml"))

    async def play() -> None:
        with ThreadPoolExecutor(1) as thread:
            expand: Any = None
            manager = RuleManager(groups, query, lambda at, batch: None, expand, thread, after, lambda: now)
            monkeypatch.setattr(rulemanager.asyncio, "sleep", sleep)
            await manager.run()

    with pytest.raises(ExceptionGroup):
        asyncio.run(play())
    assert all(0 <= clock - at < 5 for at, clock in [*seen[:4], *seen[6:]]), seen
    assert all(after_ - before == 5 for (before, _), (after_, _) in itertools.pairwise(seen[6:]))
