"""What real plugins of Apprise make of our forms: a mail with its picture, Slack's and Teams' own JSON on loopback."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from anvil_monitor.alerts import delivery_process
from anvil_monitor.alerts.delivery import Delivery, Patience
from anvil_monitor.alerts.letters import Letter, Writer
from anvil_monitor.alerts.model import Alert, Draft, Message, Notification
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.sender import as_request
from anvil_monitor.targets import Channel, Secret

AT = time.time()
EVIL = {
    "description": "<!channel> <@U1> @everyone [click](https://evil.test) <https://evil.test|safe> <b>bold</b> & more"
}


def note(alert: Alert) -> Notification:
    return Notification("app", AT, "new alerts", firing=(alert,))


def message(told: Notification, title: str = "API response time 312 ms, target < 200 ms") -> Message:
    return Message(1, "team", "app", told.kind, title, "Body", "", AT, AT, 0, "queued", "", None, told.to_json())


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Letter], dict[str, Any]]:
    """Sends a letter as a delivery process does, in this process."""
    import smtplib

    import requests

    monkeypatch.setattr(requests.Session, "send", requests.Session.send)  # what Apprise's witness wraps is put back
    for name in ("connect", "starttls", "login", "sendmail"):
        monkeypatch.setattr(smtplib.SMTP, name, getattr(smtplib.SMTP, name))

    def send(url: str, letter: Letter) -> dict[str, Any]:
        out = io.BytesIO()
        line = json.dumps(as_request(url, letter)).encode()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a plugin's own, which are nobody's business in its process
            delivery_process.serve(iter([line]), out)
        ready, outcome = map(json.loads, out.getvalue().splitlines())
        assert ready == {"ready": True}
        return dict(outcome)

    return send


def letter(configure: Any, alert: Alert, **more: Any) -> Letter:
    channel = Channel("team", Secret("env:X", "x"), **more)
    return Writer(configure({"team": channel})).write(channel, message(note(alert)))


def test_slack_gets_its_own_markup(configure: Any, alerts: Any, make_sink: Any, post: Any, monkeypatch: Any) -> None:
    """Bold headlines and links in Slack's syntax; nothing in an alert mentions a channel or links anywhere."""
    from apprise.plugins.slack import NotifySlack

    sink = make_sink()
    sink.answer = b"ok"
    monkeypatch.setattr(NotifySlack, "webhook_url", f"http://127.0.0.1:{sink.port}/services")
    sent = letter(configure, alerts.missed(**EVIL))
    assert post("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7/#ops", sent)["delivered"]
    shown = json.dumps(sink.received[0], ensure_ascii=False)
    assert "*API response time 312 ms (p95 over 1 min), target &lt; 200 ms" in shown
    assert "<https://example.test/runbooks/target-missed|Runbook>" in shown
    assert "<!channel" not in shown
    assert "<@U1" not in shown
    assert "@everyone" not in shown
    assert "<https://evil" not in shown


def test_teams_gets_an_adaptive_card(configure: Any, alerts: Any, make_sink: Any, post: Any, pem: Any) -> None:
    """A workflow's card has the headline and our links, and no link of an annotation's."""
    sink = make_sink(pem)
    url = f"workflows://127.0.0.1:{sink.port}/643e8a3a/iLpKkJ2?verify=no"
    assert post(url, letter(configure, alerts.missed(**EVIL)))["delivered"]
    shown = json.dumps(sink.received[0], ensure_ascii=False)
    assert "AdaptiveCard" in shown
    assert "[Runbook](https://example.test/runbooks/target-missed)" in shown
    assert "[click](https://evil.test)" not in shown


