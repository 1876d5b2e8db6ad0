"""Machine instructions of a request, counted by valgrind: the same on a busy machine and on an idle one.

The in-process program runs under callgrind, which counts only while we say so: short runs of requests and long ones;
the difference is the requests' own. Python's hashes are fixed, so that the same code gives the same number; what timers
and threads do meanwhile is in some runs only, so the least of several counts.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.exporter.inprocess import answer

SHORT, LONG, TURNS = 50, 150, 4


def possible() -> bool:
    return bool(shutil.which("valgrind") and shutil.which("callgrind_control"))


def measure(
    variants: Sequence[str], routes: Sequence[int], command: Callable[..., list[str]], environ: dict[str, str],
    folder: Path, progress: Callable[..., None],
) -> dict[tuple[str, int], float]:  # fmt: skip
    """Instructions of one request, by variant and number of routes."""
    cases = [(variant, number) for variant in variants for number in routes]
    done = 0

    def count(case: tuple[str, int]) -> float:
        nonlocal done
        result = _count(*case, command, environ, folder)
        done += 1
        progress("instructions under valgrind", done, len(cases))
        return result

    progress("instructions under valgrind", 0, len(cases))
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(cases, pool.map(count, cases), strict=True))


def _count(
    variant: str, routes: int, command: Callable[..., list[str]], environ: dict[str, str], folder: Path
) -> float:
    out = folder / f"callgrind-{variant}-{routes}"
    line = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}",
            *command("bench.exporter.inprocess", variant, str(routes))]  # fmt: skip
    fixed = dict(environ, PYTHONHASHSEED="0", BENCH_COLLECTS="no")
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=fixed
    ) as program:
        try:
            answer(program, variant)
            _control(program.pid, "--instr=on")
            totals: dict[int, list[int]] = {SHORT: [], LONG: []}
            for turn, requests in enumerate((SHORT, LONG) * TURNS):
                assert program.stdin
                print(requests, file=program.stdin, flush=True)
                answer(program, variant)
                _control(program.pid, f"--dump={turn}")
                totals[requests].append(_total(Path(f"{out}.{turn + 1}")))
            # The first of each holds what is done once.
            return (min(totals[LONG][1:]) - min(totals[SHORT][1:])) / (LONG - SHORT)
        finally:
            program.kill()


def _control(pid: int, *words: str) -> None:
    done = subprocess.run(["callgrind_control", *words, str(pid)], capture_output=True, text=True, timeout=60)
    if done.returncode or "OK" not in done.stdout:
        raise SystemExit(f"bench: callgrind_control {words[0]} failed: {(done.stdout + done.stderr)[-300:]}")


def _total(dump: Path) -> int:
    found = re.search(r"^totals: (\d+)", dump.read_text(errors="replace"), re.MULTILINE)
    if not found:
        raise SystemExit(f"bench: {dump} of callgrind has no total")
    return int(found.group(1))
