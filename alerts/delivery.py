"""From the outbox to people: one worker a channel, so that one which hangs, drips or fails never delays another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from anvil_monitor.targets import Channel, Configuration, ConfigurationError, format_duration

from .letters import History, Letter, Writer
from .model import Alert, Message
from .outbox import Outbox, OutboxError
from .outcomes import Outcome
from .sender import Sender, Senders
from .slackbot import KeptThreads
from .warming import Warming

logger = logging.getLogger(__name__)

# A service may ask for a pause, but for none longer than this; what is due even later is so by a clock's jump.
LONGEST_PAUSE: Final = 3600.0
TIDY_EVERY: Final = 3600.0
# Seconds after which a message that another process has put back is sent.
WATCH_EVERY: Final = 1.0
# Seconds that the picture of a message may take before it goes without.
PICTURE_TIMEOUT: Final = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for one send; the first and the longest pause between tries; the age at which a message is given up."""

    timeout: float = 20.0
    first: float = 1.0
    longest: float = 300.0
    give_up: float = 86400.0

    def pause(self, tries: int, chance: float) -> float:
        """Exponential, and ``chance`` (0 to 1) takes up to half of it off, so that channels do not retry in step."""
        whole = min(self.longest, self.first * 2.0 ** min(tries, 30))
        return whole * (1.0 - chance / 2.0)


@dataclass(slots=True)
class Tally:
    """What became of a channel's sends since the start."""

    delivered: int = 0
    failed: int = 0
    last_reason: str = ""


