"""What the drift rules find, how soon, and what they tell for nothing: the shipped rules, played by our PromQL engine
over weeks of made-up servers whose drifts are known, and over labelled series of real ones.

The labelled series are a folder of the form of the Numenta Anomaly Benchmark (``windows.json``, ``data/*/*.csv``), and
left out without one. The full run takes about five minutes. Made-up weeks are the same in every run.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench import machine, report
from bench.drift import tables

PACKAGES = ("numpy", "promql-parser")
EXAMPLES = """examples:
  scripts/bench drift --quick              does it work? (a minute, says little)
  scripts/bench drift --data FOLDER        everything; rewrites the tables in docs/performance.md
  scripts/bench drift --only memory        one table, on the terminal only
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench drift", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="few worlds: does it work, not what does it say")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="labelled series")
    parser.add_argument("--worlds", type=int, help="worlds of each kind (default: 20 to 30; quick: 4)")
    parser.add_argument("--only", nargs="+", choices=tuple(tables.TABLES), help="only these tables")
    parser.add_argument("--write", action="store_true", help=f"rewrite {report.PAGE} after a quick or partial run, too")
    options = parser.parse_args(arguments)
    if options.worlds is not None and options.worlds < 2:
        parser.error(f"--worlds {options.worlds}: at least 2")

    header = machine.describe(PACKAGES)
    if options.data is None:
        header.append("Labelled series: none given.")
    print("\n".join(header), flush=True)
    wanted = {name: of for name, of in tables.TABLES.items() if name not in ("labelled", "unusual") or options.data}
    progress = machine.Progress()
    with tempfile.TemporaryDirectory(prefix="anvil-monitor-bench-") as folder:
        run = tables.Run(options.quick, options.worlds, options.data, Path(folder), progress)
        shown, whole = report.make(wanted, options.only, run, progress)
    if options.write or (whole and not (options.quick or options.only or options.worlds)):
        report.publish("drift", options.quick, header, shown)
    return 0 if whole else 1
