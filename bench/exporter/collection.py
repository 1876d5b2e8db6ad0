"""What one scrape of the host costs: our exporter beside node_exporter, both over HTTP, by the kernel's own count.

As a program (``python -m bench.exporter.collection PORT PROCESSES``) it is our exporter on that port, with or without
the processes of a server (its own: it is found by its port among all processes of the machine).
"""

from __future__ import annotations

import http.client
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench.machine import cpu_seconds, free_port

NODE_EXPORTER = "prometheus-node-exporter"
# What Prometheus sends, and what a client that wants it plain sends.
HEADERS = {"gzip": {"Accept-Encoding": "gzip", "Accept": "text/plain;version=0.0.4"}, "plain": {}}


@dataclass
class Case:
    """``taken``: CPU milliseconds of a scrape, one a round, by encoding."""

    name: str
    ours: bool
    processes: bool
    line: Callable[[int], list[str]]
    port: int = 0
    pid: int = 0
    lines: int = 0
    taken: dict[str, list[float]] = field(default_factory=lambda: {encoding: [] for encoding in HEADERS})


def cases(command: Callable[..., list[str]]) -> list[Case]:
    def ours(processes: str) -> Callable[[int], list[str]]:
        return lambda port: command("bench.exporter.collection", str(port), processes)

    def node(*more: str) -> Callable[[int], list[str]]:
        return lambda port: [NODE_EXPORTER, f"--web.listen-address=127.0.0.1:{port}", "--no-collector.systemd", *more]

    found = [
        Case("anvil-monitor, host", True, False, ours("host")),
        Case("anvil-monitor, host and a server's processes", True, True, ours("processes")),
    ]
    if shutil.which(NODE_EXPORTER):
        found += [
            Case("node_exporter", False, False, node()),
            Case("node_exporter with its process table", False, True, node("--collector.processes")),
        ]
    return found


def node_exporter_version() -> str | None:
    if not shutil.which(NODE_EXPORTER):
        return None
    done = subprocess.run([NODE_EXPORTER, "--version"], capture_output=True, text=True)
    return (done.stdout + done.stderr).split("version ")[1].split()[0]


def measure(
    rounds: int, scrapes: int, command: Callable[..., list[str]], environ: dict[str, str], pin: list[str],
    progress: Callable[..., None],
) -> list[Case]:  # fmt: skip
    """``rounds`` of ``scrapes`` each, interleaved."""
    found = cases(command)
    with ExitStack() as stack:
        for case in found:
            case.port = free_port()
            process = stack.enter_context(
                subprocess.Popen([*pin, *case.line(case.port)], env=environ, stderr=subprocess.DEVNULL)
            )
            stack.callback(process.terminate)
            case.pid = process.pid
        for case in found:
            progress(f"host: starting {case.name}")
            case.lines = _until_it_answers(case)
            _scrapes(case, 20, "gzip")
        for turn in range(rounds):
            for case in found:
                progress("host", turn + 1, rounds)
                for encoding, taken in case.taken.items():
                    taken.append(_scrapes(case, scrapes, encoding))
    return found


def _scrapes(case: Case, number: int, encoding: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", case.port, timeout=10)
    before = cpu_seconds(case.pid)
    for _ in range(number):
        connection.request("GET", "/metrics", headers=HEADERS[encoding])
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise SystemExit(f"bench: {case.name} answers with {response.status}")
    took = cpu_seconds(case.pid) - before
    connection.close()
    return took / number * 1e3


def _until_it_answers(case: Case, patience: float = 30) -> int:
    deadline = time.monotonic() + patience
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", case.port, timeout=10)
            connection.request("GET", "/metrics")
            return connection.getresponse().read().count(b"\n")
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit(f"bench: {case.name} does not answer") from None
            time.sleep(0.1)


def serve(port: int, processes: bool) -> None:
    from dataclasses import replace

    import uvicorn

    from anvil_monitor.exporter.server import create_app
    from anvil_monitor.targets import load
    from anvil_monitor.targets.model import ProcessFinder

    configuration = load(None, {})
    service = replace(
        configuration.services[0], url=f"http://127.0.0.1:{port}", probes=(), find_by=ProcessFinder.PORT, find=str(port)
    )
    configuration = replace(configuration, services=(service,) if processes else ())
    uvicorn.run(create_app(configuration), port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2] == "processes")
