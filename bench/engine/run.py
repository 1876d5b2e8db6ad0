"""The embedded engine beside a real Prometheus, in one run over the same samples: eight range queries as dashboards
make them and eight of our own rules, taking samples in, bytes on disk, and what runs for minutes.

CPU time by the kernel's own count, of whole processes asked over HTTP, in interleaved rounds with medians [quartiles].
Both answer every query the same, to a relative 1e-9, or the exit status is 1. The full run takes 15 minutes, 10 of
them for the last table.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import machine, report
from bench.engine import tables
from bench.engine.server import PROMETHEUS

PACKAGES = ("numpy", "promql-parser", "google-re2", "starlette", "uvicorn", "uvloop", "httptools", "httpx")
EXAMPLES = """examples:
  scripts/bench engine --quick             does it work? (three minutes, says little)
  scripts/bench engine                     everything; rewrites the tables in docs/performance.md
  scripts/bench engine --only few many     the queries alone, on the terminal only
  scripts/bench engine --only up --minutes 60
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench engine", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="little data, few rounds: does it work, not what does it say"
    )
    parser.add_argument("--rounds", type=int, help="rounds of queries (default: 7 and 5; quick: 2)")
    parser.add_argument("--minutes", type=float, help="how long both run in the last table (default: 10; quick: 1)")
    parser.add_argument("--only", nargs="+", choices=tuple(tables.TABLES), help="only these tables")
    parser.add_argument("--write", action="store_true", help=f"rewrite {report.PAGE} after a quick or partial run, too")
    options = parser.parse_args(arguments)

    header = machine.describe(PACKAGES)
    header[1] = f"{header[1].removesuffix('.')}{version()}."
    missing = tables.missing()
    if missing:
        header.append(f"Not here and left out: {', '.join(missing)}.")
    print("\n".join(header), flush=True)
    if PROMETHEUS in missing:
        print("bench: there is nothing to measure beside: apt-get install prometheus", file=sys.stderr)
        return 2
    progress = machine.Progress()
    with tempfile.TemporaryDirectory(prefix="anvil-monitor-bench-") as folder:
        run = tables.Run(options.quick, options.rounds, options.minutes, Path(folder), progress)
        shown, whole = report.make(tables.TABLES, options.only, run, progress)
    if options.write or (whole and not (options.quick or options.only)):
        report.publish("engine", options.quick, header, shown)
    for text in run.wrong:
        print(f"bench: ours and Prometheus' answer are not the same: {text}", file=sys.stderr)
    return 1 if run.wrong or not whole else 0


def version() -> str:
    """Of the Prometheus that is here, as the end of a list of versions."""
    program = shutil.which(PROMETHEUS)
    if not program:
        return ""
    done = subprocess.run([program, "--version"], capture_output=True, text=True)
    found = re.search(r"version (\S+)", done.stdout + done.stderr)
    return f", Prometheus {found[1]}" if found else ""
