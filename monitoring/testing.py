"""A pytest fixture for tests of alert rules: no Prometheus, no promtool, no server; an hour is played in milliseconds.

::

    def test_a_job_that_is_down(alert_rules):
        play = alert_rules("rules.yml")
        play.series('up{job="a"}', "1x3 0x10")
        assert play.pending(at="5m") == [{"alertname": "JobDown", "job": "a", "severity": "critical"}]
        assert play.firing(at="6m") == [{"alertname": "JobDown", "job": "a", "severity": "critical"}]

pytest loads this module by itself (entry point ``pytest11``); the evaluator comes with the first play.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from anvil_monitor.alerts.promseries import Item
    from anvil_monitor.alerts.rulefile import Group

    from .ruletest import Embedded

Labels = tuple[tuple[str, str], ...]


class PlayedAlert(NamedTuple):
    """One alert. ``state`` is ``pending`` or ``firing``, ``since`` the second at which its condition began."""

    labels: dict[str, str]
    annotations: dict[str, str]
    state: str
    value: float
    since: float


class Play:
    """Rules and the series that are played to them. Times are durations (``"5m"``) or seconds, from the start on."""

    def __init__(
        self, groups: tuple[Group, ...], interval: float, evaluation_interval: float, external_labels: Mapping[str, str]
    ) -> None:
        self._groups, self._interval, self._every = groups, interval, evaluation_interval
        self._external_labels = dict(external_labels)
        self._series: dict[Labels, list[Item]] = {}
        self._evaluator: Embedded | None = None
        self._played, self._next = 0, 0.0

    def series(self, series: str, values: str) -> Play:
        """``'up{job="a"}'`` and its values one interval apart, as promtool writes them: ``1x10 0x20 _x3 stale``.

        Raises ``ValueError`` for what cannot be read, and for a series that is there already.
        """
        from anvil_monitor.alerts.promseries import parse_labels, parse_values

        labels = parse_labels(series)
        if labels in self._series:
            raise ValueError(f"{series} has its values already")
        self._series[labels] = parse_values(values)
        self._evaluator = None
        return self

    def firing(self, at: str | float, alertname: str | None = None) -> list[dict[str, str]]:
        """The labels of the alerts that fire at ``at``, sorted; all, or those of one name."""
        return [each.labels for each in self.alerts(at, alertname) if each.state == "firing"]

    def pending(self, at: str | float, alertname: str | None = None) -> list[dict[str, str]]:
        """As :meth:`firing`, for the alerts whose ``for`` is not over."""
        return [each.labels for each in self.alerts(at, alertname) if each.state == "pending"]

    def alerts(self, at: str | float, alertname: str | None = None) -> list[PlayedAlert]:
        """The pending and firing alerts at ``at``, sorted by their labels. A rule that fails raises its error."""
        found = [
            PlayedAlert(dict(each.labels), dict(each.annotations), each.state.value, each.value, each.active_at)
            for each in self._until(at).alerts()
        ]
        found.sort(key=lambda each: sorted(each.labels.items()))
        return [each for each in found if alertname in (None, each.labels["alertname"])]

    def query(self, expr: str, at: str | float) -> dict[str, float]:
        """The result of ``expr`` at ``at``, by series: ``{'up{job="a"}': 1.0}``; a scalar is ``{"{}": 1.0}``."""
        from .asking import series_text

        return {series_text(dict(labels)): value for labels, value in self._until(at).query(expr, _seconds(at))}

    def _until(self, at: str | float) -> Embedded:
        """The evaluator after the last evaluation at or before ``at``; what lies behind it is played again."""
        from anvil_monitor.alerts import promtest

        from .ruletest import Embedded

        end = _seconds(at)
        if self._evaluator is None or end < self._next - self._every:
            self._evaluator = Embedded(self._groups, self._every, self._external_labels)
            self._played, self._next = 0, 0.0
        given = tuple((labels, tuple(values)) for labels, values in self._series.items())
        test = promtest.Test("", self._interval, 0.0, given, (), (), self._external_labels, "", 0)
        while self._next <= end:
            self._played = promtest.play(test, self._evaluator, self._played, self._next)
            self._evaluator.evaluate(self._next)
            self._next += self._every
        return self._evaluator


def _seconds(at: str | float) -> float:
    from anvil_monitor.alerts.yamltext import parse_duration

    return parse_duration(at) if isinstance(at, str) else float(at)


@pytest.fixture
def alert_rules(request: pytest.FixtureRequest) -> Callable[..., Play]:
    """Makes a :class:`Play` of rule files, named as seen from the test's own folder or from where pytest runs.

    ``alert_rules(*files, interval="1m", evaluation_interval=None, external_labels={})``; a file that cannot be used
    raises ``ConfigurationError`` with every problem in it.
    """

    def make(
        *files: str | Path,
        interval: str | float = "1m",
        evaluation_interval: str | float | None = None,
        external_labels: Mapping[str, str] | None = None,
    ) -> Play:
        try:
            from .rulecommands import read
        except ImportError as error:
            raise ImportError(
                f"alert_rules needs the evaluator: pip install 'anvil-monitor[stack]' ({error})"
            ) from error
        step = _seconds(interval)
        every = step if evaluation_interval is None else _seconds(evaluation_interval)
        if step <= 0 or every <= 0:
            raise ValueError("an interval must be longer than nothing")
        beside = request.path.parent
        paths = [beside / file if (beside / file).exists() else Path(file) for file in files]
        groups = tuple(group for path in paths for group in read(path, every))
        return Play(groups, step, every, external_labels or {})

    return make
