"""The bench of notifications runs and says what it measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_runs() -> None:
    """Quickly, without a page rewritten: a storm is one message; the tables have their budgets."""
    before = (ROOT / "docs" / "performance.md").read_bytes()
    command = [sys.executable, "-m", "bench", "alerts", "--quick", "--only", "accepted", "starting", "storm", "written"]
    ran = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    assert "1: kept" in ran.stdout
    assert "500: " in ran.stdout
    assert "a picture of the last hour" in ran.stdout
    assert "a process that is ready" in ran.stdout
    assert (ROOT / "docs" / "performance.md").read_bytes() == before
    assert b"<!-- bench:alerts -->" in before
