"""The demo ends everything that it started, and says what died."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from examples.processes import DiedError, Processes, free_port

ROOT = Path(__file__).resolve().parents[2]
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path, dict(os.environ, PYTHONPATH=str(tmp_path), PYTHONUNBUFFERED="1"))


def test_a_port_in_use_is_left_to_whoever_has_it() -> None:
    """The wanted port when it is free, another when it is not."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port
    assert free_port(port) == port


def test_what_dies_is_told_with_its_last_words(processes: Processes, tmp_path: Path) -> None:
    """A child that ended is an error that has its name, its status and the end of its log."""
    (tmp_path / "failing.py").write_text("raise SystemExit('the port is taken')")
    processes.start("server", "failing")
    processes.running["server"].wait(10)
    with pytest.raises(DiedError, match=r"server ended with status 1[\s\S]*the port is taken"):
        processes.check()
    processes.end()


def test_what_will_not_end_is_ended_with_its_children(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that ignores SIGTERM is killed after its patience, and so is what it started."""
    monkeypatch.setattr("examples.processes.PATIENCE", 0.2)
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    processes.start("stubborn", "stubborn")
    deadline = time.monotonic() + 10
    while not (words := processes.log("stubborn").read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    pids = [processes.running["stubborn"].pid, int(words)]
    assert processes.end() < 3
    for pid in pids:
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"{pid} still runs"
            time.sleep(0.02)


def test_help_needs_nothing_installed() -> None:
    """``scripts/demo --help`` answers on a fresh clone: before any environment is made, with any Python."""
    done = subprocess.run([ROOT / "scripts/demo", "--help"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert "--fast" in done.stdout
    isolated = subprocess.run(
        [sys.executable, "-I", "-S", ROOT / "examples/demo.py", "--help"], capture_output=True, text=True, timeout=30
    )
    assert isolated.returncode == 0, isolated.stderr
