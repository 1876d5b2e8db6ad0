"""Acknowledgements and what rests on them: repeats that stop, and a second channel that is told when nobody answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from anvil_monitor.alerts import acks, silences
from anvil_monitor.alerts.matchers import parse
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.targets import Channel, Hours, Secret, Weekly

SECRET = Secret("monitor.toml", "json://127.0.0.1/")
TEAM = Channel("team", SECRET)
BOSS = Channel("boss", SECRET, escalate_after=900.0)
MISSED = "app: API response time 312 ms, target < 200 ms"
SEEN = "app: acknowledged by Ada: API response time 312 ms, target < 200 ms"


def titles(outbox: Outbox, channel: str = "team") -> list[str]:
    return [message.title for message in reversed(outbox.ledger()) if message.channel == channel]


def test_what_is_acknowledged_is_not_repeated(build: Any, run: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """No repeat while all that goes on is acknowledged, over a restart; the end is told; a new firing is news."""
    pipeline, alert = build(), alerts.missed()
    run(pipeline, 10, alert)
    acks.add(outbox, [alert], author="Ada", at=clock.now)
    clock.now += 5 * 3600
    pipeline = build()
    run(pipeline, 10, alert)
    assert titles(outbox) == [MISSED, SEEN]
    assert pipeline.decisions[0].reason == "acknowledged"
    run(pipeline, 5, alerts.over(alert, clock.now))
    assert acks.current(outbox) == {}
    again = replace(alert, starts_at=clock.now)
    run(pipeline, 60, again)
    assert titles(outbox)[2:] == ["app: API response time recovered", MISSED]
    clock.now += 5 * 3600
    run(pipeline, 10, again)
    assert titles(outbox)[4:] == ["app: still: API response time 312 ms, target < 200 ms"]


def test_another_alert_beside_it_is_repeated(build: Any, run: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """Of two alerts one is acknowledged: the group is repeated for the other one."""
    pipeline, seen, other = build(), alerts.missed(), alerts.missed("memory", title="Server memory")
    run(pipeline, 10, seen, other)
    acks.add(outbox, [seen], author="Ada", at=clock.now)
    clock.now += 5 * 3600
    run(pipeline, 10, seen, other)
    assert len(titles(outbox)) == 2


def test_a_channel_may_repeat_at_its_own_pace(build: Any, run: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """``repeat_interval`` of a channel is its own; another one keeps the monitor's."""
    pipeline, alert = build(TEAM, replace(TEAM, name="often", repeat_interval=600.0)), alerts.missed()
    run(pipeline, 1800, alert)
    assert (len(titles(outbox)), len(titles(outbox, "often"))) == (1, 3)


