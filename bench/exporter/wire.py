"""Throughput kept through a real server: uvicorn with one or more workers on one core, the load on another."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from bench.machine import cpu_seconds, free_port

CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Shot:
    """One burst of load: requests a second, and the server's CPU microseconds for each."""

    rate: float
    cpu: float


def generator() -> str:
    """The load generator that will be used: wrk or hey where installed, else ours in Python."""
    return next((name for name in ("wrk", "hey") if shutil.which(name)), "python")


def load(url: str, seconds: int, command: Callable[..., list[str]], pin: list[str]) -> float:
    """Put load on ``url``; the requests answered in a second. Raises ``SystemExit`` when any answer was not 200."""
    name = generator()
    if name == "wrk":
        line = [*pin, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", url]
    elif name == "hey":
        line = [*pin, "hey", "-c", str(CONNECTIONS), "-z", f"{seconds}s", url]
    else:
        line = [*pin, *command("bench.exporter.load", url, str(CONNECTIONS), str(seconds))]
    done = subprocess.run(line, capture_output=True, text=True, timeout=seconds + 30)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    bad = re.search(r"Non-2xx|\[[345]\d\d\]|Error distribution|Socket errors", done.stdout)
    if done.returncode or not found or bad:
        raise SystemExit(f"bench: the load failed: {(done.stdout + done.stderr)[-500:]}")
    return float(found.group(1))


def measure(
    variants: Sequence[str], workers: int, rounds: int, seconds: int, command: Callable[..., list[str]],
    environ: dict[str, str], folder: Path, pins: tuple[list[str], list[str]], progress: Callable[..., None],
) -> dict[str, list[Shot]]:  # fmt: skip
    """``rounds`` bursts a variant, interleaved. All servers stay up; the one that is not asked does nothing."""
    shots: dict[str, list[Shot]] = {variant: [] for variant in variants}
    what = f"uvicorn, {workers} worker{'s' * (workers > 1)}"
    with ExitStack() as stack:
        servers: dict[str, tuple[str, psutil.Process]] = {}
        for variant in variants:
            port = free_port()
            line = command("uvicorn", "bench.exporter.variants:app", "--factory", "--port", str(port),
                           "--no-access-log", "--log-level", "warning", "--http", "httptools", "--loop", "uvloop",
                           # four workers on one core take longer than the 5 s after which uvicorn kills them
                           "--timeout-worker-healthcheck", "60", "--workers", str(workers))  # fmt: skip
            process = stack.enter_context(
                subprocess.Popen(
                    [*pins[0], *line], env=_environ(variant, workers, environ, folder), start_new_session=True
                )
            )
            stack.callback(process.terminate)
            servers[variant] = f"http://127.0.0.1:{port}/items/7", psutil.Process(process.pid)
        for variant, (url, server) in servers.items():
            progress(f"{what}: starting {variant}")
            until_it_answers(variant, url, server)
            load(url, 1, command, pins[1])  # warm
        for turn in range(rounds):
            progress(what, turn + 1, rounds)
            for variant, (url, server) in servers.items():
                before = _cpu(server)
                rate = load(url, seconds, command, pins[1])
                shots[variant].append(Shot(rate, (_cpu(server) - before) / (rate * seconds) * 1e6))
    return shots


def _environ(variant: str, workers: int, environ: dict[str, str], folder: Path) -> dict[str, str]:
    """With several workers prometheus_client and what is built on it are right only in its multiprocess mode."""
    found = dict(environ, BENCH_VARIANT=variant)
    if workers > 1 and variant in ("by_hand", "instrumentator", "starlette_exporter"):
        pages = folder / f"wire-{variant}"
        pages.mkdir(exist_ok=True)
        found["PROMETHEUS_MULTIPROC_DIR"] = str(pages)
    return found


def _cpu(server: psutil.Process) -> float:
    return sum(cpu_seconds(process.pid) for process in (server, *server.children(recursive=True)))


def until_it_answers(variant: str, url: str, server: psutil.Process, patience: float = 90) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            with urlopen(url, timeout=2):
                return
        except (URLError, OSError) as error:
            if not server.is_running() or server.status() == psutil.STATUS_ZOMBIE or time.monotonic() > deadline:
                raise SystemExit(f"bench: the server {variant} does not answer: {error}") from None
            time.sleep(0.1)
