"""Silences: alerts that nobody wants to hear of for a while, each with its author, its reason and its end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from .model import Alert
from .outbox import Outbox


@dataclass(frozen=True, slots=True)
class Silence:
    """Holds back alerts that bear every label of ``matchers``, from ``starts`` to ``ends`` (seconds since epoch)."""

    id: int
    matchers: Mapping[str, str]
    author: str
    reason: str
    starts: float
    ends: float

    def covers(self, alert: Alert, now: float) -> bool:
        in_time = self.starts <= now < self.ends
        return in_time and all(alert.labels.get(name) == value for name, value in self.matchers.items())


def add(
    outbox: Outbox, matchers: Mapping[str, str], *, author: str, reason: str, starts: float, ends: float
) -> Silence:
    """Write a silence. Raises ``ValueError`` where it names no label, no author, no reason or no future end."""
    if not matchers:
        raise ValueError("a silence needs a label to match, as in service=shop: without one it would hush everything")
    if not author.strip() or not reason.strip():
        raise ValueError("a silence needs an author and a reason: others must be able to ask")
    if ends <= starts:
        raise ValueError("a silence needs an end after its start")
    values = (json.dumps(dict(matchers), sort_keys=True), author, reason, starts, ends)
    number = outbox.execute(
        "INSERT INTO silences (matchers, author, reason, starts, ends) VALUES (?, ?, ?, ?, ?)", *values
    )
    return Silence(number, dict(matchers), author, reason, starts, ends)


def end(outbox: Outbox, number: int, now: float) -> None:
    """End a silence now; one that ended already stays as it is."""
    outbox.execute("UPDATE silences SET ends = min(ends, ?) WHERE id = ?", now, number)


def active(outbox: Outbox, now: float) -> list[Silence]:
    """The silences that hold at ``now``, oldest first."""
    rows = outbox.rows("SELECT * FROM silences WHERE starts <= ? AND ends > ? ORDER BY id", now, now)
    return [Silence(**{**row, "matchers": json.loads(row["matchers"])}) for row in rows]
