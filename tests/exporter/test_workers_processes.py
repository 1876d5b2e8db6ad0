"""The server's own processes on its own ``/metrics``: real uvicorn and gunicorn, and what ``/proc`` may throw at it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anvil_monitor.exporter import procfs, workers

APP = """
import hashlib
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope.get("path") == "/burn":
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 400_000)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""
UVICORN = ("uvicorn", "served:app", "--workers", "2", "--log-level", "error", "--port")
GUNICORN = ("gunicorn", "served:app", "-k", "uvicorn_worker.UvicornWorker", "-w", "2", "--log-level", "error", "-b")


def until(fact: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


@contextmanager
def serving(folder: Path, command: tuple[str, ...]) -> Iterator[psutil.Process]:
    """A supervisor with two workers that listen."""
    (folder / "served.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = str(port) if command[0] == "uvicorn" else f"127.0.0.1:{port}"
    process = subprocess.Popen([sys.executable, "-m", *command, place], cwd=folder)
    root = psutil.Process(process.pid)
    try:
        until(lambda: len(live(root)) == 2)
        yield root
    finally:
        family = [root, *root.children(recursive=True)] if process.poll() is None else []
        for each in family:
            each.kill()
        process.wait()


def live(root: psutil.Process) -> list[int]:
    """Workers that run: of uvicorn those that multiprocessing spawned, without its resource tracker."""
    found = []
    for child in root.children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended between two looks
            if child.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(child.cmdline()):
                found.append(child.pid)
    return found


def values(server: workers.Server, pids: list[int]) -> dict[str, float]:
    return {family.metric.name: family.samples[0].value for family in server.families(pids)}


@pytest.mark.parametrize("command", [UVICORN, GUNICORN], ids=lambda command: command[0])
def test_workers_and_their_supervisor_are_one_server(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Memory, threads and descriptors are the sums that psutil finds for the supervisor and both workers."""
    with serving(tmp_path, command) as root:
        pids = live(root)
        family = [root, *(psutil.Process(pid) for pid in pids)]

        def agrees() -> bool:
            found = values(workers.Server(), pids)
            return (
                found["process_count"] == 3
                and found["process_memory_usage_bytes"] == sum(each.memory_info().rss for each in family)
                and found["process_memory_usage_bytes_max"] == max(each.memory_info().rss for each in family)
                and found["process_thread_count"] == sum(each.num_threads() for each in family)
                and found["process_open_file_descriptor_count"] == sum(each.num_fds() for each in family)
                and abs(found["process_uptime_seconds"] - (time.time() - root.create_time())) < 2
            )

        until(agrees)  # it is still starting up
        assert {family.samples[0].labels for family in workers.families(pids)} == {()}


@pytest.mark.parametrize("command", [UVICORN, GUNICORN], ids=lambda command: command[0])
def test_cpu_of_a_killed_worker_stays_in_the_total(tmp_path: Path, command: tuple[str, ...]) -> None:
    """After SIGKILL the total is not less, also as a worker shows it that was not there before."""
    with serving(tmp_path, command) as root:
        server, pids = workers.Server(), live(root)
        before = values(server, pids)["process_cpu_time_seconds_total"]
        assert before > 0.05
        os.kill(pids[0], signal.SIGKILL)
        assert values(server, pids)["process_cpu_time_seconds_total"] >= before
        until(lambda: pids[0] not in live(root) and len(live(root)) == 2)
        for watcher in (server, workers.Server()):
            assert values(watcher, live(root))["process_cpu_time_seconds_total"] >= before


def test_a_foreign_parent_is_not_the_supervisor() -> None:
    """A process that this test runner started counts alone: its parent is another program."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert values(workers.Server(), [process.pid])["process_count"] == 1


def test_dead_and_foreign_pids_are_left_out() -> None:
    """A pid that nobody has, and a process that ended but was not yet asked for, do not count."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        until(lambda: (stat := procfs.stat(process.pid)) is not None and stat.ended)
        assert workers.Server().families([process.pid, 2**30]) == []


def test_no_proc_no_families(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no ``/proc``, and on other platforms, nothing is said and nothing raised."""
    assert workers.Server(proc=str(tmp_path)).families([os.getpid()]) == []
    monkeypatch.setattr(procfs, "LINUX", False)
    assert workers.families([os.getpid()]) == []


@given(st.binary(max_size=300) | st.builds(lambda a, b: b"12 (" + a + b") S " + b, st.binary(), st.binary()))
def test_a_garbled_line_is_no_process(text: bytes) -> None:
    """Whatever bytes stand where ``/proc/PID/stat`` should: a process or ``None``, no error."""
    stat = procfs.parse_stat(text)
    assert stat is None or stat.cpu >= 0 or b"-" in text


def test_a_name_with_brackets_and_spaces() -> None:
    """The process's own name cannot shift the columns."""
    fields = b"S 1 7 7 0 -1 4194560 1 2 3 4 150 50 30 20 20 0 9 0 1234 5 6"
    stat = procfs.parse_stat(b"42 (a) R 9 (b\n) " + fields)
    assert stat == procfs.Stat(42, False, 1, 7, 2.0, 0.5, 9, 1234)
