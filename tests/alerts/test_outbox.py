"""The outbox on disk: nothing lost, nothing twice, clear words when it cannot be used."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anvil_monitor.alerts import outbox as outbox_module
from anvil_monitor.alerts import schema, silences
from anvil_monitor.alerts.matchers import parse
from anvil_monitor.alerts.model import Draft, Told
from anvil_monitor.alerts.outbox import Outbox, OutboxError


def draft(channel: str = "team", topic: str = "app", title: str = "Title") -> Draft:
    return Draft(channel, topic, "failure", title, "Body")


def test_messages_and_memory_survive_a_restart(tmp_path: Path, alerts: Any) -> None:
    """What was recorded is there after the file is opened again: messages, what was told, and when."""
    alert = alerts.missed()
    box = Outbox(tmp_path / "outbox.sqlite3")
    box.record([draft()], [Told("app", "team", (alert,), ())], 100.0)
    box.close()
    again = Outbox(tmp_path / "outbox.sqlite3")
    message = again.next("team")
    assert message is not None
    assert (message.title, message.state, message.created) == ("Title", "queued", 100.0)
    assert again.told() == {("app", "team"): {alert.fingerprint: alert}}
    assert again.told_at() == {("app", "team"): 100.0}
    again.close()


def test_a_record_is_all_or_nothing(outbox: Outbox, alerts: Any) -> None:
    """A record that fails in its middle leaves neither message nor memory."""
    broken = Draft("team", "app", "failure", "Title", None)  # type: ignore[arg-type]
    with pytest.raises(OutboxError, match="cannot be used"):
        outbox.record([draft(), broken], [Told("app", "team", (alerts.missed(),), ())], 100.0)
    assert outbox.ledger() == []
    assert outbox.told() == {}


def test_recovered_never_overtakes_missed(outbox: Outbox) -> None:
    """A message waits for the earlier one of its service that is to be tried again; other services do not."""
    first, _, other = outbox.record([draft(), draft(), draft(topic="shop")], [], 100.0)
    outbox.retry(first, 160.0, "HTTP status 500")
    message = outbox.next("team")
    assert message is not None
    assert message.id == other
    outbox.sent(other, 101.0)
    message = outbox.next("team")
    assert message is not None
    assert (message.id, message.due, message.attempts, message.reason) == (first, 160.0, 1, "HTTP status 500")


def test_only_a_dead_letter_is_sent_again(outbox: Outbox) -> None:
    """Resending puts a dead letter at the end of the queue under a new number, once."""
    (number,) = outbox.record([draft()], [], 100.0)
    assert not outbox.resend(number, 200.0)
    outbox.dead(number, 150.0, "HTTP status 404")
    assert outbox.resend(number, 200.0)
    assert not outbox.resend(number, 200.0)
    (message,) = outbox.ledger()
    assert (message.state, message.due, message.attempts, message.cause) == ("queued", 200.0, 0, "resent")
    assert message.id > number


def test_the_ledger_is_bounded(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished messages go after 30 days and beyond a number; queued ones never."""
    monkeypatch.setattr(outbox_module, "KEEP_FINISHED", 3)
    numbers = outbox.record([draft(title=str(number)) for number in range(6)], [], 100.0)
    for number in numbers[1:]:
        outbox.sent(number, 101.0)
    outbox.trim(102.0)
    assert [message.title for message in outbox.ledger()] == ["5", "4", "3", "0"]
    outbox.trim(101.0 + 31 * 86400)
    assert [message.title for message in outbox.ledger()] == ["0"]


