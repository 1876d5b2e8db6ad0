"""``anvil-monitor explain``: the parts of an expression with their values, how an alert stands, and who was told."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import real_prometheus

from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.rulefile import Recording
from anvil_monitor.monitoring.cli import main
from anvil_monitor.monitoring.explain import Part, explain
from anvil_monitor.monitoring.explaincommand import Monitor
from anvil_monitor.monitoring.explaincommand import _told as told
from anvil_monitor.monitoring.promql import Engine, Scalar, Vector
from anvil_monitor.monitoring.promql.parse import parse
from anvil_monitor.monitoring.samples import Labels, labels_of
from anvil_monitor.monitoring.store import Store
from anvil_monitor.targets import Configuration
from anvil_monitor.targets.load import parse as parse_toml


@pytest.fixture
def ask() -> Callable[[str], list[tuple[Labels, float]]]:
    store = Store()
    values = {
        labels_of(__name__="level", of="a"): 7.0,
        labels_of(__name__="level", of="b"): 2.0,
        labels_of(__name__="other", of="b"): 1.0,
        labels_of(__name__="target:value", service="shop", target="memory", unit="bytes"): 512.3e6,
        labels_of(__name__="target:ratio", service="shop", target="memory", unit="bytes"): 1.0246,
        labels_of(__name__="target:samples", service="shop", target="memory", unit="bytes"): 4.0,
    }
    store.append(1000, list(values.items()))
    engine = Engine(store)

    def query(expr: str) -> list[tuple[Labels, float]]:
        found = engine.instant(expr, 1.0)
        assert isinstance(found, Vector | Scalar)
        return [((), found.value)] if isinstance(found, Scalar) else [(one.labels, one.value) for one in found.samples]

    return query


def test_a_missed_target_in_parts(ask: Any) -> None:
    """Each side of an ``and`` with its value in human units, and which comparison is not so."""
    expr = "target:value and on (service, target) (target:ratio > 1) and on (service, target) (target:samples >= 20)"
    found = explain(parse(expr), ask, {})
    assert (found.said, found.holds, len(found.parts)) == ("and on (service, target)", False, 3)
    value, ratio, samples = found.parts
    assert value == Part("target:value", True, "512 MB")
    assert (ratio.holds, ratio.values) == (True, "1.025 > 1")
    assert (samples.holds, samples.values) == (False, "4 >= 20, which is not so")


def test_only_the_alerts_own_elements_count(ask: Any) -> None:
    """Of a rule with an alert a label set, the parts of the one that was asked for."""
    assert explain(parse("level > 5"), ask, {"of": "a"}).values == "7 > 5"
    assert explain(parse("level > 5"), ask, {"of": "b"}) == Part("level > 5", False, "2 > 5, which is not so")
    both = explain(parse("level > 5"), ask, {})
    assert (both.holds, both.values) == (True, '7 (of="a"), 2 (of="b") > 5')


def test_what_is_missing_is_named(ask: Any) -> None:
    """A side that gives nothing is told by name; two sides that do not meet, and an ``unless`` that is there, too."""
    gone = explain(parse("nothing > 5"), ask, {})
    assert (gone.holds, gone.values, gone.note) == (False, "", "nothing on its left now: there is no nothing")
    apart = explain(parse("level{of='a'} and other"), ask, {})
    assert apart.note == "each side is there, but none with the labels of the other"
    kept = explain(parse("level{of='b'} unless other"), ask, {})
    assert (kept.holds, kept.parts[1].note) == (False, "so the left side does not count")
    assert explain(parse("absent(nothing)"), ask, {}).holds
    assert explain(parse("vector(1)"), ask, {}) == Part("vector(1)", True, "1")


def test_the_series_that_are_silent_are_named_through_what_is_recorded(ask: Any) -> None:
    """A recorded series that gives nothing: what its rule reads and nobody writes, and what that rests on in turn."""
    recorded = [
        Recording("a:x", "rate(gone_total{of='a'}[5m]) + level", {"of": "a"}),
        Recording("a:y", "a:x{of='a'} * 2"),
        Recording("a:y", "never_read", {"of": "b"}),
    ]
    note = 'nothing on its left now: there is no gone_total{of="a"}'
    assert explain(parse("a:y{of='a'} > 1"), ask, {}, recorded).note == note
    assert explain(parse("level > 1"), ask, {}, recorded).note == ""
    assert explain(parse("gone_total"), ask, {}, recorded).note == "nothing now"
    circle = [Recording("c", "c offset 1m")]
    assert explain(parse("c"), ask, {}, circle).note == "nothing now"


CHANNELS = """
[channels.all]
url = "env:A"
[channels.warnings]
url = "env:B"
severities = ["warning"]
[channels.admins]
url = "env:C"
services = ["admin"]
[channels.memory]
url = "env:D"
targets = ["memory"]
[channels.gold]
url = "env:E"
labels = { tier = "gold" }
[[service]]
name = "shop"
[[service]]
name = "admin"
"""


def said_of(labels: dict[str, str], state: dict[str, Any]) -> list[str]:
    """Who is told of a firing alert, as explain says it."""
    alert = {"labels": labels, "annotations": {}, "activeAt": "2026-01-31T12:00:00Z"}
    firing = [Alert(labels, {}, 1769860800.0)]
    remote: Any = None
    return list(told(alert, Monitor(remote, 1769860900.0, state, firing=firing, configuration=parse_toml(CHANNELS))))


def test_each_channel_that_is_not_told_has_its_reason() -> None:
    """By severity, service, target and label; that nothing reaches a channel is told to the others."""
    missed = {"alertname": "TargetMissed", "service": "shop", "target": "api_response_time", "severity": "critical"}
    assert said_of(missed, {"alerts": []}) == [
        "all: no message about shop since it began",
        "warnings takes no alerts of severity critical",
        "admins takes no alerts of the service shop",
        "memory takes no alerts of the target api_response_time",
        'gold takes no alerts with tier=""',
    ]
    lost = {"alertname": "NotificationsFailing", "severity": "critical", "channel": "all"}
    said = said_of(lost, {"alerts": []})
    assert said[0] == "all takes no news that nothing reaches it: the others are told"
    assert said[1].startswith("warnings: no message about it")


def test_who_looks_after_it_is_said() -> None:
    """An acknowledged alert says by whom, since when and why, and what that means."""
    labels = {"alertname": "TargetMissed", "service": "shop", "severity": "critical"}
    ack = {"author": "Ada", "reason": "restarting it", "at": 1769860850.0, "fingerprint": "-"}
    seen = {"fingerprint": Alert(labels, {}, 0.0).fingerprint, "acknowledged": ack}
    said = said_of(labels, {"alerts": [seen, {"fingerprint": "other", "acknowledged": None}]})
    assert re.fullmatch(r"Ada looks after it since .*: restarting it\. It is neither repeated nor .*", said[0])


RULES = """
groups:
- name: mine
  interval: 500ms
  rules:
  - {alert: Waits, expr: up > 0, for: 1h, labels: {service: shop}}
  - {alert: Odd, expr: up + on () up}
  - {alert: Quiet, expr: sum(up) > 100}
