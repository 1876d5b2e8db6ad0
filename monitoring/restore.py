"""Since when alerts hold, taken up from history: a restart of the monitor does not begin their ``for`` anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from anvil_monitor.alerts.rulefile import Alerting, Group

from .rulemanager import GroupState, State, for_state
from .samples import Labels, Matcher, Panel, series_of

Select: TypeAlias = Callable[[Sequence[Matcher], int, int], list[Panel]]

# Seconds. Older than this an alert's past is forgotten (Prometheus: --rules.alert.for-outage-tolerance).
OUTAGE_TOLERANCE: Final = 3600.0
# Seconds. Prometheus has 10 min (--rules.alert.for-grace-period) and so forgets any `for` that is shorter. Ours hold
# for seconds or minutes, and two evaluations have found the condition true again.
GRACE: Final = 0.0


def restore(group: Group, state: GroupState, at: float, select: Select, grace: float = GRACE) -> None:
    """Take up since when alerts hold from the ``ALERTS_FOR_STATE`` of the process before this one.

    Time in which nobody evaluated does not count as held. An alert that had held long enough fires at the next
    evaluation; one that still waits fires ``grace`` seconds from now at the earliest, and rules that hold for less than
    ``grace`` begin anew. Prometheus: rules/group.go, RestoreForState.
    """
    for rule, memory in zip(group.rules, state.rules, strict=True):
        if not isinstance(rule, Alerting) or memory.restored or rule.hold < grace:
            continue
        for alert in memory.alerts.values():
            before = _since(for_state(rule, alert), at, select) if alert.state is not State.INACTIVE else None
            if before is None:
                continue
            seen, since = before
            left = rule.hold - (seen - since)
            if left > 0:
                since = at + grace - rule.hold if left < grace else since + at - seen
            alert.active_at = min(alert.active_at, since)  # one that fires by now goes on


def _since(wanted: Labels, at: float, select: Select) -> tuple[float, float] | None:
    """When the alert was last seen, and since when it held then (Unix seconds); None if it had ended."""
    matchers = [Matcher(name, "=", value) for name, value in wanted]
    for series in series_of(select(matchers, round((at - OUTAGE_TOLERANCE) * 1000), round(at * 1000))):
        value = float(series.values[-1])
        if series.labels == wanted and math.isfinite(value):  # a stale marker is not
            return float(series.timestamps[-1]) / 1000, value
    return None
