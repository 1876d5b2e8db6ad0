"""From alert to person: how many notifications are taken in, what a hanging channel does to another, what becomes of a
storm of alerts.

Everything runs on loopback. Beside it, Apprise on its own, with one call for all channels. The full run takes two
minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench import machine, report
from bench.alerts import tables

PACKAGES = ("apprise", "httpx")
EXAMPLES = """examples:
  scripts/bench alerts --quick              does it work? (20 s, says little)
  scripts/bench alerts                      everything; rewrites the tables in docs/performance.md
  scripts/bench alerts --only independent   one of the tables, on the terminal only
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench alerts", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="few and short rounds: does it work, not what does it say")
    parser.add_argument("--only", nargs="+", choices=tuple(tables.TABLES), help="only these tables")
    parser.add_argument("--write", action="store_true", help=f"rewrite {report.PAGE} after a quick or partial run, too")
    options = parser.parse_args(arguments)

    header = machine.describe(PACKAGES)
    print("\n".join(header), flush=True)
    progress = machine.Progress()
    with tempfile.TemporaryDirectory(prefix="anvil-monitor-bench-") as folder:
        run = tables.Run(options.quick, Path(folder), progress)
        shown, whole = report.make(tables.TABLES, options.only, run, progress)
    if options.write or (whole and not (options.quick or options.only)):
        report.publish("alerts", options.quick, header, shown)
    return 0 if whole else 1