def test_the_queue_is_bounded(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a queue that nobody empties the oldest messages give way, as dead letters that say so."""
    monkeypatch.setattr(outbox_module, "MAX_QUEUED", 2)
    outbox.record([draft(title="1"), draft(title="2")], [], 100.0)
    outbox.record([draft(title="3")], [], 101.0)
    assert [(message.title, message.state) for message in outbox.ledger()] == [
        ("3", "queued"),
        ("2", "queued"),
        ("1", "dead"),
    ]
    assert outbox.ledger()[-1].reason == "gave way to newer ones: more than 2 wait for the channel"


def test_a_channel_that_fails_leaves_room_for_the_others(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much waits for one channel, a message to it and to another is taken, and the other's queue untouched."""
    monkeypatch.setattr(outbox_module, "MAX_QUEUED", 2)
    outbox.record([draft("well")], [], 99.0)
    for number in range(9):
        outbox.record([draft("broken", title=str(number))], [], 100.0 + number)
    outbox.record([draft("broken"), draft("well")], [], 110.0)
    waiting = [message.channel for message in outbox.ledger() if message.state == "queued"]
    assert sorted(waiting) == ["broken", "broken", "well", "well"]


def test_it_is_private(tmp_path: Path) -> None:
    """Messages name what is broken: the file is for its owner only, and so is a folder made for it."""
    box = Outbox(tmp_path / "new" / "outbox.sqlite3")
    assert stat.S_IMODE(box.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(box.path.parent.stat().st_mode) == 0o700
    box.close()


def test_one_process_sends(tmp_path: Path) -> None:
    """A second process that would send every message too is refused in words, until the first has ended."""
    first, second = Outbox(tmp_path / "outbox.sqlite3"), Outbox(tmp_path / "outbox.sqlite3")
    first.claim()
    first.claim()
    with pytest.raises(OutboxError, match="in use by another anvil-monitor"):
        second.claim()
    first.close()
    second.claim()
    second.close()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"This is no database, it is a text that somebody has put here by mistake. " * 20, "not a database"),
        (None, "damaged|malformed"),
    ],
)
def test_a_corrupt_file_is_told_clearly(tmp_path: Path, content: bytes | None, words: str) -> None:
    """The error has the path, the reason and what to do; the file is left as it is."""
    path = tmp_path / "outbox.sqlite3"
    if content is None:
        box = Outbox(path)
        box.record([draft(title="x" * 500) for _ in range(500)], [], 100.0)
        box.close()
        content = path.read_bytes()
        content = content[:8192] + b"\xff" * 16384 + content[8192 + 16384 :]
    path.write_bytes(content)
    with pytest.raises(OutboxError, match=words) as caught:
        Outbox(path)
    assert str(path) in str(caught.value)
    assert "move it away" in str(caught.value)
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_told_clearly(tmp_path: Path) -> None:
    """A file where the folder should be: the error has the path and the reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutboxError, match=r"cannot be used: (File exists|Not a directory)"):
        Outbox(tmp_path / "file" / "outbox.sqlite3")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutboxError, match="Is a directory"):
        Outbox(tmp_path / "folder")


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    """A file of a later version is not written to."""
    path = tmp_path / "outbox.sqlite3"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(OutboxError, match="another version of anvil-monitor"):
        Outbox(path)


def test_a_full_disk_loses_nothing(outbox: Outbox) -> None:
    """A write that finds no room fails in words and takes nothing back; with room again the next one succeeds."""
    outbox.record([draft(title="before")], [], 100.0)
    pages = outbox.rows("PRAGMA page_count")[0]["page_count"]
    outbox.rows(f"PRAGMA max_page_count={pages}")
    with pytest.raises(OutboxError, match="full"):
        outbox.record([draft(title="x" * 50_000)], [], 100.0)
    outbox.rows(f"PRAGMA max_page_count={pages + 1000}")
    outbox.record([draft(title="after")], [], 100.0)
    assert [message.title for message in outbox.ledger()] == ["after", "before"]


WRITER = """
import pathlib, sys
from anvil_monitor.alerts.model import Draft
from anvil_monitor.alerts.outbox import Outbox
box = Outbox(pathlib.Path(sys.argv[1]))
number = int(sys.argv[2])
while True:
    box.record([Draft("a", "app", "info", str(number), "x" * 3000), Draft("b", "app", "info", "", "")], [], 1.0)
    print(number, flush=True)
    number += 1
"""


def test_killed_while_it_writes(tmp_path: Path) -> None:
    """SIGKILL at any instant, ten times: every acknowledged record is there, none in part, the file is whole."""
    path = tmp_path / "outbox.sqlite3"
    acknowledged = -1
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(acknowledged + 1)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        rest = process.communicate()[0].splitlines()
        box = Outbox(path)
        counts = {name: box.counts().get((name, "queued"), 0) for name in "ab"}
        box.close()
        assert counts["a"] == counts["b"]
        if rest and rest[-1].isdigit():
            assert counts["a"] >= int(rest[-1]) + 1
        assert counts["a"] >= acknowledged + 1 + 20
        acknowledged = counts["a"] - 1


def test_a_silence_needs_its_particulars(outbox: Outbox) -> None:
    """A silence without a label, an author, a reason or an end in the future is refused in words."""
    good: dict[str, Any] = {
        "matchers": [parse("service=app")],
        "author": "Ada",
        "reason": "move",
        "starts": 0.0,
        "ends": 9.0,
    }
    for wrong, words in (({"matchers": []}, "label"), ({"author": " "}, "author"), ({"reason": ""}, "reason"),
                         ({"ends": 0.0}, "end")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            silences.add(outbox, **{**good, **wrong})
    silence = silences.add(outbox, **good)
    assert silences.active(outbox, 5.0) == [silence]
    silences.end(outbox, silence.id, 6.0)
    assert silences.active(outbox, 7.0) == []


FIRST_VERSION = """
CREATE TABLE messages (
  id INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, topic TEXT NOT NULL, kind TEXT NOT NULL,
  title TEXT NOT NULL, body TEXT NOT NULL, cause TEXT NOT NULL, created REAL NOT NULL, due REAL NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL DEFAULT 'queued', reason TEXT NOT NULL DEFAULT '',
  finished REAL);
