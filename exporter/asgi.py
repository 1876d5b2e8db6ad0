"""The ASGI types, and the few lines that our own endpoints need: no framework is imported into the user's server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class BodyTooLargeError(Exception):
    """A request's body is longer than its reader takes."""


def header(scope: Scope, name: bytes) -> str:
    """The first header of that (lower-case) name, or an empty text."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """The whole body; ``None`` if the client left. Raises :class:`BodyTooLargeError` above ``limit`` bytes."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += bytes(message.get("body", b""))
        if len(body) > limit:
            raise BodyTooLargeError
        if not message.get("more_body", False):
            return body


async def respond(
    send: Send, status: int, body: bytes = b"", kind: str = "text/plain; charset=utf-8",
    headers: Iterable[tuple[str, str]] = (), head: bool = False,
) -> None:  # fmt: skip
    """One whole response; ``head``: of a HEAD request, whose body is only counted."""
    fields = [("content-length", str(len(body))), *headers]
    if body:
        fields.append(("content-type", kind))
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": b"" if head else body})
