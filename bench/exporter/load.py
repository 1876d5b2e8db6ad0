"""A load generator for machines without wrk or hey: ``python -m bench.exporter.load URL CONNECTIONS SECONDS``.

Keeps every connection busy with one request after the other. Prints what wrk prints last: requests a second.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from urllib.parse import urlsplit

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Client(asyncio.Protocol):
    """One connection: the next request is sent when the answer to the last is complete."""

    def __init__(self, host: str, path: str) -> None:
        self.request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self.answers = self.refused = 0
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        length = LENGTH.search(self.buffer, 0, head) if head >= 0 else None
        if length is None or len(self.buffer) < head + 4 + int(length.group(1)):
            return
        self.answers += 1
        self.refused += not self.buffer.startswith(b"HTTP/1.1 200")
        self.buffer = b""
        self.transport.write(self.request)


async def main(url: str, connections: int, seconds: float) -> None:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    loop = asyncio.get_running_loop()
    clients = [Client(parts.netloc, parts.path) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, parts.hostname, parts.port)  # type: ignore[misc]
    began, before = time.perf_counter(), sum(client.answers for client in clients)
    await asyncio.sleep(seconds)
    answers, took = sum(client.answers for client in clients) - before, time.perf_counter() - began
    for client in clients:
        client.transport.abort()
    if refused := sum(client.refused for client in clients):
        print(f"Non-2xx or 3xx responses: {refused}")
    print(f"Requests/sec: {answers / took:.2f}")


if __name__ == "__main__":
    arguments = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    try:
        import uvloop

        uvloop.run(main(*arguments))
    except ImportError:
        asyncio.run(main(*arguments))
