"""Every rule's own tests, made from the targets: it fires, stays silent, recovers, and says when there is no data.

The files are in promtool's format (``promtool test rules rules_test.yml``); the embedded evaluator runs the same files
through :mod:`.promtest`. A rule that nobody has seen fire is a rule that cannot fire. Each target of the user's own has
a file of rules and one of tests: read from the same series as another target, it would be told in its tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from anvil_monitor.targets import Configuration, Service, Target, format_promql_duration

from . import yamltext
from .drift import drift_groups
from .ownscenes import NoSceneError, is_expression, scene_of
from .rulefile import COMMENT, Alerting, Group
from .ruleparts import MISSED, Links
from .rules import own_groups, shared_groups
from .rules_missed import looks_back
from .rules_targets import shipped
from .ruletests_expression import ExpressionTests
from .ruletests_host import HostTests
from .ruletests_service import ServiceTests
from .ruletests_targets import TargetTests, outage_in_time
from .searching import MOST_STEP, Play, apart

RULE_FILE: Final = "rules.yml"
UNTESTED: Final = "NOT TESTED: "


def dump(configuration: Configuration, links: Links | None = None) -> str:
    """The test file for the shipped rules, written as ``rules.yml`` beside it."""
    targets = [target for service in configuration.services for target in shipped(configuration, service)]
    step = step_of(configuration, targets)
    groups = (*shared_groups(configuration, where(configuration, links)), *drift_groups(configuration, links))
    rules = alerting(groups)
    scenes = [scene_of(target, configuration.targets_of(target.service), step) for target in targets]
    writer = TargetTests(scenes, step, rules)
    tests: list[dict[str, Any]] = []
    for service in configuration.services:
        tests += writer.of(service.name)
        own = {rule.alert: rule for rule in rules if _of_service(rule, service)}
        tests += ServiceTests(configuration, service, step, own).all()
    tests += HostTests(step, rules).all()
    return written(groups, step, tests)


def dump_own(configuration: Configuration, target: Target, play: Play, links: Links | None = None) -> str:
    """The test file for the rules of ``target``, one of the user's own, written as ``rules.yml`` beside it.

    ``play`` evaluates: what misses an expression has to be searched for. What could not be tested stands in comments
    at the head of the file, :func:`untested` reads them.
    """
    groups = own_groups(configuration, target, where(configuration, links))
    if is_expression(target):
        step = whole(configuration, apart(target))
        expression = ExpressionTests(target, groups, step, play)
        return written(groups, step, expression.all(), expression.untested)
    step = step_of(configuration, [target])
    try:
        scene = scene_of(target, (target,), step)
        while looks_back(target) and not outage_in_time(scene) and step > configuration.monitor.scrape_interval:
            step -= configuration.monitor.scrape_interval
            scene = scene_of(target, (target,), step)
        writer = TargetTests([scene], step, alerting(groups))
        return written(groups, step, list(writer.of(target.service)))
    except NoSceneError as error:
        bare = ExpressionTests(target, groups, step, play).nothing()
        return written(groups, step, [bare], [f"that {MISSED} of {target.service}/{target.name} fires: {error}"])


def untested(text: str) -> list[str]:
    """What the head of a file of tests says that they leave out."""
    return [line.removeprefix(f"# {UNTESTED}") for line in text.splitlines() if line.startswith(f"# {UNTESTED}")]


def where(configuration: Configuration, links: Links | None) -> Links:
    return links or Links.to_page(configuration.monitor)


def alerting(groups: Iterable[Group]) -> list[Alerting]:
    return [rule for group in groups for rule in group.rules if isinstance(rule, Alerting)]


def written(groups: Iterable[Group], step: float, tests: list[dict[str, Any]], left_out: Iterable[str] = ()) -> str:
    file = {
        "rule_files": [RULE_FILE],
        "evaluation_interval": format_promql_duration(step),
        # What one group records, another reads; promtool takes them in any order where none is given.
        "group_eval_order": [group.name for group in groups],
        "tests": tests,
    }
    return yamltext.dump(file, "\n".join((COMMENT, *(f"{UNTESTED}{each}" for each in left_out))))


def _of_service(rule: Alerting, service: Service) -> bool:
    return rule.labels.get("service") == service.name and "target" not in rule.labels


def step_of(configuration: Configuration, targets: Iterable[Target]) -> float:
    """Seconds between the scrapes, and evaluations, of the tests: as many real ones as the shortest window allows."""
    shortest = min((target.window for target in targets), default=60.0)
    return whole(configuration, min(shortest / 4, MOST_STEP))


def whole(configuration: Configuration, step: float) -> float:
    """``step`` in whole scrape intervals."""
    interval = configuration.monitor.scrape_interval
    return interval * max(1, math.floor(step / interval + 1e-9))
