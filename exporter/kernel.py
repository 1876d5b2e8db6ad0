"""The host's CPU, memory, tasks and open files out of Linux's ``/proc``. Raises ``OSError``, ``ValueError`` and so on
where a file is missing or not as expected: ``host.py`` leaves the source out.

https://docs.kernel.org/filesystems/proc.html
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator

from . import names, procfs
from .exposition import Family, LabelPairs, Sample
from .names import Metric

_STAT = re.compile(rb"^(cpu|ctxt|processes|procs_running|procs_blocked) +(.*)$", re.MULTILINE)
# Columns of the line `cpu`. Guest time is part of user and nice: counted again it would exceed the clock.
_MODES = tuple(
    (("cpu_mode", mode),)
    for mode in ("user", "nice", "system", "idle", "iowait", "interrupt", "softirq", "steal")
)  # fmt: skip
_WINDOWS = tuple((("window", window),) for window in ("1m", "5m", "15m"))
_STATES: dict[str, LabelPairs] = {
    state: (("system_memory_state", state),) for state in ("used", "free", "cached", "buffers")
}
_SWAP: dict[str, LabelPairs] = {state: (("system_paging_state", state),) for state in ("used", "free")}
_IN, _OUT = (("system_paging_direction", "in"),), (("system_paging_direction", "out"),)
_MAJOR, _MINOR = (("system_paging_fault_type", "major"),), (("system_paging_fault_type", "minor"),)
_RUNNING, _BLOCKED = (("system_process_status", "running"),), (("system_process_status", "blocked"),)


def family(metric: Metric, samples: Iterable[tuple[LabelPairs, float]]) -> Family:
    """``samples`` as a family."""
    return Family(metric, [Sample("", labels, float(value)) for labels, value in samples])


def one(metric: Metric, value: float) -> Family:
    """A family of one sample without labels."""
    return Family(metric, (Sample("", (), float(value)),))


def cpu(proc: str) -> Iterator[Family]:
    """CPU time by mode, load, tasks, uptime."""
    found = dict(_STAT.findall(procfs.read(f"{proc}/stat")))
    spent = [int(ticks) / procfs.TICKS for ticks in found[b"cpu"].split()[: len(_MODES)]]
    yield family(names.SYSTEM_CPU, zip(_MODES, spent, strict=False))
    yield one(names.SYSTEM_CPU_LOGICAL_COUNT, os.cpu_count() or 1)
    yield one(names.SYSTEM_CONTEXT_SWITCHES, int(found[b"ctxt"]))
    yield one(names.SYSTEM_PROCESS_CREATED, int(found[b"processes"]))
    tasks = ((_RUNNING, int(found[b"procs_running"])), (_BLOCKED, int(found[b"procs_blocked"])))
    yield family(names.SYSTEM_PROCESS_COUNT, tasks)
    # Not from the line `btime`, which moves when the clock is set.
    yield one(names.SYSTEM_UPTIME, time.clock_gettime(time.CLOCK_BOOTTIME))
    loads = procfs.read(f"{proc}/loadavg").split()
    yield family(names.SYSTEM_LOAD_AVERAGE, zip(_WINDOWS, map(float, loads[:3]), strict=True))
    yield one(names.SYSTEM_THREADS, int(loads[3].partition(b"/")[2]))


def memory(proc: str) -> Iterator[Family]:
    """Memory and swap by state; paging; the kernel's kills. The states of memory add up to its limit."""
    text = b"\n" + procfs.read(f"{proc}/meminfo")
    total, free, buffers = (1024 * _after(text, key) for key in (b"\nMemTotal:", b"\nMemFree:", b"\nBuffers:"))
    # What the kernel gives back on demand of its own caches counts as cache, as in `free`.
    cached = 1024 * (_after(text, b"\nCached:") + _after(text, b"\nSReclaimable:"))
    yield one(names.SYSTEM_MEMORY_LIMIT, total)
    yield one(names.SYSTEM_MEMORY_AVAILABLE, 1024 * _after(text, b"\nMemAvailable:"))
    amounts = {"used": max(0, total - free - buffers - cached), "free": free, "cached": cached, "buffers": buffers}
    yield family(names.SYSTEM_MEMORY, [(_STATES[state], amount) for state, amount in amounts.items()])
    if swap := 1024 * _after(text, b"\nSwapTotal:"):
        unused = 1024 * _after(text, b"\nSwapFree:")
        yield family(names.SYSTEM_PAGING, ((_SWAP["used"], swap - unused), (_SWAP["free"], unused)))
    text = procfs.read(f"{proc}/vmstat")
    moved = ((_IN, _after(text, b"\npswpin ")), (_OUT, _after(text, b"\npswpout ")))
    yield family(names.SYSTEM_PAGING_OPERATIONS, moved)
    faults, major = _after(text, b"\npgfault "), _after(text, b"\npgmajfault ")
    yield family(names.SYSTEM_PAGING_FAULTS, ((_MAJOR, major), (_MINOR, faults - major)))
    if b"\noom_kill " in text:  # since Linux 4.13
        yield one(names.SYSTEM_OOM_KILLS, _after(text, b"\noom_kill "))


def _after(text: bytes, key: bytes) -> int:
    """The number after ``key``; a fourth of a regular expression's time. Raises ``ValueError``."""
    start = text.index(key) + len(key)
    return int(text[start : start + 40].split(None, 1)[0])


def limits(proc: str) -> Iterator[Family]:
    """Open files and how many there may be."""
    opened, _, most = procfs.read(f"{proc}/sys/fs/file-nr").split()
    yield one(names.SYSTEM_FDS, int(opened))
    yield one(names.SYSTEM_FDS_LIMIT, int(most))
