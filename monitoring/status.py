"""How the targets stand: what the page, the terminal and ``/api/v1/targets-state`` show, worked out once an evaluation.

The states of a target, in words: ``ok`` the promise is kept; ``missed`` it is broken now; ``idle`` there is too little
traffic to say; ``waiting`` nothing was measured yet; ``no_data`` its instrument is silent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.ruleparts import MISSES
from anvil_monitor.alerts.rules import ESTIMATE, RATIO, SAMPLES, VALUE
from anvil_monitor.targets import Capacity, Configuration, Direction, Target, format_duration

from .promql import Matrix, QueryError, Value, Vector
from .rulemanager import ActiveAlert, State
from .samples import Labels
from .usual import NOTHING, Past, Usual

TargetState: TypeAlias = Literal["ok", "missed", "idle", "waiting", "no_data"]
Key: TypeAlias = tuple[str, str]

HISTORY_SECONDS: Final = 15 * 60.0
HISTORY_SHORTEST: Final = 60.0
HISTORY_POINTS: Final = 180
SERIES: Final = (VALUE, RATIO, SAMPLES, ESTIMATE)

# What the samples of a counted target are, for "too few requests to judge".
COUNTED: Final = {
    "api_response_time": "requests",
    "frontend_load_time": "page loads",
    "db_query_time": "queries",
}


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """One target at one instant. ``value`` is in base units, None without data; ``since`` is when ``state`` began.

    ``ratio`` is over 1 when the promise is broken, whichever way it points; ``fill`` is value over limit, for a bar.
    ``estimated``: the value is the best that the data allow, not exact. ``history`` is (Unix seconds, value or None)
    over the last quarter of an hour, or since the start; ``usual`` is what it is held against. ``alert`` is the state
    of the one that says that it is missed, empty where there is none.
    """

    target: Target
    value: float | None
    ratio: float | None
    samples: float | None
    state: TargetState
    since: float
    note: str
    alert: str
    history: tuple[tuple[float, float | None], ...]
    estimated: bool = False
    usual: Usual = NOTHING

    @property
    def text(self) -> str:
        """The value as a person would write it; ``≈`` before an estimate."""
        if self.value is None:
            return "waiting" if self.state == "waiting" else "no data"
        return ("≈ " if self.estimated else "") + self.target.text(self.value)

    @property
    def fill(self) -> float | None:
        if self.value is None or not math.isfinite(self.value):
            return None
        return self.value / self.target.limit

    def to_json(self) -> dict[str, Any]:
        target = self.target
        return {
            "service": target.service,
            "target": target.name,
            "title": target.title,
            "unit": target.unit.value,
            "direction": target.direction.value,
            "promise": target.promise,
            "measure": target.measure,
            "limit": target.limit,
            "limit_text": target.text(target.limit),
            "value": _number(self.value),
            "text": self.text,
            "ratio": _number(self.ratio),
            "fill": _number(self.fill),
            "samples": _number(self.samples),
            "estimated": self.estimated,
            "state": self.state,
            "since": self.since,
            "note": self.note,
            "alert": self.alert,
            "history": [[round(at, 3), _number(value)] for at, value in self.history],
            "usual": self.usual.to_json(),
        }


class Board:
    """The last status of every target. ``started`` (Unix seconds) is when measuring began."""

    def __init__(self, configuration: Configuration, started: float) -> None:
        self._configuration = configuration
        self._since: dict[Key, tuple[TargetState, float]] = {}
        self._seen: set[Key] = set()
        self._started = started
        self.past = Past(configuration)
        self.at = started
        self.problem = ""
        self.targets: tuple[TargetStatus, ...] = tuple(
            self._judge(target, started, None, None, None, "", ()) for target in configuration.targets
        )

    def update(
        self,
        at: float,
        query: Callable[[str, float], Value],
        query_range: Callable[[str, float, float, float], Matrix],
        alerts: Iterable[ActiveAlert],
    ) -> None:
        """Read the recorded series as they stand at ``at``. A query that fails is told in ``problem``."""
        try:
            values, ratios, samples, estimates = (_by_target(query(name, at)) for name in SERIES)
            history = self._history(at, query_range)
            self.past.update(at, query, query_range, self._seconds(at))
        except QueryError as error:
            self.problem = f"the targets cannot be read: {error}"
            return
        states = _alert_states(alerts)
        self.targets = tuple(
            self._judge(
                target,
                at,
                values.get(key),
                ratios.get(key),
                samples.get(key),
                states.get(key, ""),
                history.get(key, ()),
                estimated=key in estimates,
            )
            for target in self._configuration.targets
            for key in [(target.service, target.name)]
        )
        self.at, self.problem = at, ""

    def measure(self, alert: Alert) -> float | None:
        """What the target of ``alert`` measures now, for "recovered: 142 ms"; None where that is not known."""
        wanted = (alert.service, alert.labels.get("target", ""))
        for status in self.targets:
            if (status.target.service, status.target.name) == wanted:
                return _finite(status.value)
        return None

    def _judge(
        self,
        target: Target,
        at: float,
        value: float | None,
        ratio: float | None,
        samples: float | None,
        alert: str,
        history: tuple[tuple[float, float | None], ...],
        *,
        estimated: bool = False,
    ) -> TargetStatus:
        key = (target.service, target.name)
        state, note = self._state(target, at, value, ratio, samples)
        if value is not None:
            self._seen.add(key)
        before = self._since.get(key)
        if before is None or before[0] != state:
            self._since[key] = (state, at)
        since = self._since[key][1]
        usual = self.past.usual(target)
        return TargetStatus(target, value, ratio, samples, state, since, note, alert, history, estimated, usual)

    def _state(
        self, target: Target, at: float, value: float | None, ratio: float | None, samples: float | None
    ) -> tuple[TargetState, str]:
        key = (target.service, target.name)
        if value is None:
            if key in self._seen:
                return "no_data", "its instrument has fallen silent"
            before = self._since.get(key)
            waited = at - before[1] if before else 0.0
            if waited > target.silence or (before and before[0] == "no_data"):
                return "no_data", "nothing was ever measured"
            return "waiting", "nothing measured yet"
        if math.isnan(value):
            return (
                "idle",
                f"no {COUNTED.get(target.name, 'samples')} in the last {format_duration(target.window)}",
            )
        if ratio is not None and ratio > 1:
            if samples is not None and samples < target.floor:
                counted = COUNTED.get(target.name, "samples")
                return "idle", f"too few {counted} to judge: {samples:.0f}, judged from {target.floor}"
            if isinstance(target.indicator, Capacity):
                return "missed", f"{self._title(target, target.indicator)} is missed with fewer on"
            return "missed", _times(ratio, target)
        if isinstance(target.indicator, Capacity) and value < target.limit:
            if ratio is None or math.isnan(ratio):
                return "idle", f"not judged while {self._title(target, target.indicator)} has no value"
            return "ok", f"{self._title(target, target.indicator)} holds with all who are on"
        return "ok", ""

    def _title(self, target: Target, indicator: Capacity) -> str:
        for other in self._configuration.targets_of(target.service):
            if other.name == indicator.while_holds:
                return other.title
        return indicator.while_holds

    def _seconds(self, at: float) -> float:
        """Of the history: a monitor that was just started shows its few minutes over the whole width."""
        return min(HISTORY_SECONDS, max(HISTORY_SHORTEST, at - self._started))

    def _history(
        self, at: float, query_range: Callable[[str, float, float, float], Matrix]
    ) -> Mapping[Key, tuple[tuple[float, float | None], ...]]:
        seconds = self._seconds(at)
        step = max(self._configuration.monitor.evaluation_interval, seconds / HISTORY_POINTS)
        end = math.floor(at / step) * step  # on a grid of its own, so that the line does not jitter as it moves on
        steps = int(seconds / step)
        start = end - steps * step
        history: dict[Key, tuple[tuple[float, float | None], ...]] = {}
        for series in query_range(VALUE, start, end, step).series:
            points = dict(zip((series.timestamps / 1000).tolist(), series.values.tolist(), strict=True))
            grid = (round(start + i * step, 3) for i in range(steps + 1))
            history[_key(series.labels)] = tuple((t, _finite(points.get(t))) for t in grid)
        return history


def _times(ratio: float, target: Target) -> str:
    if target.direction is Direction.ABOVE:
        return f"{100 / ratio:.3g} % of its limit"
    if not math.isfinite(ratio):
        return "over its limit"
    return f"{ratio:.1f} times its limit" if ratio >= 1.5 else f"{(ratio - 1) * 100:.0f} % over its limit"


def _alert_states(alerts: Iterable[ActiveAlert]) -> dict[Key, str]:
    return {
        _key(alert.labels): alert.state.value
        for alert in alerts
        if alert.state is not State.INACTIVE and dict(alert.labels).get("alertname") in MISSES
    }


def _by_target(value: Value) -> dict[Key, float]:
    return {_key(sample.labels): sample.value for sample in value.samples} if isinstance(value, Vector) else {}


def _key(labels: Labels) -> Key:
    pairs = dict(labels)
    return pairs.get("service", ""), pairs.get("target", "")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _number(value: float | None) -> float | None:
    """For JSON, which knows no NaN: six significant digits are more than a screen shows."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
