"""How the example server is made slow on purpose, in all its workers at once."""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from tempfile import NamedTemporaryFile

from fastapi import HTTPException, Request

CHUNK = 2**20


def this_machine(request: Request) -> None:
    """Refuse (403) a caller from elsewhere: slowing the shop is for whoever runs the demo."""
    try:
        if request.client and ip_address(request.client.host).is_loopback:
            return
    except ValueError:  # not an address: a socket file, a name
        pass
    raise HTTPException(403, "the demo is steered from this machine only")


def nap(seconds: float) -> int:
    """Sleep and return 0. Called by SQLite in the middle of a query, which therefore takes that much longer."""
    if seconds:
        time.sleep(seconds)
    return 0


@dataclass(frozen=True, slots=True)
class State:
    """``seconds`` more for every query; ``memory_mb`` megabytes taken by the worker with process id ``holder``."""

    seconds: float = 0
    memory_mb: int = 0
    holder: int = 0


class Slowness:
    """The state that all workers share through a small file, replaced whole so that none reads half of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int] | None = None
        self._state = State()
        self._held: mmap.mmap | None = None
        self.held_mb = 0

    @property
    def now(self) -> State:
        """The state as it is now: one ``stat``, and a read when another worker has changed it."""
        try:
            status = self.path.stat()
            seen = (status.st_mtime_ns, status.st_ino)
            if seen != self._seen:
                self._state, self._seen = State(**json.loads(self.path.read_text())), seen
        except FileNotFoundError:
            self._state, self._seen = State(), None
        return self._state

    def set(self, seconds: float, memory_mb: int) -> None:
        """Make every worker this slow from now on; this worker is the one that takes the memory."""
        with NamedTemporaryFile("w", dir=self.path.parent, delete=False) as file:
            json.dump(asdict(State(seconds, memory_mb, os.getpid())), file)
        Path(file.name).replace(self.path)

    def hold(self) -> None:
        """Take, or give back, the memory that is this process's to hold. Written to, so that it is resident."""
        state = self.now
        wanted = state.memory_mb if state.holder == os.getpid() else 0
        if wanted == self.held_mb:
            return
        if self._held is not None:
            self._held.close()
        self._held = None
        self.held_mb = wanted
        if wanted:
            # A mapping of its own: closing it gives every page back at once, whatever malloc would have kept.
            self._held = mmap.mmap(-1, wanted * 10**6)
            for start in range(0, len(self._held), CHUNK):
                self._held[start : start + CHUNK] = b"\1" * min(CHUNK, len(self._held) - start)

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """While inside: take and give back memory within a quarter of a second of what is asked."""

        async def follow() -> None:
            while True:
                await asyncio.to_thread(self.hold)
                await asyncio.sleep(0.25)

        task = asyncio.create_task(follow())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            if self._held is not None:
                self._held.close()