@pytest.mark.parametrize(
    ("plugin", "url", "bold"),
    [
        ("discord.NotifyDiscord", "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", "**API response time"),
        ("telegram.NotifyTelegram", "tgram://123456789:abcdefg_hijklmnop/12315544/", "API response time"),
    ],
)
def test_chats_get_markdown_of_their_own(
    configure: Any, alerts: Any, make_sink: Any, post: Any, monkeypatch: Any, plugin: str, url: str, bold: str
) -> None:
    """Discord and Telegram: the headline, our link, and no mention or link of an annotation's."""
    module, name = plugin.split(".")
    found = getattr(importlib.import_module(f"apprise.plugins.{module}"), name)
    sink = make_sink()
    sink.answer = b'{"ok": true, "result": {}}'
    monkeypatch.setattr(found, "notify_url", f"http://127.0.0.1:{sink.port}/bot")
    sent = letter(configure, alerts.missed(**EVIL))
    assert post(url, sent)["delivered"]
    shown = "".join(body.decode() for _, body in sink.posts).replace("\\u200b", "\u200b")
    assert bold in shown
    assert "https://example.test/runbooks/target-missed" in shown
    assert "@everyone" not in shown
    assert "<@U1" not in shown
    assert "[click](https://evil.test)" not in shown
    assert 'href="https://evil.test' not in shown


def test_a_mail_is_html_with_its_picture(outbox: Outbox, configure: Any, alerts: Any, mail: Any, until: Any) -> None:
    """A mail has plain text, HTML, and a PNG of the last hour that the HTML shows; nothing forges a header."""
    box, url = mail
    alert = alerts.missed(**EVIL, title="API response time\r\nBcc: evil@example.test")
    told = note(alert)
    outbox.record([Draft("mail", "app", "failure", "API\r\nBcc: evil@example.test", "b", "", told.to_json())], [], AT)

    def history(_: Alert, start: float, end: float) -> list[tuple[float, float]]:
        return [(start + 30.0 * number, 0.1 + number / 600) for number in range(120)]

    async def main() -> None:
        patience = Patience(timeout=15.0, first=0.05)
        delivery = Delivery(configure({"mail": url}), outbox, dict(os.environ), patience=patience, history=history)
        running = asyncio.create_task(delivery.run())
        try:
            await until(lambda: outbox.counts() == {("mail", "sent"): 1})
        finally:
            await delivery.close(0)
            await running

    asyncio.run(main())
    (got,) = box.messages
    assert got["bcc"] is None
    assert got["subject"] == "API Bcc: evil@example.test"
    kinds = {part.get_content_type(): part for part in got.walk()}
    assert {"text/plain", "text/html", "image/png"} <= set(kinds)
    assert kinds["image/png"].get_content().startswith(b"\x89PNG")
    page = kinds["text/html"].get_content()
    identity = kinds["image/png"]["Content-ID"].strip("<>")
    assert f'src="cid:{identity}"' in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold</b>" not in page


def test_a_picture_that_fails_costs_no_message(
    outbox: Outbox, configure: Any, alerts: Any, make_sink: Any, until: Any
) -> None:
    """A history that raises is told in the log; the message goes without a picture."""
    sink = make_sink()
    told = note(alerts.missed())
    outbox.record([Draft("hook", "app", "failure", "Title", "Body", "", told.to_json())], [], AT)

    def history(*_: Any) -> list[tuple[float, float]]:
        raise RuntimeError("the store is closed")

    async def main() -> None:
        delivery = Delivery(configure({"hook": sink.url}), outbox, dict(os.environ), history=history)
        running = asyncio.create_task(delivery.run())
        try:
            await until(lambda: outbox.counts() == {("hook", "sent"): 1})
        finally:
            await delivery.close(0)
            await running

    asyncio.run(main())
    assert sink.received[0]["title"] == "Title"


def test_a_forced_form(configure: Any, alerts: Any, make_sink: Any, post: Any) -> None:
    """format = "short" sends one line, whatever the service could show; a damaged payload is sent as plain text."""
    sink = make_sink()
    assert post(sink.url, letter(configure, alerts.missed(), format="short"))["delivered"]
    assert sink.received[0]["message"].startswith("app: API response time 312 ms, target < 200 ms, since ") or (
        sink.received[0]["message"].startswith("API response time 312 ms, target < 200 ms, since ")
    )
    damaged = Message(1, "team", "app", "failure", "Title", "Body", "", AT, AT, 0, "queued", "", None, '{"firing": 1}')
    channel = Channel("team", Secret("env:X", "x"))
    assert post(sink.url, Writer(configure({"team": channel})).write(channel, damaged))["delivered"]
    assert sink.received[1]["message"] == "Body"
