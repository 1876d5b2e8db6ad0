"""The drift alerts' own tests, in promtool's format: each fires, stays silent, ends, and says nothing without data.

The rules look back over days, so a test that began with nothing would take minutes. Here the past is written down:
the series that the rules would have recorded by then (``drift:noise``, ``drift:ref``, ``drift:most`` …) are
given, and hours are played. That the rules record just these from days of nothing but measurements is shown by
tests/alerts/test_drift_history.py. All targets of a service are played at once; values are powers of two, so that every
mean is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from anvil_monitor.targets import Configuration, Service, Target, format_promql_duration

from . import templates, yamltext
from .drift import THRESHOLDS, drift_groups
from .driftalerts import CREEP_KEEP, DRIFTING, KEEP, TRENDING
from .driftkinds import BOTH, DOWN, MEMORY, TRAFFIC, kind, side
from .rulefile import COMMENT, Alerting
from .ruleparts import Links, number, quoted, target_labels

RULE_FILE: Final = "drift.yml"

STEP: Final = 300
"""Seconds between samples and evaluations: as far apart as the rules' own look-back allows."""
HOUR: Final = 3600 // STEP
SHIFT: Final = 6 * HOUR
"""When the level shifts: the noise is that of 6 hours ago."""

Series = dict[str, str]
Asked = dict[str, float]
Told = tuple[Alerting, float, Asked]
Runs = Sequence[tuple[float, int]]


def dump(configuration: Configuration, links: Links | None = None) -> str:
    """The test file for the drift alerts in ``drift.yml`` beside it."""
    groups = drift_groups(configuration, links)
    rules = [rule for group in groups for rule in group.rules]
    known = {
        (rule.alert, rule.labels["service"], rule.labels["target"]): rule
        for rule in rules
        if isinstance(rule, Alerting) and rule.alert in (DRIFTING, TRENDING)
    }
    tests = []
    for service in configuration.services:
        targets = configuration.targets_of(service.name)
        if targets:
            tests += _Writer(service, targets, known).tests()
    document = {
        "rule_files": [RULE_FILE],
        "evaluation_interval": format_promql_duration(STEP),
        "group_eval_order": [group.name for group in groups],
        "tests": tests,
    }
    return yamltext.dump(document, COMMENT)


def usual(target: Target) -> float:
    """A level within the limit, and a power of two."""
    return float(2.0 ** math.floor(math.log2(0.6 * target.limit)))


def shifted(target: Target) -> float:
    """A level far from :func:`usual`, towards the limit."""
    return usual(target) / 2 if side(target) == DOWN else usual(target) * 2


