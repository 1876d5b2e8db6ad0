"""The tests of a target that is an expression of the user's own, played with what :mod:`.searching` has found.

When it crosses its limit is not known from the expression: the evaluator that found the scene says it, and the tests
ask two scrapes before and after, for a window holds a scrape more in Prometheus 2 than in 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from anvil_monitor.targets import Target

from .ownscenes import NoSceneError
from .promseries import parse_labels, parse_values
from .rulefile import Alerting, Group
from .ruleparts import MISSED, NO_DATA, RATIO, VALUE, recorded
from .ruletestparts import Condition, document, expression, up
from .ruletests_targets import firing
from .scenes import Series
from .searching import LOOKBACK, MOST_SCRAPES, MOST_TRIED, Found, Play, looks_back, search

SLACK: Final = 2


@dataclass(frozen=True, slots=True)
class ExpressionTests:
    """The tests of ``target``, whose rules are ``groups``, scraped and evaluated every ``step`` seconds.

    ``untested`` says what no test could be made for, and why.
    """

    target: Target
    groups: Sequence[Group]
    step: float
    play: Play
    untested: list[str] = field(default_factory=list)

    def all(self) -> list[dict[str, Any]]:
        tests = [self.nothing()]
        try:
            found = search(self.target, self.step, self.play)
        except NoSceneError as error:
            self.untested.append(f"that {MISSED} of {self.target.service}/{self.target.name} fires: {error}")
            return tests
        for make in (self.fires_and_recovers, self.kept, self.no_data):
            try:
                tests.append(make(found))
            except NoSceneError as error:
                self.untested.append(f"{self.target.service}/{self.target.name}: {error}")
        return tests

    def fires_and_recovers(self, found: Found) -> dict[str, Any]:
        target, step = self.target, self.step
        bad = min(MOST_TRIED, self._scrapes(looks_back(target))) + self._scrapes(target.hold) + 6
        good = self._scrapes(looks_back(target) + LOOKBACK) + self._scrapes(target.keep) + 10
        series = found.series((found.bad, bad), (found.good, good))
        fired, _ = self._played(series, bad + good)
        times = [place for place, fires in enumerate(fired) if fires]
        if not times or not all(fired[times[0] : bad]) or times[0] + SLACK >= bad:
            raise NoSceneError("what misses it does not make the alert fire, and go on, when it is played to the rules")
        first, last = times[0], times[-1]
        if last + 1 + SLACK >= len(fired):
            raise NoSceneError("the alert does not end when its series are well again")
        asked = ((first - 1 - SLACK, False), (first + SLACK, True), (bad - 1, True), (last + 1 + SLACK, False))
        over = expression(f"count({recorded(RATIO, target)} > 1)", (bad - 1) * step, "{}", 1)
        told = (firing(target, at * step, fires=fires) for at, fires in asked if at >= 0)
        return self._test("fires after `for` and recovers", series, expressions=[over, *told])

    def kept(self, found: Found) -> dict[str, Any]:
        target, step = self.target, self.step
        scrapes = self._scrapes(looks_back(target)) + self._scrapes(target.hold) + self._scrapes(target.keep) + 6
        series = found.series((found.good, scrapes))
        fired, _ = self._played(series, scrapes)
        if any(fired[-1 - SLACK :]):
            raise NoSceneError("what keeps it makes the alert fire when it is played to the rules")
        end = (scrapes - 1) * step
        there = expression(f"count({recorded(VALUE, target)})", end, "{}", 1)
        told = firing(target, end, fires=False)
        return self._test("stays silent while it is kept", series, expressions=[there, told])

    def no_data(self, found: Found) -> dict[str, Any]:
        """Its series end, and come back."""
        target, step = self.target, self.step
        before = min(MOST_TRIED, self._scrapes(looks_back(target))) + 4
        gone = before + self._scrapes(looks_back(target)) + SLACK
        fires = gone + self._scrapes(target.silence) + SLACK
        end = fires + 1 + before + 2
        series = found.series((found.good, before), (None, fires + 1 - before), (found.good, end - fires))
        _, measured = self._played(series, end + 1)
        times = ((before - 1) * step, fires * step, end * step)
        if all(measured[gone:]):
            return self._test("gives a number without its series, too", series, NO_DATA, times)
        if any(measured[gone : fires + 1]) or not measured[before - 1] or not measured[end]:
            raise NoSceneError(f"whether {NO_DATA} fires when its series end could not be found out")
        silent = Condition(self._rule(NO_DATA), target.limit, gone * step, (fires + 1) * step)
        return self._test("says that there is no data, and when there is again", series, NO_DATA, times, [silent])

    def nothing(self) -> dict[str, Any]:
        """There never was a series."""
        scrapes = self._scrapes(self.target.silence) + 3
        _, measured = self._played({}, scrapes)
        at = (scrapes - 1) * self.step
        if all(measured):
            return self._test("gives a number without any series", {}, NO_DATA, (at,))
        silent = Condition(self._rule(NO_DATA), self.target.limit, 0)
        return self._test("says that there is no data where there never was any", {}, NO_DATA,
                          (silent.fired(self.step) - self.step, at), [silent])  # fmt: skip

    def _played(self, series: Series, scrapes: int) -> tuple[list[bool], list[bool]]:
        """By scrape whether it fires, and whether it has a value."""
        if scrapes > MOST_SCRAPES:
            raise NoSceneError(f"it looks back over so long that a test would take more than {MOST_SCRAPES} scrapes")
        evaluator = self.play(self.groups, self.step)
        every = [(parse_labels(name), parse_values(text)) for name, text in series.items()]
        fired: list[bool] = []
        measured: list[bool] = []
        for place in range(scrapes):
            at = place * self.step
            found = [(labels, values[place]) for labels, values in every if place < len(values)]
            samples = [(labels, value) for labels, value in found if value is not None]
            if samples:
                evaluator.append(at, samples)
            evaluator.evaluate(at)
            fired.append(any(labels["alertname"] == MISSED for labels, _ in evaluator.firing()))
            measured.append(bool(list(evaluator.query(recorded(VALUE, self.target), at))))
        return fired, measured

    def _test(
        self,
        name: str,
        series: Series,
        alert: str = "",
        times: Sequence[float] = (),
        conditions: Sequence[Condition] = (),
        expressions: Sequence[dict[str, Any]] = (),
    ) -> dict[str, Any]:
        who = f"{self.target.service}, {self.target.name}"
        asked = {alert: (times, conditions)} if alert else {}
        return document(who, name, self.step, series, asked, expressions)

    def _rule(self, name: str) -> Alerting:
        rules = (rule for group in self.groups for rule in group.rules if isinstance(rule, Alerting))
        return next(rule for rule in rules if rule.alert == name)

    def _scrapes(self, seconds: float) -> int:
        return round(up(seconds, self.step) / self.step)
