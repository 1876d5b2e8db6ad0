"""Workers that die, fork and are folded: whoever dies when, nothing is lost or counted twice."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from anvil_monitor.exporter.cells import Histogram
from anvil_monitor.exporter.layout import key
from anvil_monitor.exporter.names import HTTP_ACTIVE, HTTP_DURATION
from anvil_monitor.exporter.page import Page
from anvil_monitor.exporter.reader import Reader
from anvil_monitor.exporter.recorder import Recorder
from anvil_monitor.exporter.retired import FOLD_LOCK, RETIRED

EDGES = (0.1, 0.2)


LABELS = (("http_request_method", "GET"), ("http_response_status_code", "200"), ("http_route", "/"))


KEY = key("histogram", HTTP_DURATION.name, LABELS, EDGES)


def histogram(recorder: Recorder, route: str = "/") -> Histogram:
    return recorder.histogram(HTTP_DURATION, ("GET", route, "200", ""), EDGES)


WORKER = """
import os, sys, time
from pathlib import Path
from anvil_monitor.exporter.names import HTTP_ACTIVE, HTTP_DURATION
from anvil_monitor.exporter.recorder import Recorder
recorder = Recorder(Path(sys.argv[1]))
series = recorder.histogram(HTTP_DURATION, ("GET", "/", "200", ""), (0.1, 0.2))
for _ in range(int(sys.argv[2])):
    series.record(0.05)
recorder.gauge(HTTP_ACTIVE, ("GET",)).add(1)
print("ready", flush=True)
time.sleep(60)
"""


def worker(folder: Path, count: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder), str(count)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdout.close()
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_the_dead_are_folded(tmp_path: Path) -> None:
    """After SIGKILL the counts stay, the gauge vanishes, the page's file is gone; and again for the next one."""
    processes = [worker(tmp_path, 10), worker(tmp_path, 5)]
    both = Reader(tmp_path)
    try:
        totals = both.totals()
        assert (totals.lasting[KEY][1], totals.workers) == (15, 2)
        assert list(totals.levels.values()) == [2]
        for left in (1, 0):
            kill(processes[left])
            totals = both.totals()
            assert (totals.lasting[KEY][1], totals.workers) == (15, left)
            assert list(totals.levels.values()) == [1] * left
            assert len(list(tmp_path.glob("worker-*"))) == left
    finally:
        for process in processes:
            kill(process)
    assert Reader(tmp_path).totals().lasting[KEY][1] == 15


def dead_page(folder: Path, count: int) -> Path:
    page = Page.in_folder(folder)
    page.add(KEY)[1] = count
    page.close()
    assert page.path is not None
    return page.path


def test_a_fold_that_was_killed_half_way_counts_nothing_twice(tmp_path: Path) -> None:
    """Killed after ``retired`` was replaced and before the file was removed: the file is not counted, then removed."""
    path = dead_page(tmp_path, 7)
    content = path.read_bytes()
    assert Reader(tmp_path).totals().lasting[KEY][1] == 7
    path.write_bytes(content)
    lock = os.open(tmp_path / FOLD_LOCK, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)  # somebody else folds: this reader only reads
    try:
        assert Reader(tmp_path).totals().lasting[KEY][1] == 7
        assert path.exists()
    finally:
        os.close(lock)
    assert Reader(tmp_path).totals().lasting[KEY][1] == 7
    assert not path.exists()


def test_a_file_that_cannot_be_removed_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is met, and while others are folded after it."""
    monkeypatch.setattr(os, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError()))
    for number in range(1, 4):
        dead_page(tmp_path, 1)
        assert Reader(tmp_path).totals().lasting[KEY][1] == number
        assert Reader(tmp_path).totals().lasting[KEY][1] == number
    assert len(list(tmp_path.glob("worker-*"))) == 3


def test_many_scrapers_race(tmp_path: Path) -> None:
    """While pages die and eight readers read and fold at once, no total is ever off."""
    expected, wrong = 0, []
    low = [0]
    stop = threading.Event()

    def scrape() -> None:
        mine = Reader(tmp_path)
        while not stop.is_set():
            before = low[0]
            found = mine.totals().lasting.get(KEY, [0, 0])[1]
            if not before <= found <= 1000:
                wrong.append((before, found))

    threads = [threading.Thread(target=scrape) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            dead_page(tmp_path, 3)
            expected += 3
            low[0] = expected
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert Reader(tmp_path).totals().lasting[KEY][1] == expected == 180
    assert list(tmp_path.glob("worker-*")) == []


def test_a_damaged_retired_page_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is kept under another name, said once, and folding goes on."""
    (tmp_path / RETIRED).write_bytes(b"nonsense")
    dead_page(tmp_path, 7)
    assert Reader(tmp_path).totals().lasting[KEY][1] == 7
    assert (tmp_path / "retired.damaged").read_bytes() == b"nonsense"
    assert len(caplog.records) == 1


def test_an_unfinished_page_is_cleared_away(tmp_path: Path) -> None:
    """What a worker left that was killed while it made its page; one that is being made is not touched."""
    old, young = tmp_path / ".new-1-a", tmp_path / ".new-2-b"
    for path in (old, young):
        path.touch()
    os.utime(old, (time.time() - 100,) * 2)
    Reader(tmp_path).totals()
    assert not old.exists()
    assert young.exists()


def test_a_forked_child_has_its_own_page(tmp_path: Path) -> None:
    """Series that the parent had opened count in the child's page, at zero; the parent's are not touched."""
    recorder = Recorder(tmp_path)
    series = histogram(recorder)
    series.record(0.05)
    recorder.gauge(HTTP_ACTIVE, ("GET",)).add(1)
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            series.record(0.05)
            histogram(recorder, "/new").record(0.05)
            os.write(ready[1], b"x")
            os.read(go[0], 1)
        finally:
            os._exit(0)
    os.read(ready[0], 1)
    totals = Reader(tmp_path).totals()
    assert totals.workers == 2
    assert totals.lasting[KEY][1] == 2
    assert list(totals.levels.values()) == [1]
    os.write(go[1], b"x")
    os.waitpid(child, 0)
    for fd in (*ready, *go):
        os.close(fd)
    totals = Reader(tmp_path).totals()
    assert (totals.workers, totals.lasting[KEY][1]) == (1, 2)


def test_a_child_does_not_keep_its_parent_alive(tmp_path: Path) -> None:
    """A worker that was killed counts as dead although a child that it forked lives on."""
    # One write a line: the two processes share the pipe.
    tell = 'os.write(1, b"%d\\n" % child if (child := os.fork()) else b"ready\\n")'
    code = WORKER.replace('print("ready", flush=True)', tell)
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), "4"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline().strip() for _ in range(2)]
    process.stdout.close()
    (child,) = (line for line in lines if line != "ready")
    try:
        assert Reader(tmp_path).totals().workers == 2
        kill(process)
        totals = Reader(tmp_path).totals()
        assert (totals.workers, totals.lasting[KEY][1]) == (1, 4)
    finally:
        kill(process)
        os.kill(int(child), signal.SIGKILL)