class Delivery:
    """Sends what the outbox holds until :meth:`close`. Raises :class:`OutboxError` where another process does so.

    ``environ`` holds the channels' secrets. Without ``sender``, the real ones send. ``history`` gives values for the
    picture in a mail. Raises :class:`ConfigurationError` for a template that cannot be used.
    """

    def __init__(
        self,
        configuration: Configuration,
        outbox: Outbox,
        environ: Mapping[str, str],
        sender: Sender | None = None,
        clock: Callable[[], float] = time.time,
        patience: Patience = Patience(),
        history: History | None = None,
    ) -> None:
        self._writer = Writer(configuration, history)
        if self._writer.problems:
            raise ConfigurationError(self._writer.problems)
        outbox.claim()
        self._configuration = configuration
        self._outbox = outbox
        self._environ = dict(environ)
        self._clock = clock
        self._patience = patience
        self._own = None if sender else Senders(environ, _variables(configuration), KeptThreads(outbox))
        self._sender: Sender = sender or self._own  # type: ignore[assignment]
        self._warming = Warming(configuration.channels, self._environ, self._own) if self._own else None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakes = {channel.name: asyncio.Event() for channel in configuration.channels}
        self._workers: list[asyncio.Task[None]] = []
        self._house: list[asyncio.Task[None]] = []
        self._done = asyncio.Event()
        self._closing = False
        self.tallies = {channel.name: Tally() for channel in configuration.channels}

    async def run(self) -> None:
        """Send until :meth:`close`, which ends this too. Cancelled, it leaves the rest in the outbox."""
        self._loop = loop = asyncio.get_running_loop()

        def added() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: the next start sends it
                loop.call_soon_threadsafe(self._wake)

        self._outbox.listen(added)
        try:
            if not self._closing:
                self._start()
                self._house = [asyncio.create_task(self._tidy()), asyncio.create_task(self._watch())]
            await self._done.wait()
        finally:
            self._outbox.unlisten(added)
            await self._end()

    def expect(self, alerts: Iterable[Alert]) -> None:
        """From any thread: people may be told of ``alerts`` within half a minute. What sends to them gets ready."""
        if self._warming and self._loop and not self._closing:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._warming.expect, tuple(alerts))

    async def close(self, grace: float = 3.0) -> None:
        """For at most ``grace`` seconds send what is due; then end. The rest stays in the outbox for the next start."""
        if self._closing:
            return
        self._closing = True
        self._wake()
        if not self._workers:
            self._start()  # run() has not come to it yet
        if self._workers:
            await asyncio.wait(self._workers, timeout=grace)
        await self._end()
        self._done.set()

    def _start(self) -> None:
        self._workers = [asyncio.create_task(self._work(one)) for one in self._configuration.channels]

    async def _end(self) -> None:
        tasks = self._workers + self._house
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._warming:
            await self._warming.close()
        if self._own:
            await self._own.close()

    def _wake(self) -> None:
        for wake in self._wakes.values():
            wake.set()

    async def _work(self, channel: Channel) -> None:
        """Keep one channel served, whatever happens."""
        while True:
            try:
                await self._serve(channel)
                return
            except Exception:
                logger.exception("channel %s: its worker failed and begins again", channel.name)
                await asyncio.sleep(5.0)

    async def _serve(self, channel: Channel) -> None:
        """Send the messages of one channel, each in its time."""
        wake = self._wakes[channel.name]
        while True:
            wake.clear()
            try:
                message = self._outbox.next(channel.name)
            except OutboxError as error:
                logger.error("channel %s waits: %s", channel.name, error)
                pause = 5.0
            else:
                pause = message.due - self._clock() if message else TIDY_EVERY
                if message and (pause <= 0 or pause > LONGEST_PAUSE):
                    outcome = await self._send(channel, message)
                    await self._settle(message, outcome)
                    continue
            if self._closing:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await wake.wait()

    async def _send(self, channel: Channel, message: Message) -> Outcome:
        try:
            url = channel.url.reveal(self._environ)
            letter = await self._letter(channel, message)
            async with asyncio.timeout(self._patience.timeout):
                return await self._sender.send(channel, url, letter)
        except LookupError as error:
            return Outcome(False, True, f"its URL is not to be had: {error}")
        except TimeoutError:
            return Outcome(False, True, f"no answer within {format_duration(self._patience.timeout)}")
        except Exception as error:  # noqa: BLE001 (no channel may end its worker; the text could hold the URL)
            return Outcome(False, True, f"the sender failed ({type(error).__name__})")

    async def _letter(self, channel: Channel, message: Message) -> Letter:
        """The letter, with a picture where there is history to draw one from in time."""
        letter = self._writer.write(channel, message)
        if not self._writer.draws(letter):
            return letter
        try:
            async with asyncio.timeout(PICTURE_TIMEOUT):
                return replace(letter, picture=await asyncio.to_thread(self._writer.picture, letter))
        except Exception as error:  # noqa: BLE001 (a picture must not cost the message)
            logger.warning("channel %s: a message goes without its picture: %s", channel.name, type(error).__name__)
            return letter

    async def _settle(self, message: Message, outcome: Outcome) -> None:
        """Write down what became of ``message``. Until that is done the channel waits, or it would send it again."""
        self._count(message, outcome)
        while True:
            try:
                self._mark(message, outcome)
                return
            except OutboxError as error:
                logger.error("channel %s waits: %s", message.channel, error)
                await asyncio.sleep(1.0)

    def _mark(self, message: Message, outcome: Outcome) -> None:
        now, patience = self._clock(), self._patience
        if outcome.delivered:
            self._outbox.sent(message.id, now)
        elif not outcome.retryable:
            self._outbox.dead(message.id, now, outcome.reason)
        elif now - message.created >= patience.give_up:
            age = format_duration(patience.give_up)
            self._outbox.dead(message.id, now, f"given up after {age}: {outcome.reason}")
        else:
            pause = patience.pause(message.attempts, random.random())  # noqa: S311 (jitter)
            pause = max(pause, min(outcome.retry_after or 0.0, LONGEST_PAUSE))
            self._outbox.retry(message.id, now + pause, outcome.reason)

    def _count(self, message: Message, outcome: Outcome) -> None:
        tally = self.tallies[message.channel]
        if outcome.delivered:
            tally.delivered += 1
            late = self._clock() - message.created
            logger.info(
                "channel %s was sent message %d, %.1f s after it was written", message.channel, message.id, late
            )
            return
        tally.failed += 1
        tally.last_reason = outcome.reason
        then = "will be tried again" if outcome.retryable else "is not tried again"
        logger.warning("channel %s: message %d %s: %s", message.channel, message.id, then, outcome.reason)

    async def _watch(self) -> None:
        """Look at the outbox again when another process (a command) has written to it."""
        seen = None  # the first time, too: it may have been written to since the workers looked
        while True:
            with contextlib.suppress(OutboxError):  # the workers say so themselves
                version = self._outbox.rows("PRAGMA data_version")
                if version != seen:
                    self._wake()
                seen = version
            await asyncio.sleep(WATCH_EVERY)

    async def _tidy(self) -> None:
        """Keep the ledger bounded; what waits for a channel that is no longer configured becomes a dead letter."""
        while True:
            try:
                now = self._clock()
                for name in set(self._outbox.waiting()) - set(self._wakes):
                    while message := self._outbox.next(name):
                        self._outbox.dead(message.id, now, "the channel is no longer in the configuration")
                self._outbox.trim(now)
            except OutboxError as error:
                logger.error("the ledger is not tidied: %s", error)
            await asyncio.sleep(TIDY_EVERY)


def _variables(configuration: Configuration) -> list[str]:
    """The environment variables that hold a secret of any kind: a plugin of Apprise's need not see them."""
    monitor = configuration.monitor
    secrets = [monitor.token, monitor.heartbeat, *(service.metrics_token for service in configuration.services)]
    secrets += [secret for channel in configuration.channels for secret in (channel.url, channel.signing_key)]
    origins = [secret.origin.partition(":") for secret in secrets if secret is not None]
    return [where for kind, _, where in origins if kind == "env"]
