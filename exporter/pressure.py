"""Pressure stall information: how long tasks waited for CPU, memory or I/O.

Totals, not the kernel's averages: a rate over any window follows from them. https://docs.kernel.org/accounting/psi.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import names, procfs
from .exposition import Family, LabelPairs, Sample

RESOURCES = ("cpu", "io", "memory")
_LINE = re.compile(rb"^(some|full) .*\btotal=(\d+)$", re.MULTILINE)
_LABELS: dict[tuple[str, bytes], LabelPairs] = {
    (resource, kind.encode()): (("resource", resource), ("kind", kind))
    for resource in RESOURCES
    for kind in ("some", "full")
}


def stalls(path: str) -> list[tuple[bytes, float]]:
    """Kind (``some``, ``full``) and seconds out of one pressure file; empty where the kernel keeps none."""
    try:
        return [(kind, int(micros) / 1e6) for kind, micros in _LINE.findall(procfs.read(path))]
    except OSError:  # no such file, or psi=0 on the kernel's command line
        return []


def collect(folder: str) -> Iterator[Family]:
    """``system_pressure_stall_seconds_total`` of the files in ``folder``. `full` of the CPU is always 0: left out."""
    yield Family(
        names.SYSTEM_PRESSURE,
        [
            Sample("", _LABELS[resource, kind], seconds)
            for resource in RESOURCES
            for kind, seconds in stalls(f"{folder}/{resource}")
            if (resource, kind) != ("cpu", b"full")
        ],
    )
