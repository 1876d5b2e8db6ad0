"""An alert that comes and goes: told once that it flaps, and again when it has settled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from anvil_monitor.alerts import acks
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.pipeline import Pipeline

MISSED = "app: API response time 312 ms, target < 200 ms"
FLAPS = "API response time of app comes and goes: TargetMissed has fired 4 times within 1 h"
OVER = "app: API response time recovered"


def titles(outbox: Outbox) -> list[str]:
    return [message.title for message in reversed(outbox.ledger())]


@pytest.fixture
def build(configure: Any, outbox: Outbox, clock: Any) -> Callable[..., Pipeline]:
    """Flapping is more than three firings within an hour."""

    def make(**monitor: Any) -> Pipeline:
        settings = {"flap_limit": 3, "flap_window": 3600.0, **monitor}
        return Pipeline(configure({"team": "json://127.0.0.1/"}, **settings), outbox, clock)

    return make


@pytest.fixture
def flap(clock: Any, alerts: Any) -> Callable[..., Any]:
    """Lets an alert fire and end, a minute each, ``times`` times; gives its last state."""

    def go(pipeline: Pipeline, times: int) -> Any:
        alert = None
        for _ in range(times):
            fires = alerts.missed(at=clock.now)
            for state in (fires, alerts.over(fires, clock.now + 60)):
                for _ in range(12):
                    pipeline.update([alert := state])
                    clock.now += 5
        return alert

    return go


def test_it_is_told_once_and_when_it_is_over(build: Any, flap: Any, outbox: Outbox, clock: Any) -> None:
    """Three firings and ends are news; with the fourth it flaps, which is one message, until it is over."""
    pipeline = build()
    flap(pipeline, 12)
    assert titles(outbox) == [MISSED, OVER] * 3 + [FLAPS]
    for _ in range(360):
        pipeline.update([])
        clock.now += 5
    assert titles(outbox)[7:] == [OVER]
    flap(pipeline, 1)
    assert titles(outbox)[8:] == [MISSED, OVER]


def test_it_is_told_again_when_it_has_settled_and_goes_on(
    build: Any, flap: Any, outbox: Outbox, clock: Any, alerts: Any
) -> None:
    """An alert that stops coming and going and stays is told as what it is, once."""
    pipeline = build()
    flap(pipeline, 6)
    stays = alerts.missed(at=clock.now)
    for _ in range(400):
        pipeline.update([stays])
        clock.now += 5
    assert titles(outbox)[6:] == [FLAPS, MISSED]


def test_a_restart_in_its_midst(build: Any, flap: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """The monitor that starts knows from the outbox that it flaps: neither repeated, nor told as over too early."""
    flap(build(), 6)
    pipeline = build()
    flap(pipeline, 3)
    assert titles(outbox)[6:] == [FLAPS]
    for _ in range(400):
        pipeline.update([])
        clock.now += 5
    assert titles(outbox)[7:] == [OVER]


def test_others_are_told_meanwhile(build: Any, flap: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """The limit is one alert's own."""
    pipeline = build()
    flap(pipeline, 6)
    other = alerts.missed("memory", title="Server memory", at=clock.now)
    for _ in range(12):
        pipeline.update([other])
        clock.now += 5
    assert titles(outbox)[7:] == ["app: Server memory 312 ms, target < 200 ms"]


def test_one_that_flaps_can_be_acknowledged(build: Any, flap: Any, outbox: Outbox, clock: Any) -> None:
    """The acknowledgement holds while it flaps, through its ends, and goes when it has settled."""
    pipeline = build()
    alert = flap(pipeline, 5)
    acks.add(outbox, [alert], author="Ada", at=clock.now)
    flap(pipeline, 3)
    assert list(acks.current(outbox)) == [alert.fingerprint]
    for _ in range(400):
        pipeline.update([])
        clock.now += 5
    assert acks.current(outbox) == {}


def test_firings_apart_are_no_flapping(build: Any, flap: Any, outbox: Outbox, clock: Any) -> None:
    """Once in half an hour is not more than three times within an hour; without a limit nothing ever flaps."""
    pipeline = build()
    for _ in range(6):
        flap(pipeline, 1)
        pipeline.update([])
        clock.now += 1800
    assert titles(outbox) == [MISSED, OVER] * 6
    flap(build(flap_limit=0), 10)
    assert titles(outbox)[12:] == [MISSED, OVER] * 10


def test_one_nobody_was_told_of(build: Any, flap: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """What is held back while it flaps, by a greater alert, leaves no message behind."""
    pipeline = build()
    down = alerts.other("ServiceDown", at=clock.now - 60)
    for _ in range(6):
        fires = alerts.missed(at=clock.now)
        for state in (fires, alerts.over(fires, clock.now + 60)):
            for _ in range(12):
                pipeline.update([state, down])
                clock.now += 5
    assert titles(outbox) == ["app: ServiceDown"]
