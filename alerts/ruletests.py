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
from .ruleparts import ESTIMATE, LIMIT, MISSED, NO_DATA, RATIO, SAMPLES, VALUE, Links, number, quoted
from .rules import rule_groups
from .rules_missed import DETAIL, looks_back, name_of
from .rules_values import PATIENT_LEAST, patience
from .ruletestparts import Asked, Condition, document, expression, up
from .ruletests_host import HostTests
from .ruletests_service import ServiceTests
from .scenes import STOCK_EDGES, Scene, Series, playable

RULE_FILE: Final = "rules.yml"


def dump(configuration: Configuration, links: Links | None = None) -> str:
    """The test file for ``rule_groups(configuration, links)`` written as ``rules.yml`` beside it."""
    step = step_of(configuration)
    groups = rule_groups(configuration, links)
    rules = [rule for group in groups for rule in group.rules if isinstance(rule, Alerting)]
    writer = _Writer(configuration, step, tuple(rule for rule in rules if "target" in rule.labels))
    tests: list[dict[str, Any]] = []
    for service in configuration.services:
        tests += writer.of(service)
        own = {rule.alert: rule for rule in rules if _of_service(rule, service)}
        tests += ServiceTests(configuration, service, step, own).all()
    tests += HostTests(step, rules).all()
    file = {
        "rule_files": [RULE_FILE],
        "evaluation_interval": format_promql_duration(step),
        # What one group records, another reads; promtool takes them in any order where none is given.
        "group_eval_order": [group.name for group in groups],
        "tests": tests,
    }
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
        for target in filter(playable, targets):
            scene = Scene(target, targets, self.step)
            yield self.fires_and_recovers(scene)
            yield from self.short_miss(scene)
            yield self.kept(scene)
            yield from self.sparse(scene)
            yield from self.outage(scene)
            yield from self.hovers(scene)
            yield from self.names_routes(scene)
            yield self.idle(scene)
            yield self.no_data(scene)
            yield from self.estimated(scene)

    def fires_and_recovers(self, scene: Scene) -> dict[str, Any]:
        """Fires after ``for``, not before; goes on for ``keep_firing_for`` after the last miss, not longer."""
        step, target = self.step, scene.target
        fires = scene.starts + up(target.hold, step)
        last = fires + 2 * step
        over = last + step * (1 + scene.lingers)
        conditions = self.misses(scene, over)
        ends = over + up(target.keep, step)
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
                         _asked(times, conditions), expressions)  # fmt: skip

    def short_miss(self, scene: Scene) -> Iterable[dict[str, Any]]:
        """A miss one evaluation shorter than ``for`` is never told."""
        bad = self.count(scene.starts + up(scene.target.hold, self.step))
        if scene.target.hold < 2 * self.step:
            return
        times = ((bad - 1) * self.step, bad * self.step, (bad + 2) * self.step)
        conditions = self.misses(scene, bad * self.step)
        yield self.test(scene.target, "a miss shorter than `for` stays silent", scene.missed(bad, 4),
                        _asked(times, conditions))  # fmt: skip

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
        times = (end // 2 // step * step, end)
        asked: Asked = {name_of(target): (times, ()), **_asked(times, conditions)}
        return self.test(target, name, series, asked, expressions)

    def sparse(self, scene: Scene) -> Iterable[dict[str, Any]]:
        """Slow, but too few requests to believe it."""
        target = scene.target
        counted = scene.rest.target if isinstance(target.indicator, Capacity) else target
        if counted.floor < 5:  # four samples would be enough
            return
        end = up(2 * counted.window + target.hold + 2 * self.step, self.step)
        times = (up(target.hold, self.step) + 2 * self.step, end - self.step, end)
        asked: Asked = dict.fromkeys(dict.fromkeys((name_of(target), MISSED)), (times, ()))
        yield self.test(target, "stays silent with traffic under its floor", scene.sparse(self.count(end) + 1), asked)

    def outage(self, scene: Scene) -> Iterable[dict[str, Any]]:
        """Slow, and fewer requests than the floor, but for so long that together they are enough."""
        target, step = scene.target, self.step
        enough = max(target.floor, PATIENT_LEAST) * scene.apart
        if not looks_back(target) or enough * step >= patience(target) / 4:
            return
        rule = self.rules[MISSED, target.service, target.name]
        condition = Condition(rule, scene.bad_value, enough * step)  # SAMPLES finds nothing: fewer than the floor
        fired = condition.fired(step)
        scrapes = self.count(fired) + 2 * scene.apart
        over = up(scrapes * step + patience(target) / 4 + rule.keep + 3 * step, step)
        series = scene.outage(scrapes, self.count(over) + 1)
        told = self.test(target, "fires when the few requests that come are slow for long, and recovers", series,
                         {MISSED: ((condition.since - step, fired - step, fired), [condition])})  # fmt: skip
        # When the last quarter of the look back is empty differs by a scrape between Prometheus 2 and 3.
        silent = {"eval_time": format_promql_duration(over), "alertname": MISSED, "exp_alerts": []}
        yield told | {"alert_rule_test": [*told["alert_rule_test"], silent]}
        slow, fast = PATIENT_LEAST - 1, target.floor
        if isinstance(target.indicator, Percentile) and slow / (slow + fast) > 1 - target.indicator.quantile:
            ended = (slow + fast) * scene.apart * step
            few = scene.few(slow, fast, self.count(up(rule.hold, step)) + 2)
            times = (ended, up(ended + rule.hold, step), up(ended + rule.hold, step) + 2 * step)
            yield self.test(target, "stays silent when a few requests at night are slow", few, {MISSED: (times, ())})

    def hovers(self, scene: Scene) -> Iterable[dict[str, Any]]:
        """What hovers within the limit never fires; once it was over, it goes on until it is within by a margin."""
        target, step = scene.target, self.step
        if isinstance(target.indicator, Capacity):
            return
        window, hold, keep = (self.count(up(each, step)) for each in (target.window, target.hold, target.keep))
        near = window + max(hold, keep) + 4
        silent = scene.hovering(0, near, 0)
        yield self.test(target, "stays silent while it hovers just within its limit", silent,
                        {MISSED: (((near - 1) * step,), ())})  # fmt: skip
        bad = hold + 4
        good = window + keep + 4
        # Its value then lies between two edges, and differs in the last digit from one evaluator to the next.
        labels = {"alertname": MISSED, "alertstate": "firing", "service": target.service, "target": target.name}
        firing = "count(ALERTS{" + ",".join(f"{name}={quoted(text)}" for name, text in labels.items()) + "})"
        over = {"expr": firing, "eval_time": format_promql_duration((bad + near + good - 1) * step), "exp_samples": []}
        yield self.test(target, "goes on while it hovers just within its limit, and recovers",
                        scene.hovering(bad, near, good), {},
                        [expression(firing, (bad + near - 1) * step, "{}", 1), over])  # fmt: skip

    def names_routes(self, scene: Scene) -> Iterable[dict[str, Any]]:
        """The message names the three routes that cost most, the worst first."""
        target, step = scene.target, self.step
        if not isinstance(target.indicator, Percentile) or target.indicator.metric not in DETAIL:
            return
        labels = DETAIL[target.indicator.metric]
        rule = self.rules[MISSED, target.service, target.name]
        fired = scene.starts + up(target.hold, step)
        scrapes = min(self.count(fired), scene.window - 2)
        slow = {"/a": 1, "/orders": 4 * scene.traffic, "/b": 3, "/products": 2 * scene.traffic}
        series = scene.routes(self.count(fired) + 1, slow, labels)
        worst = sorted(slow.items(), key=lambda item: -item[1])[:3]
        # In full windows Prometheus 3 leaves out the first scrape and makes it up again.
        full = self.count(up(target.window, step))
        found = [
            templates.Element(dict.fromkeys(labels, name), float(7 * each * min(self.count(fired), full)))
            for name, each in worst
        ]
        answers = {"topk": found, SAMPLES: [templates.Element({}, 1.0)]}
        condition = Condition(rule, scene.bad_value, scene.starts, answers=answers)
        if scrapes:
            yield self.test(target, "names what costs most", series, {MISSED: ((fired,), [condition])})

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
        asked = {name_of(target): ((end,), ()), NO_DATA: ((end,), self.unmeasured())}
        return self.test(target, "stays silent without traffic", series, asked, expressions)

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
                         {NO_DATA: (quiet, [silent, *self.unmeasured()]), name_of(target): ((fires,), [])})  # fmt: skip

    def estimated(self, scene: Scene) -> Iterable[dict[str, Any]]:
        """A histogram without an edge at the limit: the message says that it is an estimate."""
        target = scene.target
        if not isinstance(target.indicator, Percentile):
            return
        fires = scene.starts + up(target.hold, self.step)
        edge = f"le={quoted(number(target.limit))}"
        series = {name: text for name, text in scene.missed(self.count(fires) + 3, 1).items() if edge not in name}
        rule = self.rules[MISSED, target.service, target.name]
        found = [templates.Element({}, 1.0)]
        condition = Condition(rule, scene.bad_value, scene.starts, answers={ESTIMATE: found, SAMPLES: found})
        yield self.test(target, "says that it is an estimate without a bucket edge at its limit", series,
                        {MISSED: ((fires,), [condition])}, [self.recorded(target, ESTIMATE, 1, fires)])  # fmt: skip

    def misses(self, scene: Scene, until: float) -> list[Condition]:
        """What is missed while ``scene`` is: its own target, and the one that a capacity is counted against."""
        target = scene.target
        rule = self.rules[name_of(target), target.service, target.name]
        # There are more samples than the floor: what the message says of its window is asked for so.
        own = Condition(rule, scene.bad_value, scene.starts, until, answers={SAMPLES: [templates.Element({}, 1.0)]})
        return [own, *(self.misses(scene.rest, until) if isinstance(target.indicator, Capacity) else [])]

    def unmeasured(self) -> list[Condition]:
        """Targets of the user's own, of which nothing is played here."""
        others = [target for target in self.configuration.targets if not playable(target)]
        return [Condition(self.rules[NO_DATA, each.service, each.name], each.limit, 0) for each in others]

    def all_idle(self, end: float) -> Series:
        """Every target of every service, idle: what is said of one must not be said of another."""
        series: Series = {}
        for service in self.configuration.services:
            targets = self.configuration.targets_of(service.name)
            for target in filter(playable, targets):
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


def _asked(times: Sequence[float], conditions: Sequence[Condition]) -> Asked:
    """Each condition's alert at ``times``: a capacity that is short comes with the other target's miss."""
    by_name: dict[str, list[Condition]] = {}
    for condition in conditions:
        by_name.setdefault(condition.rule.alert, []).append(condition)
    return {name: (times, found) for name, found in by_name.items()}


def _labels(target: Target) -> dict[str, str]:
    return {"service": target.service, "target": target.name, "unit": target.unit.value}


def _with_gap(text: str, before: int, gap: int, after: int) -> str:
    """A flat series (``0 0+0x9`` or ``v+0x9``) that says nothing for ``gap`` scrapes."""
    value = text.split()[-1].partition("+")[0]
    return f"{value}+0x{before - 1} _x{gap} {value}+0x{after - 1}"
