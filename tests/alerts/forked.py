"""Delivery processes by fork: what :func:`asyncio.create_subprocess_exec` gives, from a process that has imported
everything. A start takes milliseconds instead of a quarter of a second, so hundreds can be killed in a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Mapping
from typing import Any

from anvil_monitor.alerts import delivery_process, plugins


def preload(url: str) -> None:
    """Import what sending imports when it has to; of Apprise, if there is a ``url``, the plugin for it."""
    import httpx

    httpx.AsyncHTTPTransport(trust_env=False)  # the libraries below it, too
    if url:
        import apprise.attachment.memory  # noqa: F401
        import requests  # noqa: F401

        plugins.load(url)


class Forked:
    """As much of :class:`asyncio.subprocess.Process` as :class:`~anvil_monitor.alerts.sender.Child` asks for."""

    def __init__(self, pid: int) -> None:
        self.pid, self.returncode = pid, None
        self.stdin: asyncio.StreamWriter
        self.stdout: asyncio.StreamReader
        self._ended = asyncio.Event()
        self._watch = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._watch, self._reap)

    async def connect(self, write: int, read: int) -> None:
        loop = asyncio.get_running_loop()
        self.stdout = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self.stdout), os.fdopen(read, "rb", 0))
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), os.fdopen(write, "wb", 0)
        )
        self.stdin = asyncio.StreamWriter(transport, protocol, None, loop)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._watch)
        os.close(self._watch)
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


async def fork(*command: str, env: Mapping[str, str], **_: Any) -> Forked:
    """In place of :func:`asyncio.create_subprocess_exec`, for ``python -m anvil_monitor.alerts.delivery_process``."""
    assert command[-1] == delivery_process.__name__
    for_child, write = os.pipe()
    read, of_child = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(for_child, of_child, env)
    os.close(for_child)
    os.close(of_child)
    process = Forked(pid)
    await process.connect(write, read)
    return process


def _become(stdin: int, stdout: int, env: Mapping[str, str]) -> None:
    """Be a delivery process; never returns."""
    try:
        gc.disable()  # what is left of the parent must not close numbers that are given anew
        os.setsid()
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        os.closerange(3, 4096)  # the outbox's lock among them
        os.environ.clear()
        os.environ.update(env)
        delivery_process.main()
    finally:
        os._exit(9)
