"""A plain webhook, sent by ourselves: JSON, a signature, and the service's answer to the letter.

Its URL is ``webhook+https://…`` (or ``webhook+http://…``). The body and the headers are described in
docs/notifications.md. No child process: these calls can be cancelled.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from anvil_monitor.targets import Channel

from .letters import Letter
from .model import Alert, Notification
from .outcomes import Outcome, describe
from .posting import Poster

PREFIX: Final = "webhook+"
VERSION: Final = "1"
SIGNATURE: Final = "X-Anvil-Signature"
TIMESTAMP: Final = "X-Anvil-Timestamp"


def is_hook(url: str) -> bool:
    return url.startswith(PREFIX)


def refused(url: str) -> str:
    """Why ``url`` is no webhook, without a word of it; empty where it is one."""
    try:
        parts = urlsplit(url.removeprefix(PREFIX))
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    return "" if good else "is no webhook: write webhook+https://HOST/PATH"


def document(letter: Letter) -> dict[str, Any]:
    """The body of the post, as docs/notifications.md has it."""
    message, told = letter.message, letter.told
    alerts: list[dict[str, Any]] = []
    if told is not None:
        groups = [("firing", told.firing), ("still", told.still), ("resolved", told.resolved)]
        if told.acknowledged:
            groups = [("still", told.acknowledged)]
        alerts = [_alert(state, alert, told) for state, group in groups for alert in group]
    return {
        "version": VERSION,
        "id": f"{message.id}-{round(message.created * 1000)}",
        "status": "resolved" if message.kind == "success" else "firing",
        "kind": message.kind,
        "service": message.topic,
        "reason": message.cause,
        "at": _time(message.created),
        "title": message.title,
        "text": message.body,
        "alerts": alerts,
        "more": told.more if told is not None else 0,
        "links": [{"name": name, "url": url} for name, url in (told.links if told is not None else ())],
    }


def _alert(state: str, alert: Alert, told: Notification) -> dict[str, Any]:
    who, why = told.seen.get(alert.fingerprint, ("", ""))
    return {
        "state": state,
        "fingerprint": alert.fingerprint,
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "starts_at": _time(alert.starts_at),
        "ends_at": _time(alert.ends_at) if alert.ends_at is not None else None,
        "acknowledged": {"author": who, "reason": why} if who else None,
    }


def _time(at: float) -> str | None:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None


def signature(key: str, timestamp: str, body: bytes) -> str:
    """``sha256=`` and the HMAC-SHA256 of timestamp, a full stop and the body: what a receiver computes, too."""
    return "sha256=" + hmac.new(key.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class HookSender:
    """Posts letters to plain webhooks. ``environ`` holds the signing keys."""

    def __init__(self, environ: Mapping[str, str], poster: Poster, clock: Callable[[], float] = time.time) -> None:
        self._environ = dict(environ)
        self._poster = poster
        self._clock = clock

    async def send(self, channel: Channel, url: str, letter: Letter) -> Outcome:
        """Send one message. The answer's body is never read: it could go on for ever."""
        import httpx

        if reason := refused(url):
            return Outcome(False, False, f"its URL {reason}")
        content = document(letter)
        body = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
        stamp = str(int(self._clock()))
        headers = {"Content-Type": "application/json", "User-Agent": "anvil-monitor", TIMESTAMP: stamp,
                   "Idempotency-Key": str(content["id"])}  # fmt: skip
        if channel.signing_key is not None:
            try:
                headers[SIGNATURE] = signature(channel.signing_key.reveal(self._environ), stamp, body)
            except LookupError as error:
                return Outcome(False, True, f"its signing key is not to be had: {error}")
        try:
            answer = await self._poster.post(url.removeprefix(PREFIX), body, headers)
            return answer.outcome(self._clock())
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return Outcome(False, True, describe(error))
