"""What became of one send, and how an answer or an error is read: shared by everything that sends.

https://www.rfc-editor.org/rfc/rfc9110 (statuses, Retry-After).
"""

from __future__ import annotations

import email.utils
import errno
import os
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# HTTP: the request is refused as it stands. 408, 425 and 429 ask for another try; so do all of 5xx.
AGAIN: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one send. ``retryable``: another try can help. ``retry_after``: seconds the service asked for."""

    delivered: bool
    retryable: bool = False
    reason: str = ""
    retry_after: float | None = None


def of_status(status: int, retry_after: str, now: float | None = None) -> Outcome:
    """The outcome of an HTTP answer. ``retry_after`` is the header, empty where there is none."""
    if 200 <= status < 300:
        return Outcome(True)
    pause = seconds(retry_after, time.time() if now is None else now)
    return Outcome(False, status >= 500 or status in AGAIN, f"HTTP status {status}", pause)


def seconds(retry_after: str, now: float) -> float | None:
    """Of the header ``Retry-After``, a number of seconds or a date; ``None`` where it says nothing."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit() and len(text) < 7:
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def describe(error: BaseException) -> str:
    """A connection error in words of our own: what it says itself may hold the URL."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({cause.reason or 'no reason given'})"
        if isinstance(cause, socket.gaierror):
            return "the host name was not found"
        if isinstance(cause, TimeoutError):
            return "the connection timed out"
        if isinstance(cause, OSError) and cause.errno is not None and cause.errno in errno.errorcode:
            return f"the connection failed ({os.strerror(cause.errno)})"
    name = type(error).__name__
    return "the connection timed out" if "Timeout" in name else f"the connection failed ({name})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and everything under it; requests and urllib3 keep causes in ``args`` and ``reason``, too."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [getattr(one, "reason", None), *one.args, one.__cause__, one.__context__]
            waiting += getattr(one, "exceptions", ())
