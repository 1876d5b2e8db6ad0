"""Ten thousand restarts, and death at any instant: totals exact, files few, nothing counted twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from anvil_monitor.exporter.exposer import Exposer
from anvil_monitor.exporter.layout import key
from anvil_monitor.exporter.names import BEACONS, HTTP_DURATION
from anvil_monitor.exporter.page import Page
from anvil_monitor.exporter.reader import Reader
from anvil_monitor.exporter.recorder import CROWD, Recorder
from anvil_monitor.exporter.retired import (
    FOLD_LOCK,
    MAX_FOLD,
    MAX_RETIRED_OVERFLOW,
    MAX_RETIRED_SERIES,
    RETIRED,
    folded,
)

EDGES = (0.1, 0.2)
KEY = key("histogram", HTTP_DURATION.name, (("http_route", "/"),), EDGES)


def dead_page(folder: Path, route: str = "/", count: int = 1) -> None:
    page = Page.in_folder(folder)
    page.add(key("histogram", HTTP_DURATION.name, (("http_route", route),), EDGES))[1] = count
    page.close()


def counted(folder: Path) -> float:
    return sum(values[1] for each, values in Reader(folder).totals().lasting.items() if each.name == KEY.name)


def test_ten_thousand_restarts(tmp_path: Path) -> None:
    """Scraped now and then: exact at each scrape; a handful of files; a retired page of one size, with no old names."""
    shown = Exposer(Reader(tmp_path), {KEY.name: EDGES})
    sizes, files = set(), 0
    for batch in range(1, 201):
        for number in range(50):
            dead_page(tmp_path, f"/{number % 10}")
        text = shown.text()
        assert text.count("_count{") == 10
        assert sum(float(line.split()[1]) for line in text.splitlines() if "_count{" in line) == 50 * batch
        files = max(files, len(list(tmp_path.iterdir())))
        if batch > 1:
            sizes.add((tmp_path / RETIRED).stat().st_size)
    assert files <= 3  # retired, its lock, and no page
    assert len(sizes) == 1
    assert counted(tmp_path) == 10_000
    dead_page(tmp_path)
    mine = Reader(tmp_path)
    mine.totals()
    (retired,) = mine.snapshot().pages
    assert len(folded(retired)) == 1


def test_restarts_that_nobody_scrapes(tmp_path: Path) -> None:
    """Workers that start take the dead in themselves: files stay few, and the first scrape is exact."""
    most = 0
    for number in range(300):
        recorder = Recorder(tmp_path)
        recorder.counter(BEACONS, ("taken",)).add(1)
        recorder.close()
        most = max(most, len(list(tmp_path.glob("worker-*"))))
        assert number < CROWD or (tmp_path / RETIRED).exists()
    assert most <= CROWD + 1
    assert list(Reader(tmp_path).totals().lasting.values()) == [[300]]


def test_more_dead_than_one_fold_takes(tmp_path: Path) -> None:
    """Each scrape takes some in; all are counted from the first on."""
    for _ in range(MAX_FOLD + 200):
        dead_page(tmp_path)
    mine = Reader(tmp_path)
    for left in (200, 0):
        assert mine.totals().lasting[KEY][1] == MAX_FOLD + 200
        assert len(list(tmp_path.glob("worker-*"))) == left


def test_a_retired_page_is_bounded_in_series(tmp_path: Path) -> None:
    """Each dead worker had other label sets and metrics: beyond the cap they share a series a metric, none is lost."""
    page_series = 1900
    for worker in range(MAX_RETIRED_SERIES // page_series + 3):
        page = Page.in_folder(tmp_path)
        for number in range(page_series):
            name = f"metric_{number if worker > 4 else 0}_total"
            page.add(key("counter", name, (("worker", str(worker)), ("number", str(number)))))[0] = 1
        page.close()
        totals = Reader(tmp_path).totals()
        assert sum(values[0] for values in totals.lasting.values()) >= page_series * min(worker + 1, 5)
        assert len(totals.lasting) <= MAX_RETIRED_SERIES + MAX_RETIRED_OVERFLOW
    assert (tmp_path / RETIRED).stat().st_size < 2_000_000


FORKS = """
import os, random, signal, sys, time
from pathlib import Path
from anvil_monitor.exporter.names import BEACONS
from anvil_monitor.exporter.reader import Reader
from anvil_monitor.exporter.recorder import Recorder
folder, batches = Path(sys.argv[1]), int(sys.argv[2])
recorder = Recorder(folder)
series = recorder.counter(BEACONS, ("taken",))
series.add(1)
read, write = os.pipe()
for batch in range(batches):
    children = []
    for number in range(20):
        child = os.fork()
        if not child:
            series.add(1)
            os.write(write, b".")
            if number % 3:
                time.sleep(60)
            os._exit(0)
        children.append(child)
    done = 0
    while done < len(children):
        done += len(os.read(read, 20))
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if random.random() < 0.5:
        Reader(folder).fold()
