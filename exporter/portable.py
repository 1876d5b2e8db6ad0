"""The host through psutil: for platforms other than Linux, and the second opinion in the tests of ``host.py``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import psutil

from . import names
from .devices import MOST_DEVICES
from .exposition import Family, LabelPairs
from .kernel import family
from .procfs import PAGE

# Mounts of the kernel's own, of containers and of images say nothing about a disk that may fill.
PSEUDO_FILESYSTEMS = frozenset(
    {"autofs", "cgroup", "cgroup2", "devtmpfs", "overlay", "proc", "squashfs", "sysfs", "tmpfs"}
)


def collect() -> list[Family]:
    """Every ``system_*`` family. A source that this host does not offer is left out."""
    families = [*_cpu(), *_memory(), *_filesystems(), *_disks(), *_network()]
    return [family for family in families if family.samples]


def _cpu() -> Iterator[Family]:
    times = psutil.cpu_times()._asdict()
    # guest time is part of user time: counting it again would exceed the clock.
    modes = [((("cpu_mode", mode),), spent) for mode, spent in times.items() if not mode.startswith("guest")]
    yield family(names.SYSTEM_CPU, modes)
    yield family(names.SYSTEM_CPU_LOGICAL_COUNT, [((), psutil.cpu_count() or 1)])
    yield family(names.SYSTEM_UPTIME, [((), time.time() - psutil.boot_time())])
    load = [((("window", window),), value) for window, value in zip(("1m", "5m", "15m"), os.getloadavg(), strict=True)]
    yield family(names.SYSTEM_LOAD_AVERAGE, load)


def _memory() -> Iterator[Family]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    yield family(names.SYSTEM_MEMORY_LIMIT, [((), memory.total)])
    yield family(names.SYSTEM_MEMORY_AVAILABLE, [((), memory.available)])
    states = {state: getattr(memory, state, 0) for state in ("used", "free", "cached", "buffers")}
    usage = [((("system_memory_state", state),), amount) for state, amount in states.items()]
    yield family(names.SYSTEM_MEMORY, usage)
    paging = [((("system_paging_state", state),), getattr(swap, state)) for state in ("used", "free")]
    yield family(names.SYSTEM_PAGING, paging if swap.total else [])
    moved = [((("system_paging_direction", way),), value) for way, value in (("in", swap.sin), ("out", swap.sout))]
    yield family(names.SYSTEM_PAGING_OPERATIONS, [(labels, value / PAGE) for labels, value in moved])


def _filesystems() -> Iterator[Family]:
    usage: list[tuple[LabelPairs, float]] = []
    seen: set[str] = set()
    for part in psutil.disk_partitions(all=False)[:MOST_DEVICES]:
        # the same device mounted twice is one disk
        if part.fstype in PSEUDO_FILESYSTEMS or part.device in seen:
            continue
        try:
            disk = psutil.disk_usage(part.mountpoint)
        except OSError:  # a mount that may not be read, or has gone
            continue
        seen.add(part.device)
        place = (("system_device", part.device), ("system_filesystem_mountpoint", part.mountpoint))
        usage += [((*place, ("system_filesystem_state", state)), getattr(disk, state)) for state in ("used", "free")]
    yield family(names.SYSTEM_FILESYSTEM, usage)


def _disks() -> Iterator[Family]:
    disks = sorted((psutil.disk_io_counters(perdisk=True) or {}).items())[:MOST_DEVICES]
    directions = (("read", "read_bytes", "read_count"), ("write", "write_bytes", "write_count"))
    data: list[tuple[LabelPairs, float]] = []
    operations: list[tuple[LabelPairs, float]] = []
    for device, counters in disks:
        if device.startswith(("loop", "ram")):
            continue
        for direction, size, count in directions:
            labels = (("disk_io_direction", direction), ("system_device", device))
            data.append((labels, getattr(counters, size)))
            operations.append((labels, getattr(counters, count)))
    yield family(names.SYSTEM_DISK_IO, data)
    yield family(names.SYSTEM_DISK_OPERATIONS, operations)


def _network() -> Iterator[Family]:
    cards = sorted((psutil.net_io_counters(pernic=True) or {}).items())[:MOST_DEVICES]
    columns = {
        names.SYSTEM_NETWORK_IO: ("bytes_recv", "bytes_sent"),
        names.SYSTEM_NETWORK_PACKETS: ("packets_recv", "packets_sent"),
        names.SYSTEM_NETWORK_ERRORS: ("errin", "errout"),
        names.SYSTEM_NETWORK_DROPPED: ("dropin", "dropout"),
    }
    for metric, fields in columns.items():
        samples: list[tuple[LabelPairs, float]] = []
        for card, counters in cards:
            for direction, field in zip(("receive", "transmit"), fields, strict=True):
                labels = (("network_interface_name", card), ("network_io_direction", direction))
                samples.append((labels, getattr(counters, field)))
        yield family(metric, samples)
