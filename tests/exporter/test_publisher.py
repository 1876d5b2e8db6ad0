"""The thread that asks what does not record by itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anvil_monitor.exporter.names import HTTP_ACTIVE
from anvil_monitor.exporter.publisher import Publisher
from anvil_monitor.exporter.recorder import Recorder


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    made = Recorder(tmp_path / "pages")
    yield made
    made.close()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher(every=3600, patience=30)
    yield made
    made.stop()


def threads(publisher: Publisher) -> int:
    """Those of ``publisher``: instruments of other tests may have left the process's own running."""
    running = [thread for thread in threading.enumerate() if thread.name == "anvil-monitor publisher"]
    return sum(getattr(getattr(thread, "_target", None), "__self__", None) is publisher for thread in running)


def eventually(fact: Callable[[], bool]) -> None:
    done = threading.Event()
    for _ in range(1000):
        if fact():
            return
        done.wait(0.01)
    raise AssertionError("it never came")


def test_no_thread_without_need(publisher: Publisher, recorder: Recorder) -> None:
    """It begins with the first series of the process, and only if there is something to ask."""
    recorder.gauge(HTTP_ACTIVE, ("GET",))
    publisher.start()
    assert threads(publisher) == 0
    other = Recorder(recorder.folder)
    called = threading.Event()
    publisher.add(other, called.set)
    assert threads(publisher) == 0
    assert not called.is_set()
    other.gauge(HTTP_ACTIVE, ("GET",))
    assert called.wait(5)
    assert threads(publisher) == 1
    other.close()


def test_asked_every_few_seconds(recorder: Recorder) -> None:
    """Without a scrape, too; one that fails does not stop the others, and is said once."""
    publisher = Publisher(every=0.01, patience=30)
    rounds: list[int] = []
    publisher.add(recorder, lambda: rounds.append(1 // 0))
    publisher.add(recorder, lambda: rounds.append(1))
    publisher.start()
    eventually(lambda: len(rounds) > 3)
    publisher.stop()


def test_a_flush_has_everything_asked(publisher: Publisher, recorder: Recorder) -> None:
    """What is true when a scrape comes is in the page when it is answered."""
    values, seen = [1], []
    publisher.add(recorder, lambda: seen.append(values[-1]))
    for value in (2, 3, 4):
        values.append(value)
        assert publisher.flush()
        assert seen[-1] == value


def test_a_callback_that_hangs(recorder: Recorder) -> None:
    """A scrape waits for it once, briefly, and later scrapes not at all; when it comes back all goes on."""
    publisher = Publisher(every=3600, patience=0.05)
    hang, hung = threading.Event(), threading.Event()

    def call() -> None:
        hung.set()
        hang.wait(30)

    publisher.add(recorder, call)
    assert not publisher.flush()
    assert hung.is_set()
    eventually(lambda: not publisher.flush())
    hang.set()
    eventually(publisher.flush)
    publisher.stop()


def test_a_callback_may_ask_for_metrics(publisher: Publisher, recorder: Recorder) -> None:
    """A flush from inside a callback does not wait for itself."""
    answers: list[bool] = []
    publisher.add(recorder, lambda: answers.append(publisher.flush()))
    assert publisher.flush()
    assert answers[-1] is False


def test_a_recorder_that_was_given_up(publisher: Publisher, recorder: Recorder) -> None:
    """Nobody is asked for it any more."""
    calls: list[int] = []
    recorder.gauge(HTTP_ACTIVE, ("GET",))
    publisher.add(recorder, lambda: calls.append(1))
    assert publisher.flush()
    recorder.close()
    count = len(calls)
    publisher.flush()
    assert len(calls) == count


def test_forks(publisher: Publisher, recorder: Recorder) -> None:
    """Everything is asked once more before a fork; afterwards it goes on in both, with no lock held by nobody."""
    calls: list[int] = []
    publisher.add(recorder, lambda: calls.append(os.getpid()))
    assert publisher.flush()
    for _ in range(3):
        before = len(calls)
        child = os.fork()
        if not child:
            fine = publisher.flush() and calls[-1] == os.getpid() and threads(publisher) == 1
            os._exit(0 if fine else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert len(calls) > before
        assert publisher.flush()
        assert threads(publisher) == 1
