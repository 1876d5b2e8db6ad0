"""A server's process tree from outside, on real processes."""

from __future__ import annotations

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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anvil_monitor.exporter import procfs, proctable
from anvil_monitor.exporter.finding import Table, find
from anvil_monitor.exporter.processes import ServerProcesses, find_root
from anvil_monitor.exporter.proctable import ProcTable
from anvil_monitor.exporter.psutiltable import PsutilTable
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
    """Values by metric; of the restarts those of the root, those of workers under ``workers``."""
    found = {family.metric.name: family.samples for family in processes.collect()}
    worker = dict(found["process_restarts_total"][1].labels)
    assert worker["process_role"] == "worker"
    return {name: samples[0].value for name, samples in found.items()} | {
        "workers": found["process_restarts_total"][1].value
    }


DOWN = {"process_count": 0, "process_restarts_total": 0, "workers": 0}


def until(fact: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def test_the_whole_tree_is_summed() -> None:
    """Found by port, root and both children count as one server: memory is the sum of all three."""
    with tree() as (process, port):
        processes = ServerProcesses(service(ProcessFinder.PORT, str(port)))
        deadline = time.monotonic() + 10
        while (found := values(processes))["process_memory_usage_bytes"] < 40e6 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert find_root(service(ProcessFinder.PORT, str(port))) == process.pid
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
        assert by_file == by_command == process.pid


def test_a_server_that_ended_is_no_server_and_a_new_one_is_found_again() -> None:
    """After the root's death only ``process_count`` 0 is said; a restart on the same port is found and counted."""
    with tree() as (_, port):
        processes = ServerProcesses(service(ProcessFinder.PORT, str(port)), retry=0)
        assert values(processes)["process_count"] == 3
    assert values(processes) == DOWN
    until(lambda: values(processes) == DOWN and "nobody listens" in processes.problem)  # the last one lets go of it
    with tree(port) as (process, _):
        found = values(processes)
        assert found["process_count"] == 3
        assert found["process_uptime_seconds"] < 30
        assert (found["process_restarts_total"], found["workers"]) == (1, 0)
        assert find_root(service(ProcessFinder.PORT, str(port))) == process.pid
        assert processes.problem == ""


@pytest.mark.parametrize("text", ["", "no number", "999999999", "-1", "9" * 400, "1\0", "\xff"])
def test_a_pid_file_that_names_nobody_finds_nobody(tmp_path: Path, text: str) -> None:
    """An empty, broken or stale pid file means that no process was found, not an error."""
    (tmp_path / "pid").write_text(text, encoding="latin-1")
    processes = ServerProcesses(service(ProcessFinder.PID_FILE, str(tmp_path / "pid")))
    assert values(processes) == DOWN
    assert str(tmp_path / "pid") in processes.problem


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


def test_psutil_sees_the_same_tree() -> None:
    """The table for other platforms gives the same sums as the one that reads ``/proc``."""
    with tree() as (_, port):
        both: list[Table] = [ProcTable(), PsutilTable()]
        seen = [ServerProcesses(service(ProcessFinder.PORT, str(port)), processes=each) for each in both]
        names = [f"process_{name}" for name in ("count", "memory_usage_bytes", "memory_usage_bytes_max", "thread_count",
                                                "open_file_descriptor_count", "cpu_time_seconds_total")]  # fmt: skip

        def agree() -> bool:
            raw, other = (values(each) for each in seen)
            return all(raw[name] == other[name] for name in names) and (
                abs(raw["process_uptime_seconds"] - other["process_uptime_seconds"]) < 2
            )

        until(agree)  # the children are still touching their memory


def test_shared_pages_count_once_and_limits_are_told() -> None:
    """PSS lies under RSS and is asked at most every 30 s; the descriptor limit is that of the processes."""
    clock = [0.0]
    with tree() as (process, port):
        processes = ServerProcesses(service(ProcessFinder.PORT, str(port)), clock=lambda: clock[0])
        until(lambda: values(ServerProcesses(processes.service))["process_memory_usage_bytes"] > 40e6)
        found = values(processes)
        assert 0 < found["process_memory_pss_bytes"] < found["process_memory_usage_bytes"]
        assert (
            found["process_open_file_descriptor_limit"] == psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE)[0]
        )
        assert found["process_open_file_descriptor_count_max"] <= found["process_open_file_descriptor_count"]
        os.kill(psutil.Process(process.pid).children()[0].pid, signal.SIGKILL)
        until(lambda: values(processes)["process_count"] == 2)
        assert values(processes)["process_memory_pss_bytes"] == found["process_memory_pss_bytes"]
        clock[0] += 31
        assert values(processes)["process_memory_pss_bytes"] < found["process_memory_pss_bytes"]


