"""Delivery through the real Apprise in its child processes, to real HTTP and SMTP servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anvil_monitor.alerts.delivery import Delivery, Patience
from anvil_monitor.alerts.forms import as_it_is
from anvil_monitor.alerts.letters import Letter
from anvil_monitor.alerts.model import Draft, Message
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.sender import AppriseSender
from anvil_monitor.targets import Channel, Configuration, Secret

QUICK = Patience(timeout=10.0, first=0.05, longest=0.2)


def put(outbox: Outbox, channel: str, title: str = "Title", body: str = "Body", topic: str = "app") -> int:
    return outbox.record([Draft(channel, topic, "failure", title, body)], [], time.time())[0]


async def delivering(
    configuration: Configuration, outbox: Outbox, work: Callable[[Delivery], Any], patience: Patience = QUICK
) -> None:
    delivery = Delivery(configuration, outbox, dict(os.environ), patience=patience)
    running = asyncio.create_task(delivery.run())
    try:
        await work(delivery)
    finally:
        await delivery.close(0)
        await running


def states(outbox: Outbox) -> dict[int, str]:
    return {message.id: message.state for message in outbox.ledger()}


def test_a_message_reaches_a_webhook(outbox: Outbox, configure: Any, make_sink: Any, until: Any) -> None:
    """Title, body and kind arrive at an HTTP server as they were written, and the ledger says so."""
    sink = make_sink()
    number = put(outbox, "hook", "API response time 312 ms, target < 200 ms", "Line one\n\nA & B <c> \\n {x}")

    async def work(_: Delivery) -> None:
        await until(lambda: states(outbox)[number] == "sent")

    asyncio.run(delivering(configure({"hook": sink.url}), outbox, work))
    assert [(got["title"], got["message"], got["type"]) for got in sink.received] == [
        ("API response time 312 ms, target < 200 ms", "Line one\n\nA & B <c> \\n {x}", "failure")
    ]


def test_a_message_reaches_a_mailbox(outbox: Outbox, configure: Any, mail: Any, until: Any) -> None:
    """A mail arrives with the title as its subject and the body as readable text."""
    box, url = mail
    number = put(outbox, "mail", "API response time 312 ms, target < 200 ms", "API response time 312 ms\n\nRunbook: x")

    async def work(_: Delivery) -> None:
        await until(lambda: states(outbox)[number] == "sent")

    asyncio.run(delivering(configure({"mail": url}), outbox, work))
    assert box.messages[0]["subject"] == "API response time 312 ms, target < 200 ms"
    assert box.messages[0]["to"] == "team@example.test"
    text = box.messages[0].get_body(("plain", "html"))
    assert text is not None
    assert "API response time 312 ms" in text.get_content()


@pytest.mark.parametrize(("answer", "state"), [("550 no such user", "dead"), ("450 try later", "queued")])
def test_a_refused_mail(outbox: Outbox, configure: Any, mail: Any, until: Any, answer: str, state: str) -> None:
    """An SMTP status of 5xx is final, 4xx is tried again; the ledger has the status."""
    box, url = mail
    box.refuse = answer
    number = put(outbox, "mail")

    async def work(_: Delivery) -> None:
        await until(lambda: (found := outbox.get(number)) and found.reason)

    asyncio.run(delivering(configure({"mail": url}), outbox, work))
    message = outbox.get(number)
    assert message is not None
    assert (message.state, message.reason) == (state, f"SMTP status {answer[:3]}")


def test_a_failing_service_is_tried_again(outbox: Outbox, configure: Any, make_sink: Any, until: Any) -> None:
    """500 and 429 and then 200: three tries, one message, and Retry-After was waited for."""
    sink = make_sink()
    sink.statuses, sink.headers = [500, 429], {"Retry-After": "1"}
    number = put(outbox, "hook")

    async def work(_: Delivery) -> None:
        await until(lambda: states(outbox)[number] == "sent")

    asyncio.run(delivering(configure({"hook": sink.url}), outbox, work))
    message = outbox.get(number)
    assert message is not None
    assert (message.attempts, len(sink.received)) == (3, 1)
    assert sink.times[2] - sink.times[1] >= 0.95


@pytest.mark.parametrize(
    ("status", "url", "reason"),
    [
        (404, None, "HTTP status 404"),
        (None, "bogus://x", "its URL is none that Apprise understands"),
    ],
)
def test_what_cannot_succeed_is_a_dead_letter(
    outbox: Outbox, configure: Any, make_sink: Any, until: Any, status: int | None, url: str | None, reason: str
) -> None:
    """A refusal that another try cannot change ends as a dead letter with its reason, and can be sent again."""
    sink = make_sink()
    sink.statuses = [status] if status else []
    number = put(outbox, "hook")

    async def work(_: Delivery) -> None:
        await until(lambda: states(outbox)[number] == "dead")
        message = outbox.get(number)
        assert message is not None
        assert message.reason == reason
        assert outbox.resend(number, time.time())
        if url is None:
            await until(lambda: "sent" in states(outbox).values())

    asyncio.run(delivering(configure({"hook": url or sink.url}), outbox, work))


def test_a_refused_connection_is_tried_again(outbox: Outbox, configure: Any, make_sink: Any, until: Any) -> None:
    """Nobody listening is a reason to wait; the reason in the ledger names neither host nor path."""
    sink = make_sink()
    url = sink.url
    sink.close()
    number = put(outbox, "hook")

    async def work(_: Delivery) -> None:
        await until(lambda: (found := outbox.get(number)) and found.attempts >= 2)

    asyncio.run(delivering(configure({"hook": url}), outbox, work))
    message = outbox.get(number)
    assert message is not None
    assert (message.state, message.reason) == ("queued", "the connection failed (Connection refused)")


def test_a_hanging_channel_delays_no_other(outbox: Outbox, configure: Any, make_sink: Any, until: Any) -> None:
    """Beside a channel that never answers, ten messages reach another; the hanging process is killed in time."""
    hanging, healthy = make_sink(), make_sink()
    hanging.hang = True
    configuration = configure({"hanging": f"{hanging.url}?rto=60", "healthy": healthy.url})
    first = put(outbox, "hanging")

    async def work(delivery: Delivery) -> None:
        await until(lambda: hanging.times)
        for number in range(10):
            put(outbox, "healthy", f"Message {number}")
        await until(lambda: len(healthy.received) == 10, 8)
        assert [got["title"] for got in healthy.received] == [f"Message {number}" for number in range(10)]
        assert outbox.get(first).reason == ""  # type: ignore[union-attr]  # still hanging
        child = delivery._own.pids()["hanging"]  # type: ignore[union-attr]
        await until(lambda: outbox.get(first).reason)  # type: ignore[union-attr]
        assert outbox.get(first).reason.startswith("no answer within")  # type: ignore[union-attr]
        await until(lambda: not Path(f"/proc/{child}").exists())

    asyncio.run(delivering(configuration, outbox, work, Patience(timeout=6.0, first=30.0)))


def test_the_child_process_ends_when_idle(until: Any) -> None:
    """A delivery process is begun by the first message, kept for the next, and gone after its idle time."""

    async def work() -> None:
        sender = AppriseSender(idle=0.3)
        channel, url = Channel("hook", Secret("env:X")), "json://127.0.0.1:9/x"
        message = Message(1, "hook", "app", "info", "Title", "Body", "", 0.0, 0.0, 0, "queued", "", None)
        letter = Letter(message, as_it_is("Title", "Body"))
        assert sender.pids() == {}
        first = await sender.send(channel, url, letter)
        assert (first.delivered, first.retryable) == (False, True)
        pid = sender.pids()["hook"]
        await sender.send(channel, url, letter)
        assert sender.pids() == {"hook": pid}
        await until(lambda: sender.pids() == {})
        await sender.close()

    asyncio.run(work())


def test_a_killed_child_process_is_a_reason_to_try_again(
    outbox: Outbox, configure: Any, make_sink: Any, until: Any
) -> None:
    """SIGKILL for a delivery process in mid-send: the message stays queued and arrives through the next one."""
    sink = make_sink()
    sink.hang = True
    number = put(outbox, "hook")

    async def work(delivery: Delivery) -> None:
        await until(lambda: sink.times)
        sink.hang = False
        os.kill(delivery._own.pids()["hook"], signal.SIGKILL)  # type: ignore[union-attr]
        await until(lambda: states(outbox)[number] == "sent")

    asyncio.run(delivering(configure({"hook": sink.url}), outbox, work))
    assert len(sink.received) == 1


def of_process(pid: int) -> list[str]:
    return [Path(f"/proc/{pid}/{name}").read_text() for name in ("cmdline", "environ")]


def test_secrets_stay_secret(
    outbox: Outbox, configure: Any, make_sink: Any, until: Any, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    """A channel's URL is in no log line, no ledger entry, no command line and no environment of the child."""
    sink = make_sink()
    sink.statuses = [500, 403]
    monkeypatch.setenv("ANVIL_TEST_URL", sink.url)
    channel = Channel("hook", Secret("env:ANVIL_TEST_URL"))
    number = put(outbox, "hook")
    seen: list[str] = []

    async def work(delivery: Delivery) -> None:
        await until(lambda: states(outbox)[number] == "dead")
        seen.extend(of_process(delivery._own.pids()["hook"]))  # type: ignore[union-attr]

    with caplog.at_level(logging.DEBUG):
        asyncio.run(delivering(configure({"hook": channel}), outbox, work))
    seen += [caplog.text, repr(outbox.ledger()), repr(channel)]
    assert "HTTP status 403" in caplog.text
    assert not any("secret-path" in text for text in seen)


