"""Where pages are: a folder for this user alone, and what is done where there is none."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from anvil_monitor.exporter.cells import Histogram
from anvil_monitor.exporter.folder import pages_folder, prepare, salt
from anvil_monitor.exporter.layout import key
from anvil_monitor.exporter.names import HTTP_DURATION
from anvil_monitor.exporter.page import Page
from anvil_monitor.exporter.reader import Reader
from anvil_monitor.exporter.recorder import Recorder
from anvil_monitor.exporter.retired import FOLD_LOCK, RETIRED

EDGES = (0.1, 0.2)


LABELS = (("http_request_method", "GET"), ("http_response_status_code", "200"), ("http_route", "/"))


KEY = key("histogram", HTTP_DURATION.name, LABELS, EDGES)


def histogram(recorder: Recorder, route: str = "/") -> Histogram:
    return recorder.histogram(HTTP_DURATION, ("GET", route, "200", ""), EDGES)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """Nothing was recorded: nothing is found, and nothing is made by looking."""
    folder = tmp_path / "none"
    assert Reader(folder).totals().lasting == {}
    assert not folder.exists()


def let_in(folder: Path) -> None:
    """Let other users reach ``folder``, through what pytest keeps private between it and the temporary folder."""
    within = Path(tempfile.gettempdir())
    for parent in folder.parents:
        if within in parent.parents:
            parent.chmod(0o755)


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
    let_in(tmp_path)
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
    """``directory`` wins over a folder of the service below ``ANVIL_MONITOR_PAGES``, that over one by place."""
    environ = {"ANVIL_MONITOR_PAGES": str(tmp_path / "b"), "XDG_RUNTIME_DIR": "/run/x"}
    assert pages_folder("shop", tmp_path / "a", environ) == tmp_path / "a"
    assert pages_folder("shop", None, environ) == tmp_path / "b" / "shop"
    del environ["ANVIL_MONITOR_PAGES"]
    here = pages_folder("shop", None, environ)
    assert here == pages_folder("shop", None, environ)
    assert here.name.startswith("shop-")
    monkeypatch.chdir(tmp_path)
    assert pages_folder("shop", None, environ) != here


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What has been said so far."""
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(
    tmp_path: Path, mode: int, complaints: Callable[[], list[str]]
) -> None:
    """Also one that the user has named: the worker counts for itself, nothing in the folder is read, each said once."""
    recorder = Recorder(tmp_path)
    histogram(recorder).record(0.05)
    recorder.close()
    tmp_path.chmod(mode)
    other, mine = Recorder(tmp_path), Reader(tmp_path)
    for number in range(3):
        histogram(other, f"/{number}").record(0.05)
        assert mine.totals().lasting == {}
    assert other.private
    assert len(complaints()) == 2
    assert all("others may write to it" in text for text in complaints())
    tmp_path.chmod(0o700)
    assert mine.totals().lasting[KEY][1] == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path, complaints: Callable[[], list[str]]) -> None:
    """Even where this process could write to it, as root can anywhere."""
    os.chown(tmp_path, 65534, 65534)
    recorder = Recorder(tmp_path)
    histogram(recorder).record(0.05)
    assert recorder.private
    assert Reader(tmp_path).totals().workers == 0
    assert len(complaints()) == 2
    assert list(tmp_path.iterdir()) == []


def dead_page(folder: Path, count: int) -> Path:
    page = Page.in_folder(folder)
    page.add(KEY)[1] = count
    page.close()
    assert page.path is not None
    return page.path


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_a_page_of_another_user_is_refused(tmp_path: Path, complaints: Callable[[], list[str]]) -> None:
    """It is counted as refused, said once, and neither folded nor removed."""
    path = dead_page(tmp_path, 7)
    os.chown(path, 65534, 65534)
    mine = Reader(tmp_path)
    for _ in range(2):
        totals = mine.totals()
        assert (totals.lasting, totals.refused) == ({}, 1)
    assert path.exists()
    assert len(complaints()) == 1
    assert "it belongs to user 65534" in complaints()[0]


