"""Delivery with a sender of the test's own: retries, giving up, shutting down, and a disk that fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from anvil_monitor.alerts.delivery import Delivery, Patience
from anvil_monitor.alerts.letters import Letter
from anvil_monitor.alerts.model import Draft
from anvil_monitor.alerts.outbox import Outbox, OutboxError
from anvil_monitor.alerts.sender import Outcome
from anvil_monitor.targets import Channel, Configuration, Secret

QUICK = Patience(timeout=0.3, first=0.01, longest=0.05, give_up=1000.0)
OK = Outcome(True)


class Sender:
    """Answers with what the test says; keeps what it was asked to send, with the time."""

    def __init__(self, answer: Callable[[str, str], Awaitable[Outcome]]) -> None:
        self._answer = answer
        self.sent: list[tuple[str, str, float]] = []

    async def send(self, channel: Channel, url: str, letter: Letter) -> Outcome:
        self.sent.append((channel.name, letter.title, time.monotonic()))
        return await self._answer(channel.name, letter.title)

    def titles(self, channel: str = "team") -> list[str]:
        return [title for name, title, _ in self.sent if name == channel]


def sender_of(*outcomes: Outcome) -> Sender:
    rest = list(outcomes)

    async def answer(*_: str) -> Outcome:
        return rest.pop(0) if rest else OK

    return Sender(answer)


def put(outbox: Outbox, *titles: str, channel: str = "team", topic: str = "app", at: float | None = None) -> list[int]:
    drafts = [Draft(channel, topic, "failure", title, "Body") for title in titles]
    return outbox.record(drafts, [], time.time() if at is None else at)


def run(
    configuration: Configuration,
    outbox: Outbox,
    sender: Sender,
    work: Callable[[Delivery], Awaitable[None]],
    *,
    patience: Patience = QUICK,
    grace: float = 0.0,
    **options: Any,
) -> float:
    """Deliver while ``work`` runs, then close; the seconds that closing took."""

    async def main() -> float:
        delivery = Delivery(configuration, outbox, {}, sender, patience=patience, **options)
        running = asyncio.create_task(delivery.run())
        try:
            await work(delivery)
        finally:
            started = time.monotonic()
            await delivery.close(grace)
            await running
        return time.monotonic() - started

    return asyncio.run(main())


def only(outbox: Outbox) -> Any:
    (message,) = outbox.ledger()
    return message


def test_in_order_and_marked(outbox: Outbox, configure: Any, until: Any) -> None:
    """Messages of a channel go out in the order in which they were written, and the ledger knows it."""
    sender = sender_of()

    async def work(delivery: Delivery) -> None:
        put(outbox, "one", "two", "three")
        await until(lambda: outbox.counts() == {("team", "sent"): 3})
        assert delivery.tallies["team"].delivered == 3

    run(configure({"team": "json://x"}), outbox, sender, work)
    assert sender.titles() == ["one", "two", "three"]


def test_a_message_goes_out_at_once(outbox: Outbox, configure: Any, until: Any) -> None:
    """A written message wakes its worker: from another thread, too, it is with the sender at once, not at
    its next look."""
    sender = sender_of()

    async def work(_: Delivery) -> None:
        await asyncio.sleep(0.05)
        written = time.monotonic()
        await asyncio.to_thread(put, outbox, "one")
        await until(lambda: sender.sent)
        assert sender.sent[0][2] - written < 0.5

    run(configure({"team": "json://x"}), outbox, sender, work)


def test_an_error_is_tried_again_with_growing_pauses(outbox: Outbox, configure: Any, until: Any) -> None:
    """Four failures and then a delivery: the pauses double, less up to half by chance, up to the longest."""
    sender = sender_of(*[Outcome(False, True, "HTTP status 500")] * 4)

    async def work(_: Delivery) -> None:
        put(outbox, "one")
        await until(lambda: only(outbox).state == "sent")

    run(configure({"team": "json://x"}), outbox, sender, work)
    assert only(outbox).attempts == 5
    patience = Patience(first=1.0, longest=300.0)
    assert [patience.pause(tries, 0.0) for tries in (0, 1, 2, 8, 9, 5000)] == [1.0, 2.0, 4.0, 256.0, 300.0, 300.0]
    assert patience.pause(3, 1.0) == 4.0


def test_a_message_is_given_up_at_an_age(outbox: Outbox, configure: Any, until: Any) -> None:
    """A message that fails at the age of 24 hours becomes a dead letter with the last reason."""
    sender = sender_of(Outcome(False, True, "HTTP status 500"))

    async def work(_: Delivery) -> None:
        put(outbox, "one", at=time.time() - 86401)
        await until(lambda: only(outbox).state == "dead")

    run(configure({"team": "json://x"}), outbox, sender, work, patience=Patience())
    assert only(outbox).reason == "given up after 1 d: HTTP status 500"


def test_a_hanging_send_is_ended_and_delays_no_other(outbox: Outbox, configure: Any, until: Any) -> None:
    """A send without an answer is cancelled at its timeout; another channel gets its messages meanwhile."""

    async def answer(channel: str, _: str) -> Outcome:
        if channel == "hanging":
            await asyncio.sleep(3600)
        return OK

    sender = Sender(answer)

    async def work(_: Delivery) -> None:
        (hung,) = put(outbox, "x", channel="hanging")
        put(outbox, *map(str, range(50)))
        await until(lambda: outbox.counts()["hanging", "queued"] == 1 and outbox.counts().get(("team", "sent")) == 50)
        await until(lambda: (found := outbox.get(hung)) and found.reason == "no answer within 300 ms")

    run(configure({"hanging": "json://x", "team": "json://x"}), outbox, sender, work)


def test_a_fault_of_the_sender_is_no_fault_of_ours(outbox: Outbox, configure: Any, until: Any) -> None:
    """An exception in the sender is a failed try; its text, which may hold the URL, goes nowhere."""
    faults = [ValueError("json://secret")]

    async def answer(*_: str) -> Outcome:
        if faults:
            raise faults.pop()
        return OK

    async def work(delivery: Delivery) -> None:
        put(outbox, "one")
        await until(lambda: only(outbox).state == "sent")
        assert delivery.tallies["team"].last_reason == "the sender failed (ValueError)"

    run(configure({"team": "json://secret"}), outbox, Sender(answer), work)


def test_a_secret_that_is_missing(outbox: Outbox, configure: Any, until: Any) -> None:
    """A channel whose URL cannot be read waits, and the ledger names where it was looked for."""
    channel = Channel("team", Secret("env:ANVIL_NOT_SET"))

    async def work(_: Delivery) -> None:
        put(outbox, "one")
        await until(lambda: only(outbox).attempts)
        assert only(outbox).reason == "its URL is not to be had: the environment variable ANVIL_NOT_SET is not set"

    run(configure({"team": channel}), outbox, sender_of(), work)


def test_closing_sends_what_is_due(outbox: Outbox, configure: Any) -> None:
    """Within its grace, close sends what waits; it returns as soon as nothing is due."""

    async def slow(*_: str) -> Outcome:
        await asyncio.sleep(0.02)
        return OK

    async def work(_: Delivery) -> None:
        put(outbox, *map(str, range(10)))

    took = run(configure({"team": "json://x"}), outbox, Sender(slow), work, grace=5.0)
    assert outbox.counts() == {("team", "sent"): 10}
    assert took < 3.0


def test_closing_keeps_its_grace(outbox: Outbox, configure: Any, until: Any) -> None:
    """A channel that hangs at the end costs the grace and no more; its message is there for the next start."""

    async def hang(*_: str) -> Outcome:
        await asyncio.sleep(3600)
        return OK

    sender = Sender(hang)

    async def work(_: Delivery) -> None:
        put(outbox, "one")
        await until(lambda: sender.sent)

    took = run(configure({"team": "json://x"}), outbox, sender, work, patience=Patience(), grace=0.3)
    assert 0.25 < took < 2.0
    assert only(outbox).state == "queued"

    async def next_start(_: Delivery) -> None:
        await until(lambda: only(outbox).state == "sent")

    run(configure({"team": "json://x"}), outbox, sender_of(), next_start)


def test_closing_does_not_wait_for_a_retry(outbox: Outbox, configure: Any, until: Any) -> None:
    """What is to be tried again later stays for the next start; close does not wait for it."""

    async def work(_: Delivery) -> None:
        put(outbox, "one")
        await until(lambda: only(outbox).attempts)

    sender = sender_of(*[Outcome(False, True, "HTTP status 500")] * 9)
    took = run(configure({"team": "json://x"}), outbox, sender, work, patience=Patience(first=60.0), grace=5.0)
    assert took < 2.0
    assert only(outbox).state == "queued"


def test_a_delivery_that_cannot_be_marked_is_not_repeated(
    outbox: Outbox, configure: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the ledger cannot be written, a message that was sent is not sent again; it is marked later."""
    real, failures = outbox.sent, [OutboxError("the disk is full")]

    def sent(number: int, at: float) -> None:
        if failures:
            raise failures.pop()
        real(number, at)

    monkeypatch.setattr(outbox, "sent", sent)
    sender = sender_of()

    async def work(_: Delivery) -> None:
        put(outbox, "one", "two")
        await until(lambda: outbox.counts() == {("team", "sent"): 2})

    run(configure({"team": "json://x"}), outbox, sender, work)
    assert sender.titles() == ["one", "two"]


def test_a_channel_that_is_gone(outbox: Outbox, configure: Any, until: Any) -> None:
    """What waits for a channel that is no longer configured becomes a dead letter with that reason."""

    async def work(_: Delivery) -> None:
        await until(lambda: outbox.counts() == {("old", "dead"): 2})

    put(outbox, "one", "two", channel="old")
    run(configure({"team": "json://x"}), outbox, sender_of(), work)
    assert outbox.ledger()[0].reason == "the channel is no longer in the configuration"


def test_a_clock_that_was_set_back(outbox: Outbox, configure: Any, until: Any) -> None:
    """A message that is due in days, because the clock was set back since, is sent now."""
    (number,) = put(outbox, "one", at=time.time() + 5 * 86400)

    async def work(_: Delivery) -> None:
        await until(lambda: (found := outbox.get(number)) and found.state == "sent")

    run(configure({"team": "json://x"}), outbox, sender_of(), work)
