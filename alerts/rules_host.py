"""The rules of the machine: CPU, memory, disks.

Warnings only: a host that is short of something breaks no promise by itself. Where a constant has no other source, it
is that of the node exporter's own rules (its repository's ``docs/node-mixin``), in use on very many machines. One alert
an ``instance`` of the exporter.
"""

from __future__ import annotations

from typing import Final

from anvil_monitor.exporter import names
from anvil_monitor.targets import Configuration

from .rulefile import Alerting, Group
from .ruleparts import CPU, DISK, MEMORY, Links, duration, number

# Seconds. Nothing of a host is so urgent that it must be looked at every few seconds.
INTERVAL: Final = 60.0
WINDOW: Final = 300.0

CPU_BUSY: Final = 0.9  # NodeCPUHighUsage
CPU_HOLD: Final = 600.0  # half of the mixin's, because of the next condition
# Share of the time in which somebody waits for a core. A machine that is busy with what nobody waits for stays below.
CPU_WAITS: Final = 0.3

MEMORY_LEAST: Final = 0.1  # available; NodeMemoryHighUtilization
MEMORY_HOLD: Final = 300.0
# Share of the time in which all tasks wait for memory at once. systemd-oomd begins to kill at 0.6.
MEMORY_STALLED: Final = 0.1

DISK_LEAST: Final = 0.05  # free; NodeFilesystemAlmostOutOfSpace
# NodeFilesystemSpaceFillingUp: the last six hours drawn on for a day, and not while more than 40 % are free.
DISK_PAST: Final = 6 * 3600.0
DISK_AHEAD: Final = 86400.0
DISK_FILLING: Final = 0.4
DISK_KNOWN: Final = 3600.0  # a line through a few minutes, drawn on for a day, would be a guess
DISK_HOLD: Final = 900.0

PLACE: Final = "instance, system_filesystem_mountpoint"


def host_group(configuration: Configuration, links: Links) -> Group:
    """What is told of the hosts on which the exporter runs."""
    interval = max(INTERVAL, configuration.monitor.evaluation_interval)
    window = duration(max(WINDOW, 4 * configuration.monitor.scrape_interval))
    disks = tuple(_disk(of, links) for of in ("space", "inodes"))
    return Group("host", interval, (_cpu(window, links), _memory(window, links), *disks))


def _cpu(window: str, links: Links) -> Alerting:
    time = names.SYSTEM_CPU.name
    waits = f'rate({names.SYSTEM_PRESSURE.name}{{resource="cpu",kind="some"}}[{window}])'
    expr = (
        f'(\n  1\n  - sum by (instance) (rate({time}{{cpu_mode=~"idle|iowait"}}[{window}]))\n'
        f"  / sum by (instance) (rate({time}[{window}]))\n) > {number(CPU_BUSY)}\n"
        # Where the kernel tells of no pressure there is nothing to hold against it.
        f"unless on (instance)\n(max by (instance) ({waits}) < {number(CPU_WAITS)})"
    )
    annotations = {
        "summary": "The CPU of {{ $labels.instance }} is {{ $value | humanizePercentage }} busy, and tasks wait for it",
        "description": f"All cores together have been more than {number(CPU_BUSY * 100)} % busy for 10 min, and where "
        f"the kernel counts it, somebody waited for one in at least {number(CPU_WAITS * 100)} % of the time.",
        "title": "Host CPU",
        **links.of("", "", CPU),
    }
    return Alerting(CPU, expr, CPU_HOLD, WINDOW, {"severity": "warning"}, annotations)


def _memory(window: str, links: Links) -> Alerting:
    available = f"max by (instance) ({names.SYSTEM_MEMORY_AVAILABLE.name})"
    share = f"({available} / on (instance) max by (instance) ({names.SYSTEM_MEMORY_LIMIT.name}))"
    stalled = f'rate({names.SYSTEM_PRESSURE.name}{{resource="memory",kind="full"}}[{window}])'
    killed = f"increase({names.SYSTEM_OOM_KILLS.name}[{duration(2 * MEMORY_HOLD)}])"
    expr = (
        f"{share}\nand on (instance)\n(\n"
        f"  {share} < {number(MEMORY_LEAST)}\n"
        f"  or on (instance) max by (instance) ({stalled}) > {number(MEMORY_STALLED)}\n"
        f"  or on (instance) max by (instance) ({killed}) > 0\n)"
    )
    annotations = {
        "summary": "{{ $labels.instance }} is short of memory: {{ $value | humanizePercentage }} of it is available",
        "description": f"Less than {number(MEMORY_LEAST * 100)} % of its memory is available, or everything waits for "
        f"memory in more than {number(MEMORY_STALLED * 100)} % of the time, or the kernel has killed a process for "
        "want of it. What comes next is swapping, then the kernel's choice of a process to kill.",
        "title": "Host memory",
        **links.of("", "", MEMORY),
    }
    return Alerting(MEMORY, expr, MEMORY_HOLD, MEMORY_HOLD, {"severity": "warning"}, annotations)


def _disk(of: str, links: Links) -> Alerting:
    metric = (names.SYSTEM_FILESYSTEM if of == "space" else names.SYSTEM_INODES).name
    free = f'{metric}{{system_filesystem_state="free"}}'
    share = f'(max by ({PLACE}) ({free}) / sum by ({PLACE}) ({metric}{{system_filesystem_state=~"free|used"}}))'
    past = duration(DISK_PAST)
    expr = (
        f"{share} < {number(DISK_LEAST)}\nor\n(\n  {share} < {number(DISK_FILLING)}\n"
        f"  and on ({PLACE})\n  max by ({PLACE}) (predict_linear({free}[{past}], {number(DISK_AHEAD)})) < 0\n"
        f"  and on ({PLACE})\n  max by ({PLACE}) ({free} offset {duration(DISK_KNOWN)})\n)"
    )
    what = "space" if of == "space" else "inodes"
    place = "{{ $labels.system_filesystem_mountpoint }} on {{ $labels.instance }}"
    annotations = {
        "summary": f"{place} is filling: {{{{ $value | humanizePercentage }}}} of its {what} is free",
        "description": f"Less than {number(DISK_LEAST * 100)} % of its {what} is free, or at the pace of the last 6 h "
        "none will be within a day. A full disk stops whatever writes: databases, logs, uploads.",
        "title": "Host disk",
        **links.of("", "", DISK),
    }
    return Alerting(DISK, expr, DISK_HOLD, DISK_HOLD, {"severity": "warning", "of": of}, annotations)
