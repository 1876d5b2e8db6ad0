"""An outbox that is damaged keeps nobody from being told: it is set aside, what can be read of it goes into a new one,
and every channel hears of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from . import acks, matchers, silences
from .model import Alert, Draft, Told
from .outbox import Outbox, OutboxError

logger = logging.getLogger(__name__)

# https://www.sqlite.org/rescode.html
DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
COLUMNS: Final = ("channel", "topic", "kind", "title", "body", "cause", "payload", "created")
TITLE: Final = "anvil-monitor: the file with its notifications was damaged"


def opened(path: Path, channels: Sequence[str], clock: Callable[[], float] = time.time) -> Outbox:
    """The outbox at ``path``, claimed. A damaged one is replaced, and ``channels`` are told.

    Raises :class:`OutboxError` for every other reason, and where another process uses the file.
    """
    try:
        outbox = Outbox(path)
    except OutboxError as error:
        if not is_damage(error):
            raise
        outbox = _replaced(path, channels, clock(), error)
    try:
        outbox.claim()
    except OutboxError:
        outbox.close()
        raise
    return outbox


def is_damage(error: OutboxError) -> bool:
    """Whether the file itself is what is wrong."""
    return getattr(error.__cause__, "sqlite_errorcode", 0) in DAMAGE or "it is damaged (" in str(error)


def _replaced(path: Path, channels: Sequence[str], now: float, error: OutboxError) -> Outbox:
    with _alone(path, error):
        aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}")
        queued, told = _messages(path), list(_rows(path, "told"))
        held, seen = list(_rows(path, "silences")), list(_rows(path, "acks"))
        try:
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{path}{suffix}").replace(f"{aside}{suffix}")
        except OSError:
            raise error from None
        outbox = Outbox(path)
    try:
        saved = _save(outbox, queued, told, now)
        _hold(outbox, held, seen, now)
        body = (
            f"What could be read of it was taken over: {saved} notifications that had not been sent. Others may be "
            f"lost, and some may come a second time. The damaged file is kept: {aside.name}"
        )
        logger.error(
            "the outbox %s was damaged and is now %s; %d notifications were taken over", path, aside.name, saved
        )
        outbox.record([Draft(name, "", "failure", TITLE, body, "outbox damaged") for name in channels], [], now)
    except BaseException:
        outbox.close()
        raise
    return outbox


@contextlib.contextmanager
def _alone(path: Path, error: OutboxError) -> Iterator[None]:
    """Hold the claim: what another process sends from is not ours to replace."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise error from None
        yield
    finally:
        os.close(lock)


def _messages(path: Path) -> list[dict[str, Any]]:
    """The messages that can be read: from the first to the damage, and from the last back to it."""
    found = {row["id"]: row for order in ("", " DESC") for row in _rows(path, f"messages ORDER BY id{order}")}
    return [found[number] for number in sorted(found)]


def _rows(path: Path, what: str) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as database:
        database.row_factory = sqlite3.Row
        for row in database.execute(f"SELECT * FROM {what}"):  # noqa: S608 (our own words)
            yield dict(row)


def _save(outbox: Outbox, rows: Sequence[dict[str, Any]], told: Sequence[dict[str, Any]], now: float) -> int:
    """Write what was readable; how many notifications that wait. A row that makes no sense is left out."""
    saved = 0
    for row in rows:
        with contextlib.suppress(OutboxError, KeyError, TypeError, ValueError):
            if row["state"] == "queued":
                given: dict[str, Any] = {name: str(row[name]) for name in COLUMNS if name in row and name != "created"}
                outbox.record([Draft(**given)], [], float(row["created"]))
                saved += 1
    for row in told:
        with contextlib.suppress(OutboxError, KeyError, TypeError, ValueError):
            alert = Alert.from_json(row["alert"])
            outbox.record([], [Told(str(row["topic"]), str(row["channel"]), (alert,), ())], now)
    return saved


def _hold(outbox: Outbox, held: Sequence[dict[str, Any]], seen: Sequence[dict[str, Any]], now: float) -> None:
    """Write the silences that have not ended and the acknowledgements, where they make sense."""
    for row in held:
        with contextlib.suppress(OutboxError, KeyError, TypeError, ValueError):
            if float(row["ends"]) > now:
                what = [matchers.checked(one) for one in matchers.load(row["matchers"])]
                times = {name: float(row[name]) for name in ("starts", "ends")}
                silences.add(outbox, what, author=str(row["author"]), reason=str(row["reason"]), **times)
    for row in seen:
        with contextlib.suppress(OutboxError, KeyError, TypeError, ValueError):
            who = acks.Ack(str(row["fingerprint"]), str(row["author"]), str(row["reason"]), float(row["at"]))
            acks.put(outbox, who)
