"""The tests of the targets' own rules, whichever scene plays them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from anvil_monitor.targets import Capacity, Mean, Percentile, Target, format_promql_duration

from . import templates
from .ownscenes import RateScene, ShareScene
from .rulefile import Alerting
from .ruleparts import COSTLIEST, ESTIMATE, LIMIT, MISSED, NO_DATA, RATIO, SAMPLES, VALUE, number, quoted
from .rules_missed import DETAIL, looks_back, name_of
from .rules_targets import is_own
from .rules_values import PATIENT_LEAST, patience
from .ruletestparts import Asked, Condition, document, expression, up
from .scenes import STOCK_EDGES, Scene, Series

MANY: Final = 2**24
"""A floor that brings so many samples that all others are too few to matter."""


class TargetTests:
    """The tests of ``scenes``, evaluated and scraped every ``step`` seconds; ``rules`` are those of the file."""

    def __init__(self, scenes: Sequence[Scene], step: float, rules: Iterable[Alerting]) -> None:
        self.scenes, self.step = tuple(scenes), step
        told = (rule for rule in rules if "target" in rule.labels)
        self.rules = {(rule.alert, rule.labels["service"], rule.labels["target"]): rule for rule in told}

    def of(self, service: str) -> Iterator[dict[str, Any]]:
        """The tests of the targets of ``service``."""
        for scene in (each for each in self.scenes if each.target.service == service):
            yield self.fires_and_recovers(scene)
            yield from self.short_miss(scene)
            yield self.kept(scene)
            yield from self.strays(scene)
            yield from self.nothing_good(scene)
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
        if not scene.sharp:  # a window holds a scrape more in Prometheus 2 than in 3
            ends = up(ends + target.window + 2 * step, step)
            times = (fires - step, fires, last, ends)
        series = scene.missed(self.count(last) + 1, self.count(ends - last) + 1)
        known = {VALUE: scene.bad_value, LIMIT: target.limit, RATIO: scene.bad_ratio}
        expressions = [
            self.recorded(target, series_name, value, fires)
            for series_name, value in known.items()
            if value is not None and math.isfinite(value)
        ]
        return self.test(scene, "fires after `for` and recovers after `keep_firing_for`", series,
                         _asked(times, conditions), expressions)  # fmt: skip

    def short_miss(self, scene: Scene) -> Iterable[dict[str, Any]]:
        """A miss one evaluation shorter than ``for`` is never told."""
        bad = self.count(scene.starts + up(scene.target.hold, self.step))
        if scene.target.hold < 2 * self.step or not scene.sharp:
            return
        times = ((bad - 1) * self.step, bad * self.step, (bad + 2) * self.step)
        conditions = self.misses(scene, bad * self.step)
        yield self.test(scene, "a miss shorter than `for` stays silent", scene.missed(bad, 4),
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
        return self.test(scene, name, series, asked, expressions)

    def strays(self, scene: Scene) -> Iterable[dict[str, Any]]:
        """What the target's matchers leave out misses it, or keeps it: that changes nothing."""
        fires = scene.starts + up(scene.target.hold, self.step)
        scrapes = self.count(fires) + 3
        for place, stray in enumerate(scene.strays() if is_own(scene.target) else (), 1):
            which = f"stays silent while only what is not its own misses it ({place})"
            much = replace(stray, target=replace(stray.target, floor=MANY))
            series, conditions = much.missed(scrapes, 0) | scene.kept(scrapes), []
            if not scene.rises and not isinstance(scene, ShareScene):  # a sum: what is not its own would fill it up
                which = f"fires though what is not its own keeps it ({place})"
                series, conditions = stray.well(scrapes) | scene.missed(scrapes, 0), self.misses(scene, math.inf)
            times = (fires, fires + 2 * self.step)
            yield self.test(scene, which, series, {MISSED: (times, conditions)})

    def nothing_good(self, scene: Scene) -> Iterable[dict[str, Any]]:
        """Good events that never came have no series: a share of 0, not an unknown one."""
        if isinstance(scene, ShareScene) and not scene.rises:
            fires = scene.starts + up(scene.target.hold, self.step)
            series = scene.without_good(self.count(fires) + 1)
            (condition,) = self.misses(scene, math.inf)
            nothing = replace(condition, value=0.0)
            yield self.test(scene, "fires when nothing good has come yet", series, {MISSED: ((fires,), [nothing])},
                            [self.recorded(scene.target, VALUE, 0, fires)])  # fmt: skip

    def sparse(self, scene: Scene) -> Iterable[dict[str, Any]]:
        """Slow, but too few requests to believe it."""
        target = scene.target
        counted = scene.rest.target if isinstance(target.indicator, Capacity) else target
        if counted.floor < 5:  # four samples would be enough
            return
        end = up(2 * counted.window + target.hold + 2 * self.step, self.step)
        times = (up(target.hold, self.step) + 2 * self.step, end - self.step, end)
        asked: Asked = dict.fromkeys(dict.fromkeys((name_of(target), MISSED)), (times, ()))
        yield self.test(scene, "stays silent with traffic under its floor", scene.sparse(self.count(end) + 1), asked)

    def outage(self, scene: Scene) -> Iterable[dict[str, Any]]:
        """Slow, and fewer requests than the floor, but for so long that together they are enough."""
        target, step = scene.target, self.step
        if not looks_back(target) or not outage_in_time(scene):
            return
        enough = max(target.floor, PATIENT_LEAST) * scene.apart
        rule = self.rules[MISSED, target.service, target.name]
        condition = Condition(rule, scene.bad_value, enough * step)  # SAMPLES finds nothing: fewer than the floor
        fired = condition.fired(step)
        scrapes = self.count(fired) + 2 * scene.apart
        over = up(scrapes * step + patience(target) / 4 + rule.keep + 3 * step, step)
        series = scene.outage(scrapes, self.count(over) + 1)
        told = self.test(scene, "fires when the few requests that come are slow for long, and recovers", series,
                         {MISSED: ((condition.since - step, fired - step, fired), [condition])})  # fmt: skip
        # When the last quarter of the look back is empty differs by a scrape between Prometheus 2 and 3.
        silent = {"eval_time": format_promql_duration(over), "alertname": MISSED, "exp_alerts": []}
        yield told | {"alert_rule_test": [*told["alert_rule_test"], silent]}
        slow, fast = PATIENT_LEAST - 1, target.floor
        if isinstance(target.indicator, Percentile) and slow / (slow + fast) > 1 - target.indicator.quantile:
            ended = (slow + fast) * scene.apart * step
            few = scene.few(slow, fast, self.count(up(rule.hold, step)) + 2)
            times = (ended, up(ended + rule.hold, step), up(ended + rule.hold, step) + 2 * step)
            yield self.test(scene, "stays silent when a few requests at night are slow", few, {MISSED: (times, ())})

    def hovers(self, scene: Scene) -> Iterable[dict[str, Any]]:
        """What hovers within the limit never fires; once it was over, it goes on until it is within by a margin."""
        target, step = scene.target, self.step
        if not scene.hovering(1, 1, 1):
            return
        window, hold, keep = (self.count(up(each, step)) for each in (target.window, target.hold, target.keep))
        near = window + max(hold, keep) + 4
        silent = scene.hovering(0, near, 0)
        yield self.test(scene, "stays silent while it hovers just within its limit", silent,
                        {MISSED: (((near - 1) * step,), ())})  # fmt: skip
        bad = hold + 4
        good = window + keep + 4
        # Its value then lies between two edges, and differs in the last digit from one evaluator to the next.
        last = (bad + near - 1) * step
        told = [firing(target, last, fires=True), firing(target, last + good * step, fires=False)]
        yield self.test(scene, "goes on while it hovers just within its limit, and recovers",
                        scene.hovering(bad, near, good), {}, told)  # fmt: skip

    def names_routes(self, scene: Scene) -> Iterable[dict[str, Any]]:
        """The message names the three routes that cost most, the worst first."""
        target, step = scene.target, self.step
        if not isinstance(target.indicator, Percentile) or target.indicator.metric not in DETAIL:
            return
        labels = DETAIL[target.indicator.metric]
        of = {name: value for name, value in scene.labels.items() if name in labels}
        rule = self.rules[MISSED, target.service, target.name]
        fired = scene.starts + up(target.hold, step)
        scrapes = min(self.count(fired), scene.window - 2)
        slow = {"/a": 1, "/orders": 4 * scene.traffic, "/b": 3, "/products": 2 * scene.traffic}
        if labels[-1] in of:
            slow = {of[labels[-1]]: scene.traffic}
        series = scene.routes(self.count(fired) + 1, slow, labels)
        worst = sorted(slow.items(), key=lambda item: -item[1])[:3]
        # In full windows Prometheus 3 leaves out the first scrape and makes it up again.
        full = self.count(up(target.window, step))
        found = [
            templates.Element(dict.fromkeys(labels, name) | of, float(7 * each * min(self.count(fired), full)))
            for name, each in worst
        ]
        answers = {f"topk({COSTLIEST}, ": found, SAMPLES: [templates.Element({}, 1.0)]}
        condition = Condition(rule, scene.bad_value, scene.starts, answers=answers)
        if scrapes:
            whole = replace(scene, labels={})  # of one time, all that is said is known
            yield self.test(whole, "names what costs most", series, {MISSED: ((fired,), [condition])})

    def idle(self, scene: Scene) -> dict[str, Any]:
        """No traffic is neither a miss nor silence of the instrument."""
        target = scene.target
        end = up(target.window + max(target.hold, target.silence) + 2 * self.step, self.step)
        series = self.all_idle(end) | scene.idle(self.count(end) + 1)
        expressions = []
        if scene.is_silent:
            value = f"{VALUE}{{service={quoted(target.service)},target={quoted(target.name)}}}"
            labels = "{" + ", ".join(f"{name}={quoted(text)}" for name, text in sorted(_labels(target).items())) + "}"
            expressions = [expression(f"{value} != bool {value}", end, labels, 1)]  # NaN, and only NaN, is not itself
        asked: Asked = {name_of(target): ((end,), ()), NO_DATA: ((end,), ())}
        return self.test(scene, "stays silent without traffic", series, asked, expressions)

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
        gap, rest = self.count(back) - spoke, self.count(end - back) + 1
        values = self.all_idle(end) | scene.broken_off(spoke, gap, rest)
        silent = Condition(rule, target.limit, late, back + scene.starts)
        quiet = (up(early + rule.hold, step) - step, fires, end)
        return self.test(scene, "says that there is no data, and when there is again", values,
                         {NO_DATA: (quiet, [silent]), name_of(target): ((fires,), [])})  # fmt: skip

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
        yield self.test(scene, "says that it is an estimate without a bucket edge at its limit", series,
                        {MISSED: ((fires,), [condition])}, [self.recorded(target, ESTIMATE, 1, fires)])  # fmt: skip

    def misses(self, scene: Scene, until: float) -> list[Condition]:
        """What is missed while ``scene`` is: its own target, and the one that a capacity is counted against."""
        target = scene.target
        rule = self.rules[name_of(target), target.service, target.name]
        # There are more samples than the floor: what the message says of its window is asked for so.
        own = Condition(rule, scene.bad_value, scene.starts, until, answers={SAMPLES: [templates.Element({}, 1.0)]})
        return [own, *(self.misses(scene.rest, until) if isinstance(target.indicator, Capacity) else [])]

    def all_idle(self, end: float) -> Series:
        """Every target of the file, idle: what is said of one must not be said of another."""
        return {name: text for each in self.scenes for name, text in each.idle(self.count(end) + 1).items()}

    def recorded(self, target: Target, name: str, value: float, at: float) -> dict[str, Any]:
        selector = f"{name}{{service={quoted(target.service)},target={quoted(target.name)}}}"
        labels = ", ".join(f"{label}={quoted(text)}" for label, text in sorted(_labels(target).items()))
        return expression(selector, at, f"{name}{{{labels}}}", value)

    def count(self, seconds: float) -> int:
        return round(seconds / self.step)

    def test(
        self, scene: Scene, name: str, series: Series, alerts: Asked, expressions: Sequence[dict[str, Any]] = ()
    ) -> dict[str, Any]:
        target, asked = scene.target, dict(alerts)
        more: list[dict[str, Any]] = []
        if not self.exact(scene) and MISSED in asked:
            # What its message says changes from scrape to scrape: whether it fires is asked, and no more.
            times, conditions = asked.pop(MISSED)
            more = [
                firing(target, at, fires=any(each.fires(at, self.step) for each in conditions))
                for at in sorted({time for time in times if time >= 0})
            ]
        return document(f"{target.service}, {target.name}", name, self.step, series, asked, [*expressions, *more])

    def exact(self, scene: Scene) -> bool:
        """Whether all that the message says is known, to the last digit, at every time."""
        if isinstance(scene.target.indicator, Percentile | Mean):
            return not set(DETAIL.get(scene.target.indicator.metric, ())[-1:]) & set(scene.labels)
        return not isinstance(scene, RateScene)


