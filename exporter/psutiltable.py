"""The processes of a host that is not Linux, through psutil: what ``proctable.py`` is there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator

import psutil

from .procfs import Stat

# What a process that ended, or is somebody else's, answers.
GONE = (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied)


class PsutilTable:
    """The same questions as ``ProcTable``; what psutil cannot say is ``None`` or empty."""

    def pids(self) -> Iterable[int]:
        return psutil.pids()

    def stat(self, pid: int) -> Stat | None:
        with contextlib.suppress(*GONE), psutil.Process(pid).oneshot():
            process = psutil.Process(pid)
            times = process.cpu_times()
            reaped = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
            ended = process.status() == psutil.STATUS_ZOMBIE
            own, started = times.user + times.system, round(process.create_time() * 100)
            return Stat(pid, ended, process.ppid(), 0, own, reaped, process.num_threads(), started)
        return None

    def tree(self, roots: Iterable[int]) -> list[Stat]:
        found: dict[int, Stat] = {}
        for root in roots:
            with contextlib.suppress(*GONE):
                process = psutil.Process(root)
                for each in (process, *process.children(recursive=True)):
                    stat = self.stat(each.pid)
                    if stat is not None:
                        found[each.pid] = stat
        return list(found.values())

    def commands(self) -> Iterator[tuple[int, tuple[bytes, ...]]]:
        for pid in psutil.pids():
            if words := self.command(pid):
                yield pid, words

    def command(self, pid: int) -> tuple[bytes, ...]:
        with contextlib.suppress(*GONE, OSError):
            return tuple(word.encode("utf-8", "surrogateescape") for word in psutil.Process(pid).cmdline())
        return ()

    def resident(self, pid: int) -> int | None:
        with contextlib.suppress(*GONE):
            return int(psutil.Process(pid).memory_info().rss)
        return None

    def proportional(self, pid: int) -> int | None:
        return None

    def descriptors(self, pid: int) -> int | None:
        with contextlib.suppress(*GONE, AttributeError):
            return int(psutil.Process(pid).num_fds())
        return None

    def descriptor_limit(self, pid: int) -> int | None:
        return None

    def uptime(self, stat: Stat) -> float:
        return max(0.0, time.time() - stat.started / 100)

    def cgroups(self, pid: int) -> bytes:
        return b""

    def listeners(self, port: int) -> tuple[dict[int, set[bytes]], bool]:
        owners: dict[int, set[bytes]] = {}
        with contextlib.suppress(*GONE):
            for each in psutil.net_connections(kind="tcp"):
                if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid:
                    owners.setdefault(each.pid, set()).add(str(each.laddr.ip).encode())
        return owners, bool(owners)
