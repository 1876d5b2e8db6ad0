"""What is posted to us over HTTP: a body within its limits, or a refusal with its status and reason."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import ClientDisconnect, Request

BODY_SECONDS: Final = 10.0
"""How long a body may take to arrive."""


class RefusedError(Exception):
    """What is answered with ``status`` and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def json_body(request: Request, most: int) -> bytes:
    """The body of a post that is declared as JSON: a web page elsewhere cannot send that unasked.

    Raises :class:`RefusedError`, as :func:`any_body` does.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(415, "Content-Type is not application/json")
    return await any_body(request, most)


async def any_body(request: Request, most: int) -> bytes:
    """The body, at most so many bytes. Raises :class:`RefusedError` for one that is longer, slow or cut short."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise RefusedError(413, f"the body is larger than {most} bytes")
    except TimeoutError:
        raise RefusedError(408, f"the body did not arrive within {BODY_SECONDS:.0f} s") from None
    except ClientDisconnect:
        raise RefusedError(400, "the body ended early") from None
    return bytes(body)
