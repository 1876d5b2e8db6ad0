"""The last hour of a target, for the picture in a message: the recorded series, asked of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from anvil_monitor.alerts.letters import History
from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.prometheus import STEP
from anvil_monitor.alerts.prometheus import past as query

from .promql import Matrix


def past(ask: Callable[[str, float, float, float], Matrix]) -> History:
    """``ask``: a range query; its timestamps are milliseconds."""

    def history(alert: Alert, start: float, end: float) -> Sequence[tuple[float, float]]:
        series = ask(query(alert), start, end, STEP).series
        if not series:
            return ()
        return list(zip((series[0].timestamps / 1000).tolist(), series[0].values.tolist(), strict=True))

    return history
