"""Listening sockets, HTTP servers on them, and the signals that end a program."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import uvicorn

from anvil_monitor.targets import Configuration, ConfigurationError, Problem


def bind(configuration: Configuration) -> socket.socket:
    """A listening socket on the configured address, so that a port in use is told before anything starts."""
    monitor = configuration.monitor
    try:
        return _listening(monitor.host, monitor.port)
    except OSError as error:
        todo = "end the program that uses it, or choose another with --listen"
        what = f"cannot listen on {monitor.host}:{monitor.port}: {error.strerror}"
        raise ConfigurationError([Problem(what, todo=todo)]) from None


def bind_otlp(configuration: Configuration) -> tuple[socket.socket | None, str]:
    """A second socket, for what servers push, and why there is none.

    A port in use is no reason not to start: a collector may run on this machine, and the first address takes it, too.
    """
    if configuration.monitor.otlp is None:
        return None, ""
    host, port = configuration.monitor.otlp
    try:
        return _listening(host, port), ""
    except OSError as error:
        return None, f"nothing is taken over OTLP on {host}:{port}: {error.strerror} ([monitor] otlp)"


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns off Nagle's algorithm only where the protocol is named; with it on, kept connections wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(256)
    except OSError:
        listener.close()
        raise
    return listener


def url(listener: socket.socket) -> str:
    """Where ``listener`` is reached from here: an address for all interfaces is reached through the loopback one."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Signals belong to whoever started the monitor, not to its web server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def served(app: Any, listener: socket.socket, *, grace: int = 1) -> AsyncIterator[None]:
    """Serve ``app`` on ``listener`` as long as the block lasts; then what is under way has ``grace`` seconds."""
    settings = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=grace, server_header=False
    )
    server = Server(settings)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not task.done():  # noqa: ASYNC110  uvicorn offers no event for it
        await asyncio.sleep(0.005)
    try:
        yield
    finally:
        server.should_exit = True
        await task


async def until_signalled(run: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run ``run(stop)``; SIGINT and SIGTERM set ``stop``, and ``run`` then ends by itself."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await run(stop)
    return 0