"""


def test_on_a_running_monitor(
    server: Any,
    start: Callable[..., Any],
    until: Callable[..., Any],
    configuration: Configuration,
    configuration_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Firing with the channel that was told, silenced, pending with what is left, failing, quiet; unknown names."""
    (tmp_path / "mine.yml").write_text(RULES)
    running = start(replace(configuration, monitor=replace(configuration.monitor, rules=(f"{tmp_path}/mine.yml",))))

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["explain", *arguments, "--config", str(configuration_file), "--url", running.url])
        said = capsys.readouterr()
        return status, said.out, said.err

    server.latency = 0.4
    until(lambda: any("API response time" in str(each) for each in server.posted))
    until(lambda: "hook: told at" in run("TargetMissed", "target=api_response_time")[1])
    status, out, _ = run("targetmissed", "target=api_response_time")
    assert status == 0
    assert re.match(r'TargetMissed\{.*target="api_response_time".*\}\n  it fires since \d\d:\d\d:\d\d, for ', out)
    assert re.search(r"yes  target:value\{.*\}  \d+ ms", out)
    assert re.search(r"yes  target:ratio\{.*\} > 1  [\d.]+ > 1\n", out)
    quiet = {"matchers": ["service=shop"], "for": "1h", "author": "Ada", "reason": "a test"}
    assert running.http.post("/api/v1/silences", json=quiet).is_success
    assert re.search(r"held back by silence 1 of Ada until .*: a test", run("TargetMissed")[1])
    status, out, _ = run("Waits")
    assert re.search(r"it is pending: .* It fires at .*, in (59|1 h).* \(for 1 h\)", out)
    until(lambda: "cannot be evaluated: " in run("Odd")[1])
    status, out, _ = run("Quiet")
    assert (status, "its condition does not hold" in out) == (0, True)
    assert "it has not fired in the last 1d" in out
    assert "Drift: still learning. " in run("TargetDrifting", "target=api_response_time")[1]
    assert "Drift: " not in run("TargetMissed", "target=memory")[1]
    assert "no   sum(up) > 100  2 > 100, which is not so" in out
    server.latency = 0.04
    until(lambda: "it last fired at" in run("TargetMissed", "target=api_response_time")[1])
    found = json.loads(run("Quiet", "--json")[1])
    assert (found[0]["state"], found[0]["condition"]["holds"]) == ("inactive", False)
    status, _, errors = run("TargetMised")
    assert (status, "did you mean TargetMissed" in errors) == (2, True)
    status, _, errors = run("TargetMissed", "service=other")
    assert (status, "no TargetMissed has service=other" in errors) == (2, True)
    assert run("Waits", "nonsense")[0] == 2
    assert main(["explain", "Waits", "--config", str(configuration_file), "--url", "http://127.0.0.1:9"]) == 1


@pytest.mark.needs("prometheus")
def test_on_a_prometheus(tmp_path: Path, configuration_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same of a Prometheus, which does not know who was told."""
    (tmp_path / "mine.yml").write_text(RULES.replace("up > 0", "vector(3) > 2"))
    config = f"rule_files: ['{tmp_path}/mine.yml']\n"
    arguments = ["explain", "Waits", "--config", str(configuration_file), "--url"]
    with real_prometheus.running(tmp_path / "run", config) as url:
        deadline = time.monotonic() + 20
        out = ""
        while "it is pending" not in out and time.monotonic() < deadline:
            assert main([*arguments, url]) == 0
            out = capsys.readouterr().out
        assert "it is pending" in out
        assert "yes  vector(3) > 2  3 > 2" in out
