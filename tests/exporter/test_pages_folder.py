"""Where pages are: a folder for this user alone, and what is done where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anvil_monitor.exporter.folder import pages_folder, prepare, salt
from anvil_monitor.exporter.layout import key
from anvil_monitor.exporter.names import HTTP_DURATION
from anvil_monitor.exporter.reader import Reader
from anvil_monitor.exporter.recorder import Histogram, Recorder

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
