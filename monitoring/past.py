"""The last hour of a target, for the picture in a message: the recorded series, asked of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from anvil_monitor.alerts.letters import History
from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.ruleparts import quoted

from .promql import Matrix

STEP: Final = 30.0  # seconds: two points for each pixel column of a mail's picture would say no more
VALUE: Final = "target:value"


def past(ask: Callable[[str, float, float, float], Matrix]) -> History:
    """``ask``: a range query; its timestamps are milliseconds."""

    def history(alert: Alert, start: float, end: float) -> Sequence[tuple[float, float]]:
        service, target = quoted(alert.service), quoted(alert.labels.get("target", ""))
        series = ask(f"{VALUE}{{service={service},target={target}}}", start, end, STEP).series
        if not series:
            return ()
        return list(zip((series[0].timestamps / 1000).tolist(), series[0].values.tolist(), strict=True))

    return history
