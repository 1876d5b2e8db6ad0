"""Every rule's own tests, made from the targets: it fires, stays silent, recovers, and says when there is no data.

The file is in promtool's format (``promtool test rules rules_test.yml``); the embedded evaluator runs the same file
through :mod:`.promtest`. A rule that nobody has seen fire is a rule that cannot fire.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from anvil_monitor.targets import Capacity, Configuration, Level, Percentile, Service, Target, format_promql_duration

from . import templates, yamltext
from .rulefile import COMMENT, Alerting
from .ruleparts import ESTIMATE, LIMIT, MISSED, NO_DATA, RATIO, VALUE, Links, number, quoted
from .rules import rule_groups
from .ruletestparts import Asked, Condition, document, expression, up
from .ruletests_host import HostTests
from .ruletests_service import ServiceTests
from .scenes import STOCK_EDGES, Scene, Series

RULE_FILE: Final = "rules.yml"


def dump(configuration: Configuration, links: Links | None = None) -> str:
    """The test file for ``rule_groups(configuration, links)`` written as ``rules.yml`` beside it."""
    step = step_of(configuration)
    rules = [rule for group in rule_groups(configuration, links) for rule in group.rules if isinstance(rule, Alerting)]
    writer = _Writer(configuration, step, tuple(rule for rule in rules if "target" in rule.labels))
    tests: list[dict[str, Any]] = []
    for service in configuration.services:
        tests += writer.of(service)
        own = {rule.alert: rule for rule in rules if _of_service(rule, service)}
        tests += ServiceTests(configuration, service, step, own).all()
    tests += HostTests(step, rules).all()
    file = {"rule_files": [RULE_FILE], "evaluation_interval": format_promql_duration(step), "tests": tests}
    return yamltext.dump(file, COMMENT)


def _of_service(rule: Alerting, service: Service) -> bool:
    return rule.labels.get("service") == service.name and "target" not in rule.labels


def step_of(configuration: Configuration) -> float:
    """Seconds between the scrapes, and evaluations, of the tests: as many real ones as the shortest window allows."""
    shortest = min((target.window for target in configuration.targets), default=60.0)
    interval = configuration.monitor.scrape_interval
    return interval * max(1, math.floor(shortest / 4 / interval + 1e-9))


class _Writer:
    """The tests of every service, evaluated and scraped every ``step`` seconds."""

    def __init__(self, configuration: Configuration, step: float, rules: tuple[Alerting, ...]) -> None:
        self.configuration, self.step = configuration, step
        self.rules = {(rule.alert, rule.labels["service"], rule.labels["target"]): rule for rule in rules}

    def of(self, service: Service) -> Iterable[dict[str, Any]]:
        targets = self.configuration.targets_of(service.name)
        for target in targets:
            scene = Scene(target, targets, self.step)
            yield self.fires_and_recovers(scene)
            yield from self.short_miss(scene)
            yield self.kept(scene)
            yield from self.sparse(scene)
            yield self.idle(scene)
            yield self.no_data(scene)
            yield from self.estimated(scene)

    def fires_and_recovers(self, scene: Scene) -> dict[str, Any]:
        """Fires after ``for``, not before; goes on for ``keep_firing_for`` after the last miss, not longer."""
        step, target = self.step, scene.target
        fires = scene.starts + up(target.hold, step)
        last = fires + 2 * step
        conditions = self.misses(scene, last + step)
        ends = last + step + up(target.keep, step)
        times = (fires - step, fires, ends - step, ends)
        series = scene.missed(self.count(last) + 1, self.count(ends - last) + 1)
        ratio = scene.bad_value / target.limit
        if isinstance(target.indicator, Capacity):
            ratio = scene.rest.bad_value / scene.rest.target.limit
        expressions = [
            self.recorded(target, series_name, value, fires)
            for series_name, value in ((VALUE, scene.bad_value), (LIMIT, target.limit), (RATIO, ratio))
        ]
        return self.test(target, "fires after `for` and recovers after `keep_firing_for`", series,
                         {MISSED: (times, conditions)}, expressions)  # fmt: skip

    def short_miss(self, scene: Scene) -> Iterable[dict[str, Any]]:
        """A miss one evaluation shorter than ``for`` is never told."""
        bad = self.count(scene.starts + up(scene.target.hold, self.step))
        if scene.target.hold < 2 * self.step:
            return
        times = ((bad - 1) * self.step, bad * self.step, (bad + 2) * self.step)
        conditions = self.misses(scene, bad * self.step)
        yield self.test(scene.target, "a miss shorter than `for` stays silent", scene.missed(bad, 4),
                        {MISSED: (times, conditions)})  # fmt: skip

    def kept(self, scene: Scene) -> dict[str, Any]:
        """The limit kept by a hair, for as long as a miss would have needed."""
        target, step = scene.target, self.step
        end = 2 * up(target.window + target.hold + 2 * step, step)
        conditions: list[Condition] = []
        name = "stays silent while its limit is only just kept"
        expressions: list[dict[str, Any]] = []
        match target.indicator:
            case Capacity():
                name = "stays silent while enough users are on, though the other target is missed"
                conditions = self.misses(scene.rest, math.inf)
            case Percentile(metric, quantile):
                name = "stays silent on a healthy server whose stock edges would have called it slow"
                stock = STOCK_EDGES.get(metric, ())
                if (
                    min(stock, default=target.limit) < target.limit < max(stock, default=0)
                    and target.limit not in stock
                ):
                    selector = f"service={quoted(target.service)},le!={quoted(number(target.limit))}"
                    rate = f"rate({metric}_bucket{{{selector}}}[{format_promql_duration(target.window)}])"
                    expr = f"histogram_quantile({number(quantile)}, sum by (le) ({rate})) > bool {number(target.limit)}"
                    expressions = [expression(expr, end, "{}", 1)]
        series = scene.kept(self.count(end) + 1)
        return self.test(target, name, series, {MISSED: ((end // 2 // step * step, end), conditions)}, expressions)

    def sparse(self, scene: Scene) -> Iterable[dict[str, Any]]:
        """Slow, but too few requests to believe it."""
        target = scene.target
        counted = scene.rest.target if isinstance(target.indicator, Capacity) else target
        if counted.floor < 3:  # two bursts of one request each can share a window
            return
        end = up(2 * counted.window + target.hold + 2 * self.step, self.step)
        times = (up(target.hold, self.step) + 2 * self.step, end - self.step, end)
        yield self.test(target, "stays silent with traffic under its floor", scene.sparse(self.count(end) + 1),
                        {MISSED: (times, [])})  # fmt: skip

    def idle(self, scene: Scene) -> dict[str, Any]:
        """No traffic is neither a miss nor silence of the instrument."""
        target = scene.target
        end = up(target.window + max(target.hold, target.silence) + 2 * self.step, self.step)
        series = self.all_idle(end) | scene.idle(self.count(end) + 1)
        expressions = []
        if not isinstance(target.indicator, Level | Capacity):
            value = f"{VALUE}{{service={quoted(target.service)},target={quoted(target.name)}}}"
            labels = "{" + ", ".join(f"{name}={quoted(text)}" for name, text in sorted(_labels(target).items())) + "}"
            expressions = [expression(f"{value} != bool {value}", end, labels, 1)]  # NaN, and only NaN, is not itself
        return self.test(target, "stays silent without traffic", series,
                         {MISSED: ((end,), []), NO_DATA: ((end,), [])}, expressions)  # fmt: skip

    def no_data(self, scene: Scene) -> dict[str, Any]:
        """The series of this target end, those of the others go on; later they come back."""
        target, step = scene.target, self.step
        rule = self.rules[NO_DATA, target.service, target.name]
        spoke = self.count(up(target.window, step)) + 1
        # When a window runs dry differs by a scrape between Prometheus 2 (closed at the left) and 3 (open).
        gone = (spoke - 1) * step + target.window
        early, late = gone - 2 * step, up(gone + 2 * step, step)
        fires = up(late + rule.hold, step)
        back = fires + 2 * step
        end = back + 2 * step
        own = set(scene.idle(1)) - (set(scene.rest.idle(1)) if isinstance(target.indicator, Capacity) else set())
        series = self.all_idle(end) | scene.idle(self.count(end) + 1)
        gap, rest = self.count(back) - spoke, self.count(end - back) + 1
        values = {name: text if name not in own else _with_gap(text, spoke, gap, rest) for name, text in series.items()}
        silent = Condition(rule, target.limit, late, back + scene.starts)
        quiet = (up(early + rule.hold, step) - step, fires, end)
        return self.test(target, "says that there is no data, and when there is again", values,
                         {NO_DATA: (quiet, [silent]), MISSED: ((fires,), [])})  # fmt: skip

    def estimated(self, scene: Scene) -> Iterable[dict[str, Any]]:
        """A histogram without an edge at the limit: the message says that it is an estimate."""
        target = scene.target
        if not isinstance(target.indicator, Percentile):
            return
        fires = scene.starts + up(target.hold, self.step)
        edge = f"le={quoted(number(target.limit))}"
        series = {name: text for name, text in scene.missed(self.count(fires) + 3, 1).items() if edge not in name}
        rule = self.rules[MISSED, target.service, target.name]
        condition = Condition(rule, scene.bad_value, scene.starts, answers={ESTIMATE: [templates.Element({}, 1.0)]})
        yield self.test(target, "says that it is an estimate without a bucket edge at its limit", series,
                        {MISSED: ((fires,), [condition])}, [self.recorded(target, ESTIMATE, 1, fires)])  # fmt: skip

    def misses(self, scene: Scene, until: float) -> list[Condition]:
        """What is missed while ``scene`` is: its own target, and the one that a capacity is counted against."""
        target = scene.target
        own = Condition(self.rules[MISSED, target.service, target.name], scene.bad_value, scene.starts, until)
        return [own, *(self.misses(scene.rest, until) if isinstance(target.indicator, Capacity) else [])]

    def all_idle(self, end: float) -> Series:
        """Every target of every service, idle: what is said of one must not be said of another."""
        series: Series = {}
        for service in self.configuration.services:
            targets = self.configuration.targets_of(service.name)
            for target in targets:
                series |= Scene(target, targets, self.step).idle(self.count(end) + 1)
        return series

    def recorded(self, target: Target, name: str, value: float, at: float) -> dict[str, Any]:
        selector = f"{name}{{service={quoted(target.service)},target={quoted(target.name)}}}"
        labels = ", ".join(f"{label}={quoted(text)}" for label, text in sorted(_labels(target).items()))
        return expression(selector, at, f"{name}{{{labels}}}", value)

    def count(self, seconds: float) -> int:
        return round(seconds / self.step)

    def test(
        self,
        what: Target | Service,
        name: str,
        series: Series,
        alerts: Asked,
        expressions: Sequence[dict[str, Any]] = (),
    ) -> dict[str, Any]:
        who = f"{what.service}, {what.name}" if isinstance(what, Target) else what.name
        return document(who, name, self.step, series, alerts, expressions)


def _labels(target: Target) -> dict[str, str]:
    return {"service": target.service, "target": target.name, "unit": target.unit.value}


def _with_gap(text: str, before: int, gap: int, after: int) -> str:
    """A flat series (``0 0+0x9`` or ``v+0x9``) that says nothing for ``gap`` scrapes."""
    value = text.split()[-1].partition("+")[0]
    return f"{value}+0x{before - 1} _x{gap} {value}+0x{after - 1}"
