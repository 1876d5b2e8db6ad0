"""A server's processes, seen from outside: found, the whole tree summed, found again after a restart.

The root is found by the port it listens on, a pid file or its command line (``targets.Service.find_by``); the tree is
the root and all its descendants, so that a supervisor with any number of workers is one server. The root is kept
between collections: looking a port up walks the kernel's table of connections (45 ms on a busy host) and is done only
when the known root has gone.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from anvil_monitor.targets import ProcessFinder, Service

from . import names
from .exposition import Family, Sample

# What a process that ended, or is somebody else's, answers.
GONE = (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied)


def find_root(service: Service) -> psutil.Process | None:
    """The root process of ``service``: the topmost of its own tree, or ``None`` while there is none."""
    match service.find_by:
        case ProcessFinder.PORT:
            found = _listening(int(service.find))
        case ProcessFinder.PID_FILE:
            found = _from_pid_file(Path(service.find))
        case ProcessFinder.COMMAND:
            found = _by_command(service.find)
    return found


def _listening(port: int) -> psutil.Process | None:
    """Who listens on ``port``. Workers share the socket with their supervisor, psutil names any one of them: climb."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return None
    owner = _topmost({each.pid for each in connections if each.pid and _is_listener(each, port)})
    with contextlib.suppress(*GONE):
        for parent in owner.parents() if owner else []:
            if not any(_is_listener(each, port) for each in parent.net_connections(kind="tcp")):
                break
            owner = parent
    return owner


def _is_listener(connection: Any, port: int) -> bool:
    return connection.status == psutil.CONN_LISTEN and bool(connection.laddr) and connection.laddr.port == port


def _from_pid_file(path: Path) -> psutil.Process | None:
    try:
        return psutil.Process(int(path.read_text(encoding="ascii").strip()))
    except (OSError, ValueError, *GONE):
        return None


def _by_command(part: str) -> psutil.Process | None:
    pids = set()
    for process in psutil.process_iter():
        with contextlib.suppress(*GONE):
            if process.pid != os.getpid() and part in " ".join(process.cmdline()):
                pids.add(process.pid)
    return _topmost(pids)


def _topmost(pids: set[int]) -> psutil.Process | None:
    """Of processes that descend from each other the ancestor; of unrelated ones the oldest."""
    roots: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(*GONE):
            process = psutil.Process(pid)
            if not any(parent.pid in pids for parent in process.parents()):
                roots.append(process)
    with contextlib.suppress(*GONE):
        return min(roots, key=lambda process: (process.create_time(), process.pid), default=None)
    return None


def _has_memory(process: psutil.Process) -> bool:
    """Whether it still runs: one that is being ended has no memory any more, and may hold its port a moment longer."""
    try:
        return bool(process.memory_info().rss)
    except GONE:
        return False


class ServerProcesses:
    """The process tree of one service as metric families. ``collect`` is not thread-safe; call it from one place."""

    def __init__(self, service: Service, *, retry: float = 5.0) -> None:
        self.service = service
        self._retry = retry
        self._root: psutil.Process | None = None
        self._looked = float("-inf")
        self._ended_cpu = 0.0
        self._cpu: dict[tuple[int, float], float] = {}

    def collect(self) -> list[Family]:
        """``process_*`` of the tree; while none is found, ``process_count`` 0 and nothing else."""
        tree = [process for process in self._tree() if _has_memory(process)]
        label = (("service", self.service.name),)
        count = [Family(names.PROCESS_COUNT, [Sample("", label, float(len(tree)))])]
        if not tree:
            return count
        memory, descriptors, threads = [], 0, 0
        alive: dict[tuple[int, float], float] = {}
        for process in tree:
            with contextlib.suppress(*GONE), process.oneshot():
                times = process.cpu_times()
                memory.append(process.memory_info().rss)
                threads += process.num_threads()
                alive[process.pid, process.create_time()] = times.user + times.system
                descriptors += process.num_fds()
        # A worker that was replaced takes its CPU time away: what it had used stays, the total never goes down.
        self._ended_cpu += sum(used for key, used in self._cpu.items() if key not in alive)
        self._cpu = alive
        values = (
            (names.PROCESS_MEMORY, float(sum(memory))),
            (names.PROCESS_MEMORY_MAX, float(max(memory, default=0))),
            (names.PROCESS_CPU, self._ended_cpu + sum(alive.values())),
            (names.PROCESS_FDS, float(descriptors)),
            (names.PROCESS_THREADS, float(threads)),
            (names.PROCESS_UPTIME, max(0.0, time.time() - tree[0].create_time())),
        )
        return count + [Family(metric, [Sample("", label, value)]) for metric, value in values]

    def _tree(self) -> Iterator[psutil.Process]:
        root = self._find()
        if root is None:
            return
        try:
            children = root.children(recursive=True)
        except GONE:
            self._root = None
            return
        yield root
        yield from children

    def _find(self) -> psutil.Process | None:
        if self._root is not None:
            with contextlib.suppress(*GONE):
                if self._root.is_running() and self._root.status() != psutil.STATUS_ZOMBIE:
                    return self._root
            self._root, self._looked = None, float("-inf")
        # Looking is dear (see above): while nothing is found, once in `retry` seconds.
        if time.monotonic() - self._looked >= self._retry:
            self._looked = time.monotonic()
            self._root = find_root(self.service)
        return self._root
