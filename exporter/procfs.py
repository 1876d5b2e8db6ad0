"""What Linux's ``/proc`` says of one process, read without psutil (which is not in the user's server).

Other programs are free to end, to be replaced under the same pid or to be somebody else's between two reads: whatever
cannot be read is ``None``. The root of ``/proc`` is an argument.
https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

LINUX: Final = sys.platform.startswith("linux")
PROC: Final = "/proc"
# Clock ticks a second and bytes a page: what the kernel counts in.
TICKS: Final = float(os.sysconf("SC_CLK_TCK")) if LINUX else 100.0
PAGE: Final = os.sysconf("SC_PAGE_SIZE") if LINUX else 4096
_CHUNK: Final = 65_536
# Words of a command line that multiprocessing gives to a child it starts (uvicorn, hypercorn, granian).
_SPAWNED = (b"multiprocessing.spawn", b"multiprocessing.forkserver", b"--multiprocessing-fork")
# What setproctitle makes of a command line: ``gunicorn: master [shop]``.
_TITLE = b": "
# A process that is dead, or dead and not yet asked for by its parent.
_ENDED: Final = frozenset({b"Z", b"X", b"x"})


class Stat(NamedTuple):
    """One line of ``/proc/PID/stat``. ``started`` (ticks since boot) tells two processes with the same pid apart."""

    pid: int
    ended: bool
    parent: int
    group: int
    cpu: float  # seconds, its own
    reaped: float  # seconds, of its children that ended and that it has asked for
    threads: int
    started: int

    @property
    def key(self) -> tuple[int, int]:
        return self.pid, self.started


def read(path: str) -> bytes:
    """The whole file. Raises ``OSError``. Kernel files come in pieces of a page, so one read is not enough."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = piece = os.read(descriptor, _CHUNK)
        while piece := os.read(descriptor, _CHUNK):
            text += piece
        return text
    finally:
        os.close(descriptor)


def parse_stat(text: bytes) -> Stat | None:
    """``None`` for what is no such line. The name in it may hold spaces, brackets, line ends: the last ``)`` counts."""
    head, _, tail = text.rpartition(b")")
    fields = tail.split()
    try:
        pid, threads, started = int(head.partition(b" ")[0]), int(fields[17]), int(fields[19])
        own, reaped = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
        ended, parent, group = fields[0] in _ENDED, int(fields[1]), int(fields[2])
        return Stat(pid, ended, parent, group, own / TICKS, reaped / TICKS, threads, started)
    except (ValueError, IndexError, OverflowError):
        return None


def stat(pid: int, proc: str = PROC) -> Stat | None:
    """The process ``pid``; one that has ended, but is not yet asked for, is still there."""
    try:
        return parse_stat(read(f"{proc}/{pid}/stat"))
    except OSError:
        return None


def uptime(stat: Stat) -> float:
    """Seconds since its start."""
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - stat.started / TICKS)


def resident(pid: int, proc: str = PROC) -> int | None:
    """Resident memory in bytes. ``statm`` is exact where ``stat`` may be megabytes off (Linux 6.2 counts per CPU)."""
    try:
        return int(read(f"{proc}/{pid}/statm").split(None, 2)[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return None


def descriptors(pid: int, proc: str = PROC) -> int | None:
    """Open file descriptors. Since Linux 6.2 the folder's size is their number; before, they are counted."""
    folder = f"{proc}/{pid}/fd"
    try:
        return os.stat(folder).st_size or len(os.listdir(folder))  # noqa: PTH116, PTH208  three times as fast
    except OSError:
        return None


def command(pid: int, proc: str = PROC) -> tuple[bytes, ...]:
    """The command line, word by word; empty for kernel threads and for what has gone."""
    try:
        return tuple(read(f"{proc}/{pid}/cmdline").rstrip(b"\0").split(b"\0"))
    except OSError:
        return ()


def same_program(parent: Sequence[bytes], worker: Sequence[bytes]) -> bool:
    """Whether these are the command lines of a supervisor and of a worker that it made, plainly."""
    if not parent or not worker:
        return False
    if parent == worker:  # a fork
        return True
    if any(mark in word for word in worker for mark in _SPAWNED):
        return True
    program, colon, _ = worker[0].partition(_TITLE)
    return bool(colon) and parent[0].startswith(program + colon)


def descriptor_limit(pid: int, proc: str = PROC) -> int | None:
    """How many files it may open (the soft limit); ``None``: unlimited, or not to be read."""
    try:
        words = read(f"{proc}/{pid}/limits").partition(b"Max open files")[2].split(None, 1)
        return int(words[0])
    except (OSError, ValueError, IndexError):
        return None


def proportional(pid: int, proc: str = PROC) -> int | None:
    """Its share of resident memory in bytes: pages that several processes use are divided among them.

    The kernel walks the page tables: 2.6 ms for 1 GiB. Only root and the process's own user may ask.
    """
    try:
        words = read(f"{proc}/{pid}/smaps_rollup").partition(b"\nPss:")[2].split(None, 1)
        return int(words[0]) * 1024
    except (OSError, ValueError, IndexError):
        return None
