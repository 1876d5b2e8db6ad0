"""A damaged outbox: it is set aside, what can be read goes on, and people hear of it."""

from __future__ import annotations

import logging
import random
import time
from pathlib import Path
from typing import Any

import pytest

from anvil_monitor.alerts import acks, silences
from anvil_monitor.alerts.matchers import parse
from anvil_monitor.alerts.model import Draft, Told
from anvil_monitor.alerts.outbox import Outbox, OutboxError
from anvil_monitor.alerts.salvage import TITLE, opened


@pytest.fixture
def path(tmp_path: Path, alerts: Any) -> Path:
    """An outbox with 300 messages that wait, and an alert that was told."""
    path = tmp_path / "outbox.sqlite3"
    outbox = Outbox(path)
    drafts = [Draft("team", "app", "failure", f"Message {n}", "Body " * 50, "new alerts", "{}") for n in range(300)]
    outbox.record(drafts, [Told("app", "team", (alerts.missed(),), ())], time.time())
    outbox.close()
    return path


def test_one_that_is_whole_is_opened_as_it_is(path: Path) -> None:
    """Nothing is set aside, and it is claimed."""
    outbox = opened(path, ["team"])
    with pytest.raises(OutboxError, match="in use"):
        opened(path, ["team"])
    assert outbox.counts() == {("team", "queued"): 300}
    assert sorted(one.name for one in path.parent.iterdir() if "damaged" in one.name) == []
    outbox.close()


@pytest.mark.parametrize("content", [b"", b"no database at all" * 500, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_one_that_is_no_database(path: Path, content: bytes, caplog: Any) -> None:
    """A new one takes its place; each channel is told, and the old file is kept."""
    path.write_bytes(content)
    with caplog.at_level(logging.ERROR):
        outbox = opened(path, ["team", "mail"], lambda: 1_800_000_000.0)
    if content:
        assert {one.channel: one.title for one in outbox.ledger()} == {"team": TITLE, "mail": TITLE}
        assert path.with_name("outbox.sqlite3.damaged-20270115T080000").read_bytes() == content
        assert "was damaged" in caplog.text
    else:  # an empty file is an empty database: nothing is wrong with it
        assert outbox.ledger() == []
    outbox.close()


@pytest.mark.parametrize("seed", range(12))
def test_what_can_be_read_goes_on(path: Path, seed: int) -> None:
    """Pages overwritten at random: what was readable waits in the new one, in its order, and nothing that never was."""
    chance = random.Random(seed)
    data = bytearray(path.read_bytes())
    page = chance.randrange(1, len(data) // 4096)
    data[page * 4096 : (page + 1) * 4096] = chance.randbytes(4096)
    path.write_bytes(data)
    outbox = opened(path, ["team"])
    titles = [one.title for one in reversed(outbox.ledger(1000))]
    damaged = any("damaged" in one.name for one in path.parent.iterdir())
    assert damaged == (TITLE in titles)
    numbers = [int(title.split()[1]) for title in titles if title != TITLE]
    assert numbers == sorted(set(numbers))
    assert set(numbers) <= set(range(300))
    outbox.close()
    Outbox(path).close()  # whole again


def test_what_a_person_holds_back_stays_so(path: Path, alerts: Any) -> None:
    """Silences that have not ended and acknowledgements go on; one that makes no sense, or is over, does not."""
    outbox = Outbox(path)
    chosen = [parse("service=app"), parse('target=~"mem.*"')]
    for ends in (1_900_000_000.0, 1_700_000_000.0):
        silences.add(outbox, chosen, author="Ada", reason="move", starts=1_600_000_000.0, ends=ends)
    outbox.execute("INSERT INTO silences VALUES (9, '{\"service\": \"app\"}', 'Bob', 'old', 0, 1900000000)")
    acks.add(outbox, [alerts.missed()], author="Ada", reason="on it", at=1_750_000_000.0)
    pages = outbox.rows("SELECT rootpage FROM sqlite_master WHERE name = 'messages'")[0]["rootpage"] - 1
    outbox.close()
    data = bytearray(path.read_bytes())
    data[pages * 4096 : (pages + 1) * 4096] = b"\xff" * 4096
    path.write_bytes(data)
    outbox = opened(path, ["team"], lambda: 1_800_000_000.0)
    assert outbox.ledger()[0].title == TITLE
    (silence,) = silences.since(outbox, 1_800_000_000.0)
    assert (silence.matchers, silence.author, silence.ends) == (tuple(chosen), "Ada", 1_900_000_000.0)
    assert [(ack.author, ack.reason, ack.at) for ack in acks.current(outbox).values()] == [
        ("Ada", "on it", 1_750_000_000.0)
    ]
    outbox.close()


def test_one_that_another_uses_is_left_alone(path: Path) -> None:
    """What another process sends from is not ours to replace, damaged or not."""
    other = Outbox(path)
    other.claim()
    path.write_bytes(b"no database at all" * 500)
    with pytest.raises(OutboxError):
        opened(path, ["team"])
    assert path.read_bytes().startswith(b"no database")
    other.close()


def test_another_reason_is_no_damage(tmp_path: Path) -> None:
    """A folder in its place is told, and not moved."""
    (tmp_path / "outbox.sqlite3").mkdir()
    with pytest.raises(OutboxError, match="Is a directory"):
        opened(tmp_path / "outbox.sqlite3", [])
    assert (tmp_path / "outbox.sqlite3").is_dir()
