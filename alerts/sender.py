"""The edge to Apprise: one method, and the child processes behind it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from typing import Any, Final, Protocol

from anvil_monitor.targets import Channel

from .hooks import HookSender, is_hook
from .letters import Letter
from .outcomes import Outcome as Outcome
from .posting import Poster
from .slackbot import NoThreads, SlackSender, Threads, is_bot

# Seconds that a process is kept after its last use; and that it is not begun ahead of a message again when the last
# time no message came: an alert that is pending now and then costs a fifth of a process at most.
IDLE: Final = 60.0
# What a delivery process sees of the environment: where things are, which language, which way out. Whatever else stands
# there (passwords of databases, keys of clouds) is no business of a plugin's.
SEEN: Final = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV",
     "LD_LIBRARY_PATH", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
     "SSL_CERT_FILE", "SSL_CERT_DIR", "DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS"}
)  # fmt: skip
SEEN_FROM: Final = ("LC_", "PYTHON", "XDG_")
REST: Final = 300.0


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

    async def warm(self, channel: Channel, url: str) -> None:
        """Get ready to send to ``channel``: something may be written for it soon."""
        if not (is_hook(url) or is_bot(url)):
            await self._apprise.warm(channel, url)

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

    def __init__(
        self, hide: Collection[str] = (), idle: float = IDLE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``hide``: environment variables that hold a secret, whatever they are called; ``idle``: seconds before a
        child is ended."""
        self._clock = clock
        self._rests: dict[str, float] = {}  # by channel: until when none is begun ahead
        self._environ = {name: value for name, value in os.environ.items() if _seen(name) and name not in hide}
        self._idle = idle
        self._children: dict[str, Child] = {}
        self._killed: list[Child] = []

    async def send(self, channel: Channel, url: str, letter: Letter) -> Outcome:
        """Send one message. Cancelled (a timeout), it kills the child that hangs."""
        self._rests.pop(channel.name, None)
        child = self._child(channel.name)
        return await self._ask(channel.name, child, as_request(url, letter))

    async def warm(self, channel: Channel, url: str) -> None:
        """Begin the child, so that a message finds Apprise loaded. It ends when idle, as after a message."""
        child = self._children.get(channel.name)
        if (child is not None and child.alive) or self._clock() < self._rests.get(channel.name, 0.0):
            return
        self._rests[channel.name] = self._clock() + REST
        await self._ask(channel.name, self._child(channel.name), {"url": url})

    def _child(self, name: str) -> Child:
        child = self._children.get(name)
        if child is None or not child.alive:
            if child is not None:
                self._part_with(child)
            child = self._children[name] = Child(self._environ, self._idle)
        return child

    async def _ask(self, name: str, child: Child, request: dict[str, Any]) -> Outcome:
        try:
            return await child.send(request)
        except BaseException:
            if self._children.get(name) is child:
                del self._children[name]
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


def _seen(name: str) -> bool:
    return name.upper() in SEEN or name.startswith(SEEN_FROM)


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
        self._turn = asyncio.Lock()  # a message may come while the process gets ready
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
        async with self._turn:
            return await self._send(request)

    async def _send(self, request: dict[str, Any]) -> Outcome:
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
