"""What is left after SIGKILL and on a disk that takes nothing more."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from full_disk import files_of_at_most

from anvil_monitor.monitoring.history.blocks import HOUR
from anvil_monitor.monitoring.history.history import History
from anvil_monitor.monitoring.history.joined import HistoryStore
from anvil_monitor.monitoring.samples import Labels, Matcher, labels_of, series_of

START = 1_700_000_000_000 // HOUR * HOUR
CRASH = Path(__file__).with_name("crash.py")
ROUNDS = 50


@pytest.mark.parametrize("seed", range(4))
def test_what_was_acknowledged_survives_sigkill(seed: int) -> None:
    """200 kills at random instants while samples are appended, rules evaluated, hours sealed: every sample that an
    append acknowledged is there, none that never was, no block is damaged, and no alert begins its `for` anew."""
    done = subprocess.run(
        [sys.executable, str(CRASH), str(ROUNDS), str(seed)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{ROUNDS} kills" in done.stdout
    assert " 0 blocks" not in done.stdout


class Clock:
    now = START / 1000

    def __call__(self) -> float:
        return self.now


def batch(value: float) -> list[tuple[Labels, float]]:
    return [(labels_of(__name__="x", number=str(number)), value + number) for number in range(10)]


def append(store: HistoryStore, clock: Clock, count: int) -> None:
    for _ in range(count):
        clock.now += 5
        assert store.append(round(clock.now * 1000), batch(clock.now)) == 10


def count(store: HistoryStore) -> set[int]:
    return {len(one.values) for one in series_of(store.select([Matcher("__name__", "=", "x")], 0, START + 99 * HOUR))}


def test_a_full_disk_is_told_once_and_made_up_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While nothing can be written all is in memory and answered; when there is room again, all of it is logged."""
    clock = Clock()
    store = HistoryStore(History(tmp_path, 1e9, 1e12, clock), clock=clock)
    append(store, clock, 20)
    with files_of_at_most(store.history.size + 100):
        append(store, clock, 1)  # a record that is half written
    with files_of_at_most(0):
        append(store, clock, 19)
        assert "samples are in memory alone" in store.problem
        assert count(store) == {40}
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    append(store, clock, 2)
    assert store.problem == ""
    assert caplog.records[-1].levelno == logging.WARNING
    store.history.close()  # all that is known now is on disk
    store = HistoryStore(History(tmp_path, 1e9, 1e12, clock), clock=clock)
    assert count(store) == {42}
    store.history.close()


def test_a_block_that_cannot_be_written_stays_in_memory(tmp_path: Path) -> None:
    """The log keeps it, too; when there is room the hour is sealed, and nothing is missing at any time."""
    clock = Clock()
    store = HistoryStore(History(tmp_path, 1e9, 1e12, clock), clock=clock, memory_seconds=600)
    append(store, clock, 900)
    log = store.history.size
    with files_of_at_most(100):
        store.maintain()
        assert "cannot be written" in store.problem
        assert count(store) == {900}
    assert store.history.size == log
    assert not list((tmp_path / "blocks").iterdir())
    store.maintain()
    assert store.problem == ""
    assert len(store.history.blocks) == 1
    assert store.sample_count < 9000
    assert count(store) == {900}
    store.history.close()
    store = HistoryStore(History(tmp_path, 1e9, 1e12, clock), clock=clock)
    assert count(store) == {900}
    store.history.close()


def test_memory_is_bounded_while_no_block_can_be_written(tmp_path: Path) -> None:
    """Six hours stay in memory at most."""
    clock = Clock()
    store = HistoryStore(History(tmp_path, 1e9, 1e12, clock), clock=clock)
    with files_of_at_most(0):
        for _ in range(9 * 60):
            clock.now += 60
            store.append(round(clock.now * 1000), batch(1.0))
        store.maintain()
        assert count(store) == {6 * 60 + 1}
    store.history.close()