CREATE INDEX messages_by_state ON messages (state, channel, topic, id);
CREATE TABLE told (
  topic TEXT NOT NULL, channel TEXT NOT NULL, fingerprint TEXT NOT NULL, alert TEXT NOT NULL,
  PRIMARY KEY (topic, channel, fingerprint)) WITHOUT ROWID;
CREATE TABLE told_at (topic TEXT NOT NULL, channel TEXT NOT NULL, at REAL NOT NULL,
  PRIMARY KEY (topic, channel)) WITHOUT ROWID;
CREATE TABLE accepted (key TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE silences (
  id INTEGER PRIMARY KEY AUTOINCREMENT, matchers TEXT NOT NULL, author TEXT NOT NULL, reason TEXT NOT NULL,
  starts REAL NOT NULL, ends REAL NOT NULL);
INSERT INTO messages (channel, topic, kind, title, body, cause, created, due)
  VALUES ('team', 'app', 'failure', 'old', 'Body', '', 1, 1);
INSERT INTO told_at VALUES ('app', 'team', 7);
INSERT INTO silences (matchers, author, reason, starts, ends)
  VALUES ('{"service": "app", "target": "x\\"y"}', 'Ada', 'move', 0, 100);
PRAGMA user_version=1;
"""


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_an_older_version_is_taken_over(tmp_path: Path, version: int, alerts: Any) -> None:
    """What an older version wrote is still there and means the same: messages, silences, what was told, and when."""
    path, alert = tmp_path / "outbox.sqlite3", alerts.missed()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(FIRST_VERSION)
        database.execute("INSERT INTO told VALUES ('app', 'team', ?, ?)", (alert.fingerprint, alert.to_json()))
        for statement in [] if version == 1 else schema.MIGRATIONS[1]:
            database.execute(statement)
        database.execute(f"PRAGMA user_version={version}")
        database.commit()
    for title in ("new", "newer"):  # opened again, it is of this version
        with contextlib.closing(Outbox(path)) as outbox:
            outbox.record([Draft("team", "app", "failure", title, "Body", payload="{}")], [], 20.0)
            assert outbox.told() == {("app", "team"): {alert.fingerprint: alert}}
            assert outbox.first_told() == {alert.fingerprint: 7.0}
            (silence,) = silences.active(outbox, 50.0)
            assert [str(one) for one in silence.matchers] == ["service=app", r'target="x\"y"']
    with contextlib.closing(Outbox(path)) as outbox:
        assert [(m.title, m.payload) for m in outbox.ledger()] == [("newer", "{}"), ("new", "{}"), ("old", "")]


def test_an_old_file_becomes_what_a_new_one_is(tmp_path: Path) -> None:
    """The migrated tables have the columns of new ones, in the same order."""
    with contextlib.closing(sqlite3.connect(tmp_path / "old.sqlite3")) as database:
        database.executescript(FIRST_VERSION)
    columns = []
    for name in ("old.sqlite3", "new.sqlite3"):
        with contextlib.closing(Outbox(tmp_path / name)) as outbox:
            tables = [
                row["name"] for row in outbox.rows("SELECT name FROM sqlite_master WHERE type='table' ORDER BY 1")
            ]
            columns.append({table: [row["name"] for row in outbox.rows(f"PRAGMA table_info({table})")]
                            for table in tables})  # fmt: skip
    assert columns[0] == columns[1]


def test_when_an_alert_was_told_first_is_kept(outbox: Outbox, alerts: Any) -> None:
    """Repeats and other channels do not move it; it goes with the end."""
    alert = alerts.missed()
    outbox.record([draft()], [Told("app", "team", (alert,), ())], 100.0)
    outbox.record([draft()], [Told("app", "team", (alert,), ()), Told("app", "boss", (alert,), ())], 200.0)
    assert outbox.first_told() == {alert.fingerprint: 100.0}
    outbox.record([draft()], [Told("app", channel, (), (alert.fingerprint,)) for channel in ("team", "boss")], 300.0)
    assert outbox.first_told() == {}
