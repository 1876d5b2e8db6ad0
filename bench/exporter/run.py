"""The exporter beside its peers, in one run: what it adds to a request, keeps of the throughput, asks for a scrape, and
what it loses when workers are killed.

Everything is a ratio or a difference inside one run: interleaved rounds, medians with [quartiles], every variant in a
process of its own. On a machine that does other work at the same time only the instruction counts say much.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from bench import machine, report
from bench.exporter import tables

PACKAGES = (
    "fastapi", "starlette", "uvicorn", "uvloop", "gunicorn", "uvicorn-worker", "prometheus-client",
    "prometheus-fastapi-instrumentator", "starlette-exporter", "opentelemetry-sdk",
    "opentelemetry-instrumentation-fastapi",
)  # fmt: skip
EXAMPLES = """examples:
  scripts/bench exporter --quick               does it work? (three minutes, says little)
  scripts/bench exporter                       everything; rewrites the tables in docs/performance.md
  scripts/bench exporter --only scrape killed  two of the tables, on the terminal only
  scripts/bench exporter --peers instrumentator --only cpu --rounds 100
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench exporter", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="few and short rounds: does it work, not what does it say")
    parser.add_argument("--rounds", type=int, help="rounds in process (default: 40; quick: 7)")
    parser.add_argument("--peers", nargs="*", choices=tables.PEERS, default=tables.PEERS, help="beside which (all)")
    parser.add_argument("--only", nargs="+", choices=tuple(tables.TABLES), help="only these tables")
    parser.add_argument("--write", action="store_true", help=f"rewrite {report.PAGE} after a quick or partial run, too")
    options = parser.parse_args(arguments)

    node = tables.collection.node_exporter_version()
    header = machine.describe(PACKAGES)
    header[1] = f"{header[1].removesuffix('.')}{f', node_exporter {node}' if node else ''}."
    missing = tables.missing(options.peers)
    if missing:
        header.append(f"Not installed here and left out: {', '.join(missing)}.")
    print("\n".join(header), flush=True)
    progress = machine.Progress()
    with tempfile.TemporaryDirectory(prefix="anvil-monitor-bench-") as folder:
        environ = dict(os.environ, BENCH_FOLDER=folder, OTEL_SEMCONV_STABILITY_OPT_IN="http")
        for name in ("ANVIL_MONITOR_CONFIG", "ANVIL_MONITOR_PAGES", "PROMETHEUS_MULTIPROC_DIR"):
            environ.pop(name, None)
        run = tables.Run(options.quick, options.rounds, tuple(options.peers), Path(folder), environ, progress)
        shown, whole = report.make(tables.TABLES, options.only, run, progress)
    if options.write or (whole and not (options.quick or options.only)):
        report.publish("exporter", options.quick, header, shown)
    return 0 if whole else 1
