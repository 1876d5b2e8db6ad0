"""A server's processes, seen from outside: found, the whole tree summed, found again after a restart.

The tree is the root (``finding.py``) and all its descendants, so that a supervisor with any number of workers is one
server. The root is kept between collections: it is searched again only when it has gone.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from functools import cache

from anvil_monitor.targets import Service

from . import names, procfs
from .cgroup import Cgroups
from .exposition import Family, LabelPairs, Sample
from .finding import Found, Table, find
from .host import host_root
from .names import Metric
from .procfs import Stat

logger = logging.getLogger("anvil_monitor.exporter")

# How often (seconds) what is dear is asked: the share of memory makes the kernel walk page tables.
SLOWLY = 30.0
# A dead worker's CPU time is with its parent once that has asked for it. After this many collections it never will.
PATIENCE = 3

Key = tuple[int, int]


def find_root(service: Service) -> int | None:
    """The pid of the root process of ``service``, or ``None`` while there is none."""
    roots = find(service, table()).roots
    return roots[0].pid if roots else None


def why_not_found(service: Service) -> str:
    """What stands in the way of finding it, and what to do; empty when it is found."""
    return find(service, table()).reason


@cache
def table() -> Table:
    """The host's processes, known once for all services."""
    if procfs.LINUX:
        from .proctable import ProcTable

        return ProcTable()
    from .psutiltable import PsutilTable

    return PsutilTable()


