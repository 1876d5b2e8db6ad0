"""PromQL's semantics, as cases in Prometheus' own test format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_every_case_of_our_test_files_holds() -> None:
    """Each .test file under data/ passes, as instant queries and again as the middle step of range queries."""
    files = sorted(map(str, (HERE / "data").glob("*.test")))
    assert len(files) >= 5
    command = [sys.executable, str(HERE / "conformance.py"), "--verbose", "--variants", *files]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_failed_case_is_named_and_fails_the_run(tmp_path: Path) -> None:
    """The runner says file, line, what came and what should have; otherwise the test above would prove nothing."""
    script = tmp_path / "wrong.test"
    script.write_text("load 1m\n  m 1 2\n\neval instant at 1m m\n  m 3\n")
    command = [sys.executable, str(HERE / "conformance.py"), "--verbose", str(script)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert "wrong.test 0/1" in ran.stdout
    assert "wrong.test:4: m" in ran.stdout
    assert "2.0 instead of 3.0" in ran.stdout
