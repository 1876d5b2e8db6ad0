"""Where a service's processes begin: by the port it listens on, a pid file, its command line or its container."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from anvil_monitor.targets import ProcessFinder, Service

from . import containers, procfs
from .procfs import Stat

# Programs that hold a port for a container.
PROXIES = frozenset({b"docker-proxy", b"rootlessport", b"rootlesskit", b"slirp4netns", b"pasta", b"conmon"})
# A pid file may be this much older than the process it names (seconds) before it is not believed.
PID_FILE_SLACK = 60.0


class Table(Protocol):
    """The host's processes: ``ProcTable`` on Linux, ``PsutilTable`` elsewhere."""

    def pids(self) -> Iterable[int]: ...
    def stat(self, pid: int) -> Stat | None: ...
    def tree(self, roots: Iterable[int]) -> list[Stat]: ...
    def commands(self) -> Iterable[tuple[int, tuple[bytes, ...]]]: ...
    def command(self, pid: int) -> tuple[bytes, ...]: ...
    def resident(self, pid: int) -> int | None: ...
    def proportional(self, pid: int) -> int | None: ...
    def descriptors(self, pid: int) -> int | None: ...
    def descriptor_limit(self, pid: int) -> int | None: ...
    def uptime(self, stat: Stat) -> float: ...
    def cgroups(self, pid: int) -> bytes: ...
    def listeners(self, port: int) -> tuple[dict[int, set[bytes]], bool]: ...


class Found(NamedTuple):
    """``roots``: the topmost processes, the oldest first; empty with the ``reason`` why none was found."""

    roots: tuple[Stat, ...]
    reason: str = ""


def find(service: Service, table: Table, environ: Mapping[str, str] = os.environ) -> Found:
    """The roots of ``service``. There are several only where siblings share a port without a common supervisor."""
    match service.find_by:
        case ProcessFinder.PORT:
            return _listening(int(service.find), table)
        case ProcessFinder.PID_FILE:
            return _from_pid_file(Path(service.find), table)
        case ProcessFinder.COMMAND:
            return _by_command(service.find, table)
        case ProcessFinder.CONTAINER:
            return _in_container(service.find, table, environ)


def _listening(port: int, table: Table) -> Found:
    owners, listens = table.listeners(port)
    # Of a server that systemd started by its socket, systemd holds the socket, too.
    candidates = {pid: where for pid, where in owners.items() if pid != 1} or owners
    proxies = {pid for pid in candidates if _program(table, pid) in PROXIES}
    roots = _topmost(candidates.keys() - proxies, table)
    if roots:
        # Same port on another address: another server.
        here = candidates[roots[0].pid]
        return Found(tuple(dict.fromkeys(_climb(root, table) for root in roots if candidates[root.pid] & here)))
    if proxies:
        return Found((), f"port {port} is a container's: say which with container = ...")
    if listens:
        return Found((), f"port {port} is open, but by no process that can be seen: it is ending, or another user's "
                         "(run the exporter as that user or root, or use command or pid_file)")  # fmt: skip
    return Found((), f"nobody listens on port {port}")


def _program(table: Table, pid: int) -> bytes:
    return next(iter(table.command(pid)), b"").rpartition(b"/")[2]


def _climb(stat: Stat, table: Table) -> Stat:
    """A supervisor that does not hold its workers' port itself (granian) is above them."""
    for _ in range(64):
        parent = table.stat(stat.parent) if stat.parent > 1 else None
        if parent is None or not procfs.same_program(table.command(parent.pid), table.command(stat.pid)):
            break
        stat = parent
    return stat


def _from_pid_file(path: Path, table: Table) -> Found:
    try:
        with path.open("rb") as file:
            text, written = file.read(64), os.fstat(file.fileno()).st_mtime
        pid = int(text.split(None, 1)[0])
    except OSError as error:
        return Found((), f"{path} cannot be read: {error.strerror}")
    except (ValueError, IndexError):
        return Found((), f"{path} holds no pid")
    stat = table.stat(pid) if 0 < pid < 2**31 else None
    if stat is None:
        return Found((), f"{path} names process {pid}, which does not exist")
    if time.time() - table.uptime(stat) > written + PID_FILE_SLACK:
        return Found((), f"{path} is older than process {pid}, so it means another one that has ended")
    return Found((stat,))


def _by_command(part: str, table: Table) -> Found:
    wanted = part.encode("utf-8", "surrogateescape")
    own = _lineage(os.getpid(), table)
    pids = {pid for pid, words in table.commands() if pid not in own and wanted in b" ".join(words)}
    roots = _topmost(pids, table)
    return Found(roots[:1], "" if roots else f"no command line contains {part!r}")


def _in_container(container: str, table: Table, environ: Mapping[str, str]) -> Found:
    inside = _inside(container, table)
    reason = f"no process runs in container {container!r}"
    if not inside:
        identity, reason = containers.ask(container, containers.sockets(environ))
        inside = _inside(identity, table) if identity else set()
        reason = reason or f"container {container!r} runs, but its processes are not to be seen: `pid: host` is missing"
    roots = _topmost(inside, table)
    return Found(roots[:1], "" if roots else reason)


def _inside(container: str, table: Table) -> set[int]:
    return {pid for pid in list(table.pids()) if containers.belongs(table.cgroups(pid), container)}


def _lineage(pid: int, table: Table) -> set[int]:
    """``pid`` and its ancestors: a shell that runs server and monitor is neither."""
    found: set[int] = set()
    while pid and pid not in found:
        found.add(pid)
        stat = table.stat(pid)
        pid = stat.parent if stat else 0
    return found


def _topmost(pids: Iterable[int], table: Table) -> tuple[Stat, ...]:
    """Those of ``pids`` that descend from no other one of them, the oldest first."""
    known = {pid: stat for pid in pids if (stat := table.stat(pid)) is not None and not stat.ended}
    roots = [
        stat for stat in known.values() if not known.keys() & (_lineage(stat.parent, table) if stat.parent else set())
    ]
    return tuple(sorted(roots, key=lambda stat: (stat.started, stat.pid)))