class ServerProcesses:
    """The process tree of one service as metric families. ``collect`` is not thread-safe; call it from one place.

    ``retry``: seconds between two searches while none is found. ``clock`` counts seconds.
    """

    def __init__(
        self,
        service: Service,
        *,
        retry: float = 5.0,
        processes: Table | None = None,
        cgroups: Cgroups | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service = service
        self.problem = ""  # why none is found
        self._labels: LabelPairs = (("service", service.name),)
        self._retry, self._clock = retry, clock
        self._table = processes or table()
        self._cgroups = cgroups or Cgroups(root=host_root(os.environ))
        self._roots: tuple[Stat, ...] = ()
        self._looked = float("-inf")
        self._cpu = _Total()
        self._restarts, self._worker_restarts = _Replaced(), _Replaced()
        self._is_worker: dict[tuple[Key, Key], bool] = {}
        self._asked = float("-inf")
        self._slow: list[tuple[Metric, float]] = []

    def collect(self) -> list[Family]:
        """``process_*`` of the tree and ``container_*`` of its root's control group.

        While none is found only ``process_count`` 0 and the restarts counted so far.
        """
        tree, sizes = self._tree()
        self._count_restarts(tree)
        values: list[tuple[Metric, float]] = [(names.PROCESS_COUNT, float(len(sizes)))]
        if sizes:
            values += self._values(tree, sizes)
        families = [Family(metric, (Sample("", self._labels, value),)) for metric, value in values]
        counts = (("root", self._restarts.count), ("worker", self._worker_restarts.count))
        samples = [Sample("", (*self._labels, ("process_role", role)), float(count)) for role, count in counts]
        families.append(Family(names.PROCESS_RESTARTS, samples))
        return families + (self._cgroups.families(self._roots[0].pid, self.service.name) if sizes else [])

    def _values(self, tree: list[Stat], sizes: dict[int, int]) -> list[tuple[Metric, float]]:
        living = [stat for stat in tree if stat.pid in sizes]
        values = [
            (names.PROCESS_MEMORY, float(sum(sizes.values()))),
            (names.PROCESS_MEMORY_MAX, float(max(sizes.values()))),
            (names.PROCESS_CPU, self._cpu.shown(self._roots[0].key, sum(stat.cpu + stat.reaped for stat in tree))),
            (names.PROCESS_THREADS, float(sum(stat.threads for stat in living))),
            (names.PROCESS_UPTIME, self._table.uptime(self._roots[0])),
        ]
        opened = [self._table.descriptors(pid) for pid in sizes]
        if known := _all_known(opened):
            values += [(names.PROCESS_FDS, float(sum(known))), (names.PROCESS_FDS_MAX, float(max(known)))]
        if self._clock() - self._asked >= SLOWLY:
            self._asked = self._clock()
            self._slow = []
            if shares := _all_known(self._table.proportional(pid) for pid in sizes):
                self._slow.append((names.PROCESS_MEMORY_PSS, float(sum(shares))))
            limits = [limit for pid in sizes if (limit := self._table.descriptor_limit(pid)) is not None]
            if limits:
                self._slow.append((names.PROCESS_FDS_LIMIT, float(min(limits))))
        return values + self._slow

    def _tree(self) -> tuple[list[Stat], dict[int, int]]:
        """The processes of the tree, and the resident memory of those that still run."""
        seen = self._seen()
        # Looking is dear: while nothing is found, once in `retry` seconds.
        if seen is None and (self._roots or self._clock() - self._looked >= self._retry):
            self._looked = self._clock()
            self._found(find(self.service, self._table))
            seen = self._seen()
        return seen or ([], {})

    def _seen(self) -> tuple[list[Stat], dict[int, int]] | None:
        """``None`` without roots, or when one of them does not run any more: it has gone, its pid has changed hands, or
        it is being ended (and has no memory, but may hold its port a moment longer)."""
        tree = self._table.tree(root.pid for root in self._roots)
        sizes = {stat.pid: size for stat in tree if not stat.ended and (size := self._table.resident(stat.pid))}
        running = {stat.key for stat in tree if stat.pid in sizes}
        return (tree, sizes) if self._roots and all(root.key in running for root in self._roots) else None

    def _found(self, found: Found) -> None:
        self._roots = found.roots
        self._asked = float("-inf")
        if found.reason and found.reason != self.problem:
            logger.warning("service %s: no process found: %s", self.service.name, found.reason)
        self.problem = found.reason

    def _count_restarts(self, tree: list[Stat]) -> None:
        if self._restarts.saw({root.key for root in self._roots if tree}):
            self._worker_restarts.forget()  # all workers are new with their supervisor
        seen = {stat.pid: stat for stat in tree if not stat.ended}
        workers: dict[int, Key] = {}
        for pid, stat in seen.items():  # parents come before their children
            parent = seen.get(stat.parent)
            if parent is not None and parent.pid not in workers and self._plainly_worker(parent, stat):
                workers[pid] = stat.key
        self._worker_restarts.saw(set(workers.values()))

    def _plainly_worker(self, parent: Stat, child: Stat) -> bool:
        """A helper that comes and goes (a shell, a converter of images) is no worker that restarts."""
        pair = parent.key, child.key
        if pair not in self._is_worker:
            if len(self._is_worker) >= 4096:
                self._is_worker.clear()
            self._is_worker[pair] = procfs.same_program(self._table.command(parent.pid), self._table.command(child.pid))
        return self._is_worker[pair]


def _all_known(values: Iterable[int | None]) -> list[int]:
    """The values, or nothing if one is missing: a sum of the rest would only look like the whole."""
    known = list(values)
    return [value for value in known if value is not None] if None not in known else []


class _Replaced:
    """Counts processes that ended and were followed by a new one; the first ones, and more of them, are no restart."""

    def __init__(self) -> None:
        self.count = 0
        self._known: set[Key] = set()
        self._missing = 0

    def saw(self, alive: set[Key]) -> int:
        """How many of those alive now replace others."""
        new, gone = alive - self._known, self._known - alive
        self._missing += len(gone)
        replaced = min(len(new), self._missing)
        self._missing -= replaced
        self.count += replaced
        self._known = alive
        return replaced

    def forget(self) -> None:
        self._known, self._missing = set(), 0


class _Total:
    """CPU seconds that never go down: over the deaths of workers and over restarts of the server."""

    def __init__(self) -> None:
        self._root: Key | None = None
        self._before = 0.0  # of earlier roots, and what nobody asked for
        self._shown = 0.0
        self._short = 0

    def shown(self, root: Key, total: float) -> float:
        """What to show when the tree under ``root`` has used ``total``, its dead and asked-for children included.

        Between a worker's death and its parent's question its time is nowhere: the total stands still. If it stays
        short, the worker's parent ignores its children or has died: the time is kept here.
        """
        if root != self._root:
            self._root, self._before, self._short = root, self._shown, 0
        now = self._before + total
        if now < self._shown - 1e-6:
            self._short += 1
            if self._short >= PATIENCE:
                self._before += self._shown - now
                self._short = 0
            return self._shown
        self._short = 0
        self._shown = round(now, 6)  # sums of hundredths, without their binary dust
        return self._shown
