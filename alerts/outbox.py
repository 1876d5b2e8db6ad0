"""The outbox: what people are to be told, on disk before anybody relies on it, and the ledger of what became of it.

One SQLite file. A message is written in the same transaction as the memory that its channel was told of those alerts,
and is marked only after it was sent. So a crash at any instant loses nothing and repeats at most the one in flight.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from . import schema
from .model import Alert, Draft, Told
from .model import Message as Message

# Of one channel: where more wait, nothing has reached it for hours, and what is newer is worth more. Never of all
# channels together: one that fails must not keep the others from being told.
MAX_QUEUED: Final = 10_000
KEEP_SECONDS: Final = 30 * 86400.0
KEEP_FINISHED: Final = 10_000


Known: TypeAlias = dict[tuple[str, str], dict[str, Alert]]


class OutboxError(Exception):
    """The outbox cannot be read or written. The text says which file, why, and what to do."""


class Outbox:
    """One SQLite file, used by the threads of one process. Every method may raise :class:`OutboxError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._claim: int | None = None
        self._listeners: list[Callable[[], None]] = []
        self._told: Known | None = None
        self._told_version = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # it names what is broken: private
        except OSError as error:
            raise self._error(error.strerror or type(error).__name__) from None
        self._db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        try:
            self._open()
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        with self._guard():
            self._db.execute("PRAGMA journal_mode=WAL")
            # FULL, not NORMAL: in WAL mode NORMAL syncs only at a checkpoint, so a power cut would take back messages
            # that Alertmanager or the pipeline already relies on. It costs one fsync a notification, not a sample.
            self._db.execute("PRAGMA synchronous=FULL")
            damage = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise self._error(f"it is damaged ({damage})")
        with self._transaction():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if not 0 <= version <= schema.VERSION:
                raise self._error(f"it was written by another version of anvil-monitor (schema {version})")
            for statement in schema.statements(version):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version={schema.VERSION}")

    def close(self) -> None:
        with self._lock:
            self._db.close()
            if self._claim is not None:
                os.close(self._claim)
                self._claim = None

    def claim(self) -> None:
        """Make this process the one that sends. Raises while another does: both would send every message."""
        with self._lock:
            if self._claim is not None:
                return
            try:
                lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise self._error(error.strerror or type(error).__name__) from None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                raise OutboxError(
                    f"the outbox {self.path} is in use by another anvil-monitor: end it, or give this one its own "
                    f"folder ([monitor] data, or --data)"
                ) from None
            self._claim = lock

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener``, in the writing thread, after messages were added."""
        self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        self._listeners.remove(listener)

    # -- writing

    def record(self, drafts: Sequence[Draft], told: Sequence[Told], at: float) -> list[int]:
        """Write messages and what their channels now know, all or nothing."""
        if not (drafts or told):
            return []
        ids: list[int] = []
        with self._remembered(told), self._transaction():
            for channel in {draft.channel for draft in drafts}:
                self._make_room(channel, sum(draft.channel == channel for draft in drafts), at)
            for draft in drafts:
                cursor = self._db.execute(
                    "INSERT INTO messages (channel, topic, kind, title, body, cause, payload, created, due)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        draft.channel,
                        draft.topic,
                        draft.kind,
                        draft.title,
                        draft.body,
                        draft.cause,
                        draft.payload,
                        at,
                        at,
                    ),
                )
                ids.append(int(cursor.lastrowid or 0))
                if not draft.aside:
                    place = (draft.topic, draft.channel)
                    self._db.execute("INSERT OR REPLACE INTO told_at VALUES (?, ?, ?)", (*place, at))
            for change in told:
                place = (change.topic, change.channel)
                self._db.executemany(
                    "INSERT INTO told VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET alert = excluded.alert",
                    [(*place, alert.fingerprint, alert.to_json(), at) for alert in change.firing],
                )
                self._db.executemany(
                    "DELETE FROM told WHERE topic = ? AND channel = ? AND fingerprint = ?",
                    [(*place, fingerprint) for fingerprint in change.resolved],
                )
                self._db.executemany(
                    "INSERT OR IGNORE INTO acks_told VALUES (?, ?, ?)",
                    [(fingerprint, change.channel, author) for fingerprint, author in change.seen],
                )
        for listener in self._listeners:
            listener()
        return ids

    def _make_room(self, channel: str, more: int, at: float) -> None:
        """The oldest messages that wait for ``channel`` give way to ``more`` where they would be too many."""
        waiting = "FROM messages WHERE state = 'queued' AND channel = ?"
        over = self._db.execute(f"SELECT count(*) {waiting}", (channel,)).fetchone()[0] + more - MAX_QUEUED
        if over > 0:
            self._db.execute(
                f"UPDATE messages SET state = 'dead', finished = ?, reason = ?"  # noqa: S608 (our own words)
                f" WHERE id IN (SELECT id {waiting} ORDER BY id LIMIT ?)",
                (at, f"gave way to newer ones: more than {MAX_QUEUED} wait for the channel", channel, over),
            )

    def sent(self, message_id: int, at: float) -> None:
        self._update("state = 'sent', reason = '', finished = ?, attempts = attempts + 1", at, message_id)

    def retry(self, message_id: int, due: float, reason: str) -> None:
        self._update("due = ?, reason = ?, attempts = attempts + 1", due, reason, message_id)

    def dead(self, message_id: int, at: float, reason: str) -> None:
        self._update("state = 'dead', finished = ?, reason = ?, attempts = attempts + 1", at, reason, message_id)

    def resend(self, message_id: int, at: float) -> bool:
        """Put a dead letter back at the end of its channel's queue. False where there is none of that number."""
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO messages (channel, topic, kind, title, body, cause, payload, created, due)"
                " SELECT channel, topic, kind, title, body, 'resent', payload, ?, ? FROM messages"
                " WHERE id = ? AND state = 'dead'",
                (at, at, message_id),
            )
            found = cursor.rowcount == 1
            self._db.execute("DELETE FROM messages WHERE id = ? AND state = 'dead'", (message_id,))
        for listener in self._listeners:
            listener()
        return found

    def prove(self, at: float) -> None:
        """Write a row that says nothing: only that shows that what is to be told can be kept."""
        self.execute("INSERT OR REPLACE INTO proof VALUES (1, ?)", at)

    def trim(self, now: float) -> None:
        """Forget what was finished long ago: the ledger keeps 30 days and 10,000 messages."""
        with self._transaction():
            self._db.execute("DELETE FROM messages WHERE finished < ?", (now - KEEP_SECONDS,))
            self._db.execute(
                "DELETE FROM messages WHERE state != 'queued' AND id <="
                " (SELECT id FROM messages WHERE state != 'queued' ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (KEEP_FINISHED,),
            )
            self._db.execute("DELETE FROM silences WHERE ends < ?", (now - KEEP_SECONDS,))

    def _update(self, assignment: str, *values: Any) -> None:
        with self._transaction():
            self._db.execute(f"UPDATE messages SET {assignment} WHERE id = ?", values)  # noqa: S608 (our own words)

    # -- reading

    def next(self, channel: str) -> Message | None:
        """The queued message of ``channel`` that is due first, or ``None``.

        Only the oldest of each topic counts: "recovered" never overtakes the "missed" that waits for its retry.
        """
        rows = self._rows(
            "SELECT * FROM messages WHERE id IN"
            " (SELECT min(id) FROM messages WHERE state = 'queued' AND channel = ? GROUP BY topic)"
            " ORDER BY due, id LIMIT 1",
            channel,
        )
        return Message(**dict(rows[0])) if rows else None

    def get(self, message_id: int) -> Message | None:
        rows = self._rows("SELECT * FROM messages WHERE id = ?", message_id)
        return Message(**dict(rows[0])) if rows else None

    def waiting(self) -> list[str]:
        """The names of the channels that have queued messages."""
        return [row["channel"] for row in self._rows("SELECT DISTINCT channel FROM messages WHERE state = 'queued'")]

    def ledger(
        self, limit: int = 100, *, since: float = 0.0, channel: str = "", topic: str = "", state: str = ""
    ) -> list[Message]:
        """The newest messages first: what was sent, to which channel, when, and did it arrive.

        ``limit``: at most so many; -1 for all. ``since``: written at that time or later. Empty: of any channel, topic,
        state.
        """
        rows = self._rows(
            "SELECT * FROM messages WHERE created >= ? AND ? IN ('', channel) AND ? IN ('', topic) AND ? IN ('', state)"
            " ORDER BY id DESC LIMIT ?",
            since, channel, topic, state, limit,
        )  # fmt: skip
        return [Message(**dict(row)) for row in rows]

    def counts(self) -> dict[tuple[str, str], int]:
        """How many messages there are by (channel, state)."""
        rows = self._rows("SELECT channel, state, count(*) AS n FROM messages GROUP BY channel, state")
        return {(row["channel"], row["state"]): row["n"] for row in rows}

    def oldest_queued(self) -> float | None:
        """When the message that has waited longest was written."""
        created: float | None = self._rows("SELECT min(created) AS c FROM messages WHERE state = 'queued'")[0]["c"]
        return created

    def told(self) -> dict[tuple[str, str], dict[str, Alert]]:
        """By (topic, channel): the alerts, by fingerprint, whose firing was told and whose end was not yet."""
        # Kept, because every round asks for it; read again after another process has written to the file.
        with self._lock:
            version = self._rows("PRAGMA data_version")[0][0]
            if self._told is None or version != self._told_version:
                known: Known = {}
                for row in self._rows("SELECT * FROM told"):
                    alert = Alert.from_json(row["alert"])
                    known.setdefault((row["topic"], row["channel"]), {})[row["fingerprint"]] = alert
                self._told, self._told_version = known, version
            return {place: dict(alerts) for place, alerts in self._told.items()}

    def told_at(self) -> dict[tuple[str, str], float]:
        """By (topic, channel): when a message was last written for it."""
        return {(row["topic"], row["channel"]): row["at"] for row in self._rows("SELECT * FROM told_at")}

    def first_told(self) -> dict[str, float]:
        """By fingerprint: when the first channel heard of an alert whose end was not told yet."""
        rows = self._rows("SELECT fingerprint, min(at) AS at FROM told GROUP BY fingerprint")
        return {row["fingerprint"]: row["at"] for row in rows}

    # -- for silences.py, acks.py and posted.py

    def execute(self, statement: str, *values: Any) -> int:
        """Run one writing statement; the number of the row that it added."""
        with self._transaction():
            return int(self._db.execute(statement, values).lastrowid or 0)

    def execute_all(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> None:
        """Run writing statements, each with its values: all of them or none."""
        with self._transaction():
            for statement, values in statements:
                self._db.execute(statement, values)

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in self._rows(query, *values)]

    @contextlib.contextmanager
    def _remembered(self, told: Sequence[Told]) -> Iterator[None]:
        """What :meth:`told` gives follows ``told``, once that is written."""
        with self._lock:
            known, self._told = self._told, None  # whatever happens inside, it is read again
            yield
            if known is None:
                return
            for change in told:
                alerts = known.setdefault((change.topic, change.channel), {})
                alerts.update((alert.fingerprint, alert) for alert in change.firing)
                for fingerprint in change.resolved:
                    alerts.pop(fingerprint, None)
                if not alerts:
                    del known[change.topic, change.channel]
            self._told = known

    # -- the edge to SQLite

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock, self._guard():
            return self._db.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self._guard():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk may have ended the transaction already.
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._error(str(error)) from error

    def _error(self, reason: str) -> OutboxError:
        return OutboxError(
            f"the outbox {self.path} cannot be used: {reason}. If it is damaged, move it away (messages not yet sent "
            f"are in it) and start again; otherwise free space or mend the folder's permissions"
        )
