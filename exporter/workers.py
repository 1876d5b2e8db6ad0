"""The server's own processes, for its own ``/metrics``: the live workers and the supervisor that keeps them.

What other exporters leave out as soon as there is more than one worker. Linux only, elsewhere nothing; about 25 µs a
worker. From outside, ``processes.py`` sees more (other children, restarts); rules take the greater of the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from . import names, procfs
from .exposition import Family, Sample
from .procfs import Stat


def families(pids: Sequence[int]) -> list[Family]:
    """``process_*`` without labels, summed over the live workers ``pids`` and their supervisor."""
    return _SERVER.families(pids)


class Server:
    """One server's processes as this worker sees them. ``proc`` is where ``/proc`` is."""

    def __init__(self, proc: str = procfs.PROC) -> None:
        self._proc = proc
        self._supervisors: dict[tuple[tuple[int, int], tuple[int, int]], bool] = {}
        self._shown = 0.0

    def families(self, pids: Sequence[int]) -> list[Family]:
        """Empty where there is no ``/proc``, or none of ``pids`` runs."""
        tree = self._tree(pids)
        if not tree:
            return []
        sizes = [size for stat in tree if (size := procfs.resident(stat.pid, self._proc)) is not None]
        opened = [count for stat in tree if (count := procfs.descriptors(stat.pid, self._proc)) is not None]
        values = [
            (names.PROCESS_COUNT, float(len(tree))),
            (names.PROCESS_CPU, self._cpu(tree)),
            (names.PROCESS_THREADS, float(sum(stat.threads for stat in tree))),
            (names.PROCESS_UPTIME, max(procfs.uptime(stat) for stat in tree)),
        ]
        if sizes:
            values += [(names.PROCESS_MEMORY, float(sum(sizes))), (names.PROCESS_MEMORY_MAX, float(max(sizes)))]
        if opened:
            values.append((names.PROCESS_FDS, float(sum(opened))))
        return [Family(metric, (Sample("", (), value),)) for metric, value in values]

    def _cpu(self, tree: Sequence[Stat]) -> float:
        """CPU seconds; with a supervisor also those of the workers that it has buried.

        The kernel adds a dead worker's time to its parent when the parent asks for it (within half a second): in
        between this worker shows what it showed before. A total that another worker showed in that instant may be
        higher; without a supervisor, what a dead worker had used is gone once this worker has forgotten it.
        """
        self._shown = max(self._shown, sum(stat.cpu + stat.reaped for stat in tree))
        return self._shown

    def _tree(self, pids: Sequence[int]) -> list[Stat]:
        tree = {stat.pid: stat for stat in self._running(pids)}
        child_of = {stat.parent: stat for stat in tree.values() if stat.parent > 1 and stat.parent not in tree}
        tree |= {parent.pid: parent for parent in self._running(child_of) if self._keeps(parent, child_of[parent.pid])}
        return list(tree.values())

    def _running(self, pids: Iterable[int]) -> Iterator[Stat]:
        if procfs.LINUX:
            for pid in pids:
                stat = procfs.stat(pid, self._proc)
                if stat is not None and not stat.ended:
                    yield stat

    def _keeps(self, parent: Stat, worker: Stat) -> bool:
        """Whether ``parent`` is plainly of the same program; a shell, systemd or a test runner is not."""
        pair = parent.key, worker.key
        if pair not in self._supervisors:
            if len(self._supervisors) >= 1024:  # workers come and go
                self._supervisors.clear()
            self._supervisors[pair] = parent.group == worker.group and procfs.same_program(
                procfs.command(parent.pid, self._proc), procfs.command(worker.pid, self._proc)
            )
        return self._supervisors[pair]


_SERVER = Server()
