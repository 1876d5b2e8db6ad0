"""Silences: alerts that nobody wants to hear of for a while, each with its author, its reason and its end.

They lie in the outbox file. A command of another process writes there, and the pipeline, which reads them in every
round, knows of it with the next evaluation: SQLite orders the writes, and the lock of :meth:`Outbox.claim` is only
about who sends. So a person can silence what a monitor tells without a token, and before it is started again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from . import matchers as matching
from .matchers import Matcher
from .outbox import Outbox
from .yamltext import TooLongError, parse_duration

MOST: Final = 1000
LONGEST: Final = 366 * 86400.0
LONGEST_REASON: Final = 500
LONGEST_AUTHOR: Final = 100


@dataclass(frozen=True, slots=True)
class Silence:
    """Holds back alerts that meet all of ``matchers``, from ``starts`` to ``ends`` (seconds since the epoch)."""

    id: int
    matchers: tuple[Matcher, ...]
    author: str
    reason: str
    starts: float
    ends: float

    def holds(self, labels: Mapping[str, str], now: float) -> bool:
        """Whether it holds back an alert with these labels now."""
        return self.starts <= now < self.ends and matching.match(self.matchers, labels)

    def to_json(self) -> dict[str, Any]:
        """As the HTTP API and the page show it."""
        return {
            "id": self.id,
            "matchers": [str(matcher) for matcher in self.matchers],
            "author": self.author,
            "reason": self.reason,
            "starts": self.starts,
            "ends": self.ends,
        }


def add(
    outbox: Outbox, matchers: Iterable[Matcher], *, author: str, reason: str, starts: float, ends: float
) -> Silence:
    """Write a silence. Raises ``ValueError`` where it names no label, no author, no reason or no future end."""
    chosen = matching.chosen(tuple(matchers))
    author, reason = particulars(author, reason, "a silence")
    if not (math.isfinite(starts) and math.isfinite(ends) and starts < ends):
        raise ValueError("a silence needs an end after its start")
    count = outbox.rows("SELECT count(*) AS n FROM silences WHERE ends > ?", starts)[0]["n"]
    if count >= MOST:
        raise ValueError(f"there are {count} silences already: end some, or silence more at once, as with service=shop")
    number = outbox.execute(
        "INSERT INTO silences (matchers, author, reason, starts, ends) VALUES (?, ?, ?, ?, ?)",
        matching.dump(chosen), author, reason, starts, ends,
    )  # fmt: skip
    return Silence(number, chosen, author, reason, starts, ends)


def lasting(text: str) -> float:
    """Seconds of a duration such as ``2h``. Raises ``ValueError`` for what is none, and for more than a year."""
    try:
        seconds = parse_duration(text)
    except TooLongError:
        seconds = math.inf
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise ValueError(f"{text!r} is no duration: write it as in 30m, 2h or 1d")
    if seconds > LONGEST:
        raise ValueError(f"{text!r} is more than a year: what nobody wants to hear of at all is better switched off")
    return seconds


def particulars(author: str, reason: str, what: str) -> tuple[str, str]:
    """Both as they are kept. Raises ``ValueError`` where one is missing."""
    author, reason = " ".join(author.split())[:LONGEST_AUTHOR], " ".join(reason.split())[:LONGEST_REASON]
    if not author or not reason:
        raise ValueError(f"{what} needs an author and a reason: others must be able to ask")
    return author, reason


def end(outbox: Outbox, number: int, now: float) -> bool:
    """End a silence now; one that ended already stays as it is. False where there is none of that number."""
    if not 0 < number < 2**63:  # SQLite numbers no row otherwise
        return False
    outbox.execute("UPDATE silences SET ends = min(ends, ?) WHERE id = ?", now, number)
    return bool(outbox.rows("SELECT 1 FROM silences WHERE id = ?", number))


def active(outbox: Outbox, now: float) -> list[Silence]:
    """The silences that hold at ``now``, oldest first."""
    return _silences(outbox, "starts <= ? AND ends > ?", now, now)


def since(outbox: Outbox, now: float) -> list[Silence]:
    """The silences that have not ended: those that hold, and those that begin later."""
    return _silences(outbox, "ends > ?", now)


def _silences(outbox: Outbox, where: str, *values: float) -> list[Silence]:
    rows = outbox.rows(f"SELECT * FROM silences WHERE {where} ORDER BY id", *values)  # noqa: S608 (our own words)
    return [Silence(**{**row, "matchers": matching.load(row["matchers"])}) for row in rows]
