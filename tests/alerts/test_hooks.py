"""The plain webhook: its body, its signature, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time
from dataclasses import replace
from typing import Any

import pytest

from anvil_monitor.alerts.delivery import Delivery, Patience
from anvil_monitor.alerts.hooks import HookSender, refused
from anvil_monitor.alerts.letters import Writer
from anvil_monitor.alerts.model import Draft, Message, Notification
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.outcomes import Outcome, of_status, seconds
from anvil_monitor.alerts.posting import Poster
from anvil_monitor.targets import Channel, Secret

AT = 1_800_000_000.0
KEY = "planted-signing-key"
CHANNEL = Channel("hook", Secret("env:HOOK", "x"), signing_key=Secret("env:HOOK_KEY"))


def send(configure: Any, url: str, told: Notification, channel: Channel = CHANNEL, **environ: str) -> Outcome:
    message = Message(7, "hook", "app", told.kind, "Title", "Body", "new alerts", AT, AT, 0, "queued", "", None,
                      told.to_json())  # fmt: skip
    letter = Writer(configure({"hook": channel})).write(channel, message)

    async def once() -> Outcome:
        poster = Poster()
        try:
            return await HookSender({"HOOK_KEY": KEY, **environ}, poster, lambda: AT + 5).send(channel, url, letter)
        finally:
            await poster.close()

    return asyncio.run(once())


def test_a_post_is_json_and_signed(configure: Any, alerts: Any, make_sink: Any, caplog: Any) -> None:
    """The body is what the page says; the signature is that of timestamp and body under the key; user and password of
    the URL travel as such; nothing of it is in the log of any library."""
    caplog.set_level(logging.DEBUG)
    sink = make_sink()
    over = alerts.over(alerts.missed("memory"), AT + 60)
    told = Notification("app", AT, "new alerts", firing=(alerts.missed(),), resolved=(over,),
                        links=(("Acknowledge", "https://example.test/ack"),))  # fmt: skip
    url = f"webhook+http://planted-user:planted-word@127.0.0.1:{sink.port}/planted-path?planted=1"
    assert send(configure, url, told) == Outcome(True)
    assert "planted" not in caplog.text
    ((headers, body),) = sink.posts
    content = json.loads(body)
    first, second = content.pop("alerts")
    assert content == {
        "version": "1", "id": "7-1800000000000", "status": "firing", "kind": "failure", "service": "app",
        "reason": "new alerts", "at": "2027-01-15T08:00:00.000Z", "title": "Title", "text": "Body", "more": 0,
        "links": [{"name": "Acknowledge", "url": "https://example.test/ack"}],
    }  # fmt: skip
    assert (first["state"], first["labels"]["target"], first["ends_at"]) == ("firing", "api_response_time", None)
    assert (second["state"], second["ends_at"]) == ("resolved", "2027-01-15T08:01:00.000Z")
    assert headers["Idempotency-Key"] == content["id"]
    expected = hmac.new(KEY.encode(), headers["X-Anvil-Timestamp"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["X-Anvil-Signature"] == f"sha256={expected}"
    assert headers["X-Anvil-Timestamp"] == str(int(AT + 5))
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"planted-user:planted-word"


@pytest.mark.parametrize(
    ("status", "after", "outcome"),
    [
        (204, "", Outcome(True)),
        (302, "", Outcome(False, False, "HTTP status 302")),
        (400, "", Outcome(False, False, "HTTP status 400")),
        (401, "", Outcome(False, False, "HTTP status 401")),
        (404, "3", Outcome(False, False, "HTTP status 404", 3.0)),
        (408, "", Outcome(False, True, "HTTP status 408")),
        (429, "30", Outcome(False, True, "HTTP status 429", 30.0)),
        (500, "", Outcome(False, True, "HTTP status 500")),
        (503, "Fri, 15 Jan 2027 08:01:05 GMT", Outcome(False, True, "HTTP status 503", 60.0)),
    ],
)
def test_every_status_means_what_it_says(
    configure: Any, alerts: Any, make_sink: Any, status: int, after: str, outcome: Outcome
) -> None:
    """4xx is final except 408, 425 and 429; Retry-After counts as seconds and as a date."""
    sink = make_sink()
    sink.statuses, sink.headers = [status], {"Retry-After": after} if after else {}
    told = Notification("app", AT, "new alerts", firing=(alerts.missed(),))
    assert send(configure, f"webhook+http://127.0.0.1:{sink.port}/path", told) == outcome


@pytest.mark.parametrize(
    "text", ["", "soon", "-5", "1e3", "٣", "Fri, 99 Jan 2027", "Fri, 15 Jan 99999 08:01:05 GMT", "9" * 40]
)
def test_a_retry_after_that_says_nothing(text: str) -> None:
    """Whatever a service writes there, it cannot harm the worker."""
    assert seconds(text, AT) is None
    assert of_status(503, text, AT).retry_after is None


def test_broken_tls_is_told_and_tried_again(configure: Any, alerts: Any, make_sink: Any, pem: Any) -> None:
    """A certificate that nobody vouches for: nothing is posted."""
    sink = make_sink(pem)
    told = Notification("app", AT, "new alerts", firing=(alerts.missed(),))
    outcome = send(configure, f"webhook+https://127.0.0.1:{sink.port}/path", told)
    assert (outcome.delivered, outcome.retryable) == (False, True)
    assert outcome.reason == "TLS failed (CERTIFICATE_VERIFY_FAILED)"
    assert sink.posts == []


@pytest.mark.parametrize(
    "url", ["webhook+ftp://x/", "webhook+http:///x", "webhook+https://[::1/", "webhook+https://x:0/"]
)
def test_a_url_that_is_no_webhook(configure: Any, alerts: Any, url: str) -> None:
    """It is refused for good, without a word of it."""
    assert refused(url)
    told = Notification("app", AT, "new alerts", firing=(alerts.missed(),))
    outcome = send(configure, url, told)
    assert (outcome.delivered, outcome.retryable) == (False, False)
    assert url not in outcome.reason


def test_a_signing_key_that_is_missing(configure: Any, alerts: Any, make_sink: Any) -> None:
    """Without its key nothing is posted: an unsigned post would be refused, or worse, taken."""
    sink = make_sink()
    told = Notification("app", AT, "new alerts", firing=(alerts.missed(),))
    channel = replace(CHANNEL, signing_key=Secret("env:NOT_SET"))
    outcome = send(configure, f"webhook+http://127.0.0.1:{sink.port}/path", told, channel)
    assert outcome == Outcome(
        False, True, "its signing key is not to be had: the environment variable NOT_SET is not set"
    )
    assert sink.posts == []


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_a_webhook_that_never_answers_is_ended(
    outbox: Outbox, configure: Any, make_sink: Any, until: Any, caplog: Any, how: str
) -> None:
    """Hanging or dripping for ever: the send ends at its timeout, the message waits; no secret is in the log."""
    sink = make_sink()
    setattr(sink, how, True)
    outbox.record([Draft("hook", "app", "failure", "Title", "Body")], [], time.time())
    channel = replace(CHANNEL, url=Secret("env:HOOK"))
    environ = {"HOOK": f"webhook+http://127.0.0.1:{sink.port}/planted-path", "HOOK_KEY": KEY}

    async def main() -> None:
        delivery = Delivery(configure({"hook": channel}), outbox, environ, patience=Patience(timeout=0.5, first=60.0))
        running = asyncio.create_task(delivery.run())
        try:
            await until(lambda: outbox.ledger()[0].reason)
        finally:
            await delivery.close(0)
            await running

    with caplog.at_level(logging.DEBUG):
        asyncio.run(main())
    (message,) = outbox.ledger()
    assert (message.state, message.reason) == ("queued", "no answer within 500 ms")
    assert sink.times
    assert "planted" not in caplog.text + repr(message)
