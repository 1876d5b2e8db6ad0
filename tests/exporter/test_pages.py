"""Worker pages: what is written is read, whoever dies when; what is no page is refused."""

from __future__ import annotations

import fcntl
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from anvil_monitor.exporter import layout, users
from anvil_monitor.exporter.folder import pages_folder, prepare, salt
from anvil_monitor.exporter.layout import Key, key
from anvil_monitor.exporter.merge import families
from anvil_monitor.exporter.names import DB_DURATION, HTTP_ACTIVE, HTTP_DURATION, OVERFLOW, SERIES_OVERFLOW
from anvil_monitor.exporter.page import FIRST_SIZE, Page
from anvil_monitor.exporter.reader import Reader
from anvil_monitor.exporter.recorder import Histogram, Recorder
from anvil_monitor.exporter.retired import FOLD_LOCK, RETIRED

EDGES = (0.1, 0.2)
LABELS = (("http_request_method", "GET"), ("http_response_status_code", "200"), ("http_route", "/"))
KEY = key("histogram", HTTP_DURATION.name, LABELS, EDGES)


def histogram(recorder: Recorder, route: str = "/") -> Histogram:
    return recorder.histogram(HTTP_DURATION, ("GET", route, "200", ""), EDGES)


def test_what_is_recorded_is_read(tmp_path: Path) -> None:
    """Values at an edge are in its bucket; counts, sum and levels come back as they were written."""
    recorder = Recorder(tmp_path)
    for value in (0.05, 0.1, 0.15, 0.2, 7.0):
        histogram(recorder).record(value)
    recorder.gauge(HTTP_ACTIVE, ("GET",)).add(2)
    totals = Reader(tmp_path).totals()
    assert totals.lasting[KEY] == [pytest.approx(7.5), 2, 2, 1]
    assert totals.levels == {Key("gauge", HTTP_ACTIVE.name, (("http_request_method", "GET"),)): 2}
    assert totals.workers == 1


def test_a_page_grows(tmp_path: Path) -> None:
    """Series beyond the first size move nothing: those opened before go on counting."""
    recorder = Recorder(tmp_path)
    first = histogram(recorder)
    first.record(0.05)
    for number in range(1000):
        histogram(recorder, f"/{number}").record(0.05)
    first.record(0.05)
    assert recorder.page is not None
    assert recorder.page.path is not None
    assert recorder.page.path.stat().st_size > FIRST_SIZE
    totals = Reader(tmp_path).totals()
    assert totals.lasting[KEY][1] == 2
    assert len(totals.lasting) == 1001


