"""What an instrument costs the server that carries it, beside the peers: ``scripts/bench [--quick]``.

Two tables: CPU added to a request in process (with 1 and with 100 routes), and the throughput that is kept through
uvicorn. Everything is a ratio or a difference inside one run: interleaved rounds, medians with [quartiles], every
variant in a process of its own. On a machine that does other work at the same time the numbers say little.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles

from bench import inprocess, wire

# Budgets of the design: microseconds over a null middleware, and shares of the bare throughput.
ADDED, KEPT, KEPT_OFF = 4.0, 0.97, 1.0
ROUTES = (1, 100)
NAMES = {
    "bare": "bare FastAPI",
    "bare_off": "bare, FastAPI's own telemetry off",
    "null": "null ASGI middleware",
    "ours": "anvil-monitor",
    "ours_off": "anvil-monitor, FastAPI's telemetry off",
    "by_hand": "prometheus_client by hand",
    "native": "FastAPI's own telemetry on the OTel SDK",
    "instrumentator": "prometheus-fastapi-instrumentator",
    "starlette_exporter": "starlette_exporter",
    "contrib": "opentelemetry-instrumentation-fastapi",
}
PEERS = ("by_hand", "native", "instrumentator", "starlette_exporter", "contrib")
PACKAGES = ("fastapi", "starlette", "uvicorn", "uvloop", "opentelemetry-sdk", "opentelemetry-instrumentation-fastapi",
            "prometheus-client", "prometheus-fastapi-instrumentator", "starlette-exporter")  # fmt: skip


def command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def pinned(core: int) -> list[str]:
    """The words before a command that keep it on ``core``; none where the machine cannot, or has too few."""
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[core])] if shutil.which("taskset") and len(cores) > core else []


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K  … {text}", end="", file=sys.stderr, flush=True)
    elif "round" not in text or text.endswith(": bare"):
        print(f"  … {text}", file=sys.stderr, flush=True)


def finished() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def spread(values: list[float], digits: int) -> str:
    """Median and quartiles."""
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return f"{median(values):.{digits}f} [{low:.{digits}f}..{high:.{digits}f}]"


def over(results: dict[str, list[float]], one: str, other: str) -> list[float]:
    """What ``one`` costs more than ``other``, round by round."""
    return [a - b for a, b in zip(results[one], results[other], strict=True)]


def verdict(kept: bool) -> str:
    return "pass" if kept else "SHORT"


def added_table(tables: dict[int, dict[str, list[float]]]) -> None:
    print("\nCPU added to a request, in process (µs over bare FastAPI; median [quartiles])")
    print(f"{'':<42}" + "".join(f"{f'{routes} route' + 's' * (routes > 1):>24}" for routes in tables))
    bare = "".join(f"{spread(table['bare'], 1):>24}" for table in tables.values())
    print(f"{'bare FastAPI, the whole request':<42}{bare}")
    for variant in next(iter(tables.values())):
        if variant != "bare":
            cells = "".join(f"{spread(over(table, variant, 'bare'), 1):>24}" for table in tables.values())
            print(f"{NAMES[variant]:<42}{cells}")
    for routes, table in tables.items():
        cost = over(table, "ours", "null")
        text = f"anvil-monitor over a null middleware, {routes} route{'s' * (routes > 1)}"
        print(f"  budget ≤ {ADDED:g} µs   {text:<52} {spread(cost, 1):>20}   {verdict(median(cost) <= ADDED)}")


def kept_table(shots: dict[str, list[wire.Shot]]) -> None:
    print(f"\nThroughput kept through uvicorn (1 worker, {wire.CONNECTIONS} connections, load from {wire.generator()})")
    print(f"{'':<42}{'of bare':>20}{'requests/s':>14}{'CPU µs':>10}{'budget':>10}")
    shares = {
        variant: [shot.rate / bare.rate for shot, bare in zip(taken, shots["bare"], strict=True)]
        for variant, taken in shots.items()
    }
    budgets = {"ours": KEPT, "ours_off": KEPT_OFF}
    for variant, taken in shots.items():
        rate, cpu = median(shot.rate for shot in taken), median(shot.cpu for shot in taken)
        line = f"{NAMES[variant]:<42}{spread(shares[variant], 2):>20}{rate:>14,.0f}{cpu:>10.0f}"
        if budget := budgets.get(variant):
            line += f"{f'≥ {budget:.2f}':>10}   {verdict(median(shares[variant]) >= budget)}"
        print(line)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few and short rounds: does it work, not what does it say")
    parser.add_argument("--rounds", type=int, help="rounds in process (default: 40; quick: 7)")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, help="beside which (default: all)")
    parser.add_argument("--only", choices=("cpu", "throughput"), help="only one of the two tables")
    options = parser.parse_args()
    rounds = max(2, options.rounds or (7 if options.quick else 40))
    variants = tuple(name for name in NAMES if name not in PEERS or name in options.peers)
    # Short rounds, many of them: what is compared ran within a second of each other.
    count, bursts, seconds = (200, 2, 1) if options.quick else (1000, 7, 2)

    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load average {load:.2f}; {versions}")
    if load > 0.5:
        print("Note: this machine is doing other work; the numbers below are noisier than they should be.")
    with tempfile.TemporaryDirectory(prefix="anvil-monitor-bench-") as folder:
        environ = dict(os.environ, BENCH_FOLDER=folder, OTEL_SEMCONV_STABILITY_OPT_IN="http")
        environ.pop("ANVIL_MONITOR_CONFIG", None)
        if options.only != "throughput":
            tables = {
                routes: inprocess.measure(
                    variants, routes, rounds, count,
                    lambda *words: [*pinned(1), *command(*words)], environ, progress,
                )
                for routes in ROUTES
            }  # fmt: skip
            finished()
            added_table(tables)
        if options.only != "cpu":
            shots = wire.measure(
                variants, bursts, seconds, command, environ, (pinned(1), pinned(0)), progress
            )  # fmt: skip
            finished()
            kept_table(shots)
    return 0


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    sys.exit(main())