def test_what_is_no_plain_file_is_refused(tmp_path: Path, complaints: Callable[[], list[str]]) -> None:
    """A pipe, a folder, a socket, a link, a link to nothing, a device, named like pages: no reader hangs or follows."""
    recorder = Recorder(tmp_path)
    histogram(recorder).record(0.05)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target = dead_page(elsewhere, 7)
    os.mkfifo(tmp_path / "worker-fifo.page")
    (tmp_path / "worker-folder.page").mkdir()
    (tmp_path / "worker-link.page").symlink_to(target)
    (tmp_path / "worker-dangling.page").symlink_to(tmp_path / "none")
    (tmp_path / "worker-null.page").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's path is short
        try:
            listener.bind("worker-socket.page")
        finally:
            os.chdir(here)
    mine = Reader(tmp_path)
    for _ in range(2):
        totals = mine.totals()
        assert (totals.lasting[KEY][1], totals.refused, totals.workers) == (1, 6, 1)
    assert len(complaints()) == 6
    assert target.exists()


@pytest.mark.parametrize("name", [RETIRED, FOLD_LOCK, "salt"])
def test_our_own_names_may_be_anything(tmp_path: Path, name: str) -> None:
    """A pipe or a folder in the place of a file of ours: nothing hangs, and what can be counted is."""
    for number, make in enumerate((os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero"))):
        folder = tmp_path / str(number)
        folder.mkdir(0o700)
        make(folder / name)
        dead_page(folder, 7)
        recorder = Recorder(folder)
        recorder.users.mark("10.0.0.1", time.monotonic())
        totals = Reader(folder).totals()
        assert totals.lasting[KEY][1] == 7
        assert totals.clients == 1


def test_a_page_cut_short_while_its_worker_lives(tmp_path: Path, complaints: Callable[[], list[str]]) -> None:
    """Whatever length is left, it is refused and said once; the other workers' numbers go on."""
    page = Page.in_folder(tmp_path)
    page.add(KEY)[1] = 7
    recorder = Recorder(tmp_path)
    histogram(recorder).record(0.05)
    mine = Reader(tmp_path)
    assert mine.totals().lasting[KEY][1] == 8
    assert page.path is not None
    for size in (200, 64, 63, 0):
        os.truncate(page.path, size)
        totals = mine.totals()
        assert (totals.lasting[KEY][1], totals.refused) == (1, 1)
    assert len(complaints()) == 1


def test_no_descriptor_left_is_no_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that cannot be read now is an error of this answer: a part of the totals would look like a restart."""
    recorder = Recorder(tmp_path)
    histogram(recorder).record(0.05)
    mine = Reader(tmp_path)
    mine.totals()
    really = os.open

    def full(path: str, *rest: object, **named: object) -> int:
        if str(path).startswith("worker-"):
            raise OSError(errno.EMFILE, "Too many open files")
        return really(path, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="Too many open files"):
        mine.totals()
    monkeypatch.undo()
    assert mine.totals().refused == 0


def test_a_limit_on_file_sizes(tmp_path: Path) -> None:
    """Under a real limit (as of a full disk) the page keeps its size, what was open counts on, the rest overflows."""
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from anvil_monitor.exporter.recorder import Recorder\n"
        "from anvil_monitor.exporter.reader import Reader\n"
        "from anvil_monitor.exporter.names import HTTP_ACTIVE, BEACONS\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "recorder = Recorder(Path(sys.argv[1]))\n"
        "for number in range(3000): recorder.counter(BEACONS, (str(number),)).add(1)\n"
        "recorder.counter(BEACONS, ('0',)).add(1)\n"
        "lasting = Reader(Path(sys.argv[1])).totals().lasting\n"
        "print(recorder.private, len(lasting) < 3000,\n"
        "      sum(v[0] for k, v in lasting.items() if k.name == BEACONS.name))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert result.stdout == "False True 3001.0\n"
    assert result.stderr == ""


def test_retired_cannot_be_replaced_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dead worker's page is then read where it is, exactly, and folded when there is room again."""
    dead_page(tmp_path, 7)
    mine = Reader(tmp_path)
    monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    for _ in range(2):
        assert mine.totals().lasting[KEY][1] == 7
    assert len(list(tmp_path.glob("worker-*"))) == 1
    assert list(tmp_path.glob(".new-*")) == []
    monkeypatch.undo()
    assert mine.totals().lasting[KEY][1] == 7
    assert list(tmp_path.glob("worker-*")) == []


def test_files_stay_young(tmp_path: Path) -> None:
    """What sweeps old files out of temporary folders finds none here while somebody scrapes: page, salt, retired."""
    dead_page(tmp_path, 7)
    recorder = Recorder(tmp_path)
    histogram(recorder).record(0.05)
    recorder.users.mark("10.0.0.1", time.monotonic())
    now = [0.0]
    mine = Reader(tmp_path, clock=lambda: now[0])
    mine.totals()
    files = [path for path in tmp_path.iterdir() if path.name != FOLD_LOCK]
    assert len(files) == 3
    for path in files:
        os.utime(path, (1e9, 1e9))
    mine.totals()
    assert {path.stat().st_mtime for path in files} == {1e9}
    now[0] = 13 * 3600
    assert mine.totals().lasting[KEY][1] == 8
    assert min(path.stat().st_mtime for path in files) > 1e9


def test_two_services_on_one_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its folder, with a variable for both, too; as has the same service in another working directory."""
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    folders = [pages_folder(service, None, environ) for service in ("shop", "forum")]
    monkeypatch.chdir(tmp_path)
    folders.append(pages_folder("shop", None, environ))
    environ = {"ANVIL_MONITOR_PAGES": str(tmp_path / "all")}
    folders += [pages_folder(service, None, environ) for service in ("shop", "forum")]
    for number, folder in enumerate(folders):
        for _ in range(number + 1):
            histogram(Recorder(folder)).record(0.05)
    assert [Reader(folder).totals().lasting[KEY][1] for folder in folders] == [1, 2, 3, 4, 5]


def test_two_servers_in_one_folder_are_one(tmp_path: Path) -> None:
    """As when a new server starts before the old one has ended: each shows the sum, and nothing is lost at the end."""
    old, new = Recorder(tmp_path), Recorder(tmp_path)
    histogram(old).record(0.05)
    histogram(new).record(0.05)
    assert [Reader(tmp_path).totals().lasting[KEY][1] for _ in range(2)] == [2, 2]
    old.close()
    assert Reader(tmp_path).totals().lasting[KEY][1] == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_server_that_gives_up_root(tmp_path: Path) -> None:
    """The application is loaded by root, its workers are somebody else's: they share a folder of that user."""
    tmp_path.chmod(0o1777)
    let_in(tmp_path)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from anvil_monitor.exporter.folder import pages_folder\n"
        "from anvil_monitor.exporter.names import BEACONS\n"
        "from anvil_monitor.exporter.reader import Reader\n"
        "from anvil_monitor.exporter.recorder import Recorder\n"
        "folder = pages_folder('shop', None, {'XDG_RUNTIME_DIR': sys.argv[1]})\n"
        "recorder, reader = Recorder(folder), Reader(folder)\n"
        "if sys.argv[2] == 'spoken': recorder.counter(BEACONS, ('taken',)).add(1)\n"
        "children = []\n"
        "for _ in range(2):\n"
        "    if child := os.fork():\n"
        "        os.waitpid(child, 0)\n"
        "        continue\n"
        "    os.setgid(65534); os.setuid(65534)\n"
        "    recorder.counter(BEACONS, ('taken',)).add(1)\n"
        "    recorder.counter(BEACONS, ('refused',)).add(1)\n"
        "    print(recorder.private, [*reader.totals().lasting.values()], flush=True)\n"
        "    os._exit(0)\n"
    )
    for spoken, expected in (("silent", "1.0"), ("spoken", "3.0")):
        result = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), spoken], capture_output=True, text=True, check=True
        )
        assert result.stdout.splitlines()[0] == f"False [[{expected}], [{expected}]]"
        assert result.stderr == ""
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"anvil-monitor-65534", "anvil-monitor-0"}
