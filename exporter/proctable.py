"""Which processes there are on a Linux host, and who is whose child: cheap enough to ask at every collection.

psutil walks every process for one list of children (6 ms for 270 of them). Here the parents are remembered, only pids
not seen before are read, and nothing at all while the kernel has given no new pid. (``/proc/PID/task/TID/children``
would do, but many kernels are built without it.)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator

from . import procfs
from .procfs import Stat

# A pid that changed hands between two looks keeps its old parent in here until then.
FORGET_AFTER = 60.0
# Of a tree that grows without end (a fork bomb) the rest is left out: a collection must end.
MOST_PROCESSES = 4096


class ProcTable:
    """The host's processes as ``proc`` shows them. Not thread-safe. ``clock`` counts seconds."""

    def __init__(self, proc: str = procfs.PROC, clock: Callable[[], float] = time.monotonic) -> None:
        self.proc = proc
        self._clock = clock
        self._parent: dict[int, int] = {}
        self._children: dict[int, list[int]] = {}
        self._last_pid = b""
        self._whole = float("-inf")

    def pids(self) -> Iterable[int]:
        """Every process there is."""
        self._refresh()
        return self._parent.keys()

    def stat(self, pid: int) -> Stat | None:
        return procfs.stat(pid, self.proc)

    def tree(self, roots: Iterable[int]) -> list[Stat]:
        """``roots`` and all that descend from them, each once; ended ones that nobody has asked for included."""
        self._refresh()
        found: dict[int, Stat] = {}
        waiting = [(pid, 0) for pid in roots]
        while waiting and len(found) < MOST_PROCESSES:
            pid, parent = waiting.pop()
            stat = procfs.stat(pid, self.proc)
            if stat is None or pid in found:
                continue
            if parent and stat.parent != parent:  # its parent has died, or the pid has changed hands
                self._whole = float("-inf")
                continue
            found[pid] = stat
            waiting += [(child, pid) for child in self._children.get(pid, ())]
        return list(found.values())

    def commands(self) -> Iterator[tuple[int, tuple[bytes, ...]]]:
        """Pid and command line of everything that has one."""
        for pid in list(self.pids()):
            if words := procfs.command(pid, self.proc):
                yield pid, words

    def command(self, pid: int) -> tuple[bytes, ...]:
        return procfs.command(pid, self.proc)

    def resident(self, pid: int) -> int | None:
        return procfs.resident(pid, self.proc)

    def proportional(self, pid: int) -> int | None:
        return procfs.proportional(pid, self.proc)

    def descriptors(self, pid: int) -> int | None:
        return procfs.descriptors(pid, self.proc)

    def descriptor_limit(self, pid: int) -> int | None:
        return procfs.descriptor_limit(pid, self.proc)

    def uptime(self, stat: Stat) -> float:
        return procfs.uptime(stat)

    def cgroups(self, pid: int) -> bytes:
        """The text of ``/proc/PID/cgroup``; empty where it cannot be read."""
        try:
            return procfs.read(f"{self.proc}/{pid}/cgroup")
        except OSError:
            return b""

    def listeners(self, port: int) -> tuple[dict[int, set[bytes]], bool]:
        """Who listens on TCP ``port``, with the addresses; and whether it is known at all that somebody does.

        Walks the open files of every process (45 ms on a busy host): for the search, not for every collection.
        """
        sockets = {b"socket:[%s]" % inode: address for inode, address in self._listening(port)}
        owners: dict[int, set[bytes]] = {}
        for pid in list(self.pids()) if sockets else ():
            folder = f"{self.proc}/{pid}/fd"
            try:
                for name in os.listdir(folder):  # noqa: PTH208
                    address = sockets.get(os.fsencode(os.readlink(f"{folder}/{name}")))  # noqa: PTH115
                    if address is not None:
                        owners.setdefault(pid, set()).add(address)
            except OSError:  # ended, or somebody else's
                continue
        return owners, bool(sockets)

    def _listening(self, port: int) -> Iterator[tuple[bytes, bytes]]:
        """Inode and address of the sockets that listen on ``port``, in this network and in that of process 1."""
        wanted, listen = b"%04X" % port, b"0A"
        for place in ("self/net/tcp", "self/net/tcp6", "1/net/tcp", "1/net/tcp6"):
            try:
                lines = procfs.read(f"{self.proc}/{place}").splitlines()
            except OSError:
                continue
            for line in lines[1:]:
                fields = line.split(None, 10)
                if len(fields) > 9 and fields[3] == listen and fields[1].endswith(b":" + wanted):
                    yield fields[9], fields[1]

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._whole >= FORGET_AFTER:
            self._parent.clear()
            self._whole, self._last_pid = now, b""
        try:
            last_pid = procfs.read(f"{self.proc}/loadavg").rsplit(None, 1)[-1]
        except (OSError, IndexError):
            last_pid = b""
        if last_pid and last_pid == self._last_pid:
            return
        self._last_pid = last_pid
        try:
            pids = {int(name) for name in os.listdir(self.proc) if name.isdecimal()}  # noqa: PTH208
        except (OSError, ValueError):
            pids = set()
        gone = self._parent.keys() - pids
        for pid in gone:
            del self._parent[pid]
        orphans = {pid for pid, parent in self._parent.items() if parent in gone} if gone else set()
        for pid in orphans | (pids - self._parent.keys()):
            stat = procfs.stat(pid, self.proc)
            if stat is not None:
                self._parent[pid] = stat.parent
            else:
                self._parent.pop(pid, None)
        self._children = {}
        for pid, parent in self._parent.items():
            self._children.setdefault(parent, []).append(pid)
