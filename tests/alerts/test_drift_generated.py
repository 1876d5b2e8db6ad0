"""The drift rules as they are generated: sound, tested, and stable, for the shipped targets and for others."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from anvil_monitor.alerts import drifttests, promtest, rulefile
from anvil_monitor.alerts.drift import drift_groups
from anvil_monitor.alerts.driftalerts import DRIFTING, TRENDING
from anvil_monitor.alerts.driftkinds import side
from anvil_monitor.alerts.rulefile import Alerting, Group, Recording, Rule
from anvil_monitor.monitoring import ruletest
from anvil_monitor.targets import Configuration
from anvil_monitor.targets.load import parse

FEW = """
[targets.api_response_time]
limit = "150ms"
[targets.frontend_load_time]
enabled = false
[targets.db_query_time]
enabled = false
"""


OWN = """
[targets.checkout]
kind = "ratio"
good = 'http_server_request_duration_seconds_count{http_response_status_code!~"5.."}'
total = "http_server_request_duration_seconds_count"
at_least = "99.5%"
[targets.queue]
kind = "gauge"
metric = "jobs_waiting"
unit = "number"
at_most = 100
[targets.throughput]
kind = "rate"
metric = "orders_total"
at_least = 8
"""


def _memory_alone() -> Configuration:
    configuration = parse("")
    return replace(configuration, targets=tuple(each for each in configuration.targets if each.name == "memory"))


def _own_alone() -> Configuration:
    configuration = parse(OWN)
    return replace(configuration, targets=tuple(each for each in configuration.targets if f".{each.name}]" in OWN))


def _two_services() -> Configuration:
    """One with response time and users, one with memory: what is said of one is not said of the other."""
    configuration = parse(FEW)
    targets = tuple(replace(each, service="web" if each.name == "memory" else "app") for each in configuration.targets)
    services = (*configuration.services, replace(configuration.services[0], name="web"))
    return replace(configuration, services=services, targets=targets)


CONFIGURATIONS: dict[str, Callable[[], Configuration]] = {
    "the shipped targets": lambda: parse(""),
    "memory alone": _memory_alone,
    "two services": _two_services,
    "targets of one's own": _own_alone,
}
EACH = pytest.mark.parametrize("make", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
OTHERS = pytest.mark.parametrize("make", list(CONFIGURATIONS.values())[1:], ids=list(CONFIGURATIONS)[1:])


def _written(folder: Path, configuration: Configuration, groups: Sequence[Group]) -> Path:
    (folder / "drift.yml").write_text(rulefile.dump(groups), encoding="utf-8")
    path = folder / "drift_test.yml"
    path.write_text(drifttests.dump(configuration), encoding="utf-8")
    return path


@pytest.mark.needs("promtool")
@OTHERS
def test_promtool_accepts_the_rules_and_passes_their_tests(tmp_path: Path, make: Callable[[], Configuration]) -> None:
    """`promtool check rules` finds nothing to say, and every generated test passes under `promtool test rules`.

    (The shipped targets: tests/bundle/test_generate.py.)
    """
    path = _written(tmp_path, make(), drift_groups(make()))
    for command in (["check", "rules", "--lint-fatal", str(tmp_path / "drift.yml")], ["test", "rules", str(path)]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[:5000]


@pytest.mark.parametrize("make", [lambda: parse(""), _own_alone], ids=["the shipped targets", "targets of one's own"])
def test_the_embedded_evaluator_passes_the_same_tests(tmp_path: Path, make: Callable[[], Configuration]) -> None:
    """The very file that promtool runs passes in the embedded evaluator."""
    failures = ruletest.run(_written(tmp_path, make(), drift_groups(make())))
    assert not failures, "\n".join(map(str, failures[:5]))


@EACH
def test_every_drift_alert_is_exercised(make: Callable[[], Configuration]) -> None:
    """Every alert of every target is expected to fire in one generated test and to be silent in another."""
    configuration = make()
    fired, silent = set(), set()
    for test in yaml.safe_load(drifttests.dump(configuration))["tests"]:
        for asked in test["alert_rule_test"]:
            silent |= {asked["alertname"]} if not asked["exp_alerts"] else set()
            fired |= {
                (asked["alertname"], each["exp_labels"]["service"], each["exp_labels"]["target"])
                for each in asked["exp_alerts"]
            }
    wanted = {
        (rule.alert, rule.labels["service"], rule.labels["target"])
        for group in drift_groups(configuration)
        for rule in group.rules
        if isinstance(rule, Alerting)
    }
    assert fired == wanted
    assert silent >= {alert for alert, _, _ in wanted}


# Which test has to notice (a part of its name), and what is done to each rule.
MISTAKES: dict[str, tuple[str, Callable[[Rule], Rule]]] = {
    "any excess is a drift": ("a season", lambda rule: _instead(rule, "drift:margin", "1.7 * ", "0.1 * ")),
    "no excess is a drift": ("a shift", lambda rule: _instead(rule, "drift:score", "drift:excess", "0 * drift:excess")),
    "the noise of yesterday": ("a fall", lambda rule: _instead(rule, "drift:margin", "offset 6h", "offset 30h")),
    "yesterday is not asked": ("a shift", lambda rule: _instead(rule, "drift:hi", '"app"', '"app",ref="lastweek"')),
    "users who stay away": ("a fall", lambda rule: _instead(rule, "drift:excess", "-(drift:level", "0*(drift:level")),
    "its own maximum": ("a shift", lambda rule: _instead(rule, "drift:excess", "drift:most", "drift:usual")),
    "over at once": ("a creeping", lambda rule: replace(rule, keep=0.0) if isinstance(rule, Alerting) else rule),
    "told at once": ("a creeping", lambda rule: _instead(rule, TRENDING, "", "", hold=0.0)),
    "a creep of nothing": ("a creeping", lambda rule: _instead(rule, TRENDING, "> 1.2", "> 1.1")),
    "a creep after a drift": ("a creep after", lambda rule: _instead(rule, TRENDING, "[7d:1h]", "[1s:1s] offset 1s")),
    "another limit ahead": ("a slope", lambda rule: _instead(rule, TRENDING, "> 500000000", "> 5000000000")),
    "another text": ("a fall", lambda rule: _instead(rule, DRIFTING, "", "", annotations={"summary": "it drifts"})),
}


def _instead(rule: Rule, name: str, old: str, new: str, **more: object) -> Rule:
    if name != (rule.record if isinstance(rule, Recording) else rule.alert):
        return rule
    changed: Rule = replace(rule, expr=rule.expr.replace(old, new), **more)  # type: ignore[arg-type]
    return changed


@pytest.mark.parametrize("how", MISTAKES)
def test_a_broken_rule_fails_its_tests(tmp_path: Path, how: str) -> None:
    """Each mistake that a drift rule could hold is caught by the generated tests: they are not there for show."""
    noticed, mistake = MISTAKES[how]
    configuration = parse(FEW)
    sound = drift_groups(configuration)
    groups = tuple(replace(group, rules=tuple(map(mistake, group.rules))) for group in sound)
    assert groups != sound, "the mistake has found no place"
    assert _failures(_written(tmp_path, configuration, groups), noticed), f"nobody noticed: {how}"


def _failures(path: Path, name: str) -> list[promtest.Failure]:
    """Of the tests in whose names there is ``name``."""
    file = promtest.load(path.read_text(encoding="utf-8"), path)
    tests = tuple(test for test in file.tests if f": {name}" in test.name)
    assert tests
    return ruletest.run_file(replace(file, tests=tests))


def test_a_promise_of_at_least_drifts_downwards() -> None:
    """Of a promise of *at least*, less than usual is the drift, and where the warning begins lies below."""
    configuration = parse(OWN)
    sides = {target.name: side(target) for target in configuration.targets}
    assert (sides["checkout"], sides["throughput"], sides["queue"]) == ("down", "down", "up")
    rules = {rule.record: rule for group in drift_groups(configuration) for rule in group.rules
             if isinstance(rule, Recording)}  # fmt: skip
    assert 'target!~"checkout|throughput"' in rules["target:upper"].expr
    assert 'side!="up"' in rules["target:lower"].expr


def test_the_files_are_stable() -> None:
    """The same targets give the same bytes, and what was written is read back as what was meant."""
    groups = drift_groups(parse(""))
    written = rulefile.dump(groups)
    assert rulefile.load(written, Path("drift.yml")) == groups
    assert drifttests.dump(parse("")) == drifttests.dump(parse(""))


def test_no_group_comes_more_often_than_the_monitor_evaluates() -> None:
    """Drift takes a minute; a monitor that evaluates every ten minutes does not evaluate drift more often."""
    groups = drift_groups(parse('[monitor]\nevaluation_interval = "10m"\n'))
    assert {group.interval for group in groups} == {600.0}
    assert {group.interval for group in drift_groups(parse(""))} == {60.0, 300.0}
