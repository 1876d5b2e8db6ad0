"""``scripts/bench WHAT``: measure a part of this project beside its peers. WHAT: exporter, engine, alerts, drift."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

# Each is a folder below bench/ whose ``run.py`` has ``main(arguments) -> exit status``.
BENCHES = {
    "exporter": "what an instrumented server, its /metrics and the host's collection cost",
    "engine": "what queries, rules, taking samples in and keeping them cost, beside a real Prometheus",
    "alerts": "how many notifications are taken in, what a hanging channel does to another, what a storm becomes",
    "drift": "what the drift rules find, how soon, and what they tell for nothing",
}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in BENCHES:
        print("usage: scripts/bench WHAT [--help | options]\n\nWHAT is one of:")
        for name, text in BENCHES.items():
            print(f"  {name:<10} {text}")
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    status: int = importlib.import_module(f"bench.{arguments[0]}.run").main(arguments[1:])
    return status


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    sys.exit(main(sys.argv[1:]))
