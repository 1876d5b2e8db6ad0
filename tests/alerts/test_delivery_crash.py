"""SIGKILL at random instants in a storm of alerts, a disk that takes nothing more, and channels that all hang."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from full_disk import files_of_at_most

from anvil_monitor.alerts.delivery import Delivery, Patience
from anvil_monitor.alerts.model import Draft
from anvil_monitor.alerts.outbox import Outbox, OutboxError
from anvil_monitor.targets import Configuration

CRASH = Path(__file__).with_name("crash.py")
# Half a minute of two cores for each kind.
ROUNDS = int(os.environ.get("ANVIL_CRASH_ROUNDS", "200"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["webhook", "apprise"])
def test_killed_in_a_storm_nothing_is_lost(kind: str) -> None:
    """The monitor, and its delivery processes, killed again and again while alerts come and go: what was acknowledged
    is there, all of it is sent, in order, each kill repeats at most the one in flight, and each end is told."""
    command = [sys.executable, str(CRASH), str(ROUNDS), str(ROUNDS), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=850, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" kills") == 4


async def delivering(configuration: Configuration, outbox: Outbox, work: Any, **options: Any) -> None:
    delivery = Delivery(configuration, outbox, dict(os.environ), **options)
    running = asyncio.create_task(delivery.run())
    try:
        await work(delivery)
    finally:
        await delivery.close(0)
        await running


def draft(channel: str = "hook", title: str = "Title") -> Draft:
    return Draft(channel, title, "failure", title, "Body")


def test_a_full_disk_repeats_nothing(outbox: Outbox, configure: Any, make_sink: Any, until: Any, caplog: Any) -> None:
    """A message that was sent and cannot be marked is not sent again; nothing new is taken in; both when there is
    room again, and the log says what was the matter."""
    sink = make_sink()
    outbox.record([draft(title="one")], [], time.time())

    async def work(_: Delivery) -> None:
        await until(lambda: len(sink.received) == 1)
        with files_of_at_most(0):
            with pytest.raises(OutboxError, match="cannot be used"):
                outbox.record([draft(title="two")], [], time.time())
            await until(lambda: "cannot be used" in caplog.text)
        outbox.record([draft(title="three")], [], time.time())
        await until(lambda: outbox.counts() == {("hook", "sent"): 2})

    url = sink.url.replace("json://", "webhook+http://")
    real = outbox.sent
    blocked = threading.Event()

    def sent(number: int, at: float) -> None:
        if not blocked.is_set():  # the disk is full just when the first one has been delivered
            blocked.set()
            with files_of_at_most(0):
                real(number, at)
        real(number, at)

    outbox.sent = sent  # type: ignore[method-assign]
    asyncio.run(delivering(configure({"hook": url}), outbox, work))
    assert [got["title"] for got in sink.received] == ["one", "three"]


def test_thirty_hanging_calls_delay_no_other(outbox: Outbox, configure: Any, make_sink: Any, until: Any) -> None:
    """While 30 channels hang in a call each, a healthy one gets everything that is written for it, in order; the
    calls still hang when it is done."""
    hanging, healthy = make_sink(), make_sink()
    hanging.hang = True
    channels = {f"hanging{n}": f"webhook+http://127.0.0.1:{hanging.port}/{n}" for n in range(30)}
    channels["healthy"] = f"webhook+http://127.0.0.1:{healthy.port}/"
    outbox.record([draft(f"hanging{n}") for n in range(30)], [], time.time())

    async def work(_: Delivery) -> None:
        await until(lambda: len(hanging.times) == 30)
        titles = [f"Message {number}" for number in range(50)]
        outbox.record([Draft("healthy", "app", "failure", title, "Body") for title in titles], [], time.time())
        await until(lambda: len(healthy.received) == 50)
        assert [got["title"] for got in healthy.received] == titles
        assert all(one.reason == "" for one in outbox.ledger() if one.channel != "healthy")

    asyncio.run(delivering(configure(channels), outbox, work, patience=Patience(timeout=60.0)))


@pytest.mark.parametrize(("how", "reason"), [("drip", "no answer within 6 s"), ("tls", "TLS failed")])
def test_what_apprise_meets(
    outbox: Outbox, configure: Any, make_sink: Any, until: Any, pem: Path, how: str, reason: str
) -> None:
    """An answer that drips in for ever ends at the timeout; a certificate that nobody vouches for is told; the message
    waits in both cases."""
    sink = make_sink(pem if how == "tls" else None)
    sink.drip = how == "drip"
    url = f"jsons://127.0.0.1:{sink.port}/x" if how == "tls" else f"{sink.url}?rto=60"
    (number,) = outbox.record([draft()], [], time.time())

    async def work(_: Delivery) -> None:
        await until(lambda: (found := outbox.get(number)) and found.reason)

    patience = Patience(timeout=6.0, first=30.0)
    asyncio.run(delivering(configure({"hook": url}), outbox, work, patience=patience))
    message = outbox.get(number)
    assert message is not None
    assert message.state == "queued"
    assert message.reason.startswith(reason)
    assert sink.received == []
