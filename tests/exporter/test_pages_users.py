"""Distinct clients of the last minute, over workers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from anvil_monitor.exporter import users


def test_users_are_counted_once_over_workers_and_for_a_minute(tmp_path: Path) -> None:
    """Two workers saw overlapping clients; a minute later they are forgotten; the number is right within 2 %."""
    one, two = users.Users(cells(), b"s" * 32), users.Users(cells(), b"s" * 32)
    now = 1_000_000.0
    for number in range(600):
        one.mark(f"10.0.{number // 250}.{number % 250}", now)
        one.mark(f"10.0.{number // 250}.{number % 250}", now + 1)
    for number in range(400, 1000):
        two.mark(f"10.0.{number // 250}.{number % 250}", now + 15)
    assert estimate(one, two, at=now + 20) == pytest.approx(1000, rel=0.02)
    assert estimate(one, two, at=now + 72) == pytest.approx(600, rel=0.02)
    assert estimate(one, two, at=now + 90) == 0
    assert estimate(one, two, at=now + 1e6) == 0


def cells() -> memoryview:
    return memoryview(bytearray(8 * users.WORDS)).cast("d")


def estimate(*workers: users.Users, at: float) -> float:
    views = [worker._bits.obj for worker in workers]
    return users.estimate(users.recent(memoryview(view).cast("d"), at) for view in views)


def test_every_size_of_crowd() -> None:
    """From nobody to far more than the bits can tell apart: a number, and within 5 % up to 60,000."""
    for size in (0, 1, 2, 20, 100, 1000, 20_000, 60_000):
        crowd = users.Users(cells(), b"s" * 32)
        crowd._seen = set()
        for number in range(size):
            crowd.mark(str(number), 500.0)
        assert estimate(crowd, at=500.0) == pytest.approx(size, rel=0.05, abs=0.5)
    assert math.isfinite(users.estimate([(1 << users.BITS) - 1]))
