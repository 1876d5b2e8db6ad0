"""What every bench needs of the machine: where a process runs, what it costs, what machine it is, a progress line."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterable
from contextlib import closing
from importlib import metadata
from pathlib import Path

BUSY = 0.5


def command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def pinned(core: int) -> list[str]:
    """The words before a command that keep it on ``core``; none where the machine cannot, or has too few."""
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[core])] if shutil.which("taskset") and len(cores) > core else []


def processor() -> str:
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions(packages: Iterable[str]) -> str:
    return ", ".join(f"{name} {version}" for name in packages if (version := installed(name)))


def describe(packages: Iterable[str]) -> list[str]:
    """The machine and the versions, as lines for a report."""
    load = os.getloadavg()[0]
    lines = [
        f"{processor()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"load average {load:.2f} before the run.",
        f"{versions(packages)}.",
    ]
    if load > BUSY:
        lines.append("This machine was doing other work: the numbers are noisier than they should be.")
    return lines


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all its threads, to the nanosecond where the kernel keeps scheduler statistics."""
    try:
        tasks = [path.read_text().split()[0] for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        if tasks:
            return sum(map(int, tasks)) / 1e9
    except OSError:
        pass
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Progress:
    """One line that changes on a terminal; elsewhere a line for each step, and a few for its rounds."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, text: str, turn: int = 0, turns: int = 0) -> None:
        if sys.stderr.isatty():
            bar = f"[{'#' * (20 * turn // turns):<20}] " if turns else ""
            print(f"\r\033[K  … {bar}{text}", end="", file=sys.stderr, flush=True)
        elif text != self._last and (not turns or turn * 4 // turns != (turn - 1) * 4 // turns):
            print(f"  … {text}", file=sys.stderr, flush=True)
        self._last = text

    def clear(self) -> None:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
