"""Rule files: read as Prometheus reads them, every mistake at once with its line."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from anvil_monitor.alerts import rulefile
from anvil_monitor.alerts.rulefile import Alerting, Group, Recording
from anvil_monitor.alerts.yamltext import parse_duration
from anvil_monitor.targets import ConfigurationError

PATH = Path("rules.yml")

COMMON = """
# a file as people write them
groups:
- name: example
  interval: 30s
  limit: 0
  rules:
  - record: instance:node_cpu:rate5m
    expr: 1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[5m]))
  - alert: HighRequestLatency
    expr: >
      job:request_latency_seconds:mean5m{job="myjob"}
        > 0.5
    for: 10m
    keep_firing_for: 5m
    labels:
      severity: page
      tier: 1
      on: true
    annotations:
      summary: "High request latency on {{ $labels.instance }}"
      description: "{{ $labels.instance }} has {{ printf \\"%.2f\\" $value }} s ({{ $value | humanizePercentage }})"
- name: second
  rules: []
"""


def test_a_common_file_is_read() -> None:
    """Groups, intervals, folded expressions, every scalar as text: as in public rule files."""
    first, second = rulefile.load(COMMON, PATH)
    assert first.interval == 30
    assert second == Group("second", 60.0, ())
    recording, alerting = first.rules
    assert recording == Recording(
        "instance:node_cpu:rate5m", '1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[5m]))'
    )
    assert isinstance(alerting, Alerting)
    assert (alerting.hold, alerting.keep) == (600, 300)
    assert alerting.labels == {"severity": "page", "tier": "1", "on": "true"}
    assert alerting.expr == 'job:request_latency_seconds:mean5m{job="myjob"}\n  > 0.5'


@pytest.mark.needs("promtool")
def test_promtool_reads_what_was_read_and_written_again(tmp_path: Path) -> None:
    """A foreign file that was loaded and dumped is still a rule file for Prometheus, with the same rules in it."""
    groups = rulefile.load(COMMON, PATH)
    path = tmp_path / "rules.yml"
    path.write_text(rulefile.dump(groups), encoding="utf-8")
    done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rulefile.load(path.read_text(encoding="utf-8"), path) == groups


def test_group_labels_are_merged_under_those_of_each_rule() -> None:
    """Prometheus 3's group labels arrive on every rule; the rule's own win."""
    text = """
groups:
- name: g
  labels: {team: a, area: b}
  rules:
  - {record: "x:y", expr: up, labels: {team: own}}
  - {alert: A, expr: up}
"""
    (group,) = rulefile.load(text, PATH)
    assert [dict(rule.labels) for rule in group.rules] == [{"team": "own", "area": "b"}, {"team": "a", "area": "b"}]


def test_limit_and_offset_of_a_group_are_read_and_written() -> None:
    """``limit`` and Prometheus 3's ``query_offset``; nothing, 0 and an empty field mean none of them."""
    text = (
        "groups:\n- {name: a, limit: 5, query_offset: 1m30s}\n- {name: b, limit: , query_offset: }\n"
        "- {name: c, limit: -1}"
    )
    groups = rulefile.load(text, PATH)
    assert [(group.limit, group.query_offset) for group in groups] == [(5, 90.0), (0, 0.0), (-1, 0.0)]
    written = rulefile.dump(groups)
    assert rulefile.load(written, PATH) == groups
    assert written.count("limit") == 2
    assert written.count("query_offset") == 1


