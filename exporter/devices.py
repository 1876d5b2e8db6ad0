"""File systems, disks and network cards of a Linux host. Bounded: beyond ``MOST_DEVICES`` of a kind none is told.

Label sets are made once a device and kept. https://docs.kernel.org/admin-guide/iostats.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache

from . import names, procfs
from .exposition import Family, LabelPairs, Sample

MOST_DEVICES = 64
SECTOR = 512  # what /proc/diskstats counts in, whatever the disk's own is
# Not a disk of its own: memory, files, what has no medium.
_NO_DISK = ("loop", "ram", "zram", "fd", "sr")
# One end of a container's cable (a new random name for each container), and the kernel's helpers for traffic shaping.
_NO_CARD = (b"veth", b"cali", b"ifb", b"dummy")
_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Filesystems:
    """Space and inodes of what is on a disk; the host's ``/`` is at ``root`` (empty: here)."""

    def __init__(self, proc: str, root: str) -> None:
        self._root = root
        self._proc = proc
        self._mounts = (b"", b"")
        self._places: list[tuple[str, LabelPairs]] = []

    def collect(self) -> Iterator[Family]:
        space, inodes = [], []
        for place, labels in self._on_disks():
            try:
                found = os.statvfs(place)
            except OSError:  # it may not be looked at, or has gone
                continue
            used, free, reserved = _states(labels)
            size = found.f_frsize
            space += [
                Sample("", used, float((found.f_blocks - found.f_bfree) * size)),
                Sample("", free, float(found.f_bavail * size)),
                Sample("", reserved, float((found.f_bfree - found.f_bavail) * size)),  # for root alone
            ]
            if found.f_files:  # btrfs and the like make inodes as needed
                inodes += [
                    Sample("", used, float(found.f_files - found.f_ffree)),
                    Sample("", free, float(found.f_ffree)),
                ]
        yield Family(names.SYSTEM_FILESYSTEM, space)
        yield Family(names.SYSTEM_INODES, inodes)

    def _on_disks(self) -> list[tuple[str, LabelPairs]]:
        """Where to look and under which labels. Parsed again only when a mount has changed."""
        table = f"{self._proc}/1/mounts" if self._root else f"{self._proc}/self/mounts"
        text = (procfs.read(table), procfs.read(f"{self._proc}/filesystems"))
        if text != self._mounts:
            self._places, self._mounts = mounts(*text, self._root), text
        return self._places


def mounts(table: bytes, types: bytes, root: str = "") -> list[tuple[str, LabelPairs]]:
    """Of every device with a file system the shortest mount point, as path to look at and labels.

    Only types that live on a device (so says the kernel: not ``nodev``) and ZFS: the kernel's own, containers' and
    images' layers say nothing about a disk that may fill, and a server of files that hangs would hang us.
    """
    on_device = {line.strip() for line in types.splitlines() if not line.startswith(b"nodev")} | {b"zfs"}
    on_device.discard(b"squashfs")
    places: dict[bytes, bytes] = {}
    for line in table.splitlines():
        device, point, kind, *_ = (*line.split(b" ", 3), b"", b"", b"")
        if kind in on_device and (device not in places or len(point) < len(places[device])):
            places[device] = point
    found: list[tuple[str, LabelPairs]] = []
    for device, point in list(places.items())[:MOST_DEVICES]:
        name, path = _unescaped(device), _unescaped(point)
        shown = (("system_device", _shown(name)), ("system_filesystem_mountpoint", _shown(path)))
        found.append((os.fsdecode(os.fsencode(root) + path), shown))
    return found


def _unescaped(text: bytes) -> bytes:
    return _ESCAPED.sub(lambda match: bytes((int(match.group(1), 8) & 255,)), text)


def _shown(text: bytes) -> str:
    return text.decode("utf-8", "replace")


