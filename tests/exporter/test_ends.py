"""How a worker ended, with real servers: one that is recycled counts itself, one that is killed does not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import eventually, get, gunicorn, running, total, uvicorn

ENDED = "anvil_monitor_workers_ended_total"


@pytest.mark.parametrize(
    ("command", "option"),
    [(gunicorn, "--max-requests"), (uvicorn, "--limit-max-requests")],
    ids=["gunicorn", "uvicorn"],
)
def test_who_is_recycled_counts_itself(tmp_path: Path, command: Callable[..., list[str]], option: str) -> None:
    """From zero on, so that a rate sees the first."""
    with running(tmp_path, command, "--workers", "2", option, "100") as server:
        eventually(lambda: total(server.port, ENDED) == 0)

        def recycled() -> bool:
            get(server.port, "/items/1")
            return total(server.port, ENDED) >= 3

        eventually(recycled, seconds=40)


def test_who_is_killed_does_not(tmp_path: Path) -> None:
    """SIGKILL and a crash in native code leave no count."""
    with running(tmp_path, gunicorn, "--workers", "2") as server:
        pids, _ = server.up(2)
        first, second = pids
        for pid, number in ((first, signal.SIGKILL), (second, signal.SIGSEGV)):
            os.kill(pid, number)
        fresh, _ = server.up(2)
        assert not fresh & pids
        assert total(server.port, ENDED) == 0
