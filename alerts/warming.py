"""Delivery processes that are begun before their message is written: Apprise takes a second to load on a busy machine,
which is a second that an alert which waits for its ``for`` or its group has anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from anvil_monitor.targets import Channel

from .model import Alert
from .routing import wants
from .sender import Senders

# Seconds before a message is due: longer than Apprise takes to load, shorter than an idle process is kept.
LEAD: Final = 30.0
LONGEST: Final = 20.0


class Warming:
    """Gets the channels ready that alerts would be told to. For the event loop's thread."""

    def __init__(self, channels: Sequence[Channel], environ: Mapping[str, str], senders: Senders) -> None:
        self._channels, self._environ, self._senders = channels, dict(environ), senders
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def expect(self, alerts: Iterable[Alert]) -> None:
        """These may be told within :data:`LEAD` seconds."""
        expected = tuple(alerts)
        for channel in self._channels:
            if channel.name not in self._tasks and any(wants(channel, alert) for alert in expected):
                self._tasks[channel.name] = asyncio.create_task(self._warm(channel))

    async def _warm(self, channel: Channel) -> None:
        # What goes wrong here goes wrong again when the message is sent, and is told then.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(LONGEST):
                await self._senders.warm(channel, channel.url.reveal(self._environ))
        self._tasks.pop(channel.name, None)

    async def close(self) -> None:
        """Get nothing ready any more."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
