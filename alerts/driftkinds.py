"""What kind of signal a target gives to the drift rules, and which way is a drift."""

from __future__ import annotations

from typing import Final

from anvil_monitor.targets import Capacity, Direction, Level, Target, Unit

MEMORY: Final = "memory"
TRAFFIC: Final = "traffic"
SHARE: Final = "share"
LATENCY: Final = "latency"

UP: Final = "up"
DOWN: Final = "down"
BOTH: Final = "both"


def kind(target: Target) -> str:
    """``memory`` leaks, where it may only have so much; ``traffic`` follows the week; of a ``share`` near the whole the
    rest counts (99.9 % that become 99.8 % are twice the failures); ``latency`` is all else."""
    if isinstance(target.indicator, Capacity):
        return TRAFFIC
    if target.unit == "percent" and target.direction is Direction.ABOVE:
        return SHARE
    grows = isinstance(target.indicator, Level) and target.unit is Unit.BYTES and target.direction is Direction.BELOW
    return MEMORY if grows else LATENCY


def side(target: Target) -> str:
    """Towards the limit; users who stay away are news as well."""
    if isinstance(target.indicator, Capacity):
        return BOTH
    return DOWN if target.direction is Direction.ABOVE else UP