"""


def test_hundreds_of_real_workers(tmp_path: Path) -> None:
    """Forked from one parent with a page of its own, ended by themselves or by SIGKILL: each counts once."""
    batches = 15
    subprocess.run([sys.executable, "-c", FORKS, str(tmp_path), str(batches)], check=True, timeout=60)
    totals = Reader(tmp_path).totals()
    assert list(totals.lasting.values()) == [[20 * batches + 1]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [FOLD_LOCK, RETIRED]


# A process without threads that forks one folder after the other and kills it, or has it kill itself before its n-th
# call of the system; between two of them it checks what a reader sees. It prints how many died in the midst of a fold.
KILLS = """
import os, random, signal, sys, time
from pathlib import Path
from anvil_monitor.exporter import layout, names, reader, retired
from anvil_monitor.exporter.page import Page
from anvil_monitor.exporter.reader import Reader
from anvil_monitor.exporter.retired import fold_lock
folder, how, until = Path(sys.argv[1]), sys.argv[2], time.monotonic() + float(sys.argv[3])
KEY = layout.key("counter", names.BEACONS.name, (("result", "taken"),))
expected = died = 0
CALLS = ("open", "close", "write", "rename", "unlink", "pread", "listdir", "stat", "fstat")

def dead():
    global expected
    page = Page.in_folder(folder)
    page.add(KEY)[0] = 1
    page.close()
    expected += 1

def deadly(function, left):
    def called(*args, **named):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **named)
    return called

def look():
    "What a reader sees that cannot fold."
    opened = os.open(folder, os.O_RDONLY)
    with fold_lock(opened) as mine:
        assert mine
        found = Reader(folder).totals().lasting
    os.close(opened)
    assert found[KEY] == [expected], (found, expected)

number = 0
while time.monotonic() < until:
    number += 1
    for _ in range(random.randrange(1, 4)):
        dead()
    child = os.fork()
    if not child:
        if how == "calls":
            left = [number]
            for name in CALLS:
                setattr(os, name, deadly(getattr(os, name), left))
        Reader(folder).fold()
        os._exit(0)
    if how == "times":
        time.sleep(random.random() * 0.004)
        os.kill(child, signal.SIGKILL)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    died += killed
    look()
    if how == "calls" and not killed:
        break
assert Reader(folder).totals().lasting[KEY] == [expected]
assert not list(folder.glob("worker-*")), list(folder.iterdir())
print(died)
"""


@pytest.mark.parametrize(("how", "least"), [("calls", 20), ("times", 20)])
def test_a_fold_killed_at_any_instant(tmp_path: Path, how: str, least: int) -> None:
    """Before each of its calls of the system in turn, and at random times: no count is lost or doubled, ever."""
    result = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path), how, "5"], capture_output=True, text=True, timeout=60
    )
    assert result.stderr == ""
    assert int(result.stdout) >= least


def test_a_worker_killed_while_it_makes_its_page(tmp_path: Path) -> None:
    """Before each of its calls of the system: no reader sees half a page, and what is left is cleared away."""
    code = KILLS[: KILLS.index("number = 0")] + (
        "for number in range(1, 40):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        left = [number]\n"
        "        for name in (*CALLS, 'pwrite'):\n"
        "            if hasattr(os, name): setattr(os, name, deadly(getattr(os, name), left))\n"
        "        dead()\n"
        "        os._exit(0)\n"
        "    if not os.waitpid(child, 0)[1]: break\n"
        "    died += 1\n"
        "    found = Reader(folder).totals()\n"
        "    assert (found.workers, found.refused) == (0, 0), found\n"
        "assert died > 2\n"
        "for path in folder.glob('.new-*'): os.utime(path, (0, 0))\n"
        "Reader(folder).totals()\n"
        "print(sorted(os.listdir(folder)))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), "calls", "0"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.stderr == ""
    assert ".new-" not in result.stdout
    assert "worker-" not in result.stdout