def outage_in_time(scene: Scene) -> bool:
    """Whether enough samples for a long look back come within the quarter of it that has to have some."""
    return max(scene.target.floor, PATIENT_LEAST) * scene.apart * scene.step < patience(scene.target) / 4


def firing(target: Target, at: float, *, fires: bool) -> dict[str, Any]:
    """That ``TargetMissed`` of ``target`` fires at ``at``, or does not, whatever it says."""
    labels = {"alertname": MISSED, "alertstate": "firing", "service": target.service, "target": target.name}
    expr = "count(ALERTS{" + ",".join(f"{name}={quoted(text)}" for name, text in labels.items()) + "})"
    if fires:
        return expression(expr, at, "{}", 1)
    return {"expr": expr, "eval_time": format_promql_duration(at), "exp_samples": []}


def _asked(times: Sequence[float], conditions: Sequence[Condition]) -> Asked:
    """Each condition's alert at ``times``: a capacity that is short comes with the other target's miss."""
    by_name: dict[str, list[Condition]] = {}
    for condition in conditions:
        by_name.setdefault(condition.rule.alert, []).append(condition)
    return {name: (times, found) for name, found in by_name.items()}


def _labels(target: Target) -> dict[str, str]:
    return {"service": target.service, "target": target.name, "unit": target.unit.value}
