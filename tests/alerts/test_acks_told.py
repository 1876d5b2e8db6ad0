"""Who was told of an alert hears, once, that somebody looks after it; and how often it is repeated by its severity."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from typing import Any

from anvil_monitor.alerts import acks, silences
from anvil_monitor.alerts.delivery import Delivery
from anvil_monitor.alerts.matchers import parse
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.pipeline import Pipeline
from anvil_monitor.targets import Channel, Hours, Secret, Weekly

SECRET = Secret("monitor.toml", "json://127.0.0.1/")
TEAM, MAIL = Channel("team", SECRET), Channel("mail", SECRET, targets=("memory",))
MISSED = "app: API response time 312 ms, target < 200 ms"
SEEN = "app: acknowledged by Ada: API response time 312 ms, target < 200 ms"


def titles(outbox: Outbox, channel: str = "team") -> list[str]:
    return [message.title for message in reversed(outbox.ledger()) if message.channel == channel]


def test_the_others_are_told_at_once(build: Any, run: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """In the next round, long before the group's next message; with name and reason; whoever was not told of the alert
    is not told of this; and it delays nothing: what breaks next is told when it would have been."""
    pipeline, alert = build(TEAM, MAIL), alerts.missed(at=clock.now - 60)
    run(pipeline, 5, alert)
    acks.add(outbox, [alert], author="Ada", reason="restarting it", at=clock.now)
    run(pipeline, 5, alert)
    assert (titles(outbox), titles(outbox, "mail")) == ([MISSED, SEEN], [])
    message = outbox.ledger()[0]
    assert (message.cause, message.kind) == ("acknowledged", "info")
    assert "Acknowledged by Ada: API response time 312 ms" in message.body
    assert "restarting it" in message.body
    other = alerts.other("ErrorRateHigh", at=clock.now - 60)
    run(pipeline, 20, alert, other)
    assert len(titles(outbox)) == 2
    run(pipeline, 10, alert, other)
    assert titles(outbox)[2:] == ["app: ErrorRateHigh"]
    assert "Acknowledged by: Ada, restarting it" in outbox.ledger()[0].body, "what goes on says who looks after it"


def test_it_is_told_once(build: Any, run: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """Taken back and given again, over restarts, by the same person: no second message. Somebody else's is news; so is
    that of a later firing."""
    pipeline, alert = build(), alerts.missed(at=clock.now - 60)
    run(pipeline, 5, alert)
    for _ in range(5):
        (ack,) = acks.add(outbox, [alert], author="Ada", at=clock.now)
        run(pipeline, 20, alert)
        pipeline = build()
        acks.remove(outbox, ack.fingerprint)
        run(pipeline, 20, alert)
    assert titles(outbox) == [MISSED, SEEN]
    acks.add(outbox, [alert], author="Bob", at=clock.now)
    run(pipeline, 20, alert)
    assert titles(outbox)[2:] == [SEEN.replace("Ada", "Bob")]
    run(pipeline, 400, alerts.over(alert, clock.now))
    assert outbox.rows("SELECT * FROM acks_told") == []
    again = replace(alert, starts_at=clock.now)
    run(pipeline, 400, again)
    acks.add(outbox, [again], author="Ada", at=clock.now)
    run(pipeline, 5, again)
    assert titles(outbox)[3:] == ["app: API response time recovered", MISSED, SEEN]


def test_who_does_not_want_it_is_not_told(build: Any, run: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """``tell_acks = false``; a silence; the hours of a channel, which hears of it when they begin."""
    start = int((clock.now + 3600) % 86400)
    later = Hours(Weekly(tuple(range(7)), start, int((start + 3600) % 86400), "UTC"), outside=("critical",))
    channels = (
        TEAM,
        replace(TEAM, name="quiet", tell_acks=False),
        replace(TEAM, name="office", hours=replace(later, outside=())),
    )
    pipeline, alert = build(*channels), alerts.missed(at=clock.now - 60)
    run(pipeline, 5, alert)
    ends = clock.now + 600
    silences.add(outbox, [parse("service=app")], author="Ada", reason="on it", starts=clock.now, ends=ends)
    acks.add(outbox, [alert], author="Ada", at=clock.now)
    run(pipeline, 590, alert)
    assert titles(outbox) == [MISSED]
    run(pipeline, 20, alert)
    assert (titles(outbox), titles(outbox, "quiet"), titles(outbox, "office")) == ([MISSED, SEEN], [MISSED], [])
    run(pipeline, 3600, alert)
    assert titles(outbox, "office") == [MISSED], "its first message says it already"
    assert "Acknowledged by: Ada" in outbox.ledger()[0].body


def test_slack_is_updated_and_the_thread_is_told(
    outbox: Outbox, configure: Any, make_sink: Any, until: Any, clock: Any, alerts: Any
) -> None:
    """The message of the problem says who looks after it, and keeps what else is open; the reply wakes nobody."""
    sink = make_sink()
    sink.answer = b'{"ok": true, "ts": "111.222"}'
    configuration = configure({"bot": "slackbot://xoxb-0000000000@C01234567"}, group_wait=0.0)
    pipeline = Pipeline(configuration, outbox, clock)
    first, second = alerts.missed(), alerts.other("ErrorRateHigh")

    async def work() -> None:
        delivery = Delivery(configuration, outbox, dict(os.environ))
        assert delivery._own is not None
        delivery._own._bots._api = f"http://127.0.0.1:{sink.port}"
        running = asyncio.create_task(delivery.run())
        clock.now += 5
        pipeline.update([first, second])
        await until(lambda: len(sink.posts) == 1)
        acks.add(outbox, [first], author="<!channel> Ada", reason="*on it*", at=clock.now)
        clock.now += 5
        pipeline.update([first, second])
        await until(lambda: len(sink.posts) == 3)
        await delivery.close(0)
        await running

    asyncio.run(work())
    update, reply = (json.loads(body) for _, body in sink.posts[1:])
    assert update["ts"] == reply["thread_ts"] == "111.222"
    assert reply["reply_broadcast"] is False
    assert "acknowledged by &lt;\u200b!channel&gt; Ada" in reply["text"]
    assert "ErrorRateHigh" in update["text"]
    assert "Acknowledged by: &lt;\u200b!channel&gt; Ada, *on it*" in update["text"]


def test_a_severity_has_its_own_pace(build: Any, run: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """What is critical is repeated each ten minutes, a warning each hour; of both, as the critical one is; another
    severity as in [monitor]."""
    team = replace(TEAM, repeat_by_severity=(("critical", 600.0), ("warning", 3600.0)))
    critical, warning = alerts.missed(at=clock.now - 60), alerts.other("Slow", severity="warning", at=clock.now - 60)
    info = alerts.other("Odd", service="odd", severity="info", at=clock.now - 60)
    pipeline = build(replace(team, severities=()))
    run(pipeline, 3595, warning, info)
    assert len(titles(outbox)) == 2
    run(pipeline, 10, warning, info)
    assert titles(outbox)[2:] == ["still: app: Slow"]
    run(pipeline, 605, warning, info, critical)
    run(pipeline, 1205, warning, info, critical)
    causes = [message.cause for message in reversed(outbox.ledger())][3:]
    assert causes == ["new alerts", "repeat interval elapsed", "repeat interval elapsed"]