def test_beyond_the_cap_series_share_one(tmp_path: Path) -> None:
    """New label sets land in the overflow series, are counted there, and a self-metric says how often."""
    recorder = Recorder(tmp_path, max_series=2)
    for number in range(5):
        histogram(recorder, f"/{number}").record(0.05)
    histogram(recorder, "/0").record(0.05)
    totals = Reader(tmp_path).totals()
    overflow = tuple((label, OVERFLOW) for label in HTTP_DURATION.labels)
    assert totals.lasting[key("histogram", HTTP_DURATION.name, overflow, EDGES)][1] == 3
    assert totals.lasting[Key("counter", SERIES_OVERFLOW.name)] == [3]
    assert len(totals.lasting) == 4
    assert sum(values[1] for each, values in totals.lasting.items() if each.kind == "histogram") == 6


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


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("short", b"ANVLPAGE", "cut short: 8 bytes"),
        ("foreign", b"\x7fELF" + bytes(200), "not a page of anvil-monitor"),
        ("newer", layout.HEADER.pack(layout.MAGIC, 99, 64, 64, 0.0, 1), "a page of format 99, this version reads 2"),
        ("truncated", layout.pack_header(4096, 0.0, 1), "cut short: 4096 bytes are said to be used, the file has 64"),
        ("record", layout.pack_header(80, 0.0, 1) + layout.RECORD.pack(9999, 4) + bytes(8), "a record is damaged"),
        ("loop", layout.pack_header(80, 0.0, 1) + bytes(16), "a record is damaged"),
        ("tail", layout.pack_header(72, 0.0, 1) + bytes(8), "a record is damaged"),
        ("key", layout.pack_header(88, 0.0, 1) + layout.record(b"{}", [1.0]), "a record's key is damaged"),
        ("kind", layout.pack_header(96, 0.0, 1) + layout.record(b'["x","a",[],[]]', [1.0]), "key is damaged"),
        ("few", layout.pack_header(112, 0.0, 1) + layout.record(b'["histogram","a",[],[1]]', [1.0, 2.0]), "damaged"),
    ],
)  # fmt: skip
def test_what_is_no_page_is_refused(
    tmp_path: Path, name: str, content: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A short, foreign, newer or damaged file is said once with its reason, counted, left alone; the rest is read."""
    bad = tmp_path / f"worker-{name}.page"
    bad.write_bytes(content)
    recorder = Recorder(tmp_path)
    histogram(recorder).record(0.05)
    mine = Reader(tmp_path)
    for _ in range(2):
        totals = mine.totals()
        assert totals.lasting[KEY][1] == 1
        assert totals.refused == 1
    assert bad.read_bytes() == content
    assert len(caplog.records) == 1
    assert reason in caplog.text


def test_damage_anywhere_is_survived(tmp_path: Path) -> None:
    """Every single byte of a page changed, and every shorter length: read or refused, never an error."""
    path = dead_page(tmp_path, 7)
    content = path.read_bytes()[:300]
    path.unlink()
    logging.disable(logging.WARNING)
    try:
        for at in range(len(content)):
            for damaged in (content[:at], content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]):
                path.write_bytes(damaged)
                Reader(tmp_path).fold()
    finally:
        logging.disable(logging.NOTSET)


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


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Nothing was recorded: nothing is found, and nothing is made by looking."""
    folder = tmp_path / "none"
    assert Reader(folder).totals().lasting == {}
    assert not folder.exists()


def test_where_no_page_can_be_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder that cannot be used: the worker measures into its own memory, serves that, and says so once."""
    (tmp_path / "file").write_text("in the way")
    recorder = Recorder(tmp_path / "file" / "pages")
    for number in range(3):
        histogram(recorder, f"/{number}").record(0.05)
    assert recorder.private
    assert recorder.page is not None
    recorder.users.mark("10.0.0.1", time.monotonic())
    totals = Reader(recorder.folder).totals(recorder.page.bytes())
    assert len(totals.lasting) == 3
    assert totals.clients == 1
    assert totals.workers == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "kept in its own memory" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_read_only_folder(tmp_path: Path) -> None:
    """The same in a temporary folder that this user may not write to, with a real user."""
    tmp_path.chmod(0o555)
    for parent in list(tmp_path.parents)[:2]:
        parent.chmod(0o755)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from anvil_monitor.exporter.recorder import Recorder\n"
        "from anvil_monitor.exporter.names import HTTP_ACTIVE\n"
        "os.setgid(65534); os.setuid(65534)\n"
        f"recorder = Recorder(Path({str(tmp_path / 'x' / 'y')!r})); recorder.gauge(HTTP_ACTIVE, ('GET',)).add(1)\n"
        "print(recorder.private)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "True\n"
    assert result.stderr.count("anvil-monitor cannot make a page") == 1


def test_a_full_page_keeps_counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up ends new series, not the server: what is open goes on, what is new shares the overflow."""
    recorder = Recorder(tmp_path)
    first = histogram(recorder)
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    for number in range(2000):
        histogram(recorder, f"/{number}").record(0.05)
    first.record(0.05)
    totals = Reader(tmp_path).totals()
    assert totals.lasting[KEY][1] == 1
    assert 10 < len(totals.lasting) < 2000


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


def test_threads_lose_nothing(tmp_path: Path) -> None:
    """Without a lock, and with the interpreter changing threads as often as it can: every record counts."""
    recorder = Recorder(tmp_path)
    series, level = histogram(recorder), recorder.gauge(HTTP_ACTIVE, ("GET",))

    def work() -> None:
        for _ in range(20_000):
            series.record(0.05)
            level.add(1)
            level.add(-1)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    totals = Reader(tmp_path).totals()
    assert totals.lasting[KEY][1] == 160_000
    assert totals.lasting[KEY][0] == pytest.approx(8000)
    assert list(totals.levels.values()) == [0]


def test_other_edges_are_put_into_the_present_ones(tmp_path: Path) -> None:
    """After a change of a limit old counts stay, and never seem faster than they were."""
    old = Recorder(tmp_path).histogram(DB_DURATION, ("sqlite", "SELECT", "a"), (0.1, 0.3))
    for value in (0.05, 0.25, 5.0):
        old.record(value)
    found = families(Reader(tmp_path).totals(), {DB_DURATION.name: (0.1, 0.2, 0.4)})
    samples = next(family.samples for family in found if family.metric is DB_DURATION)
    assert [sample.value for sample in samples] == [1, 1, 2, 3, pytest.approx(5.3), 3]


def test_users_are_counted_once_over_workers_and_for_a_minute(tmp_path: Path) -> None:
    """Two workers saw overlapping clients; a minute later they are forgotten; the number is right within 2 %."""
    one, two = users.Users(cells(), b"s" * 32), users.Users(cells(), b"s" * 32)
    now = 1_000_000.0
    for number in range(600):
        one.mark(f"10.0.{number // 250}.{number % 250}", now)
        one.mark(f"10.0.{number // 250}.{number % 250}", now + 1)
    for number in range(400, 1000):
        two.mark(f"10.0.{number // 250}.{number % 250}", now + 15)
    assert estimate(one, two, at=now + 20) == pytest.approx(1000, rel=0.02)
    assert estimate(one, two, at=now + 72) == pytest.approx(600, rel=0.02)
    assert estimate(one, two, at=now + 90) == 0
    assert estimate(one, two, at=now + 1e6) == 0


def cells() -> memoryview:
    return memoryview(bytearray(8 * users.WORDS)).cast("d")


def estimate(*workers: users.Users, at: float) -> float:
    views = [worker._bits.obj for worker in workers]
    return users.estimate(users.recent(memoryview(view).cast("d"), at) for view in views)


def test_every_size_of_crowd() -> None:
    """From nobody to far more than the bits can tell apart: a number, and within 5 % up to 60,000."""
    for size in (0, 1, 2, 20, 100, 1000, 20_000, 60_000):
        crowd = users.Users(cells(), b"s" * 32)
        crowd._seen = set()
        for number in range(size):
            crowd.mark(str(number), 500.0)
        assert estimate(crowd, at=500.0) == pytest.approx(size, rel=0.05, abs=0.5)
    assert math.isfinite(users.estimate([(1 << users.BITS) - 1]))


def test_the_folder_is_private(tmp_path: Path) -> None:
    """Only this user may read it; one that another could have made under our name is refused."""
    folder = pages_folder("shop", None, {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert folder.parent == tmp_path / f"anvil-monitor-{os.geteuid()}"
    prepare(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert salt(folder) == salt(folder)
    assert (folder / "salt").stat().st_mode & 0o777 == 0o600
    folder.parent.chmod(0o777)
    with pytest.raises(PermissionError, match="belongs to another user"):
        prepare(folder)


def test_the_folder_is_named_by_argument_environment_or_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``directory`` wins over ``ANVIL_MONITOR_PAGES``, which wins over a folder of service and working directory."""
    environ = {"ANVIL_MONITOR_PAGES": str(tmp_path / "b"), "XDG_RUNTIME_DIR": "/run/x"}
    assert pages_folder("shop", tmp_path / "a", environ) == tmp_path / "a"
    assert pages_folder("shop", None, environ) == tmp_path / "b"
    del environ["ANVIL_MONITOR_PAGES"]
    here = pages_folder("shop", None, environ)
    assert here == pages_folder("shop", None, environ)
    assert here.name.startswith("shop-")
    monkeypatch.chdir(tmp_path)
    assert pages_folder("shop", None, environ) != here
