"""What a service's control group allows it and did to it: memory and CPU limits, kills, throttling. cgroup v1 and v2.

A limit may be set on the group itself or on one above it: the tightest counts, with the usage of the group that has it.
Where there is no limit (or no group: the root) there is nothing to tell.
https://docs.kernel.org/admin-guide/cgroup-v2.html https://docs.kernel.org/admin-guide/cgroup-v1/
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from . import names, procfs
from .exposition import Family, Sample
from .names import Metric

# cgroup v1 says "no limit" with the greatest number of pages that it can count.
UNLIMITED: Final = 2**60
_ESCAPED = re.compile(rb"\\([0-7]{3})")
_CONTROLLERS: Final = (b"memory", b"cpu", b"pids")


class Mount(NamedTuple):
    """A hierarchy: ``controllers`` is empty for v2. ``inside`` is the group that is seen at ``place``."""

    controllers: frozenset[bytes]
    inside: bytes
    place: bytes


class Group(NamedTuple):
    """The folders of one controller, from the group itself up to what is visible of its hierarchy."""

    version: int
    folders: tuple[str, ...]


class Cgroups:
    """The groups of processes, as ``proc`` names them; ``root`` is where the host's ``/`` is (empty: here)."""

    def __init__(self, proc: str = procfs.PROC, root: str = "") -> None:
        self._proc, self._root = proc, root
        self._known: dict[bytes, dict[bytes, Group]] = {}

    def families(self, pid: int | str, service: str) -> list[Family]:
        """``container_*`` of the group of ``pid``, labelled with ``service``; empty where nothing can be read."""
        try:
            member = procfs.read(f"{self._proc}/{pid}/cgroup")
            if member not in self._known:
                mounts = f"{self._root}/proc/1/mountinfo" if self._root else f"{self._proc}/self/mountinfo"
                if len(self._known) >= 64:  # a server that is restarted has a new group each time
                    self._known.clear()
                self._known[member] = groups(procfs.read(mounts), member, self._root)
        except OSError:
            return []
        labels = (("service", service),)
        return [Family(metric, (Sample("", labels, float(value)),)) for metric, value in _told(self._known[member])]


def groups(table: bytes, membership: bytes, root: str = "") -> dict[bytes, Group]:
    """By controller where its files are, from a ``mountinfo`` and a ``/proc/PID/cgroup``."""
    mounts = list(_mounts(table))
    found: dict[bytes, Group] = {}
    for line in membership.splitlines():
        _, listed, path = (*line.split(b":", 2), b"", b"", b"")[:3]
        mine = frozenset(listed.split(b",")) & set(_CONTROLLERS)
        for mount in mounts:
            if not mine & mount.controllers if listed else mount.controllers:
                continue
            folders = _folders(mount, path, root)
            for controller in mine or _CONTROLLERS:
                # In a mixed host v1 has the controllers, v2 only the groups.
                if folders and (listed or controller not in found):
                    found[controller] = Group(1 if listed else 2, folders)
    return found