def test_escalation(build: Any, run: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """The second channel is told a quarter of an hour after the first one, not before, once, and of the end."""
    pipeline, alert = build(TEAM, BOSS), alerts.missed()
    run(pipeline, 900, alert)
    assert (titles(outbox), titles(outbox, "boss")) == ([MISSED], [])
    assert "1 wait whether somebody acknowledges" in {decision.reason for decision in pipeline.decisions}
    run(pipeline, 600, alert)
    assert titles(outbox, "boss") == [MISSED]
    run(pipeline, 5, alerts.over(alert, clock.now))
    run(pipeline, 60)
    assert titles(outbox, "boss")[1:] == ["app: API response time recovered"]


def test_an_acknowledgement_stops_it(build: Any, run: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """Acknowledged in time, the second channel never hears of it; taken back, it does."""
    pipeline, alert = build(TEAM, BOSS), alerts.missed()
    run(pipeline, 600, alert)
    (ack,) = acks.add(outbox, [alert], author="Ada", at=clock.now)
    run(pipeline, 1200, alert)
    assert titles(outbox, "boss") == []
    assert acks.remove(outbox, ack.fingerprint)
    run(pipeline, 60, alert)
    assert titles(outbox, "boss") == [MISSED]


def test_what_ends_in_time_is_not_escalated(build: Any, run: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """Neither the firing nor its end is told to the second channel; a later firing has its own quarter of an hour."""
    pipeline, alert = build(TEAM, BOSS), alerts.missed()
    run(pipeline, 600, alert)
    run(pipeline, 5, alerts.over(alert, clock.now))
    run(pipeline, 600)
    run(pipeline, 600, replace(alert, starts_at=clock.now))
    assert titles(outbox, "boss") == []


def test_a_restart_does_not_begin_the_wait_anew(build: Any, run: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """When the first channel was told is on disk."""
    alert = alerts.missed()
    run(build(TEAM, BOSS), 600, alert)
    pipeline = build(TEAM, BOSS)
    run(pipeline, 360, alert)
    assert titles(outbox, "boss") == [MISSED]


def test_at_night_the_second_channel_does_not_wait_for_ever(
    build: Any, run: Any, outbox: Outbox, clock: Any, alerts: Any
) -> None:
    """Outside the hours of the first one, who is told when nobody answers is told: nobody could have answered."""
    start = int((clock.now - 2 * 3600) % 86400)
    night = Hours(Weekly(tuple(range(7)), start, int((start + 3600) % 86400), "UTC"))
    pipeline, alert = build(replace(TEAM, hours=night), BOSS), alerts.missed()
    run(pipeline, 890, alert)
    assert titles(outbox, "boss") == []
    run(pipeline, 60, alert)
    assert (titles(outbox), titles(outbox, "boss")) == ([], [MISSED])


def test_a_silenced_alert_is_not_escalated(build: Any, run: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """A silence is an answer, too."""
    pipeline, alert = build(TEAM, BOSS), alerts.missed()
    run(pipeline, 60, alert)
    ends = clock.now + 7200
    silences.add(outbox, [parse("service=app")], author="Ada", reason="on it", starts=clock.now, ends=ends)
    run(pipeline, 3600, alert)
    assert titles(outbox, "boss") == []


def test_who_acknowledged_first_stays(outbox: Outbox, alerts: Any) -> None:
    """A second acknowledgement changes nothing; one without an author is refused."""
    acks.add(outbox, [alerts.missed()], author="Ada", reason="restarting it", at=1.0)
    acks.add(outbox, [alerts.missed()], author="Bob", at=2.0)
    (ack,) = acks.current(outbox).values()
    assert (ack.author, ack.reason, ack.at) == ("Ada", "restarting it", 1.0)
    with pytest.raises(ValueError, match="author"):
        acks.add(outbox, [alerts.missed()], author=" ", at=1.0)


def test_alerts_are_found_by_id_or_by_labels(alerts: Any) -> None:
    """The beginning of an ID has to be of one alert; matchers may mean several; nothing found is told."""
    many = [alerts.missed(f"target_{number}") for number in range(2000)]
    one = many[0]
    assert acks.find([one], [one.fingerprint[:4]]) == [one]
    assert acks.find(many, [one.fingerprint]) == [one]
    assert acks.find(many, ['target=~"target_1?"', "service=app"]) == [many[1]]
    beginnings = [alert.fingerprint[:4] for alert in many]
    twice = next(beginning for beginning in beginnings if beginnings.count(beginning) > 1)
    with pytest.raises(ValueError, match=r"[23] alerts"):
        acks.find(many, [twice])
    for words in (["feedfeed"], ["service=shop"]):
        with pytest.raises(ValueError, match="no alert"):
            acks.find([one], words)
    for words in ([], ["abc"], ["a!=b"]):
        with pytest.raises(ValueError, match="label"):
            acks.find([one], words)


def test_the_acknowledgement_of_what_is_gone_is_forgotten(build: Any, outbox: Outbox, alerts: Any) -> None:
    """At a start nothing is acknowledged that nobody was told of."""
    acks.add(outbox, [alerts.missed()], author="Ada", at=1.0)
    build()
    assert acks.current(outbox) == {}


def test_one_that_comes_too_late_is_of_no_later_firing(
    build: Any, run: Any, outbox: Outbox, clock: Any, alerts: Any
) -> None:
    """Written just after its alert was over, it is forgotten before that fires again."""
    pipeline, alert = build(), alerts.missed()
    run(pipeline, 10, alert)
    run(pipeline, 10, alerts.over(alert, clock.now))
    acks.add(outbox, [alert], author="Ada", at=clock.now)
    run(pipeline, 5)
    assert acks.current(outbox) == {}
