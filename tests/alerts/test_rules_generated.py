"""Every generated rule under its generated tests: by promtool, by the embedded evaluator, and with the rule broken."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from anvil_monitor.alerts import alertmanager, promtest, rulefile, rules, ruletests
from anvil_monitor.alerts.rulefile import Alerting, Group, Recording
from anvil_monitor.alerts.ruleparts import MISSES
from anvil_monitor.alerts.webhook import MAX_ALERTS
from anvil_monitor.exporter import names
from anvil_monitor.monitoring import ruletest
from anvil_monitor.targets import Configuration
from anvil_monitor.targets.load import parse

CONFIGURATIONS = {
    "the shipped defaults": "",
    "one target, slow intervals": """
[monitor]
scrape_interval = "15s"
evaluation_interval = "30s"
[targets.api_response_time]
limit = "1s"
percentile = 50
[targets.frontend_load_time]
enabled = false
[targets.db_query_time]
enabled = false
[targets.memory]
enabled = false
[targets.concurrent_users]
enabled = false
""",
    "two services, odd numbers": """
[[service]]
name = "shop.eu-1"
url = "http://127.0.0.1:8000"
metrics = "http://127.0.0.1:8000/{{ $value }}"
[[service]]
name = "api"
url = "https://127.0.0.1:9000"
[targets.api_response_time]
limit = "350ms"
percentile = 99.9
for = "0s"
keep_firing_for = "0s"
floor = 1
window = "90s"
silence = "1m"
[targets.db_query_time]
limit = "3.3ms"
silence = "1m"
for = "7s"
keep_firing_for = "11s"
floor = 0
[targets.memory]
limit = "1.5GiB"
window = "2m"
silence = "17s"
[targets.concurrent_users]
limit = 7
silence = "1m"
services = ["api"]
[targets.frontend_load_time]
enabled = false
[monitor]
scrape_interval = "7s"
""",
}
EACH = pytest.mark.parametrize("text", CONFIGURATIONS.values(), ids=CONFIGURATIONS.keys())
OTHERS = pytest.mark.parametrize("text", list(CONFIGURATIONS.values())[1:], ids=list(CONFIGURATIONS)[1:])


def _own(configuration: Configuration) -> tuple[Group, ...]:
    """The groups under test: those of drift have a file of tests of their own, and would cost each of these as much."""
    return tuple(group for group in rules.rule_groups(configuration) if not group.name.startswith("drift "))


def _written(folder: Path, configuration: Configuration, groups: Sequence[Group] | None = None) -> Path:
    text = rulefile.dump(_own(configuration) if groups is None else groups)
    (folder / "rules.yml").write_text(text, encoding="utf-8")
    path = folder / "rules_test.yml"
    path.write_text(ruletests.dump(configuration), encoding="utf-8")
    return path


def _promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["promtool", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


@pytest.mark.needs("promtool")
@OTHERS
def test_promtool_accepts_the_rules_and_passes_their_tests(tmp_path: Path, text: str) -> None:
    """`promtool check rules` finds nothing to say, and every generated test passes under `promtool test rules`.

    (The shipped defaults: tests/bundle/test_generate.py.)
    """
    path = _written(tmp_path, parse(text))
    checked = _promtool("check", "rules", "--lint-fatal", tmp_path / "rules.yml")
    assert checked.returncode == 0, checked.stdout
    tested = _promtool("test", "rules", path)
    assert tested.returncode == 0, tested.stdout[:5000]


@OTHERS
def test_the_embedded_evaluator_passes_the_same_tests(tmp_path: Path, text: str) -> None:
    """The very file that promtool runs passes in the embedded evaluator, alert by alert, sample by sample.

    (The shipped defaults: tests/monitoring/test_ruletest.py.)
    """
    failures = ruletest.run(_written(tmp_path, parse(text)))
    assert not failures, "\n".join(map(str, failures[:5]))


def _broken(rule: rulefile.Rule, how: str) -> rulefile.Rule:
    """``rule`` with one mistake in it, or as it is where the mistake has no place."""
    if isinstance(rule, Recording):
        change = {
            "limit off": ("vector(", "1 + vector("),
            "ratio upside down": (" / ", " - "),
            "mean without count": ("_count{", "_sum{"),
            "users ignored": ("< bool 100", ">= bool 0"),
            "largest instead of mean": ("avg_over_time", "max_over_time"),
            "label lost": ("sum by (le)", "sum"),
            "one slow request is enough": ("> 4.5", "> 0.5"),
            "slow long ago": (" > 0.5)", " > -1)"),
        }.get(how)
        return replace(rule, expr=rule.expr.replace(*change)) if change else rule
    missed, silent, down = rule.alert in MISSES, rule.alert == rules.NO_DATA, rule.alert == rules.DOWN
    if how in ELSEWHERE:
        alert, *change = ELSEWHERE[how]
        return replace(rule, expr=rule.expr.replace(*change)) if rule.alert == alert else rule
    if how == "fires at once":
        return replace(rule, hold=0.0)
    if how == "never flaps back" and rule.keep:
        return replace(rule, keep=rule.keep * 3)
    if how == "recovers at once":
        return replace(rule, keep=0.0)
    if how == "no floor" and missed:
        return replace(rule, expr=re.sub(r"\(target:samples\{[^}]*\} >= \d+\)", "vector(1)", rule.expr))
    if how == "at the limit too" and missed:
        return replace(rule, expr=rule.expr.replace("> 1\n", ">= 1\n"))
    if how == "never looks back" and missed:
        return replace(rule, expr=rule.expr.replace("target:looked_back", "target:nothing"))
    if how == "no margin" and missed:
        return replace(rule, expr=rule.expr.replace('alertstate="firing"', 'alertstate="pending"'))
    if how == "margin from the start" and missed:
        return replace(rule, expr=re.sub(r" and on \(service, target\) ALERTS\{[^}]*\}", "", rule.expr))
    if how == "other routes" and missed:
        texts = {name: text.replace("topk(", "bottomk(") for name, text in rule.annotations.items()}
        return replace(rule, annotations=texts)
    if how == "silence unseen" and silent:
        return replace(rule, expr=rule.expr.replace("unless", "and"))
    if how == "down never" and down:
        return replace(rule, expr=rule.expr.replace("== 0", "== 2"))
    if how == "each instance alone" and down:
        return replace(rule, expr=rule.expr.replace("max by", "min by"))
    if how == "wrong text":
        return replace(rule, annotations={**rule.annotations, "summary": "{{ $value | humanize1024 }}!"})
    if how == "wrong severity":
        return replace(rule, labels={**rule.labels, "severity": "info"})
    return rule


# Mistakes in the rules of services, hosts and the monitor: the alert, what stands there, what would be wrong.
ELSEWHERE = {
    "one failure is enough": ("ErrorRateHigh", "> 4.5", "> 0.5"),
    "a smaller share of failures": ("ErrorRateHigh", "> 0.05", "> 0.03"),
    "failures long past": ("ErrorRateHigh", 'window="1m"', 'window="5m"'),
    "only a short look back": ("ErrorRateHigh", 'window="1h"', 'window="5m"'),
    "stuck at the age itself": ("RequestsStuck", "> 60", ">= 60"),
    "the youngest of the oldest": ("RequestsStuck", "max by", "min by"),
    "a deploy is a crash": ("WorkersCrashing", ">= 4", ">= 1"),
    "a crash is a deploy": ("WorkersCrashing", ">= 4", ">= 5"),
    "idle is busy": ("HostCpuSaturated", "idle|", ""),
    "nobody waits": ("HostCpuSaturated", "< 0.3", "< 0"),
    "half is busy": ("HostCpuSaturated", "> 0.9", "> 0.5"),
    "stalls unseen": ("HostMemoryLow", "> 0.1", "> 1"),
    "any stall": ("HostMemoryLow", "> 0.1", "> 0"),
    "kills unseen": (
        "HostMemoryLow",
        "(system_memory_oom_kills_total[10m])) > 0",
        "(system_memory_oom_kills_total[10m])) > 9",
    ),
    "memory low at half": ("HostMemoryLow", "< 0.1", "< 0.6"),
    "a week ahead": ("HostDiskFilling", "86400", "604800"),
    "a second ahead": ("HostDiskFilling", "86400", "1"),
    "retried, and told": ("NotificationsFailing", "unless on (channel)", "or on (channel)"),
    "collector seen at once": ("CollectorDown", "== 0", "== 2"),
    "collector never scraped": ("CollectorDown", 'absent(up{job="exporter"})', "(vector(1) > 1)"),
    "watchdog asleep": ("Watchdog", "vector(1)", "vector(1) > 1"),
}

MISTAKES = (
    "limit off", "ratio upside down", "mean without count", "users ignored", "largest instead of mean", "label lost",
    "one slow request is enough", "slow long ago", "never looks back", "no margin", "margin from the start",
    "other routes", "fires at once", "never flaps back", "recovers at once", "no floor", "at the limit too",
    "silence unseen", "down never", "each instance alone", "wrong text", "wrong severity", *ELSEWHERE,
)  # fmt: skip


# Short windows: sixteen mistakes are looked for.
CHANNEL = '[channels.team]\nurl = "env:A"\n'
SHORT = f"""{CHANNEL}
[targets.frontend_load_time]
enabled = false
[targets.db_query_time]
silence = "1m"
[targets.memory]
silence = "1m"
[targets.api_response_time]
silence = "1m"
[targets.concurrent_users]
silence = "1m"
"""


@pytest.mark.parametrize("how", MISTAKES)
def test_a_broken_rule_fails_its_tests(tmp_path: Path, how: str) -> None:
    """Each mistake that a rule could hold is caught by the generated tests: they are not there for show."""
    configuration = parse(SHORT)
    sound = _own(configuration)
    groups = [replace(group, rules=tuple(_broken(rule, how) for rule in group.rules)) for group in sound]
    assert tuple(groups) != sound, "the mistake has found no place"
    path = _written(tmp_path, configuration, groups)
    file = promtest.load(path.read_text(encoding="utf-8"), path)
    loaded, asked = file.groups(), file.tests
    if how in ELSEWHERE:  # only the group in which it is, and what is asked of it: the mistake is found sooner
        alert = ELSEWHERE[how][0]
        loaded = tuple(group for group in loaded if alert in {getattr(rule, "alert", "") for rule in group.rules})
        asked = tuple(test for test in asked if alert in {each.alertname for each in test.alerts})
    for test in asked:
        if promtest.run_test(file, test, ruletest.Embedded(loaded, file.evaluation_interval, {})):
            return
    pytest.fail(f"nobody noticed: {how}")


@EACH
def test_every_rule_is_exercised(tmp_path: Path, text: str) -> None:
    """Every alert of every target is expected to fire in one generated test and to be silent in another."""
    configuration = parse(text)
    document = yaml.safe_load(ruletests.dump(configuration))
    fired, silent = set(), set()
    for test in document["tests"]:
        for asked in test["alert_rule_test"]:
            silent |= {asked["alertname"]} if not asked["exp_alerts"] else set()
            fired |= {(asked["alertname"], frozenset(alert["exp_labels"].items())) for alert in asked["exp_alerts"]}
    wanted = {
        (rule.alert, frozenset(rule.labels.items()))
        for group in _own(configuration)
        for rule in group.rules
        if isinstance(rule, Alerting)
    }
    for alert, labels in wanted:
        assert any(name == alert and labels <= found for name, found in fired), (alert, labels)
    assert silent == {alert for alert, _ in wanted} - {rules.WATCHDOG}


@EACH
def test_the_files_are_stable_and_read_back_the_same(text: str) -> None:
    """The same targets give the same bytes, and what was written is read back as what was meant."""
    groups = rules.rule_groups(parse(text))
    written = rulefile.dump(groups)
    assert rulefile.dump(rules.rule_groups(parse(text))) == written
    assert rulefile.load(written, Path("rules.yml")) == groups
    assert ruletests.dump(parse(text)) == ruletests.dump(parse(text))
    assert rulefile.dump(rulefile.load(written, Path("rules.yml"))) == written


def test_low_traffic_of_the_other_target_does_not_break_a_capacity() -> None:
    """A capacity believes a miss only with the floor of the target it is counted against: one slow request at night
    with one user on is no shortage. It has a name of its own, and is no TargetMissed as well."""
    alerts = [rule for group in rules.rule_groups(parse("")) for rule in group.rules if isinstance(rule, Alerting)]
    of_users = {rule.alert: rule for rule in alerts if rule.labels.get("target") == "concurrent_users"}
    assert '(target:samples{service="app",target="concurrent_users"} >= 20)' in of_users["CapacityShort"].expr
    assert rules.MISSED not in of_users


def test_links_are_what_the_caller_says() -> None:
    """The dashboard link names service and target where the caller asks for it; a runbook is named after its alert."""
    links = rules.Links("http://grafana/d/x?var-service={service}&var-target={target}", "https://docs/{alert}.md")
    for group in rules.rule_groups(parse(CHANNEL), links):
        for rule in group.rules:
            if isinstance(rule, Alerting):
                assert rule.annotations["runbook_url"] == f"https://docs/{rule.alert}.md"
                service, target = rule.labels.get("service", ""), rule.labels.get("target", "")
                assert f"var-service={service}&var-target={target}" in rule.annotations["dashboard"]


RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    """A page for each alert, in the one form: meaning, three commands, causes, how to silence it."""
    groups = rules.rule_groups(parse(CHANNEL))
    alerts = {rule.alert: rule for group in groups for rule in group.rules if isinstance(rule, Alerting)}
    assert set(alerts) == {path.stem for path in RUNBOOKS.glob("*.md")}
    for name, rule in alerts.items():
        text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
        first, *sections = text.split("\n## ")
        assert first.startswith(f"# {name}\n\n**Severity: {rule.labels['severity']}.** ")
        assert [each.partition("\n")[0] for each in sections] == [
            "First three commands", "Usual causes", "How to silence it"
        ]  # fmt: skip
        assert sections[0].count("```sh") == 3


def test_every_metric_in_a_runbook_exists() -> None:
    """What a runbook asks for by name is a metric of ours or a series that the rules record."""
    recorded = {
        rule.record for group in rules.rule_groups(parse("")) for rule in group.rules if isinstance(rule, Recording)
    }
    known = (
        recorded
        | set(names.BY_NAME)
        | {f"{name}{end}" for name in names.BY_NAME for end in ("_count", "_bucket", "_sum")}
    )
    for path in RUNBOOKS.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        prefix = r"(?:http_server|db_client|process|system|container|probe|anvil_monitor|service:|target:)"
        for name in re.findall(rf"(?<![\w:/-]){prefix}[a-z_]*_[a-z_]+(?![\w*(|.=])", text):
            assert name in known, f"{path.name}: {name}"


@pytest.mark.needs("amtool")
@pytest.mark.parametrize(
    "token", ["", '[monitor]\ntoken = "env:THE_TOKEN"\n', '[monitor]\ntoken = "file:/run/x/token"\n']
)
def test_amtool_accepts_the_alertmanager_file(tmp_path: Path, token: str) -> None:
    """Alertmanager 0.25 reads the file with and without a token, and the token itself is never in it."""
    path = tmp_path / "alertmanager.yml"
    path.write_text(alertmanager.dump(parse(token)), encoding="utf-8")
    done = subprocess.run(["amtool", "check-config", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alertmanager_groups_as_the_pipeline_does_and_holds_nothing_back() -> None:
    """Grouped by service; what is inhibited is decided in the notifier alone; the token stays in its file."""
    document = yaml.safe_load(alertmanager.dump(parse('[monitor]\ntoken = "env:The_TOKEN"\n')))
    assert document["route"]["group_by"] == ["service"]
    assert "inhibit_rules" not in document
    (webhook,) = document["receivers"][0]["webhook_configs"]
    assert webhook["send_resolved"] is True
    assert webhook["max_alerts"] == MAX_ALERTS
    assert webhook["http_config"]["authorization"]["credentials_file"] == "/run/secrets/the_token"
