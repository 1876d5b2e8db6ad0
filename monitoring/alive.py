"""Does the monitor do what it is for? Asked before each beat of the dead man's switch (``alerts/heartbeat.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from anvil_monitor.alerts.outbox import Outbox, OutboxError
from anvil_monitor.alerts.rulefile import Group
from anvil_monitor.targets import format_duration

from .rulemanager import GroupState

# A group that has missed so many evaluations hangs; seconds below which it is only a busy moment.
MISSED: Final = 3
LEAST: Final = 15.0


def ailing(groups: Sequence[tuple[Group, GroupState]], outbox: Outbox, now: float, started: float) -> str:
    """Why the monitor could tell nobody; empty where it could. Writes into the outbox: only that shows that it can.

    ``started`` and ``now`` in Unix seconds: a group that is evaluated every few minutes has its time after the start.
    """
    if not any(state.evaluated_at for _, state in groups):
        return "no rule was evaluated yet"
    for group, state in groups:
        seen = max(state.evaluated_at, started)
        if now - seen > max(LEAST, MISSED * group.interval):
            return f"the rules of group {group.name!r} were not evaluated for {format_duration(round(now - seen))}"
    failing = [rule.error for _, state in groups for rule in state.rules if rule.health == "err"]
    if failing and len(failing) == sum(len(state.rules) for _, state in groups):
        return f"every rule fails: {failing[0]}"
    try:
        outbox.prove(now)
    except OutboxError as error:
        return str(error)
    return ""
