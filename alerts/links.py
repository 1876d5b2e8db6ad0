"""Signed links in messages: acknowledge and silence with one hand, from a phone, without a token.

For who writes messages: :meth:`Links.of` gives the links of a notification as ``(name, address)`` pairs; the pipeline
puts them into ``Notification.links``, and :func:`.messages.story` takes them from there into every form of a message.

A link says what is to be done, about which alerts, and until when it works, and is signed with a key that never leaves
the data folder. Whoever has the message can use it, and nobody can make one. Opening it changes nothing (mail scanners
and chat previews open links): the page that it leads to has a button.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from .matchers import LONGEST, MOST, Matcher
from .model import Alert, Notification

KEY_FILE: Final = "link.key"
KEY_BYTES: Final = 32
LASTS: Final = 86400.0  # seconds; a repeated message has new ones
ACTIONS: Final = {"ack": "Acknowledge", "silence": "Silence"}
PATH: Final = "/act"
# With more alerts than this a link is about all of their service.
NAMED: Final = 10
FINGERPRINTS: Final = re.compile(r"[0-9a-f]{16}(?:\.[0-9a-f]{16})*")
# The labels that tell alerts apart come first where an alert has more than a silence may name.
FIRST: Final = ("alertname", "service", "target", "instance")


class LinkError(Exception):
    """A link that is not ours, not whole, or too old; or a key that cannot be used. Says which."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a link is about: alerts by fingerprint, or all of a service."""

    fingerprints: tuple[str, ...] = ()
    service: str = ""

    def of(self, alerts: Iterable[Alert]) -> list[Alert]:
        """Those of ``alerts`` that are meant."""
        if self.service:
            return [alert for alert in alerts if alert.service == self.service]
        return [alert for alert in alerts if alert.fingerprint in self.fingerprints]

    def __str__(self) -> str:
        return f"service:{self.service}" if self.service else ".".join(self.fingerprints)

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Raises :class:`LinkError`."""
        if text.startswith("service:") and len(text) > len("service:"):
            return cls(service=text.removeprefix("service:"))
        if FINGERPRINTS.fullmatch(text):
            return cls(tuple(text.split(".")))
        raise LinkError("the link is not whole")


@dataclass(frozen=True, slots=True)
class Links:
    """Makes and checks links below ``base``, the address at which people reach the monitor."""

    base: str
    key: bytes

    def of(self, told: Notification) -> tuple[tuple[str, str], ...]:
        """The links of a message: for what fires in it. None for one that only tells of ends."""
        fingerprints = tuple(alert.fingerprint for alert in told.firing + told.still)
        scope = Scope(fingerprints) if len(fingerprints) <= NAMED else Scope(service=told.service)
        if not str(scope).removeprefix("service:"):
            return ()
        until = int(told.at + LASTS)
        return tuple((name, self.link(action, scope, until)) for action, name in ACTIONS.items())

    def link(self, action: str, scope: Scope, until: int) -> str:
        words = {"of": str(scope), "until": str(until), "sign": self._sign(action, str(scope), str(until))}
        return f"{self.base.rstrip('/')}{PATH}/{action}?{urlencode(words)}"

    def check(self, action: str, of: str, until: str, sign: str, now: float) -> Scope:
        """What a link is about. Raises :class:`LinkError`."""
        # The signature first: nothing is told about a link that is not ours.
        if not hmac.compare_digest(self._sign(action, of, until).encode(), sign.encode("utf-8", "replace")):
            raise LinkError("the link is not whole, or not of this monitor")
        if not re.fullmatch(r"[0-9]{1,12}", until) or int(until) < now:
            raise LinkError("the link is too old; use that of a newer message, or the page")
        return Scope.parse(of)

    def _sign(self, action: str, of: str, until: str) -> str:
        text = "\n".join((action, of, until)).encode("utf-8", "surrogatepass")
        return base64.urlsafe_b64encode(hmac.digest(self.key, text, hashlib.sha256)).rstrip(b"=").decode()


def silence_matchers(alert: Alert) -> tuple[Matcher, ...]:
    """What silences ``alert`` and, as far as a silence may say so, no other."""
    names = sorted(alert.labels, key=lambda name: (name not in FIRST, name))
    return tuple(Matcher(name, "=", alert.labels[name]) for name in names if len(alert.labels[name]) <= LONGEST)[:MOST]


def load_key(folder: Path) -> bytes:
    """The key in ``folder``, made when there is none. Raises :class:`LinkError` for one that others may have read."""
    path = folder / KEY_FILE
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise LinkError(f"{path} can be read by others: remove it (links in older messages end with it)")
            key = path.read_bytes()
            if len(key) == KEY_BYTES:
                return key
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key, fresh = secrets.token_bytes(KEY_BYTES), folder / f"{KEY_FILE}.new"
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise LinkError(f"{path} cannot be used: {error.strerror or type(error).__name__}") from None
    return key