def _mounts(table: bytes) -> Iterator[Mount]:
    for line in table.splitlines():
        left, _, right = line.partition(b" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        inside, place = (_ESCAPED.sub(_unescape, field) for field in fields[3:5])
        if kind[0] == b"cgroup2":
            yield Mount(frozenset(), inside, place)
        elif kind[0] == b"cgroup" and (mine := frozenset(kind[2].split(b",")) & set(_CONTROLLERS)):
            yield Mount(mine, inside, place)


def _unescape(match: re.Match[bytes]) -> bytes:
    return bytes((int(match.group(1), 8) & 255,))


def _folders(mount: Mount, path: bytes, root: str) -> tuple[str, ...]:
    """Empty where the group lies outside of what is mounted: another container's, seen from a container."""
    place = (root + mount.place.decode("utf-8", "surrogateescape")).rstrip("/")
    inside, parts = _parts(mount.inside), _parts(path)
    if b"\0" in path or len(parts) > 32:
        return ()
    if ".." in inside or ".." in parts:
        return _from_namespace(place, inside, parts)
    if parts[: len(inside)] != inside:
        return ()
    return _upwards(place, parts[len(inside) :])


def _parts(path: bytes) -> list[str]:
    return [part.decode("utf-8", "surrogateescape") for part in path.split(b"/") if part]


def _upwards(place: str, steps: list[str]) -> tuple[str, ...]:
    return tuple("/".join((place, *steps[:depth])) for depth in range(len(steps), -1, -1))


def _from_namespace(place: str, inside: list[str], parts: list[str]) -> tuple[str, ...]:
    """A reader in a cgroup namespace is told ways that begin at its own group: up (``..``), then down.

    How far up the mounted group is, it is told, too; the names on the way it is not. They are found by looking: the id
    of a container is there only once.
    """
    up, down = parts.count(".."), [part for part in parts if part != ".."]
    unknown = len(inside) - up
    if set(inside) - {".."} or parts[:up].count("..") != up or not 0 <= unknown <= 3 or not down:
        return ()
    folders = glob.glob("/".join((glob.escape(place), *["*"] * unknown, *map(glob.escape, down))))  # noqa: PTH207
    if len(folders) != 1:
        return ()
    return _upwards(place, folders[0].removeprefix(place).strip("/").split("/"))


def _told(mine: Mapping[bytes, Group]) -> Iterator[tuple[Metric, float]]:
    for controller, tell in ((b"memory", _memory), (b"cpu", _cpu), (b"pids", _pids)):
        if group := mine.get(controller):
            yield from tell(group)


def _memory(group: Group) -> Iterator[tuple[Metric, float]]:
    v1 = group.version == 1
    folder, limit = _tightest(group, "memory.limit_in_bytes" if v1 else "memory.max")
    if folder:
        used = _number(f"{folder}/memory.usage_in_bytes" if v1 else f"{folder}/memory.current")
        stat = _table(f"{folder}/memory.stat")
        yield names.CONTAINER_MEMORY_LIMIT, limit
        if used is not None:
            yield names.CONTAINER_MEMORY, used
            # Pages of files that nobody has used lately go first when memory is short: they are no need.
            idle = stat.get(b"total_inactive_file" if v1 else b"inactive_file", 0)
            yield names.CONTAINER_MEMORY_WORKING_SET, max(0, used - idle)
    if folder or len(group.folders) > 1:
        own = group.folders[0]
        kills = _table(f"{own}/memory.oom_control" if v1 else f"{own}/memory.events").get(b"oom_kill")
        if kills is not None:
            yield names.CONTAINER_OOM_KILLS, kills


def _cpu(group: Group) -> Iterator[tuple[Metric, float]]:
    limits = [(_cores(folder, group.version), folder) for folder in group.folders]
    limited = [(cores, folder) for cores, folder in limits if cores is not None]
    if not limited:
        return
    cores, folder = min(limited)
    yield names.CONTAINER_CPU_LIMIT, cores
    stat = _table(f"{folder}/cpu.stat")
    waited = stat.get(b"throttled_time", 0) / 1e9 if group.version == 1 else stat.get(b"throttled_usec", 0) / 1e6
    if b"nr_throttled" in stat:
        yield names.CONTAINER_CPU_THROTTLED, waited
        yield names.CONTAINER_CPU_PERIODS, stat.get(b"nr_periods", 0)
        yield names.CONTAINER_CPU_THROTTLED_PERIODS, stat[b"nr_throttled"]


def _cores(folder: str, version: int) -> float | None:
    if version == 1:
        quota, period = _number(f"{folder}/cpu.cfs_quota_us"), _number(f"{folder}/cpu.cfs_period_us")
    else:
        quota, period = (*_numbers(f"{folder}/cpu.max"), None, None)[:2]
    return quota / period if quota and period and 0 < quota < UNLIMITED and period > 0 else None


def _pids(group: Group) -> Iterator[tuple[Metric, float]]:
    folder, limit = _tightest(group, "pids.max")
    if folder and (count := _number(f"{folder}/pids.current")) is not None:
        yield names.CONTAINER_THREADS, count
        yield names.CONTAINER_THREADS_LIMIT, limit


def _tightest(group: Group, file: str) -> tuple[str, int]:
    """The folder with the least limit, and the limit; empty where there is none."""
    found = [(limit, folder) for folder in group.folders if (limit := _number(f"{folder}/{file}")) is not None]
    limit, folder = min(found, default=(UNLIMITED, ""))
    return (folder, limit) if 0 <= limit < UNLIMITED else ("", 0)


def _numbers(path: str) -> tuple[int | None, ...]:
    """The numbers of a file; ``None`` for words (``max``)."""
    try:
        words = procfs.read(path).split()
    except OSError:
        return ()
    # A kernel's number has at most 20 digits.
    return tuple(int(word) if len(word) <= 20 and word.removeprefix(b"-").isdigit() else None for word in words)


def _number(path: str) -> int | None:
    return next(iter(_numbers(path)), None)


def _table(path: str) -> dict[bytes, int]:
    """A file of names and numbers."""
    try:
        lines = [line.split() for line in procfs.read(path).splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and len(line[1]) <= 20 and line[1].isdigit()}