STORM = """
import asyncio, os, sys, pathlib
from dataclasses import replace
from anvil_monitor.alerts.delivery import Delivery
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.targets import Channel, Secret, load
configuration = replace(load(None, {}), channels=(Channel("hook", Secret("env:SINK")),))
asyncio.run(Delivery(configuration, Outbox(pathlib.Path(sys.argv[1])), dict(os.environ)).run())
"""


def storm(path: Path, sink: Any) -> subprocess.Popen[bytes]:
    """A process that sends what the outbox at ``path`` holds; it and its children bear the path as a mark."""
    environ = {**os.environ, "SINK": sink.url, "XDG_ANVIL_TEST_STORM": str(path)}
    return subprocess.Popen([sys.executable, "-c", STORM, str(path)], env=environ)


def bearing(mark: str) -> list[str]:
    """The processes whose environment holds ``mark``."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in file.read_bytes():
                found.append(file.parent.name)
    return found


def test_a_killed_monitor_leaves_no_process(tmp_path: Path, make_sink: Any, until: Any) -> None:
    """SIGKILL for the sending process while its child hangs in a send: the child ends by itself at once."""
    sink = make_sink()
    sink.hang = True
    outbox = Outbox(tmp_path / "outbox.sqlite3")
    put(outbox, "hook")
    process = storm(outbox.path, sink)
    asyncio.run(until(lambda: sink.times))
    assert len(bearing(str(outbox.path))) == 2
    process.kill()
    process.wait()
    asyncio.run(until(lambda: not bearing(str(outbox.path)), 5.0))
    outbox.close()