@lru_cache(maxsize=4 * MOST_DEVICES)
def _states(labels: LabelPairs) -> tuple[LabelPairs, LabelPairs, LabelPairs]:
    used, free, reserved = ((*labels, ("system_filesystem_state", state)) for state in ("used", "free", "reserved"))
    return used, free, reserved


class Disks:
    """Whole disks: what goes through a partition goes through its disk, too."""

    def __init__(self, proc: str, sys: str) -> None:
        self._table, self._blocks = f"{proc}/diskstats", f"{sys}/block"
        self._kept: dict[bytes, tuple[LabelPairs, LabelPairs, LabelPairs] | None] = {}

    def collect(self) -> Iterator[Family]:
        data, operations, durations, busy = [], [], [], []
        for line in procfs.read(self._table).splitlines():
            fields = line.split()
            if len(fields) < 14:
                continue
            labels = self._kept[fields[2]] if fields[2] in self._kept else self._keep(fields[2])
            if labels is None:
                continue
            read, write, disk = labels
            operations += [Sample("", read, float(fields[3])), Sample("", write, float(fields[7]))]
            data += [Sample("", read, float(fields[5]) * SECTOR), Sample("", write, float(fields[9]) * SECTOR)]
            durations += [Sample("", read, float(fields[6]) / 1e3), Sample("", write, float(fields[10]) / 1e3)]
            busy.append(Sample("", disk, float(fields[12]) / 1e3))
        yield Family(names.SYSTEM_DISK_IO, data)
        yield Family(names.SYSTEM_DISK_OPERATIONS, operations)
        yield Family(names.SYSTEM_DISK_OPERATION_TIME, durations)
        yield Family(names.SYSTEM_DISK_IO_TIME, busy)

    def _keep(self, name: bytes) -> tuple[LabelPairs, LabelPairs, LabelPairs] | None:
        if len(self._kept) >= 16 * MOST_DEVICES:  # disks come and go
            self._kept.clear()
        disk, labels = name.decode("utf-8", "replace"), None
        blocks = self._blocks
        # a slash in a disk's name is an exclamation mark in the name of its folder
        whole = not os.path.isdir(blocks) or os.path.isdir(f"{blocks}/{disk.replace('/', '!')}")  # noqa: PTH112
        told = sum(1 for known in self._kept.values() if known)
        if whole and not disk.startswith(_NO_DISK) and told < MOST_DEVICES:
            device = ("system_device", disk)
            read, write = ((("disk_io_direction", direction), device) for direction in ("read", "write"))
            labels = read, write, (device,)
        self._kept[name] = labels
        return labels


class Network:
    """Cards as ``table`` (``/proc/PID/net/dev``) has them."""

    def __init__(self, table: str) -> None:
        self._table = table

    def collect(self) -> Iterator[Family]:
        data, packets, errors, dropped = [], [], [], []
        cards = [line.partition(b":") for line in procfs.read(self._table).splitlines()[2:]]
        for card, _, columns in [each for each in cards if not each[0].strip().startswith(_NO_CARD)][:MOST_DEVICES]:
            fields = columns.split()
            if len(fields) < 16:
                continue
            for labels, column in zip(_directions(card.strip()), (0, 8), strict=True):
                data.append(Sample("", labels, float(fields[column])))
                packets.append(Sample("", labels, float(fields[column + 1])))
                errors.append(Sample("", labels, float(fields[column + 2])))
                dropped.append(Sample("", labels, float(fields[column + 3])))
        yield Family(names.SYSTEM_NETWORK_IO, data)
        yield Family(names.SYSTEM_NETWORK_PACKETS, packets)
        yield Family(names.SYSTEM_NETWORK_ERRORS, errors)
        yield Family(names.SYSTEM_NETWORK_DROPPED, dropped)


@lru_cache(maxsize=4 * MOST_DEVICES)
def _directions(card: bytes) -> tuple[LabelPairs, LabelPairs]:
    name = ("network_interface_name", card.decode("utf-8", "replace"))
    return (name, ("network_io_direction", "receive")), (name, ("network_io_direction", "transmit"))
