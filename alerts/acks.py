"""Acknowledgements: somebody looks after an alert. Until it ends it is not repeated, and not escalated; who was told of
it is told so, once.

They lie in the outbox file, where a command of another process may write them (see :mod:`.silences`). The pipeline
forgets one when its alert is over: if it fires again, that is news again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from . import matchers as matching
from .model import SEEN, Alert
from .outbox import Outbox
from .silences import particulars

PREFIX: Final = re.compile(r"[0-9a-f]{4,16}")


@dataclass(frozen=True, slots=True)
class Ack:
    """``author`` looks after the alert with this fingerprint since ``at`` (seconds since the epoch)."""

    fingerprint: str
    author: str
    reason: str
    at: float

    def to_json(self) -> dict[str, Any]:
        """As the HTTP API and the page show it."""
        return {"fingerprint": self.fingerprint, "author": self.author, "reason": self.reason, "at": self.at}


def add(outbox: Outbox, alerts: Iterable[Alert], *, author: str, at: float, reason: str = "") -> list[Ack]:
    """Write that ``author`` has seen ``alerts``; who did first stays. Raises ``ValueError`` where nobody is named."""
    author, reason = particulars(author, reason or SEEN, "an acknowledgement")
    made = [Ack(alert.fingerprint, author, reason, at) for alert in alerts]
    for ack in made:
        put(outbox, ack)
    return made


def put(outbox: Outbox, ack: Ack) -> None:
    """Write ``ack``, unless its alert is acknowledged already."""
    values = (ack.fingerprint, ack.author, ack.reason, ack.at)
    outbox.execute("INSERT OR IGNORE INTO acks VALUES (?, ?, ?, ?)", *values)


def remove(outbox: Outbox, fingerprint: str) -> bool:
    """Take it back. False where there was none."""
    there = fingerprint in current(outbox)
    outbox.execute("DELETE FROM acks WHERE fingerprint = ?", fingerprint)
    return there


def forget(outbox: Outbox, fingerprints: Collection[str]) -> None:
    """Their alerts are over."""
    for fingerprint in fingerprints:
        outbox.execute("DELETE FROM acks WHERE fingerprint = ?", fingerprint)
        outbox.execute("DELETE FROM acks_told WHERE fingerprint = ?", fingerprint)


def told(outbox: Outbox) -> set[tuple[str, str, str]]:
    """Fingerprint, channel and author of each acknowledgement that a channel heard of.

    One that was taken back stays here until its alert is over: given again, it is no news.
    """
    rows = outbox.rows("SELECT fingerprint, channel, author FROM acks_told")
    return {(row["fingerprint"], row["channel"], row["author"]) for row in rows}


def current(outbox: Outbox) -> dict[str, Ack]:
    """The acknowledgements by fingerprint."""
    return {row["fingerprint"]: Ack(**row) for row in outbox.rows("SELECT * FROM acks")}


def find(alerts: Iterable[Alert], words: Sequence[str]) -> list[Alert]:
    """Those meant by one ID (a fingerprint or its beginning, four digits at least), or by matchers.

    Raises ``ValueError`` where there is none, or several begin with that ID.
    """
    among = {alert.fingerprint: alert for alert in alerts}
    if len(words) == 1 and PREFIX.fullmatch(words[0]):
        found = [alert for fingerprint, alert in among.items() if fingerprint.startswith(words[0])]
        if len(found) > 1:
            raise ValueError(f"{words[0]} is the beginning of {len(found)} alerts: write more of the ID")
    else:
        chosen = matching.chosen([matching.parse(word) for word in words])
        found = [alert for alert in among.values() if matching.match(chosen, alert.labels)]
    if not found:
        raise ValueError(f"no alert that fires is {' '.join(words)}")
    return found
