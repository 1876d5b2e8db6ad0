"""The generated tests of targets that users write themselves: any kind, any key, on whichever metrics."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from anvil_monitor.alerts import promtest, rulefile, rules, ruletests
from anvil_monitor.alerts.rulefile import Alerting, Recording, Rule
from anvil_monitor.alerts.rules_targets import is_own
from anvil_monitor.monitoring import coverage, generate, ruletest
from anvil_monitor.monitoring.rulecommands import test as run_tests
from anvil_monitor.targets import Configuration, Target
from anvil_monitor.targets.load import parse
from tests.alerts.owntargets import monitor_toml
from tests.targets.test_own import OWN

EXPRESSIONS = """
[targets.errors]
kind = "expression"
expr = 'sum(rate(hits_total{service="$service",code=~"5.."}[5m])) / sum(rate(hits_total{service="$service"}[5m]))'
unit = "percent"
at_most = "2%"
[targets.slow]
kind = "expression"
expr = 'histogram_quantile(0.9, sum by (le) (rate(job_seconds_bucket{service="$service",queue!=""}[$window])))'
unit = "seconds"
at_most = "300ms"
[targets.backup]
kind = "expression"
expr = 'time() - max(last_success_timestamp_seconds{service="$service"})'
unit = "seconds"
at_most = "1d"
[targets.orders_a_day]
kind = "expression"
expr = 'sum(increase(orders_total{service="$service"}[1d]))'
at_least = 100
"""


LINKS = rules.Links("http://127.0.0.1/")


def own(configuration: Configuration) -> list[Target]:
    return [target for target in configuration.targets if is_own(target)]


def written(folder: Path, configuration: Configuration) -> list[Path]:
    """The files of tests of all targets of the user's own, each beside its rules."""
    for target in own(configuration):
        path = folder / target.service / target.name
        path.mkdir(parents=True)
        groups = rules.own_groups(configuration, target, LINKS)
        (path / "rules.yml").write_text(rulefile.dump(groups), encoding="utf-8")
        text = ruletests.dump_own(configuration, target, ruletest.evaluator, LINKS)
        (path / "rules_test.yml").write_text(text, encoding="utf-8")
    return sorted(folder.rglob("rules_test.yml"))


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("seed", range(3))
def test_promtool_passes_the_tests_of_any_targets(tmp_path: Path, seed: int) -> None:
    """Any targets, on metrics that the shipped ones are read from as well: rules are accepted, all their tests pass."""
    files = written(tmp_path, parse(monitor_toml(random.Random(seed), 4)))
    for command in (["check", "rules", "--lint-fatal", *(path.with_name("rules.yml") for path in files)],
                    ["test", "rules", *files]):  # fmt: skip
        done = subprocess.run(["promtool", *map(str, command)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[:3000]


@pytest.mark.parametrize("seed", range(5))
def test_the_shipped_targets_keep_their_rules_and_tests(seed: int) -> None:
    """Whatever is written beside them, the files of the shipped targets are the same bytes: no test of theirs plays
    with a rule of another, and none of another with theirs."""
    configuration = parse(monitor_toml(random.Random(seed), 6))
    alone = replace(configuration, targets=tuple(each for each in configuration.targets if not is_own(each)))
    groups = rules.shared_groups(configuration, LINKS)
    assert groups == rules.shared_groups(alone, LINKS)
    assert ruletests.dump(configuration, LINKS) == ruletests.dump(alone, LINKS)
    for target in own(configuration):
        text = rulefile.dump(rules.own_groups(configuration, target, LINKS))
        named = set(re.findall(r"target: (\S+)", text)) | set(re.findall(r'target="([^"]+)"', text))
        assert named == {target.name}


def test_every_rule_and_branch_of_each_kind_is_exercised(tmp_path: Path) -> None:
    """By the embedded evaluator: all tests pass, and no rule and no branch of one is left that none of them sees."""
    files = written(tmp_path, parse(OWN + EXPRESSIONS))
    assert len(files) == len(own(parse(OWN + EXPRESSIONS))) == 11
    for path in files:
        text = path.read_text(encoding="utf-8")
        failures, covered = coverage.run(promtest.load(text, path))
        assert not failures, f"{path}: {failures[0]}"
        assert covered.missing() == ruletests.untested(text) == [], path


UNPLAYABLE = {
    "no series": ("vector(3)", "it asks for no series"),
    "too many": (
        "a + b + c + d + e + f + g",
        "it asks for 7 series, of which no more than 6 are tried",
    ),
    "never a number": ("up and on () (vector(1) > 2)", "it gives no number, whatever its series say"),
    "never over": ("up > bool 0", "no level of its series was found that misses its limit"),
    "labels that nothing has": ('up{a="b",a="c"}', "no labels were found that all matchers of up take"),
}


@pytest.mark.parametrize(("expr", "why"), UNPLAYABLE.values(), ids=UNPLAYABLE.keys())
def test_what_cannot_be_played_is_said(tmp_path: Path, expr: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An expression that no made-up series misses: the file says so, and so does `rules test`, each time it is run."""
    (path,) = written(tmp_path, parse(f"[targets.x]\nkind = 'expression'\nexpr = '{expr}'\nat_most = 50"))
    assert f"# NOT TESTED: that TargetMissed of app/x fires: {why}" in path.read_text(encoding="utf-8")
    assert run_tests([path], coverage=True) == 0
    said = capsys.readouterr().out
    assert f"  not tested: that TargetMissed of app/x fires: {why}" in said
    assert "TargetMissed{service='app', severity='critical', target='x', unit='number'}: no test sees it fire" in said


def test_a_searched_scene_is_the_same_everywhere(tmp_path: Path) -> None:
    """The same targets give the same bytes in another process, whose hashes are others."""
    (tmp_path / "monitor.toml").write_text(OWN + EXPRESSIONS, encoding="utf-8")
    command = [sys.executable, "-m", "anvil_monitor.monitoring.cli", "generate", "--config", "monitor.toml"]
    for more in (["--into", "."], ["--into", ".", "--check"]):
        environ = {**os.environ, "PYTHONHASHSEED": str(len(more))}
        done = subprocess.run([*command, *more], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.rglob("own/app/*/rules_test.yml"))) == 11


def test_files_of_a_target_that_is_gone_go(tmp_path: Path) -> None:
    """`generate` takes away what it wrote of a target that is no more, `--check` tells of it; other files stay."""
    two = '[targets.q]\nkind = "gauge"\nmetric = "q"\nat_most = 1\n'
    generate.write(tmp_path, parse(two))
    mine = tmp_path / "alerts/generated/own/app/mine/rules.yml"
    mine.parent.mkdir(parents=True)
    mine.write_text("groups: []\n", encoding="utf-8")
    gone = [f"alerts/generated/own/app/q/{name}.yml" for name in ("rules", "rules_test")]
    assert [path for path in generate.check(tmp_path, parse("")) if "/own/" in path] == gone
    assert set(gone) <= set(generate.write(tmp_path, parse("")))
    assert generate.check(tmp_path, parse("")) == []
    assert mine.exists()
    assert "own/" not in (tmp_path / "monitoring/prometheus/prometheus.yml").read_text(encoding="utf-8")


def changed(what: str, text: str, by: str, of: type[Rule] = Recording) -> Callable[[Rule], Rule]:  # type: ignore[valid-type]
    """``text`` in the expression of the rules named ``what``, replaced."""

    def change(rule: Rule) -> Rule:
        name = rule.alert if isinstance(rule, Alerting) else rule.record
        return replace(rule, expr=re.sub(text, by, rule.expr)) if name == what else rule

    return change


FLOOR = r"\(target:samples\{[^}]*\} >= \d+\)"
# By target and mistake, what is done to the rules.
MISTAKES: dict[tuple[str, str], Callable[[Rule], Rule]] = {
    **{(name, "the wrong way round"): changed("TargetMissed", r"(target:ratio\{[^}]*\}) > 1", r"\1 < 1")
       for name in ("checkout", "job_time", "queue", "free", "good_orders", "signups", "backlog", "errors")},
    **{(name, "at the other side of its ratio"): changed("target:ratio", r"^(.+) / (.+)$", r"\2 / \1")
       for name in ("queue", "free", "good_orders", "signups", "backlog")},
    **{(name, "no floor"): changed("TargetMissed", FLOOR, "vector(1)")
       for name in ("checkout", "job_time", "good_orders")},
    **{(name, "a label lost"): changed("target:value", r',(http_route|queue|result)="[^"]*"', "")
       for name in ("checkout", "queue", "good_orders")},
    **{(name, "every service"): changed("target:value", r'service="app",?', "")
       for name in ("checkout", "job_time", "queue", "free", "good_orders", "signups")},
    **{(name, "no margin"): changed("TargetMissed", 'alertstate="firing"', 'alertstate="pending"')
       for name in ("checkout", "job_time", "queue", "free", "good_orders", "signups")},
    **{(name, "silence unseen"): changed("TargetNoData", "unless", "and")
       for name in ("checkout", "free", "signups", "backlog", "errors")},
    ("good_orders", "nothing good is unknown"): changed("target:value", r" or vector\(0\)", ""),
    ("queue", "the largest instead of the mean"): changed("target:value", "avg_over_time", "max_over_time"),
    ("signups", "in a window instead of a second"): changed("target:value", r"rate\(", "increase("),
    ("slow", "a label of the sum lost"): changed("target:value", r"sum by \(le\)", "sum"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "how"), MISTAKES, ids=[f"{name}: {how}" for name, how in MISTAKES])
def test_a_mistake_in_a_rule_fails_its_tests(tmp_path: Path, name: str, how: str) -> None:
    """Each mistake that the rules of a user's target could hold is caught by the tests that are generated for it."""
    configuration = parse(OWN + EXPRESSIONS)
    target = next(each for each in configuration.targets if each.name == name)
    sound = rules.own_groups(configuration, target, LINKS)
    broken = tuple(replace(each, rules=tuple(map(MISTAKES[name, how], each.rules))) for each in sound)
    assert broken != sound, "the mistake has found no place"
    (tmp_path / "rules.yml").write_text(rulefile.dump(broken), encoding="utf-8")
    text = ruletests.dump_own(configuration, target, ruletest.evaluator, LINKS)
    file = promtest.load(text, tmp_path / "rules_test.yml")
    found = (promtest.run_test(file, test, ruletest.evaluator(broken, file.evaluation_interval)) for test in file.tests)
    assert any(found)
