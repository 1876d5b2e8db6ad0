"""Slack with a bot's token: one problem is one message that is updated."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from anvil_monitor.alerts.letters import Writer
from anvil_monitor.alerts.model import Message, Notification
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.outcomes import Outcome
from anvil_monitor.alerts.posting import Poster
from anvil_monitor.alerts.slackbot import KeptThreads, SlackSender, refused
from anvil_monitor.targets import Channel, Secret

AT = 1_800_000_000.0
URL = "slackbot://xoxb-1234567890-planted@C0123456789"
CHANNEL = Channel("team", Secret("env:SLACK", "x"))


@pytest.fixture
def tell(outbox: Outbox, configure: Any, make_sink: Any) -> Any:
    """Sends notifications, each by a sender of its own, as after a restart; the calls that Slack got."""
    sink = make_sink()
    sink.answer = b'{"ok": true, "ts": "111.222"}'

    def send(told: Notification | None, url: str = URL) -> Outcome:
        payload = told.to_json() if told else ""
        message = Message(7, "team", "app", told.kind if told else "info", "Title", "Body <!channel>", "", AT, AT, 0,
                          "queued", "", None, payload)  # fmt: skip
        letter = Writer(configure({"team": CHANNEL})).write(CHANNEL, message)

        async def once() -> Outcome:
            poster = Poster()
            try:
                api = f"http://127.0.0.1:{sink.port}"
                return await SlackSender(poster, KeptThreads(outbox), lambda: AT, api).send(CHANNEL, url, letter)
            finally:
                await poster.close()

        return asyncio.run(once())

    send.sink = sink  # type: ignore[attr-defined]
    return send


def calls(sink: Any) -> list[dict[str, Any]]:
    return [json.loads(body) for _, body in sink.posts]


def test_one_problem_is_one_message(tell: Any, alerts: Any, caplog: Any) -> None:
    """Posted once, then updated; what is new is a reply that the channel sees; its end closes it, and the next problem
    is a message of its own. The token is only where it belongs."""
    caplog.set_level(logging.DEBUG)
    first, second = alerts.missed(), alerts.missed("memory", title="Server memory")
    over = alerts.over(first, AT + 60)
    rounds = [
        Notification("app", AT, "new alerts", firing=(first,)),
        Notification("app", AT + 40, "new alerts", firing=(second,), still=(first,)),
        Notification("app", AT + 4000, "repeat interval elapsed", still=(first, second)),
        Notification("app", AT + 5000, "alerts resolved", resolved=(over, alerts.over(second, AT + 60))),
        Notification("app", AT + 9000, "new alerts", firing=(first,)),
    ]
    assert [tell(told) for told in rounds] == [Outcome(True)] * 5
    got = calls(tell.sink)
    assert [(one.get("ts"), one.get("thread_ts"), one.get("reply_broadcast")) for one in got] == [
        (None, None, None),  # posted
        ("111.222", None, None), (None, "111.222", True),  # updated, and the news
        ("111.222", None, None),  # it goes on: nobody is woken for that
        ("111.222", None, None), (None, "111.222", False),  # over
        (None, None, None),
    ]  # fmt: skip
    assert got[0]["text"].startswith("*Title*\n\nAPI response time 312 ms (p95 over 1 min), target &lt; 200 ms, since")
    assert "<https://example.test/runbooks/target-missed|Runbook>" in got[0]["text"]
    assert {one["channel"] for one in got} == {"C0123456789"}
    assert tell.sink.posts[0][0]["Authorization"] == "Bearer xoxb-1234567890-planted"
    assert "planted" not in caplog.text


def test_a_message_that_is_gone_is_posted_anew(tell: Any, alerts: Any) -> None:
    """Somebody has deleted it: the next is a new message, and the one that is updated from then on."""
    told = Notification("app", AT, "new alerts", firing=(alerts.missed(),))
    assert tell(told).delivered
    tell.sink.answers = [b'{"ok": false, "error": "message_not_found"}', b'{"ok": true, "ts": "333.444"}']
    assert tell(told).delivered
    assert tell(told).delivered
    assert [one.get("ts") for one in calls(tell.sink)] == [None, "111.222", None, "333.444", None]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b'{"ok": false, "error": "invalid_auth"}', Outcome(False, False, "Slack says invalid_auth")),
        (b'{"ok": false, "error": "channel_not_found"}', Outcome(False, False, "Slack says channel_not_found")),
        (b'{"ok": false, "error": "internal_error"}', Outcome(False, True, "Slack says internal_error")),
        (b'{"ok": false, "error": "<script>xoxb-1234567890"}', Outcome(False, False, "Slack says no")),
        (b"<html>", Outcome(False, True, "Slack's answer cannot be read")),
        (b"[1]", Outcome(False, True, "Slack's answer cannot be read")),
        (b'{"ok": true, "ts": "1"}' + b" " * 200_000, Outcome(True)),
    ],
)
def test_what_slack_says(tell: Any, alerts: Any, answer: bytes, outcome: Outcome) -> None:
    """Its own errors are final but for those that pass; nothing else that it says reaches a log."""
    tell.sink.answer = answer
    assert tell(Notification("app", AT, "new alerts", firing=(alerts.missed(),))) == outcome


def test_a_limit_is_waited_for(tell: Any, alerts: Any) -> None:
    """429 with Retry-After."""
    tell.sink.statuses, tell.sink.headers = [429], {"Retry-After": "30"}
    told = Notification("app", AT, "new alerts", firing=(alerts.missed(),))
    assert tell(told) == Outcome(False, True, "HTTP status 429", 30.0)


def test_nothing_in_an_alert_is_markup(tell: Any, alerts: Any) -> None:
    """No mention, no link; a text without its notification is escaped, too."""
    evil = "<!channel> <@U1> <https://evil.test|safe> & @everyone"
    told = Notification("app", AT, "new alerts", firing=(alerts.missed(description=evil),))
    assert tell(told).delivered
    assert tell(None).delivered
    for one in calls(tell.sink):
        for wrong in ("<!channel", "<@U1", "<https://evil", "@everyone", " & "):
            assert wrong not in one["text"]


@pytest.mark.parametrize(
    "url", ["slackbot://planted@C0123456789", "slackbot://xoxb-1234567890-x@general", "slackbot://"]
)
def test_a_url_that_is_no_bot(tell: Any, alerts: Any, url: str) -> None:
    """It is refused for good, without a word of it."""
    outcome = tell(Notification("app", AT, "new alerts", firing=(alerts.missed(),)), url)
    assert (outcome.delivered, outcome.retryable) == (False, False)
    assert "planted" not in outcome.reason + refused(url)
