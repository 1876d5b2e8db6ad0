"""A server's process tree from outside, on real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from anvil_monitor.exporter.processes import ServerProcesses, find_root
from anvil_monitor.targets import ProcessFinder, Service

# A root that listens and two children that share its socket, as a supervisor with workers does.
TREE = """
import os, socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
for _ in range(2):
    if os.fork() == 0:
        ballast = bytearray(20_000_000)
        ballast[::4096] = b"x" * len(ballast[::4096])
        time.sleep(60)
print("ready", flush=True)
time.sleep(60)
"""


@contextmanager
def tree(port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    if not port:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", TREE, str(port)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 10
        while len(psutil.Process(process.pid).children()) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        yield process, port
    finally:
        family = [process.pid] if process.poll() is None else []
        family += [child.pid for child in psutil.Process(process.pid).children()] if family else []
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def service(find_by: ProcessFinder, find: str) -> Service:
    return Service("shop", "http://127.0.0.1:1", "http://127.0.0.1:1/metrics", find_by, find)


def values(processes: ServerProcesses) -> dict[str, float]:
    return {family.metric.name: family.samples[0].value for family in processes.collect()}


def test_the_whole_tree_is_summed() -> None:
    """Found by port, root and both children count as one server: memory is the sum of all three."""
    with tree() as (process, port):
        processes = ServerProcesses(service(ProcessFinder.PORT, str(port)))
        deadline = time.monotonic() + 10
        while (found := values(processes))["process_memory_usage_bytes"] < 40e6 and time.monotonic() < deadline:
            time.sleep(0.05)
        root = find_root(service(ProcessFinder.PORT, str(port)))
        assert root is not None
        assert root.pid == process.pid
        assert found["process_count"] == 3
        assert found["process_memory_usage_bytes"] > found["process_memory_usage_bytes_max"] > 20e6
        assert found["process_thread_count"] >= 3
        assert found["process_uptime_seconds"] < 60


def test_found_by_pid_file_and_by_command(tmp_path: Path) -> None:
    """The other two ways find the same root."""
    with tree() as (process, port):
        (tmp_path / "pid").write_text(f"{process.pid}\n")
        by_file = find_root(service(ProcessFinder.PID_FILE, str(tmp_path / "pid")))
        by_command = find_root(service(ProcessFinder.COMMAND, f"time.sleep(60)\n {port}"))
        assert by_file is not None
        assert by_command is not None
        assert by_file.pid == by_command.pid == process.pid


def test_a_server_that_ended_is_no_server_and_a_new_one_is_found_again() -> None:
    """After the root's death only ``process_count`` 0 is said; a restart on the same port is found."""
    with tree() as (_, port):
        processes = ServerProcesses(service(ProcessFinder.PORT, str(port)), retry=0)
        assert values(processes)["process_count"] == 3
    assert values(processes) == {"process_count": 0}
    with tree(port) as (process, _):
        assert values(processes)["process_count"] == 3
        assert processes._root is not None
        assert processes._root.pid == process.pid


@pytest.mark.parametrize("text", ["", "no number", "999999999"])
def test_a_pid_file_that_names_nobody_finds_nobody(tmp_path: Path, text: str) -> None:
    """An empty, broken or stale pid file means that no process was found, not an error."""
    (tmp_path / "pid").write_text(text)
    assert values(ServerProcesses(service(ProcessFinder.PID_FILE, str(tmp_path / "pid")))) == {"process_count": 0}


def test_cpu_time_never_goes_down_when_a_worker_ends() -> None:
    """What a worker had used stays in the total after its death."""
    with tree() as (process, port):
        processes = ServerProcesses(service(ProcessFinder.PORT, str(port)))
        before = values(processes)
        child = psutil.Process(process.pid).children()[0]
        child.kill()
        deadline = time.monotonic() + 10
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.02)
        after = values(processes)
        assert after["process_cpu_time_seconds_total"] >= before["process_cpu_time_seconds_total"] > 0
