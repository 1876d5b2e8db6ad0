"""The tables of the outbox, and what a file of an older version lacks.

People have files: a change here gets a number of its own and the statements that lead to it.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 6

TABLES: Final = """
CREATE TABLE messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, topic TEXT NOT NULL, kind TEXT NOT NULL,
  title TEXT NOT NULL, body TEXT NOT NULL, cause TEXT NOT NULL, created REAL NOT NULL, due REAL NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL DEFAULT 'queued', reason TEXT NOT NULL DEFAULT '',
  finished REAL, payload TEXT NOT NULL DEFAULT '');
CREATE INDEX messages_by_state ON messages (state, channel, topic, id);
CREATE TABLE told (
  topic TEXT NOT NULL, channel TEXT NOT NULL, fingerprint TEXT NOT NULL, alert TEXT NOT NULL,
  at REAL NOT NULL DEFAULT 0, PRIMARY KEY (topic, channel, fingerprint)) WITHOUT ROWID;
CREATE TABLE told_at (topic TEXT NOT NULL, channel TEXT NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (topic, channel)) WITHOUT ROWID;
CREATE TABLE silences (
  id INTEGER PRIMARY KEY AUTOINCREMENT, matchers TEXT NOT NULL, author TEXT NOT NULL, reason TEXT NOT NULL,
  starts REAL NOT NULL, ends REAL NOT NULL);
CREATE TABLE acks (
  fingerprint TEXT PRIMARY KEY, author TEXT NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE acks_told (
  fingerprint TEXT NOT NULL, channel TEXT NOT NULL, author TEXT NOT NULL,
  PRIMARY KEY (fingerprint, channel, author)) WITHOUT ROWID;
CREATE TABLE threads (
  channel TEXT NOT NULL, topic TEXT NOT NULL, reference TEXT NOT NULL, PRIMARY KEY (channel, topic)) WITHOUT ROWID;
CREATE TABLE proof (id INTEGER PRIMARY KEY CHECK (id = 1), at REAL NOT NULL);
CREATE TABLE posted (
  fingerprint TEXT PRIMARY KEY, origin TEXT NOT NULL, alert TEXT NOT NULL, held INTEGER NOT NULL) WITHOUT ROWID;
"""

# By the version that a file has: what leads to the next one.
MIGRATIONS: Final = {
    1: ("ALTER TABLE messages ADD COLUMN payload TEXT NOT NULL DEFAULT ''",),
    2: (
        # When a channel first heard of an alert: what escalation counts from.
        "ALTER TABLE told ADD COLUMN at REAL NOT NULL DEFAULT 0",
        "UPDATE told SET at = coalesce("
        "(SELECT told_at.at FROM told_at WHERE told_at.topic = told.topic AND told_at.channel = told.channel), 0)",
        # {"service": "shop"} has become [["service", "=", "shop"]].
        "UPDATE silences SET matchers ="
        " (SELECT json_group_array(json_array(key, '=', value)) FROM json_each(silences.matchers))",
        "CREATE TABLE acks (fingerprint TEXT PRIMARY KEY, author TEXT NOT NULL, reason TEXT NOT NULL,"
        " at REAL NOT NULL) WITHOUT ROWID",
    ),
    # The message of a chat that a group of alerts is told in.
    3: (
        "CREATE TABLE threads (channel TEXT NOT NULL, topic TEXT NOT NULL, reference TEXT NOT NULL,"
        " PRIMARY KEY (channel, topic)) WITHOUT ROWID",
    ),
    # What Alertmanager said last, in place of the keys of its posts; and a row that only shows that it can be written.
    4: (
        "DROP TABLE accepted",
        "CREATE TABLE proof (id INTEGER PRIMARY KEY CHECK (id = 1), at REAL NOT NULL)",
        "CREATE TABLE posted (fingerprint TEXT PRIMARY KEY, origin TEXT NOT NULL, alert TEXT NOT NULL,"
        " held INTEGER NOT NULL) WITHOUT ROWID",
    ),
    # Who was told of whose acknowledgement; those of before are no news.
    5: (
        "CREATE TABLE acks_told (fingerprint TEXT NOT NULL, channel TEXT NOT NULL, author TEXT NOT NULL,"
        " PRIMARY KEY (fingerprint, channel, author)) WITHOUT ROWID",
        "INSERT OR IGNORE INTO acks_told SELECT told.fingerprint, told.channel, acks.author"
        " FROM told JOIN acks ON acks.fingerprint = told.fingerprint",
    ),
}


def statements(version: int) -> list[str]:
    """What makes a file of ``version`` (0: an empty one) one of :data:`VERSION`."""
    if version == 0:
        return TABLES.split(";")[:-1]
    return [step for old in range(version, VERSION) for step in MIGRATIONS[old]]
