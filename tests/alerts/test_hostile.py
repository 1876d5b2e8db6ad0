"""What tries to break out on the last metre: redirects, labels in logs and terminals, links in text, the environment of
a delivery process."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from anvil_monitor.alerts import fitting, forms
from anvil_monitor.alerts.delivery import Delivery, Patience
from anvil_monitor.alerts.messages import story
from anvil_monitor.alerts.model import Alert, Draft, Notification
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.pipeline import Pipeline
from anvil_monitor.alerts.sender import AppriseSender
from anvil_monitor.alerts.wording import plain

QUICK = Patience(timeout=10.0, first=0.05, longest=0.2)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("scheme", ["json", "webhook+http"])
def test_nobody_is_sent_elsewhere(
    outbox: Outbox, configure: Any, make_sink: Any, until: Any, scheme: str, status: int
) -> None:
    """A service that redirects leads to no address that the user has not written, and counts as one that refused: the
    page that a browser would come to is no delivery."""
    sink, inner = make_sink(), make_sink()
    sink.statuses, sink.headers = [status], {"Location": f"http://127.0.0.1:{inner.port}/latest/meta-data"}
    outbox.record([Draft("hook", "app", "failure", "Title", "Body")], [], time.time())

    async def work() -> None:
        delivery = Delivery(
            configure({"hook": sink.url.replace("json", scheme)}), outbox, dict(os.environ), patience=QUICK
        )
        running = asyncio.create_task(delivery.run())
        await until(lambda: outbox.ledger()[0].state != "queued")
        await delivery.close(0)
        await running

    asyncio.run(work())
    (message,) = outbox.ledger()
    assert (message.state, message.reason) == ("dead", f"HTTP status {status}")
    assert inner.times == []


class _Passes:
    """As the plugin of a service that takes all forms and shows all as Markdown (Mattermost, Zulip)."""

    body_maxlen, title_maxlen, overflow_amalgamate_title = 30_000, 0, False


@pytest.mark.parametrize(
    "text", ["[Acknowledge](https://evil.test)", "![x](https://evil.test/x.png)", "[x][1]", "[1]: https://evil.test"]
)
@pytest.mark.parametrize("form", ["text", "short"])
def test_text_that_is_shown_as_markdown_has_no_link(text: str, form: str) -> None:
    """Nothing in an alert becomes a link with another name, or an image, where plain text is read as Markdown."""
    alert = Alert({"alertname": text, "service": text}, {"summary": text, "description": text}, 0.0)
    written = forms.write(story(Notification("app", 60.0, "new alerts", firing=(alert,))))[forms.Form(form)]
    title, body = fitting.fitted(_Passes(), form, text, asdict(written))
    for mark in ("](", "][", "]:"):
        assert mark not in f"{title} {body}"
    assert text.replace("]", "") in (title + body).replace("]", "").replace("\u200b", "")


@pytest.mark.parametrize("text", ["<at id=all></at>", '<at user_id="all">all</at>', "<AT id=all>"])
def test_lark_wakes_nobody(text: str) -> None:
    """Lark's way to mention everybody is none in a message."""
    assert "<at" not in plain(text).lower()
    assert plain(text).replace("\u200b", "") == text


def test_a_label_cannot_write_log_lines(outbox: Outbox, configure: Any, clock: Any, caplog: Any) -> None:
    """A service from outside is one harmless line in the log of who is told."""
    service = "app\n2026-01-01 ERROR all is lost\x1b[2J\u202e"
    pipeline = Pipeline(configure({"hook": "json://127.0.0.1/"}, group_wait=0.0), outbox, clock)
    with caplog.at_level(logging.INFO):
        pipeline.update([Alert({"alertname": "X", "service": service}, {"summary": "x"}, clock.now)])
    (line,) = [record.getMessage() for record in caplog.records if "is told" in record.getMessage()]
    assert line.isprintable()
    assert "all is lost" in line


def test_a_delivery_process_sees_little_of_the_environment(monkeypatch: Any, make_sink: Any) -> None:
    """Where programs and certificates are, the language, proxies; no variable that could hold a secret of anybody's."""
    monkeypatch.setenv("DATABASE_PASSWORD", "planted-word")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-key")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")

    def environment_of(pid: int) -> str:
        return Path(f"/proc/{pid}/environ").read_text()

    async def environment() -> str:
        from anvil_monitor.targets import Channel, Secret

        sender, channel = AppriseSender(), Channel("hook", Secret("env:X"))
        await sender.warm(channel, "json://127.0.0.1:9/planted-path")
        text = environment_of(sender.pids()["hook"])
        await sender.close()
        return text

    found = asyncio.run(environment())
    assert "planted" not in found
    names = {line.partition("=")[0] for line in found.split("\0") if line}
    assert {"PATH", "HTTPS_PROXY"} <= names


def test_a_test_by_command_shows_no_secret(tmp_path: Path, make_sink: Any) -> None:
    """`anvil-monitor notify`, a hanging service: neither environment nor command line of its processes has a URL of a
    channel's, or the token."""
    import psutil

    sink = make_sink()
    sink.hang = True
    config = tmp_path / "monitor.toml"
    config.write_text(
        '[channels.a]\nurl = "env:A_URL"\n[channels.b]\nurl = "env:B_URL"\n'
        '[monitor]\ntoken = "env:TOKEN"\ndata = "data"\n'
    )
    environ = {**os.environ, "TOKEN": "planted-token", "B_URL": "webhook+http://127.0.0.1:9/planted-b"}
    environ["A_URL"] = f"json://127.0.0.1:{sink.port}/planted-a?rto=60"
    command = [sys.executable, "-m", "anvil_monitor.monitoring.cli", "notify", "--config", str(config)]
    running = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not sink.times:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (child,) = psutil.Process(running.pid).children(recursive=True)
        seen = json.dumps([child.environ(), child.cmdline()])
    finally:
        running.kill()
        running.wait()
    assert "planted" not in seen