MISTAKES = {
    "unknown field at the top": ("groupz: []", 1, "did you mean 'groups'"),
    "unknown field in a group": ("groups:\n- name: g\n  intervall: 1m\n  rules: []", 3, "did you mean 'interval'"),
    "unknown field in a rule": (
        "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up\n    fore: 1m",
        6,
        "did you mean 'for'",
    ),
    "a Thanos field": ("groups:\n- name: g\n  partial_response_strategy: abort\n  rules: []", 3, "Thanos"),
    "a limit in words": ("groups:\n- name: g\n  limit: five\n  rules: []", 3, "limit 'five' is no whole number"),
    "a limit in quotes": ("groups:\n- name: g\n  limit: '5'\n  rules: []", 3, "limit '5' is no whole number"),
    "a query offset": ("groups:\n- name: g\n  query_offset: soon\n  rules: []", 3, "no duration"),
    "no group name": ("groups:\n- rules: []", 2, "no name"),
    "a group twice": ("groups:\n- name: g\n- name: g", 3, "given twice"),
    "a key twice": ("groups:\n- name: g\n  name: h", 3, "given twice"),
    "neither alert nor record": ("groups:\n- name: g\n  rules:\n  - expr: up", 4, "exactly one"),
    "both alert and record": ("groups:\n- name: g\n  rules:\n  - {alert: A, record: b, expr: up}", 4, "exactly one"),
    "a recording rule that waits": (
        "groups:\n- name: g\n  rules:\n  - record: a\n    expr: up\n    for: 1m",
        6,
        "recording rule",
    ),
    "a bad metric name": ("groups:\n- name: g\n  rules:\n  - record: a-b\n    expr: up", 4, "no metric name"),
    "no expression": ("groups:\n- name: g\n  rules:\n  - alert: A", 4, "no expr"),
    "not PromQL": ("groups:\n- name: g\n  rules:\n  - alert: A\n    expr: sum(", 5, "not PromQL"),
    "a bad duration": ("groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up\n    for: 5 min", 6, "no duration"),
    "a bad label name": (
        "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up\n    labels: {a-b: x}",
        6,
        "no label name",
    ),
    "a reserved label": (
        "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up\n    labels: {__name__: x}",
        6,
        "no label name",
    ),
    "a template that is not known": (
        "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up\n    annotations:\n"
        "      a: x\n      b: '{{ tmpl `x` }}'",
        8,
        "'tmpl' is not supported in a template",
    ),
    "a list where a text belongs": ("groups:\n- name: g\n  rules:\n  - alert: [A]\n    expr: up", 4, "one value"),
    "a text where a list belongs": ("groups: x", 1, "must be a list"),
    "a list at the top": ("- a", 1, "must be a mapping"),
    "no YAML": ("groups:\n- name: }", 2, "not valid YAML"),
    "a tab": ("groups:\n\t- name: g", 2, "not valid YAML"),
    "an alias that is not there": ("groups: *nothing", 1, "not valid YAML"),
    "two documents": ("groups: []\n---\ngroups: []", 2, "not valid YAML"),
    "a control character": ("groups: \x00", 0, "not valid YAML"),
}


@pytest.mark.parametrize(("text", "line", "says"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_line(text: str, line: int, says: str) -> None:
    """Each mistake is refused as one problem that names its line and what is wrong."""
    with pytest.raises(ConfigurationError) as caught:
        rulefile.load(text, PATH)
    matching = [problem for problem in caught.value.problems if says in str(problem)]
    assert matching, caught.value
    assert matching[0].line == line
    assert len(caught.value.problems) <= 2


# Refused here only: a second document is not acted on.
OURS = ("two documents",)


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("name", sorted(set(MISTAKES) - set(OURS)))
def test_promtool_refuses_it_too(tmp_path: Path, name: str) -> None:
    """What is refused here is refused by Prometheus 2.42 as well, but for those that are listed."""
    path = tmp_path / "rules.yml"
    path.write_text(MISTAKES[name][0], encoding="utf-8")
    done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode != 0, done.stdout


def test_every_mistake_is_reported_at_once() -> None:
    """Reading goes on after a mistake; the problems come in the order of their lines."""
    text = "groups:\n- name: g\n  bogus: 1\n  rules:\n  - alert: A\n    expr: sum(\n    for: x\n  - {}\n"
    with pytest.raises(ConfigurationError) as caught:
        rulefile.load(text, PATH)
    assert [problem.line for problem in caught.value.problems] == [3, 6, 7, 8]
    assert all(problem.path == PATH for problem in caught.value.problems)


def test_deep_nesting_and_aliases_end_in_an_error_not_a_crash() -> None:
    """A hostile file (deep lists, aliases of aliases) is refused, quickly."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    bomb = "a: &a [x,x]\n"
    bomb += "".join(f"{each}: &{each} [*{last},*{last}]\n" for last, each in pairwise(letters))
    for text in ("groups: " + "[" * 5000, bomb, "groups: " + "{a: " * 2000):
        with pytest.raises(ConfigurationError):
            rulefile.load(text, PATH)


def test_an_empty_file_has_no_rules() -> None:
    """No text, no groups: nothing to do is no mistake."""
    assert rulefile.load("", PATH) == ()
    assert rulefile.load("groups:\n", PATH) == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("1m", 60), ("1m30s", 90), ("1500ms", 1.5), ("1h1ms", 3600.001), ("2w", 1209600), ("1y", 31536000)],
)
def test_durations(text: str, seconds: float) -> None:
    """Durations are Prometheus's, exact to the millisecond."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "1 m", "m", "-1m", "1.5m", "30s1m", "１m"])
def test_what_is_no_duration(text: str) -> None:
    """A duration needs whole numbers with units, from the largest to the smallest."""
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["293y", "9300000000s", "9" * 400 + "s", "9" * 400 + "ms"])
def test_a_duration_that_prometheus_cannot_count_is_out_of_range(text: str) -> None:
    """What does not fit into nanoseconds of 64 bits is refused as Prometheus refuses it, however long it is."""
    with pytest.raises(ValueError, match="more than 292 years is out of range"):
        parse_duration(text)
