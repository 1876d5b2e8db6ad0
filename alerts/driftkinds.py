"""What kind of signal a target gives to the drift rules, and which way is a drift."""

from __future__ import annotations

from typing import Final

from anvil_monitor.targets import Capacity, Direction, Level, Target, Unit

MEMORY: Final = "memory"
TRAFFIC: Final = "traffic"
LATENCY: Final = "latency"

UP: Final = "up"
DOWN: Final = "down"
BOTH: Final = "both"


def kind(target: Target) -> str:
    """``memory`` leaks, ``traffic`` follows the week, ``latency`` is all else."""
    if isinstance(target.indicator, Capacity):
        return TRAFFIC
    return MEMORY if isinstance(target.indicator, Level) and target.unit is Unit.BYTES else LATENCY


def side(target: Target) -> str:
    """Towards the limit; users who stay away are news as well."""
    if isinstance(target.indicator, Capacity):
        return BOTH
    return DOWN if target.direction is Direction.ABOVE else UP
