"""PromQL's semantics, as cases in Prometheus' own test format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.promql.conformance", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=HERE.parents[1])


def test_every_plain_case_of_prometheus_own_files_holds() -> None:
    """Those files of Prometheus' suite that lie beside the project pass; without any there, there is nothing to say."""
    files = sorted(map(str, (HERE.parents[1].parent / "shared" / "promql" / "testdata").glob("*.test")))
    ran = run("--verbose", *files)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_case_of_our_test_files_holds() -> None:
    """Each .test file under data/ passes, at once, as the middle step of a range, and pinned with @."""
    files = sorted(map(str, (HERE / "data").glob("*.test")))
    assert len(files) >= 5
    ran = run("--verbose", *files)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert run("--immediate", *files).returncode == 0


def test_a_failed_case_is_named_and_fails_the_run(tmp_path: Path) -> None:
    """The runner says file, line, what came and what should have; otherwise the test above would prove nothing."""
    script = tmp_path / "wrong.test"
    script.write_text("load 1m\n  m 1 2\n\neval instant at 1m m\n  m 3\n")
    ran = run("--verbose", str(script))
    assert ran.returncode == 1
    assert "wrong.test 0/1" in ran.stdout
    assert "wrong.test:4: m" in ran.stdout
    assert "2.0 instead of 3.0" in ran.stdout
