"""The host, under the names of OpenTelemetry's system metrics.

https://opentelemetry.io/docs/specs/semconv/system/system-metrics/

On Linux ``/proc`` is read straight: psutil opens the same files, but takes four times as long for half of the numbers,
and has none for pressure, inodes or the clock. Elsewhere psutil is what there is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from functools import cache

from . import clock, devices, kernel, names, pressure, procfs
from .cgroup import Cgroups
from .exposition import Family

# Where the host's `/` is mounted, for an exporter in a container (`-v /:/host:ro,rslave`).
ROOT_VARIABLE = "ANVIL_MONITOR_HOST_ROOT"


class Host:
    """One host. ``root``: where its ``/`` is (empty: here); its ``/proc`` and ``/sys`` are expected below."""

    def __init__(self, root: str = "") -> None:
        proc, sys = f"{root}/proc", f"{root}/sys"
        # In a container with the host's pids, process 1 is in the host's network; the reader itself is not.
        first = f"{proc}/1" if os.access(f"{proc}/1/net/dev", os.R_OK) else f"{proc}/self"
        limits = Cgroups()  # the exporter's own
        self._sources: tuple[Callable[[], Iterable[Family]], ...] = (
            lambda: kernel.cpu(proc),
            lambda: kernel.memory(proc),
            lambda: kernel.limits(proc),
            lambda: pressure.collect(f"{proc}/pressure"),
            devices.Filesystems(proc, root).collect,
            devices.Disks(proc, sys).collect,
            devices.Network(f"{first}/net/dev").collect,
            clock.collect,
            lambda: limits.families("self", names.MONITOR),
        )

    def collect(self) -> list[Family]:
        """Every ``system_*`` family, and ``container_*`` of the exporter itself.

        A source that this host does not offer, or not as expected, is left out.
        """
        families: list[Family] = []
        for source in self._sources:
            with contextlib.suppress(OSError, ValueError, LookupError, OverflowError):  # it keeps what came before
                families.extend(source())
        return [family for family in families if family.samples]


def host_root(environ: Mapping[str, str]) -> str:
    """Where the host's ``/`` is; empty: here."""
    return environ.get(ROOT_VARIABLE, "").rstrip("/")


def at(environ: Mapping[str, str]) -> Callable[[], list[Family]]:
    """The collection for this platform, of the host that ``environ`` names."""
    if procfs.LINUX:
        return Host(host_root(environ)).collect
    from . import portable  # psutil is not in every installation

    return portable.collect


@cache
def _here() -> Callable[[], list[Family]]:
    return at(os.environ)


def collect() -> list[Family]:
    """Every ``system_*`` family of this host; not thread-safe."""
    return _here()()
