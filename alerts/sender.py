"""The edge to Apprise: one method, and the child processes behind it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any, Final, Protocol

from anvil_monitor.targets import Channel

from .hooks import HookSender, is_hook
from .letters import Letter
from .outcomes import Outcome as Outcome
from .posting import Poster
from .slackbot import NoThreads, SlackSender, Threads, is_bot

IDLE: Final = 60.0


class Sender(Protocol):
    """What delivery needs of the world. Cancelling ``send`` must end it."""

    async def send(self, channel: Channel, url: str, letter: Letter) -> Outcome: ...


class Senders:
    """The senders of the real world: plain webhooks and Slack's bots by ourselves, everything else through Apprise."""

    def __init__(self, environ: Mapping[str, str], hide: Collection[str] = (), threads: Threads | None = None) -> None:
        self._apprise = AppriseSender(hide)
        self._poster = Poster()
        self._hooks = HookSender(environ, self._poster)
        self._bots = SlackSender(self._poster, threads or NoThreads())

    async def send(self, channel: Channel, url: str, letter: Letter) -> Outcome:
        sender: Sender = self._hooks if is_hook(url) else self._bots if is_bot(url) else self._apprise
        return await sender.send(channel, url, letter)

    def pids(self) -> dict[str, int]:
        """The process of each channel that has one now."""
        return self._apprise.pids()

    async def close(self) -> None:
        await self._apprise.close()
        await self._poster.close()


class AppriseSender:
    """Sends through a child process a channel (``delivery_process.py``), begun when needed and ended when idle.

    A child a channel is what keeps channels apart: a hung call cannot be cancelled inside a process, and killing one
    that others send through would lose their messages too.
    """

    def __init__(self, hide: Collection[str] = (), idle: float = IDLE) -> None:
        """``hide``: environment variables that the children need not see; ``idle``: seconds before one is ended."""
        self._environ = {name: value for name, value in os.environ.items() if name not in hide}
        self._idle = idle
        self._children: dict[str, Child] = {}
        self._killed: list[Child] = []

    async def send(self, channel: Channel, url: str, letter: Letter) -> Outcome:
        """Send one message. Cancelled (a timeout), it kills the child that hangs."""
        channel_name = channel.name
        child = self._children.get(channel_name)
        if child is None or not child.alive:
            if child is not None:
                self._part_with(child)
            child = self._children[channel_name] = Child(self._environ, self._idle)
        try:
            return await child.send(as_request(url, letter))
        except BaseException:
            del self._children[channel_name]
            self._part_with(child)
            raise

    def _part_with(self, child: Child) -> None:
        child.kill()
        self._killed = [one for one in [*self._killed, child] if not one.gone]  # close() waits for these

    def pids(self) -> dict[str, int]:
        """The process of each channel that has one now."""
        return {name: child.pid for name, child in self._children.items() if child.alive and child.pid}

    async def close(self) -> None:
        """End every child process."""
        children = [*self._children.values(), *self._killed]
        self._children, self._killed = {}, []
        for child in children:
            child.kill()
        for child in children:
            await child.ended()


def as_request(url: str, letter: Letter) -> dict[str, Any]:
    """What a delivery process is asked: every form of the letter, of which the plugin there chooses."""
    return {
        "url": url,
        "title": letter.title,
        "kind": letter.kind,
        "forms": {form: asdict(written) for form, written in letter.forms.items()},
        "chosen": letter.chosen,
        "picture": base64.b64encode(letter.picture).decode(),
    }


class Child:
    """One delivery process."""

    def __init__(self, environ: Mapping[str, str], idle: float) -> None:
        self._environ = environ
        self._idle = idle
        self._process: asyncio.subprocess.Process | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._killed = False

    @property
    def alive(self) -> bool:
        """It runs, or is not begun yet, and was not told to end."""
        return not self._killed and (self._process is None or self._process.returncode is None)

    @property
    def gone(self) -> bool:
        """It was never begun, or has ended."""
        return self._process is None or self._process.returncode is not None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def send(self, request: dict[str, Any]) -> Outcome:
        if self._timer:
            self._timer.cancel()
        if self._process is None and (problem := await self._start()):
            self.kill()
            return Outcome(False, True, problem)
        answer = await self._exchange(json.dumps(request).encode() + b"\n")
        if answer is None:
            self.kill()
            await self.ended()
            return Outcome(False, True, "the delivery process ended while it sent")
        self._timer = asyncio.get_running_loop().call_later(self._idle, self.kill)
        with contextlib.suppress(ValueError, TypeError):
            return Outcome(**json.loads(answer))
        return Outcome(False, True, "the delivery process gave no answer that can be read")

    async def _start(self) -> str:
        """Begin the process; what kept it from being ready, or nothing."""
        # -P: a file of the working directory must not stand in for a module. A session of its own: Ctrl-C in the
        # terminal is for us, who may still want to send.
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                f"{__package__}.delivery_process",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=self._environ,
                start_new_session=True,
            )
        except OSError as error:
            return f"the delivery process cannot be started: {error.strerror}"
        answer = await self._exchange(b"")
        if answer is None:
            return f"the delivery process ended at its start (status {await self._process.wait()})"
        return str(json.loads(answer).get("error", ""))

    async def _exchange(self, line: bytes) -> bytes | None:
        """Write a line, if any, and read one; ``None`` where the process is gone."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line)
            await self._process.stdin.drain()
            return await self._process.stdout.readline() or None
        except ConnectionError:
            return None

    def kill(self) -> None:
        """End it now. It holds nothing: what it had not sent is in the outbox."""
        self._killed = True
        if self._timer:
            self._timer.cancel()
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def ended(self) -> None:
        """Wait until it has ended, and its pipes are closed."""
        if self._process is None:
            return
        self.kill()
        await self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
            with contextlib.suppress(ConnectionError):
                await self._process.stdin.wait_closed()
