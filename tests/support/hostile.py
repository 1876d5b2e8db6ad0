"""Input that somebody hostile, or something broken, might send; and an ASGI caller that lets no failure pass."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

# Pieces that parsers stumble over, whatever their language.
PIECES = (
    b"", b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xf0\x9f\x94\xa8", "\u2028".encode(), b"\r", b"\n", b"\\",
    b'"', b"'", b"[", b"]", b"{", b"}", b"(", b")", b",", b":", b"=", b"#", b"%", b"&", b"*", b"!", b"|", b">", b"-",
    b"null", b"true", b"NaN", b"Inf", b"-1", b"0", b"1e999", b"1e-999", b"9" * 400, b"0x1p4", b"1_000", b"\\ud800",
    b"\\u0000", b"__proto__", b"__class__", b"{{ .Value }}", b"%00", b"../", b"A" * 5000, b"[" * 3000, b'{"a":' * 900,
)  # fmt: skip


def mutations(seeds: Sequence[bytes], count: int, seed: int, pieces: Sequence[bytes] = ()) -> Iterator[bytes]:
    """``count`` bodies made of ``seeds`` by a few random changes each; the same ones for the same ``seed``."""
    chance = random.Random(seed)
    every = (*PIECES, *pieces, *pieces, *pieces)
    for _ in range(count):
        body = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            at = chance.randrange(len(body) + 1)
            to = min(len(body), at + chance.choice((0, 1, 1, 2, 5, 20, 200)))
            kind = chance.randrange(6)
            if kind == 0:
                body[at:to] = chance.choice(every)
            elif kind == 1:
                body[at:at] = chance.choice(every)
            elif kind == 2:
                body[at:to] = b""
            elif kind == 3:
                body[at:at] = body[at:to] * chance.choice((1, 2, 50))
            elif kind == 4:
                other = chance.choice(seeds)
                body[at:to] = other[chance.randrange(len(other) + 1) :][:50]
            elif at < len(body):
                body[at] ^= 1 << chance.randrange(8)
        yield bytes(body)


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def bounded(work: Callable[[bytes], object], bodies: Iterable[bytes], most: int = 10_000_000) -> None:
    """Do ``work`` on each body; after the first tenth memory grows by no more than ``most`` bytes."""
    every = list(bodies)
    tenth = len(every) // 10
    for body in every[:tenth]:
        work(body)
    gc.collect()
    before = resident()
    for body in every[tenth:]:
        work(body)
    gc.collect()
    assert resident() - before < most


class Caller:
    """Calls an ASGI application as a server would, one request after the other. No exception is swallowed."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.loop = asyncio.new_event_loop()

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def __call__(
        self, method: str, path: str, body: bytes = b"", query: bytes = b"",
        headers: Sequence[tuple[bytes, bytes]] = (), chunk: int = 1 << 20,
    ) -> tuple[int, bytes]:  # fmt: skip
        """Status and body of the answer. Fails for a status of 500 or more."""
        parts = [body[at : at + chunk] for at in range(0, len(body), chunk)] or [b""]
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            part = parts.pop(0) if parts else b""
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "scheme": "http",
            "method": method, "path": path, "raw_path": path.encode(), "query_string": query, "root_path": "",
            "headers": [(b"host", b"127.0.0.1:8000"), *headers], "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000), "state": {}, "extensions": {},
        }  # fmt: skip
        self.loop.run_until_complete(self.app(scope, receive, send))
        status = sent[0]["status"]
        answer = b"".join(message.get("body", b"") for message in sent[1:])
        assert 200 <= status < 500, (status, answer[:300], body[:300], query[:300])
        return status, answer
