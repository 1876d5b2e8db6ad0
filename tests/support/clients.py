"""Clients on kept connections that know what became of each of their requests; for soaks."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable

LENGTH = re.compile(rb"content-length: *(\d+)\r\n", re.IGNORECASE)


class Clients:
    """``connections`` clients for each path, each asking again as soon as it has its answer, until :meth:`stop`.

    Of every request that was sent, by path: ``answered`` (all of the answer came, with status 200), ``failed`` (all of
    it, with another status) or ``broken`` (the connection ended first: the server may have served it or not).
    ``on_answer`` is called with the body of an answer at once, before anything else.
    """

    def __init__(
        self, port: int, paths: tuple[str, ...], connections: int, on_answer: Callable[[bytes], None]
    ) -> None:  # fmt: skip
        self.port, self.paths, self.connections, self.on_answer = port, paths, connections, on_answer
        self.answered: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))

    def __enter__(self) -> Clients:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask no more, and wait for the answers that are outstanding."""
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    async def _all(self) -> None:
        await asyncio.gather(*(self._ask(path) for path in self.paths for _ in range(self.connections)))

    async def _ask(self, path: str) -> None:
        request = f"GET {path} HTTP/1.1\r\nHost: soak\r\n\r\n".encode()
        while not self._stopping.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            try:
                while not self._stopping.is_set():
                    writer.write(request)
                    try:
                        status, body = await _answer(reader)
                    except (OSError, asyncio.IncompleteReadError):
                        self.broken[path] += 1
                        break
                    if status == 200:
                        self.on_answer(body)
                    (self.answered if status == 200 else self.failed)[path] += 1
            finally:
                writer.transport.abort()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    assert length, head
    return int(head[9:12]), await reader.readexactly(int(length.group(1)))