class _Writer:
    """The tests of one service."""

    def __init__(
        self, service: Service, targets: tuple[Target, ...], rules: Mapping[tuple[str, str, str], Alerting]
    ) -> None:
        self.service, self.targets, self.rules = service, targets, rules
        self.others = [target for target in targets if kind(target) != MEMORY]
        self.leaks = [target for target in targets if kind(target) == MEMORY]

    def tests(self) -> list[dict[str, Any]]:
        made = [self.shift(shifted, "a shift is told once, and is over when it has become usual")]
        if any(side(target) == BOTH for target in self.targets):
            made.append(
                self.shift(lambda each: usual(each) / 2, "a fall is told where it matters, and only there", False)
            )
        made += [self.noise(), self.learning(), self.nothing()]
        if self.others:
            made += [self.creep(), self.crept()]
        if self.leaks:
            made.append(self.forecast())
        return made

    def shift(self, to: Callable[[Target], float], name: str, whole: bool = True) -> dict[str, Any]:
        """The level shifts; 3 hours later yesterday has shifted as well, and of memory nothing is known any more.

        ``whole``: until it is over.
        """
        known, kept = SHIFT + 3 * HOUR, round(KEEP / STEP)
        series: Series = {}
        told: list[Told] = []
        for target in self.targets:
            level, leaks = to(target), kind(target) == MEMORY
            after = 0 if leaks else kept + 2
            series |= self._past(target, ((usual(target), known), (level, after)))
            series |= self._present(target, ((usual(target), SHIFT), (level, 3 * HOUR + after)))
            if side(target) == BOTH or (level > usual(target)) == (side(target) != DOWN):
                told.append((self._rule(target), level, self._bounds(target)))
        asked: dict[int, Sequence[Told]] = {SHIFT: [], known - 1: told}
        if whole:
            # Half of a window is enough for a level: without data it goes on for an hour.
            leaking = [each for each in told if each[0].alert == TRENDING]
            asked |= {known + kept - 1: told, known + kept: leaking, known + kept + HOUR + 6: []}
        return self._test(name, series, asked)

    def noise(self) -> dict[str, Any]:
        """What strays as far as it did before is no drift; nor is a season that yesterday had as well."""
        series: Series = {}
        for target in self.targets:
            low, high, hours = usual(target), shifted(target), SHIFT + 2 * HOUR
            # A quarter of the usual is the noise, an eighth too little for a warning.
            series |= self._past(target, ((low, hours),), (high - low) / hours)
            series |= self._present(target, ((low + low / 8, hours),), (high - low) / hours)
        return self._test("a season and its noise stay silent", series, {SHIFT + HOUR: [], SHIFT + 2 * HOUR - 1: []})

    def learning(self) -> dict[str, Any]:
        """Without a past that is long enough nothing is a drift."""
        series: Series = {}
        for target in self.targets:
            series |= self._present(target, ((usual(target), HOUR), (shifted(target), 2 * HOUR)))
        return self._test("says nothing while it is learning", series, {2 * HOUR: [], 3 * HOUR - 1: []})

    def nothing(self) -> dict[str, Any]:
        series: Series = {}
        for target in self.targets:
            series |= self._past(target, ((usual(target), HOUR),))
        return self._test("says nothing without data", series, {HOUR - 1: []})

    def creep(self) -> dict[str, Any]:
        """The daily mean is beyond that of a week ago for two hours, and then not so far."""
        kept = round(CREEP_KEEP / STEP)
        told = [(self.rules[self._key(TRENDING, target)], shifted(target), {"drift:creep": 1.5})
                for target in self.others]  # fmt: skip
        asked = {HOUR - 1: [], HOUR: told, 2 * HOUR + kept - 1: told, 2 * HOUR + kept: []}
        return self._test("a creeping daily mean is told, and ends", self._creeping(kept + 2), asked)

    def crept(self) -> dict[str, Any]:
        """What has been told as a drift is not told again as a creep."""
        series = self._creeping(2)
        for target in self.others:
            labels = {"alertname": DRIFTING, "alertstate": "firing", "severity": "warning", **target_labels(target)}
            series[_name("ALERTS", labels)] = "1"
        return self._test("a creep after a drift stays silent", series, {HOUR: [], 2 * HOUR: []})

    def _creeping(self, after: int) -> Series:
        series: Series = {}
        for target in self.others:
            labels = self._labels(target)
            series[_name("drift:day", labels)] = _runs(((shifted(target), 2 * HOUR + after),))
            series[_name("drift:creep", labels)] = _runs(((1.5, 2 * HOUR), (1.125, after)))
        return series

    def forecast(self) -> dict[str, Any]:
        """Within a day past the limit, on the present slope, for a quarter of an hour."""
        series: Series = {}
        told: list[Told] = []
        kept = round(KEEP / STEP)
        for target in self.leaks:
            ahead = usual(target) * 4
            labels = self._labels(target)
            series[_name("drift:signal", labels)] = _runs(((usual(target), 2 * HOUR + kept + 4),))
            series[_name("drift:ahead", labels)] = _runs(
                ((usual(target), HOUR), (ahead, HOUR), (usual(target), kept + 4))
            )
            told.append((self.rules[self._key(TRENDING, target)], usual(target), {"drift:ahead": ahead}))
        # Whether ten minutes have two of these samples or three in them differs between Prometheus 2 and 3.
        asked = {HOUR: [], HOUR + 6: told, 2 * HOUR + kept - 2: told, 2 * HOUR + kept + 3: []}
        return self._test("a slope that meets the limit within a day is told, and ends", series, asked)

    def _past(self, target: Target, runs: Runs, grows: float = 0.0) -> Series:
        """What the rules would have recorded: a noise of a quarter of the usual level, and what it is held against."""
        length = sum(count for _, count in runs)
        series: Series = {}
        for rule in THRESHOLDS:
            labels = {**self._labels(target), "rule": rule}
            series[_name("drift:noise", labels)] = _runs(((usual(target) / 4, length),))
            if kind(target) == MEMORY:
                series[_name("drift:most", labels)] = _runs(runs, grows)
        if kind(target) != MEMORY:
            series[_name("drift:ref", {**self._labels(target), "ref": "yesterday"})] = _runs(runs, grows)
        if kind(target) == TRAFFIC:
            series[_name("drift:ref", {**self._labels(target), "ref": "lastweek"})] = _runs(runs, grows)
        return series

    def _present(self, target: Target, runs: Runs, grows: float = 0.0) -> Series:
        return {_name("drift:signal", self._labels(target)): _runs(runs, grows)}

    def _bounds(self, target: Target) -> Asked:
        """What the message says beside the value."""
        level, margin = usual(target), max(THRESHOLDS.values()) * (usual(target) / 4)
        bounds = {"target:baseline": level}
        if side(target) != DOWN:
            bounds["target:upper"] = level + margin
        if side(target) in (DOWN, BOTH):
            bounds["target:lower"] = level - margin
        return bounds

    def _rule(self, target: Target) -> Alerting:
        return self.rules[self._key(TRENDING if kind(target) == MEMORY else DRIFTING, target)]

    def _key(self, alert: str, target: Target) -> tuple[str, str, str]:
        return alert, target.service, target.name

    def _labels(self, target: Target) -> dict[str, str]:
        return {**target_labels(target), "class": kind(target), "side": side(target)}

    def _test(self, name: str, series: Series, asked: Mapping[int, Sequence[Told]]) -> dict[str, Any]:
        step = format_promql_duration(STEP)
        return {
            "name": f"{self.service.name}: {name}",
            "interval": step,
            "input_series": [{"series": each, "values": values} for each, values in series.items()],
            "alert_rule_test": [
                {
                    "eval_time": format_promql_duration(at * STEP),
                    "alertname": alert,
                    "exp_alerts": [_alert(*each) for each in told if each[0].alert == alert],
                }
                for at, told in asked.items()
                for alert in (DRIFTING, TRENDING)
            ],
        }


def _alert(rule: Alerting, value: float, asked: Asked) -> dict[str, Any]:
    """The alert as it is to be told; ``asked``: what its templates find under a series' name."""

    def query(expr: str) -> list[templates.Element]:
        name = expr.partition("{")[0]
        return [templates.Element({}, asked[name])] if name in asked else []

    labels = dict(sorted(rule.labels.items()))
    texts = {name: templates.expand(text, labels, value, query=query) for name, text in rule.annotations.items()}
    return {"exp_labels": labels, "exp_annotations": dict(sorted(texts.items()))}


def _name(series: str, labels: Mapping[str, str]) -> str:
    return f"{series}{{{','.join(f'{name}={quoted(text)}' for name, text in sorted(labels.items()))}}}"


def _runs(runs: Runs, grows: float = 0.0) -> str:
    """promtool's notation of ``n`` samples of ``value``, each ``grows`` more than the last, for every (value, n)."""
    return " ".join(f"{value!r}{'+' if grows >= 0 else ''}{number(grows)}x{n - 1}" for value, n in runs if n)
