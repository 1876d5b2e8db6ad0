"""Maintenance windows and the hours of channels: what waits, for how long, and that nothing is lost by waiting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.pipeline import Pipeline
from anvil_monitor.targets import Channel, Hours, Maintenance, Once, Secret, Weekly

URL = "json://127.0.0.1/"
SECRET = Secret("monitor.toml", URL)
DAY = 86400.0


def titles(outbox: Outbox, channel: str = "team") -> list[str]:
    return [message.title for message in reversed(outbox.ledger()) if message.channel == channel]


@pytest.fixture
def build(configure: Any, outbox: Outbox, clock: Any) -> Callable[..., Pipeline]:
    def make(*channels: Channel, maintenance: tuple[Maintenance, ...] = ()) -> Pipeline:
        named = {channel.name: channel for channel in channels} or {"team": URL}
        return Pipeline(replace(configure(named), maintenance=maintenance), outbox, clock)

    return make


def office(clock: Any, *outside: str) -> Channel:
    """Told for one hour a day, the one that has just begun."""
    start = int(clock.now % DAY)
    weekly = Weekly(tuple(range(7)), start, int((start + 3600) % DAY), "UTC")
    return Channel("team", SECRET, hours=Hours(weekly, outside))


def test_maintenance_holds_back_what_it_names(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """During it a firing of its target is not told, another is; what still fires afterwards is told then."""
    window = Maintenance("move", Once(clock.now - 60, clock.now + 600), ("app",), ("memory",))
    pipeline = build(maintenance=(window,))
    named, other = alerts.missed("memory", title="Server memory"), alerts.missed()
    clock.now += 2
    pipeline.update([named, other, alerts.missed("memory", service="shop", title="Server memory")])
    assert titles(outbox) == [
        "app: API response time 312 ms, target < 200 ms", "shop: Server memory 312 ms, target < 200 ms"]  # fmt: skip
    clock.now += 597
    pipeline.update([named, other])
    assert len(titles(outbox)) == 2
    clock.now += 2
    pipeline.update([named, other])
    assert titles(outbox)[2:] == ["app: Server memory 312 ms, target < 200 ms"]


def test_what_came_and_went_during_maintenance_is_not_told(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """Nobody hears of it, afterwards neither; who was told before hears of the end in the midst of it."""
    known, new = alerts.missed(), alerts.missed("memory", at=clock.now + 120)
    pipeline = build(maintenance=(Maintenance("move", Once(clock.now + 60, clock.now + 600)),))
    clock.now += 2
    pipeline.update([known])
    clock.now += 120
    pipeline.update([known, new])
    clock.now += 60
    pipeline.update([alerts.over(known, clock.now), alerts.over(new, clock.now)])
    clock.now += 600
    pipeline.update([])
    assert titles(outbox) == ["app: API response time 312 ms, target < 200 ms", "app: API response time recovered"]


def test_outside_its_hours_a_channel_waits(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """Another channel is told at once; in its hours it hears what still fires, and of no more."""
    pipeline = build(office(clock), Channel("always", SECRET))
    clock.now += 3700
    short, long_ = alerts.missed("memory", at=clock.now - 60), alerts.missed(at=clock.now - 60)
    pipeline.update([short, long_])
    clock.now += 3600
    pipeline.update([alerts.over(short, clock.now), long_])
    assert len(titles(outbox, "always")) == 2
    assert titles(outbox) == []
    clock.now += DAY - 2 * 3600
    pipeline.update([long_])
    assert titles(outbox) == ["app: API response time 312 ms, target < 200 ms"]


def test_an_end_waits_for_the_hours_too(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """What was told in the evening and was over at night is told as over in the morning, over a restart."""
    channel, alert = office(clock), alerts.missed()
    pipeline = build(channel)
    clock.now += 60
    pipeline.update([alert])
    clock.now += 4000
    pipeline.update([alerts.over(alert, clock.now)])
    assert len(titles(outbox)) == 1
    pipeline = build(channel)
    for _ in range(40):
        clock.now += 60
        pipeline.update([])
    assert len(titles(outbox)) == 1
    clock.now += DAY - 4060 - 40 * 60
    pipeline.update([])
    assert titles(outbox)[1:] == ["app: API response time recovered"]


def test_what_is_critical_may_come_at_any_hour(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """With ``outside = ["critical"]`` a warning waits and a broken promise does not."""
    pipeline = build(office(clock, "critical"))
    clock.now += 4000
    warning = alerts.other("TargetNoData", severity="warning", at=clock.now - 60)
    pipeline.update([warning, alerts.missed(at=clock.now - 60)])
    assert titles(outbox) == ["app: API response time 312 ms, target < 200 ms"]
    assert "1 wait for its hours" in {decision.reason for decision in pipeline.decisions}
    clock.now += DAY - 3900
    pipeline.update([warning])
    assert titles(outbox)[-1] == "app: TargetNoData"
