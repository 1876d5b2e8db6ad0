"""The tables of ``scripts/bench exporter``: for each what is measured, how long, and against which budget."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.exporter import collection, inprocess, instructions, killed, scrape, wire
from bench.machine import Progress, command, installed, pinned
from bench.report import Table, minus, spread, verdict

# Budgets of the design: microseconds over a null middleware, shares of the bare throughput, milliseconds of CPU.
ADDED, KEPT, KEPT_OFF = 4.0, 0.97, 1.0
SCRAPE = {1_000: 1.5, 10_000: 15.0}
COLLECTION = 1.0
# Instructions added with 100 routes, in relation to one; a few hundred of a request's 1.5 million come and go.
FLAT = 1.25
ROUTES, WORKERS = (1, 100), (1, 4)
NAMES = {
    "bare": "bare FastAPI",
    "bare_off": "bare, FastAPI's own telemetry off",
    "null": "null ASGI middleware",
    "ours": "anvil-monitor",
    "ours_off": "anvil-monitor, FastAPI's telemetry off",
    "by_hand": "prometheus_client by hand",
    "native": "FastAPI's own telemetry on the OTel SDK",
    "instrumentator": "prometheus-fastapi-instrumentator",
    "starlette_exporter": "starlette-exporter",
    "contrib": "opentelemetry-instrumentation-fastapi",
}
PEERS = {
    "by_hand": ("prometheus-client",),
    "native": ("opentelemetry-exporter-prometheus",),
    "instrumentator": ("prometheus-fastapi-instrumentator",),
    "starlette_exporter": ("starlette-exporter",),
    "contrib": ("opentelemetry-instrumentation-fastapi", "opentelemetry-exporter-prometheus"),
}


@dataclass(frozen=True)
class Run:
    """How one run is made. ``folder``: for what the measured programs write."""

    quick: bool
    rounds: int | None
    peers: tuple[str, ...]
    folder: Path
    environ: dict[str, str]
    progress: Progress

    def variants(self) -> tuple[str, ...]:
        there = {peer for peer in self.peers if all(map(installed, PEERS[peer]))}
        return tuple(name for name in NAMES if name not in PEERS or name in there)


def missing(peers: tuple[str, ...]) -> list[str]:
    """The packages and programs that the bench would compare with and that are not here."""
    packages = sorted({package for peer in peers for package in PEERS[peer] if not installed(package)})
    programs = [name for name in (collection.NODE_EXPORTER, "valgrind", "wrk") if not shutil.which(name)]
    return packages + programs


def routes_text(number: int) -> str:
    return f"{number} route{'s' * (number > 1)}"


def cpu(run: Run) -> Table:
    rounds = max(2, run.rounds or (7 if run.quick else 40))
    count = 200 if run.quick else 1000
    measured = {
        routes: inprocess.measure(
            run.variants(), routes, rounds, count,
            lambda *words: [*pinned(1), *command(*words)], run.environ, run.progress,
        )
        for routes in ROUTES
    }  # fmt: skip
    table = Table("CPU added to a request, in process", tuple(f"µs, {routes_text(number)}" for number in ROUTES))
    bare = [spread(each["bare"], 1) for each in measured.values()]
    table.rows.append(["bare FastAPI, the whole request", *bare])
    for variant in run.variants():
        if variant != "bare":
            costs = [spread(minus(each[variant], each["bare"]), 1) for each in measured.values()]
            table.rows.append([f"{NAMES[variant]}, over bare", *costs])
    over = [minus(each["ours"], each["null"]) for each in measured.values()]
    table.rows.append(["**anvil-monitor over a null middleware**", *(spread(cost, 1) for cost in over)])
    table.rows.append([f"budget ≤ {ADDED:g} µs", *(verdict(median(cost) <= ADDED) for cost in over)])
    table.notes.append(f"{rounds} interleaved rounds of {count} requests for each; median [quartiles].")
    return table


def counted(run: Run) -> Table:
    table = Table(
        "Instructions of a request, under valgrind",
        (*(routes_text(number) for number in ROUTES), "100 routes : 1 route, added"),
    )
    if not instructions.possible():
        table.notes.append("valgrind is not installed: left out.")
        return table
    variants = tuple(
        name for name in run.variants() if name in ("null", "ours", "by_hand") or (not run.quick and name != "bare")
    )
    found = instructions.measure(("bare", *variants), ROUTES, command, run.environ, run.folder, run.progress)
    table.rows.append(["bare FastAPI, the whole request", *(f"{found['bare', number]:,.0f}" for number in ROUTES), ""])
    for variant in variants:
        added = [found[variant, number] - found["bare", number] for number in ROUTES]
        ratio = f"{added[1] / added[0]:.2f}" if added[0] > 0 else ""
        table.rows.append([f"{NAMES[variant]}, over bare", *(f"{each:,.0f}" for each in added), ratio])
    over = [found["ours", number] - found["null", number] for number in ROUTES]
    row = ["**anvil-monitor over a null middleware**", *(f"{each:,.0f}" for each in over), f"{over[1] / over[0]:.2f}"]
    table.rows += [row, [f"budget: flat (≤ {FLAT:g})", "", "", verdict(over[1] / over[0] <= FLAT)]]
    table.notes.append("Counted, not timed: the same on a busy machine. Instructions differ in cost.")
    return table


def throughput(run: Run) -> Table:
    bursts, seconds = (2, 1) if run.quick else (7, 2)
    columns = [f"{text}, {number} worker{'s' * (number > 1)}" for number in WORKERS for text in
               ("of bare", "requests/s", "CPU µs")]  # fmt: skip
    table = Table("Throughput kept through uvicorn", (*columns, "budget", "verdict"))
    measured = {
        workers: wire.measure(
            run.variants(), workers, bursts, seconds, command, run.environ, run.folder, (pinned(1), pinned(0)),
            run.progress,
        )
        for workers in WORKERS
    }  # fmt: skip
    budgets = {"ours": KEPT, "ours_off": KEPT_OFF}
    for variant in run.variants():
        row, medians = [NAMES[variant]], []
        for shots in measured.values():
            taken = shots[variant]
            share = [shot.rate / bare.rate for shot, bare in zip(taken, shots["bare"], strict=True)]
            medians.append(median(share))
            rate, cost = median(shot.rate for shot in taken), median(shot.cpu for shot in taken)
            row += [spread(share, 2), f"{rate:,.0f}", f"{cost:.0f}"]
        budget = budgets.get(variant)
        row += [f"≥ {budget:.2f}", verdict(min(medians) >= budget)] if budget else ["", ""]
        table.rows.append(row)
    table.notes.append(
        f"{bursts} interleaved bursts of {seconds} s each; all workers on one core, the load ({wire.generator()}, "
        f"{wire.CONNECTIONS} connections) on the other. With 4 workers prometheus_client, and what is built on it, "
        "runs in its multiprocess mode."
    )
    return table


def scrapes(run: Run) -> Table:
    rounds = 6 if run.quick else 30
    cases = scrape.measure(
        ("ours", "prometheus_client"), tuple(SCRAPE), rounds, command, run.environ, run.folder, run.progress
    )
    table = Table(
        f"/metrics with {scrape.WORKERS} workers, CPU ms of a scrape",
        ("fresh", f"after {scrape.RESTARTS} restarts of all", "the first after them", "budget", "verdict", "counts"),
    )
    for lines, budget in SCRAPE.items():
        for kind in ("ours", "prometheus_client"):
            fresh, after = (case for case in cases if case.kind == kind and case.lines == lines)
            name = "anvil-monitor" if kind == "ours" else "prometheus_client multiprocess"
            row = [f"{name}, {lines:,} lines", spread(fresh.taken, 2), spread(after.taken, 2), f"{after.first:.2f}"]
            kept = verdict(max(median(fresh.taken), median(after.taken)) <= budget)
            row += [f"≤ {budget:g}", kept] if kind == "ours" else ["", ""]
            table.rows.append([*row, "exact" if fresh.exact and after.exact else "WRONG"])
    table.notes.append(
        f"{rounds} interleaved rounds, each from another worker, after every worker has written to every series; the "
        "same lines and buckets. In the worker, without HTTP and compression. OpenTelemetry's Prometheus reader is not "
        "timed: it shows one worker's numbers, whichever answers (next table)."
    )
    return table


def survival(run: Run) -> Table:
    seconds = 8 if run.quick else 30
    table = Table(
        "Workers killed with SIGKILL under load",
        ("kills", "answered", "counted afterwards", "lost", "in flight afterwards", "files", "verdict"),
    )
    names = {"ours": "anvil-monitor", "prometheus_client": "prometheus_client by hand, multiprocess",
             "otel": "FastAPI's own telemetry on the OTel SDK"}  # fmt: skip
    for kind in killed.KINDS:
        run.progress(f"killing workers: {names[kind]}")
        seen = killed.measure(kind, seconds, command, run.environ, run.folder)
        table.rows.append([
            names[kind], str(seen.kills), f"{seen.answered:,}", _range(seen.counted), f"{seen.lost:,.0f}",
            _range(seen.active),
            str(seen.files) if kind != "otel" else "–",
            verdict(seen.lost == 0 and seen.active == (0, 0)) if kind == "ours" else "",
        ])  # fmt: skip
    table.notes.append(
        f"gunicorn with 4 uvicorn workers, 16 connections for {seconds} s, half of them on requests of 0.2 s; a client "
        "kills the worker that has just answered it. Least..most of 20 scrapes after the load. A request whose "
        "connection broke may be counted, so that counted may exceed answered; it never falls short. Budget: 0 lost, 0 "
        "in flight."
    )
    return table


def _range(values: tuple[float, float]) -> str:
    low, high = values
    return f"{low:,.0f}" if low == high else f"{low:,.0f}..{high:,.0f}"


def host(run: Run) -> Table:
    rounds, number = (3, 20) if run.quick else (15, 50)
    found = collection.measure(rounds, number, command, run.environ, pinned(1), run.progress)
    table = Table("Host collection, CPU ms of a scrape over HTTP", ("gzip", "plain", "lines", "budget", "verdict"))
    for case in found:
        row = [case.name, spread(case.taken["gzip"], 2), spread(case.taken["plain"], 2), str(case.lines)]
        kept = verdict(median(case.taken["plain"]) <= COLLECTION)
        table.rows.append([*row, *([f"≤ {COLLECTION:g}", kept] if case.ours and not case.processes else ["", ""])])
    table.notes.append(
        f"{rounds} interleaved rounds of {number} scrapes on one kept connection; the kernel's count of the whole "
        "process. gzip: as Prometheus asks."
    )
    if len(found) == 2:
        table.notes.append("node_exporter is not installed: left out.")
    return table


TABLES: dict[str, Callable[[Run], Table]] = {
    "cpu": cpu,
    "instructions": counted,
    "throughput": throughput,
    "scrape": scrapes,
    "killed": survival,
    "host": host,
}
