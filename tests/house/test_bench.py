"""The bench runs, names what it left out, and rewrites its own block of a page only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import machine, report

ROOT = Path(__file__).parents[2]


def bench(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, timeout=100
    )  # fmt: skip


def test_the_bench_says_what_it_can_do() -> None:
    """Without a word, with a wrong one and with --help: the usage; --help of a bench has examples."""
    assert bench().returncode == 2
    assert bench("nothing").returncode == 2
    assert "exporter" in bench("--help").stdout
    helped = bench("exporter", "--help")
    assert helped.returncode == 0
    assert "examples:" in helped.stdout


def test_a_peer_that_is_missing_is_named(tmp_path: Path) -> None:
    """Without node_exporter and valgrind the tables are there, with what was left out; docs/performance.md stays."""
    before = (ROOT / "docs" / "performance.md").read_bytes()
    ran = bench("exporter", "--quick", "--only", "host", "instructions", PATH=str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert "left out: " in ran.stdout
    assert "prometheus-node-exporter" in ran.stdout
    assert "valgrind is not installed" in ran.stdout
    assert "anvil-monitor, host" in ran.stdout
    assert (ROOT / "docs" / "performance.md").read_bytes() == before


def test_a_page_keeps_what_is_not_the_benchs(tmp_path: Path) -> None:
    """Only what stands between the marks is replaced; a page without them is refused and left as it was."""
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nbelow\n")
    code = "import sys, pathlib; from bench.report import rewrite; rewrite(pathlib.Path(sys.argv[1]), {!r}, 'new')"
    run = [sys.executable, "-c"]
    subprocess.run([*run, code.format("bench:x"), str(page)], cwd=ROOT, check=True)
    assert page.read_text() == "above\n<!-- bench:x -->\nnew\n<!-- /bench:x -->\nbelow\n"
    refused = subprocess.run([*run, code.format("bench:y"), str(page)], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "no block" in refused.stderr
    assert "new" in page.read_text()
    assert "<!-- bench:exporter -->" in (ROOT / "docs" / "performance.md").read_text()


def test_a_table_that_fails_costs_none_of_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """Minutes of measuring are not lost with it: it is told, the rest is shown, the run is known not to be whole."""

    def fails(_run: object) -> report.Table:
        raise SystemExit("bench: the server does not answer")

    tables = {"first": fails, "second": lambda _run: report.Table("What worked", ("µs",), [["ours", "1"]])}
    shown, whole = report.make(tables, None, None, machine.Progress())
    told = capsys.readouterr()
    assert ([table.title for table in shown], whole) == (["What worked"], False)
    assert "does not answer" in told.err
    assert "'first' is left out" in told.err
    assert "What worked" in told.out
