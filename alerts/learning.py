"""Whether the drift rules can speak yet: how much of a past each kind of target needs, and how that is said.

A target is learning as long as neither ``target:upper`` nor ``target:lower`` is recorded for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from anvil_monitor.targets import format_duration

from .driftkinds import MEMORY, TRAFFIC
from .ruleparts import quoted

HOUR: Final = 3600.0
DAY: Final = 86400.0
# Seconds of history, and the same in docs/drift.md: 72 hourly worst excesses over yesterday, and the lag of 6 hours.
NEEDS: Final = {MEMORY: 3 * DAY + 18 * HOUR, TRAFFIC: 8 * DAY}
NEEDS_ELSE: Final = 4 * DAY + 6 * HOUR
# Of a server's uptime, for memory's line to its limit.
LINE: Final = 7 * HOUR

BOUNDS: Final = ("target:upper", "target:lower")


def needed(kind: str) -> float:
    """Seconds of history that a target of this kind (``driftkinds.kind``) needs."""
    return NEEDS.get(kind, NEEDS_ELSE)


def began(service: str = "", target: str = "") -> str:
    """PromQL: since when there is a past, by ``service``, ``target`` and ``class``, the kind.

    To the hour; to the minute where it is younger.
    """
    labels = {"service": service, "target": target}
    chosen = ",".join(f"{name}={quoted(value)}" for name, value in labels.items() if value)
    parts = (f"min_over_time(timestamp(drift:signal{{{chosen}}})[{span}])" for span in ("15d:1h", "1h:1m"))
    return f"min by (service, target, class) ({' or '.join(parts)})"


def said(kind: str, since: float | None, now: float, clock: Callable[[float], str]) -> str:
    """How a target that is learning since ``since`` stands (``None``: there is nothing to learn from yet)."""
    if since is None:
        return "Drift: still learning. Nothing was measured yet that could be learned from."
    need = needed(kind)
    left = since + need - now
    if left <= 0:
        return f"Drift: still learning. There are gaps in the past that it is held against (since {clock(since)})."
    line = f" Its slope is watched after {format_duration(LINE)} of uptime." if kind == MEMORY else ""
    hours = max(HOUR, round(left / HOUR) * HOUR)
    return (
        f"Drift: still learning. Speaks after {format_duration(need)} of history (since {clock(since)}), "
        f"in about {format_duration(hours)}.{line}"
    )
