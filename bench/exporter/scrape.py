"""What one /metrics costs with four workers: fresh, and after all four were restarted nine times.

As a program (``python -m bench.exporter.scrape KIND SERIES``) it is one worker: it obeys words on standard input.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.exporter.inprocess import answer

WORKERS, RESTARTS = 4, 9
COUNT = re.compile(r"^http_server_request_duration_seconds_count\S* (\S+)$", re.MULTILINE)


def edges() -> tuple[float, ...]:
    """The buckets that our instrument uses by default: the same for everyone here."""
    from anvil_monitor.exporter.instrument import histogram_edges
    from anvil_monitor.targets import load

    configuration = load(None, {})
    service = configuration.services[0].name
    return histogram_edges(configuration, service)["http_server_request_duration_seconds"]


class Ours:
    def __init__(self, series: int) -> None:
        from fastapi import FastAPI

        from anvil_monitor.exporter import instrument, names
        from anvil_monitor.targets import load

        self.made = instrument(FastAPI(), configuration=load(None, {}), directory=os.environ["BENCH_PAGES"])
        self.series, self.edges, self.metric = series, edges(), names.HTTP_DURATION

    def touch(self) -> None:
        for number in range(self.series):
            labels = ("GET", f"/route{number}/{{id}}", "200", "")
            self.made.recorder.histogram(self.metric, labels, self.edges).record(0.05)

    def scrape(self) -> str:
        return self.made.metrics()


class Client:
    """prometheus_client in its multiprocess mode."""

    def __init__(self, series: int) -> None:
        from prometheus_client import Histogram

        names = ("http_request_method", "http_route", "http_response_status_code")
        self.histogram: Any = Histogram("http_server_request_duration_seconds", "Duration.", names, buckets=edges())
        self.series = series

    def touch(self) -> None:
        for number in range(self.series):
            self.histogram.labels("GET", f"/route{number}/{{id}}", "200").observe(0.05)

    def scrape(self) -> str:
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry).decode()


KINDS: dict[str, Callable[[int], Any]] = {"ours": Ours, "prometheus_client": Client}


def obey(kind: str, series: int) -> None:
    tool = KINDS[kind](series)
    print("ready", flush=True)
    for line in sys.stdin:
        word, number = line.split()
        if word == "generations":  # workers that record everything once and are killed
            for _ in range(int(number)):
                child = os.fork()
                if not child:
                    tool.touch()
                    os.kill(os.getpid(), 9)
                os.waitpid(child, 0)
            print("done", flush=True)
        elif word == "touch":
            tool.touch()
            print("done", flush=True)
        else:
            began = time.process_time()
            text = tool.scrape()
            took = time.process_time() - began
            print(took * 1e3, text.count("\n"), sum(map(float, COUNT.findall(text))), flush=True)


@dataclass
class Case:
    """One tool, one number of lines, fresh or after restarts; CPU milliseconds of each scrape."""

    kind: str
    lines: int
    restarts: int
    workers: list[subprocess.Popen[str]] = field(default_factory=list)
    first: float = 0.0
    taken: list[float] = field(default_factory=list)
    exact: bool = True


def measure(
    kinds: tuple[str, ...], sizes: tuple[int, ...], rounds: int, command: Callable[..., list[str]],
    environ: dict[str, str], folder: Path, progress: Callable[..., None],
) -> list[Case]:  # fmt: skip
    cases = [Case(kind, lines, restarts) for lines in sizes for restarts in (0, RESTARTS) for kind in kinds]
    with ExitStack() as stack:
        for number, case in enumerate(cases):
            progress("/metrics: starting workers", number, len(cases))
            series = -(-case.lines // (len(edges()) + 3))
            pages = folder / f"scrape-{number}"
            pages.mkdir()
            variables = dict(environ, BENCH_PAGES=str(pages), PROMETHEUS_MULTIPROC_DIR=str(pages))
            if case.kind == "ours":
                variables.pop("PROMETHEUS_MULTIPROC_DIR")

            def start(case: Case = case, series: int = series, variables: dict[str, str] = variables) -> Any:
                line = command("bench.exporter.scrape", case.kind, str(series))
                worker = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables)
                stack.enter_context(worker)
                stack.callback(worker.kill)
                return worker

            if case.restarts:
                parent = start()
                answer(parent, case.kind)
                tell(parent, case, f"generations {case.restarts * WORKERS}")
                parent.kill()
            case.workers = [start() for _ in range(WORKERS)]
            for worker in case.workers:
                answer(worker, case.kind)
        for turn in range(WORKERS + rounds):
            for case in cases:
                progress("/metrics", turn + 1, WORKERS + rounds)
                _round(case, turn, -(-case.lines // (len(edges()) + 3)))
    return cases


def _round(case: Case, turn: int, series: int) -> None:
    for worker in case.workers:
        tell(worker, case, "touch 1")
    took, lines, counted = map(float, tell(case.workers[turn % WORKERS], case, "scrape 1").split())
    if turn == 0:
        case.first = took
    elif turn >= WORKERS:  # each worker's own first scrape reads everything; the rest is what a scraper meets
        case.taken.append(took)
    touched = (turn + 1) * WORKERS + case.restarts * WORKERS
    case.exact = case.exact and counted == series * touched
    if lines < case.lines:
        raise SystemExit(f"bench: {case.kind} shows {lines:.0f} lines instead of {case.lines}")


def tell(worker: subprocess.Popen[str], case: Case, words: str) -> str:
    assert worker.stdin
    print(words, file=worker.stdin, flush=True)
    return answer(worker, case.kind)


if __name__ == "__main__":
    obey(sys.argv[1], int(sys.argv[2]))