APP = """
async def app(scope, receive, send):
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""
SERVERS = {
    "uvicorn": ("uvicorn", "served:app", "--workers", "2", "--log-level", "critical", "--port", "{port}"),
    "gunicorn": ("gunicorn", "served:app", "-k", "uvicorn_worker.UvicornWorker", "-w", "2", "--log-level", "critical",
                 "-b", "127.0.0.1:{port}"),
}  # fmt: skip


@contextmanager
def server(folder: Path, kind: str, port: int) -> Iterator[psutil.Process]:
    """A real supervisor with two workers."""
    (folder / "served.py").write_text(APP)
    command = [part.format(port=port) for part in SERVERS[kind]]
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=folder)
    root = psutil.Process(process.pid)
    try:
        yield root
    finally:
        for each in [root, *root.children(recursive=True)] if process.poll() is None else []:
            each.kill()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@pytest.mark.parametrize("kind", SERVERS)
def test_real_servers(tmp_path: Path, kind: str) -> None:
    """Master and workers by port; a killed worker that is replaced is a restart of a worker, a new master one of the
    root, found under its new pid; CPU time never goes down through all of it."""
    port = free_port()
    processes = ServerProcesses(service(ProcessFinder.PORT, str(port)), retry=0)
    cpu = [0.0]

    def now() -> dict[str, float]:
        found = values(processes)
        if "process_cpu_time_seconds_total" in found:
            assert found["process_cpu_time_seconds_total"] >= cpu[0]
            cpu[0] = found["process_cpu_time_seconds_total"]
        return found

    workers = 2 + (kind == "uvicorn")  # multiprocessing keeps a tracker of its own
    with server(tmp_path, kind, port) as root:
        until(lambda: now()["process_count"] == 1 + workers)
        assert find_root(processes.service) == root.pid
        assert (now()["process_restarts_total"], now()["workers"]) == (0, 0)
        for killed in (1, 2):
            victim = next(child for child in root.children() if "resource_tracker" not in " ".join(child.cmdline()))
            victim.kill()
            until(lambda killed=killed: now()["workers"] == killed)  # type: ignore[misc]
            until(lambda: now()["process_count"] == 1 + workers)
        assert now()["process_restarts_total"] == 0
    until(lambda: now()["process_count"] == 0)
    with server(tmp_path, kind, port) as root:
        until(lambda: now()["process_count"] == 1 + workers)
        assert find_root(processes.service) == root.pid
        assert (now()["process_restarts_total"], now()["workers"]) == (1, 2)


def test_two_services_on_one_host_are_not_mixed() -> None:
    """Two trees of the same program: each has its own three processes and its own memory."""
    with tree() as (one, first), tree() as (two, second):
        seen = {port: ServerProcesses(service(ProcessFinder.PORT, str(port))) for port in (first, second)}
        for process, port in ((one, first), (two, second)):
            assert find_root(service(ProcessFinder.PORT, str(port))) == process.pid
            assert values(seen[port])["process_count"] == 3
        os.kill(psutil.Process(one.pid).children()[0].pid, signal.SIGKILL)
        until(lambda: values(seen[first])["process_count"] == 2)
        assert values(seen[second])["process_count"] == 3


def test_a_helper_that_comes_and_goes_is_no_restart() -> None:
    """Children that run another program are in the tree, but their end and return is no worker's restart."""
    script = "import subprocess, sys\nwhile line := sys.stdin.readline():\n    p = subprocess.Popen(['sleep', '30'])\n"
    script += (
        "    print(p.pid, flush=True)\n    sys.stdin.readline()\n    p.kill()\n    p.wait()\n    print(flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin
        assert process.stdout
        (root := psutil.Process(process.pid)).is_running()
        processes = ServerProcesses(service(ProcessFinder.COMMAND, "while line := sys.stdin.readline"))
        for _ in range(3):
            process.stdin.write("start\n")
            helper = int(process.stdout.readline())
            until(lambda helper=helper: psutil.Process(helper).name() == "sleep")  # type: ignore[misc]
            assert values(processes)["process_count"] == 2
            process.stdin.write("stop\n")
            process.stdout.readline()
            assert values(processes)["process_count"] == 1
        assert values(processes)["workers"] == 0
        assert root.is_running()
        process.stdin.close()


def test_a_pid_file_older_than_its_process_is_not_believed(tmp_path: Path) -> None:
    """The pid of a server that ended may be another program's by now."""
    path = tmp_path / "pid"
    path.write_text(str(os.getpid()))
    old = psutil.Process().create_time() - 3600
    os.utime(path, (old, old))
    found = find(service(ProcessFinder.PID_FILE, str(path)), ProcTable())
    assert found.roots == ()
    assert "is older than process" in found.reason


def a_process(proc: Path, pid: int, parent: int, started: int = 100, **files: bytes) -> None:
    """``/proc/PID`` of a process that runs."""
    folder = proc / str(pid)
    folder.mkdir(parents=True, exist_ok=True)
    line = f"{pid} (x) S {parent} {pid} 0 0 -1 0 0 0 0 0 10 5 0 0 20 0 1 0 {started} 0 0"
    for name, text in {"stat": line.encode(), "statm": b"9 5 0 0 0 0 0", "cmdline": b"srv\0", **files}.items():
        (folder / name).write_bytes(text)
    (folder / "fd").mkdir(exist_ok=True)


def test_a_pid_that_changed_hands_is_another_process(tmp_path: Path) -> None:
    """The root's pid now belongs to a younger process: the root has gone; so has a child whose pid was taken over."""
    proc = tmp_path / "proc"
    for pid, parent in ((1, 0), (50, 1), (51, 50), (52, 50)):
        a_process(proc, pid, parent)
    (tmp_path / "pid").write_text("50")
    processes = ServerProcesses(service(ProcessFinder.PID_FILE, str(tmp_path / "pid")), processes=ProcTable(str(proc)))
    assert values(processes)["process_count"] == 3
    a_process(proc, 52, 1, started=900)
    assert values(processes)["process_count"] == 2
    a_process(proc, 50, 1, started=901)
    found = values(processes)
    assert found["process_restarts_total"] == 1
    assert found["process_count"] == 2


def test_workers_below_a_wrapper(tmp_path: Path) -> None:
    """The root may be an init or a shell: workers are counted below the supervisor that it started, helpers of workers
    are not."""
    proc = tmp_path / "proc"
    spawned = b"python\0-c\0from multiprocessing.spawn import spawn_main; spawn_main()\0"
    a_process(proc, 1, 0)
    a_process(proc, 50, 1, cmdline=b"/sbin/docker-init\0--\0uvicorn\0shop:app\0")
    a_process(proc, 51, 50, cmdline=b"uvicorn\0shop:app\0")
    for pid in (52, 53):
        a_process(proc, pid, 51, cmdline=spawned)
    a_process(proc, 60, 52, cmdline=spawned)
    processes = ServerProcesses(service(ProcessFinder.COMMAND, "uvicorn"), processes=ProcTable(str(proc)))
    assert values(processes)["process_count"] == 5
    for gone, new, parent in ((60, 61, 52), (53, 54, 51)):
        (proc / str(gone) / "stat").unlink()
        assert values(processes)["process_count"] == 4
        a_process(proc, new, parent, cmdline=spawned)
        assert values(processes)["process_count"] == 5
    assert (values(processes)["workers"], values(processes)["process_restarts_total"]) == (1, 0)


def test_the_table_reads_only_what_is_new(tmp_path: Path) -> None:
    """While the kernel has given no new pid nothing is listed; a new process and orphans are seen at once."""
    proc, clock = tmp_path / "proc", [0.0]
    for pid, parent in ((1, 0), (50, 1), (51, 50), (52, 51)):
        a_process(proc, pid, parent)
    (proc / "loadavg").write_bytes(b"0.1 0.1 0.1 1/4 52\n")
    seen = ProcTable(str(proc), clock=lambda: clock[0])
    pids = lambda: sorted(stat.pid for stat in seen.tree([50]))  # noqa: E731
    assert pids() == [50, 51, 52]
    a_process(proc, 53, 50)
    assert pids() == [50, 51, 52]  # the counter has not moved
    (proc / "loadavg").write_bytes(b"0.1 0.1 0.1 1/4 53\n")
    assert pids() == [50, 51, 52, 53]
    (proc / "51" / "stat").unlink()
    a_process(proc, 52, 1)
    assert pids() == [50, 53]
    a_process(proc, 53, 1)  # the pid has changed hands unnoticed: not a child any more
    assert pids() == [50]
    clock[0] = 61
    a_process(proc, 51, 50)
    assert pids() == [50, 51]


def test_a_tree_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a fork bomb as many processes are looked at as a collection has time for."""
    monkeypatch.setattr(proctable, "MOST_PROCESSES", 20)
    for pid in range(1, 60):
        a_process(tmp_path, pid, pid - 1)
    assert len(ProcTable(str(tmp_path)).tree([1])) == 20


TCP = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def listening(inode: int, port: int, address: bytes = b"00000000") -> bytes:
    return b"   0: %s:%04X 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 %d 1\n" % (address, port, inode)


def holds(proc: Path, pid: int, inode: int) -> None:
    (proc / str(pid) / "fd" / "3").symlink_to(f"socket:[{inode}]")


def test_who_may_hold_a_port(tmp_path: Path) -> None:
    """systemd that opened it first, a container's proxy, an unreadable owner, siblings and other addresses."""
    proc = tmp_path / "proc"
    for pid, parent in ((1, 0), (50, 1), (60, 1), (61, 60), (62, 60), (70, 1)):
        a_process(proc, pid, parent, started=pid)
    (proc / "1" / "net").mkdir()
    table = ProcTable(str(proc))

    def found(port: int) -> tuple[list[int], str]:
        roots, reason = find(service(ProcessFinder.PORT, str(port)), table)
        return [root.pid for root in roots], reason

    (proc / "1" / "net" / "tcp").write_bytes(
        TCP + listening(5, 80) + listening(6, 81) + listening(7, 82) + listening(8, 83) + listening(9, 83, b"0100007F")
        + listening(10, 84) + listening(11, 84) + b"garbage\n"
    )  # fmt: skip
    holds(proc, 1, 5)
    assert found(80) == ([1], "")  # nobody else: in a container process 1 is the server
    holds(proc, 50, 5)
    assert found(80) == ([50], "")
    assert found(81)[0] == []
    assert "by no process that can be seen" in found(81)[1]
    (proc / "50" / "cmdline").write_bytes(b"/usr/bin/docker-proxy\0-proto\0tcp\0")
    (proc / "50" / "fd" / "3").unlink()
    holds(proc, 50, 7)
    assert found(82) == ([], "port 82 is a container's: say which with container = ...")
    (proc / "50" / "fd" / "3").unlink()
    (proc / "50" / "cmdline").write_bytes(b"other\0")
    holds(proc, 50, 8)
    holds(proc, 70, 9)
    assert found(83) == ([50], "")  # 70 has the port on another address
    for pid, parent in ((61, b"granian\0"), (62, b"granian\0"), (60, b"granian\0")):
        (proc / str(pid) / "cmdline").write_bytes(parent)
    holds(proc, 61, 10)
    holds(proc, 62, 11)
    assert found(84) == ([60], "")  # the supervisor of siblings that share a port


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(text=st.binary(max_size=120), other=st.binary(max_size=120))
def test_garbage_of_other_programs_is_survived(tmp_path: Path, text: bytes, other: bytes) -> None:
    """Pid files, command lines, socket tables and process files of any content: numbers or none, no error."""
    proc = tmp_path / "proc"
    a_process(proc, 1, 0)
    a_process(proc, 50, 1, cmdline=text, limits=b"Max open files" + other, smaps_rollup=b"\nPss:" + text, cgroup=other)
    a_process(proc, 51, 50, stat=text, statm=other)
    (proc / "1" / "net").mkdir(exist_ok=True)
    (proc / "1" / "net" / "tcp").write_bytes(TCP + text + b"\n" + listening(5, 80) + other)
    (proc / "loadavg").write_bytes(other)
    (tmp_path / "pid").write_bytes(text)
    table = ProcTable(str(proc))
    for by, what in ((ProcessFinder.PORT, "80"), (ProcessFinder.PID_FILE, str(tmp_path / "pid")),
                     (ProcessFinder.COMMAND, "srv"), (ProcessFinder.CONTAINER, "ab" * 6)):  # fmt: skip
        found = values(ServerProcesses(service(by, what), processes=table))
        assert found["process_count"] >= 0
    assert len(table.tree([50])) in (1, 2)
    assert procfs.proportional(50, str(proc)) is None or procfs.proportional(50, str(proc)) is not None
