"""Rules that a real Prometheus evaluates, and ours: the same alerts, texts, states and errors at ``/api/v1/rules``."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import real_prometheus
from starlette.applications import Starlette
from starlette.testclient import TestClient

from anvil_monitor.alerts import rulefile, templates
from anvil_monitor.monitoring.api import routes
from anvil_monitor.monitoring.apistate import Sources
from anvil_monitor.monitoring.promql import Engine
from anvil_monitor.monitoring.restore import restore
from anvil_monitor.monitoring.rulemanager import GroupState, evaluate
from anvil_monitor.monitoring.samples import STALE_NAN, Labels, labels_of
from anvil_monitor.monitoring.store import Store
from anvil_monitor.monitoring.threads import Threads

TWO = '(label_replace(vector(1), "a", "1", "", "") or vector(2))'
RULES = f"""\
groups:
- name: texts
  interval: 1s
  rules:
  - alert: Links
    expr: vector(1) > bool 0
    labels: {{empty: '{{{{ "" }}}}', where: '{{{{ pathPrefix }}}}'}}
    annotations:
      url: '{{{{ externalURL }}}} {{{{ $externalURL }}}} {{{{ .ExternalURL }}}} {{{{ pathPrefix }}}}'
      labels: '{{{{ $externalLabels.cluster }}}} {{{{ .ExternalLabels }}}} {{{{ $labels }}}}'
      link: '{{{{ externalURL }}}}{{{{ tableLink "up == 0" }}}} {{{{ graphLink "a{{}}" }}}}'
      asked: '{{{{ with query "vector(3)" }}}}{{{{ . | first | value }}}}{{{{ end }}}}'
      wrong: '{{{{ query "vector(3)" | first | label "x" | humanize }}}}'
  - alert: Waiting
    expr: {TWO}
    for: 1h
    keep_firing_for: 5m
- name: limited
  interval: 1s
  limit: 1
  rules:
  - record: r:one
    expr: vector(1)
  - record: r:two
    expr: {TWO}
  - alert: One
    expr: vector(1)
  - alert: Two
    expr: {TWO}
  - alert: Pending
    expr: {TWO}
    for: 1h
- name: mistakes
  interval: 1s
  rules:
  - alert: Same
    expr: {TWO}
    labels: {{a: b}}
  - record: r:same
    expr: {TWO}
    labels: {{a: b}}
  - record: r:scalar
    expr: time() * 0
  - record: r:text
    expr: '"text"'
  - alert: Quiet
    expr: vector(1) > 1
"""
# What depends on when it was evaluated, and how long that took.
TIMES = ("evaluationTime", "lastEvaluation", "activeAt")


@pytest.mark.needs("prometheus")
def test_rules_and_alerts_are_what_prometheus_says(tmp_path: Path) -> None:
    """Texts with the external URL and labels, limits, equal labels, results of other types, states and values."""
    path = tmp_path / "rules.yml"
    path.write_text(RULES, encoding="utf-8")
    config = f"global: {{external_labels: {{cluster: eu}}}}\nrule_files: [{path}]\n"
    with real_prometheus.running(tmp_path, config) as url:
        theirs = _evaluated(url)
    external_url = theirs[-1]["rules"][0]["alerts"][0]["annotations"]["url"].split()[0]
    assert external_url.startswith("http://")
    assert theirs == _ours(path, external_url)


def _evaluated(url: str) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 60
    while True:
        groups = httpx.get(f"{url}/api/v1/rules", trust_env=False).json()["data"]["groups"]
        if all(rule["health"] != "unknown" for group in groups for rule in group["rules"]):
            return _plain(groups)
        assert time.monotonic() < deadline, groups
        time.sleep(0.1)


def _ours(path: Path, external_url: str) -> list[dict[str, Any]]:
    store = Store()
    engine = Engine(store)
    states = [(group, GroupState.of(group)) for group in rulefile.load(path.read_text(encoding="utf-8"), path)]

    def expand(text: str, data: templates.Data) -> str:
        outside = replace(data, external_labels={"cluster": "eu"}, external_url=external_url)
        return templates.parse(text).expand(outside)

    for group, state in states:
        evaluate(group, state, 1000.0, engine.instant, store.append, expand)
    with Threads(1, "test") as threads:
        sources = Sources(store, engine, states, [], lambda: 1000.0, threads)
        with TestClient(Starlette(routes=routes(sources))) as client:
            return _plain(client.get("/api/v1/rules").json()["data"]["groups"])


def _plain(found: Any) -> Any:
    """Without times; groups, rules and alerts in an order of their own; an error text up to what went wrong."""
    if isinstance(found, dict):
        kept = {name: _plain(each) for name, each in found.items() if name not in TIMES}
        if kept.get("type") == "recording" and not kept.get("labels"):
            kept["labels"] = {}  # Prometheus 2 leaves them out
        return kept
    if isinstance(found, list):
        return sorted(map(_plain, found), key=_place)
    if isinstance(found, str) and found.startswith("<error expanding template: "):
        return found[:27] + found[found.index("strconv") :]
    return found


def _place(each: dict[str, Any]) -> tuple[Any, ...]:
    return (each["name"],) if "name" in each else tuple(sorted(each["labels"].items()))


HOUR, GRACE = 3600.0, 600.0
WAITING = ("Partly", "Nearly", "Ended", "Old", "Held")  # the last is restored last
RESTORED = """\
groups:
- name: restored
  interval: 1s
  rules:
  - {alert: Other, expr: vector(1), for: 1h, labels: {x: "2"}}
  - {alert: Labelled, expr: vector(1), for: 1h, labels: {x: "2", empty: '{{ "" }}'}}
  - {alert: Short, expr: vector(1), for: 5m}
""" + "".join(f"  - {{alert: {name}, expr: vector(1), for: 1h}}\n" for name in WAITING)


def _past(now: float) -> list[tuple[Labels, list[tuple[int, float]]]]:
    """When each alert was seen last before, and since when it held then."""
    seen = float(round(now - 120))
    held = {"Held": 3700.0, "Partly": 1000.0, "Nearly": 3300.0, "Ended": 1000.0, "Short": 1000.0, "Labelled": 2000.0}
    more = {"Labelled": {"x": "2", "empty": '{{ "" }}'}, "Other": {"x": "1"}}
    found = []
    for name in (*held, "Old", "Other"):
        at = seen - 3600 if name == "Old" else seen
        labels = labels_of(__name__="ALERTS_FOR_STATE", alertname=name, **more.get(name, {}))
        ends = [(round(at * 1000) + 1000, STALE_NAN)] if name == "Ended" else []
        found.append((labels, [(round(at * 1000), at - held.get(name, 1000.0)), *ends]))
    return found


@pytest.mark.needs("prometheus")
def test_what_alerts_held_before_a_restart_is_what_prometheus_restores(tmp_path: Path) -> None:
    """Held long enough, partly, nearly; ended, too old, of other labels, of a `for` shorter than the grace period."""
    path = tmp_path / "rules.yml"
    path.write_text(RESTORED, encoding="utf-8")
    begun = time.time()
    past = _past(begun)
    with real_prometheus.running(tmp_path / "before", "{}\n", data=tmp_path / "data") as url:
        real_prometheus.push(url, past)
    with real_prometheus.running(tmp_path / "after", f"rule_files: [{path}]\n", data=tmp_path / "data") as url:
        theirs = _since_when(url, _value(past, "Held"))
    restored_at = theirs["Partly"] - _value(past, "Partly") + past[1][1][0][0] / 1000

    store = Store()
    for labels, points in past:
        for at, value in points:
            store.append(at, [(labels, value)])
    group = rulefile.load(RESTORED, path)[0]
    state = GroupState.of(group)
    for memory in state.rules:
        memory.restored = False
    for at in (restored_at - 1, restored_at):
        evaluate(group, state, at, Engine(store).instant, store.append, lambda text, data: "")
    restore(group, state, restored_at, store.select, GRACE)
    ours = {dict(alert.labels)["alertname"]: alert.active_at for alert in state.alerts()}
    known = {name for name, since in theirs.items() if since < begun}
    assert known == {"Held", "Partly", "Nearly", "Labelled"} == {name for name, since in ours.items() if since < begun}
    assert {name: ours[name] for name in known} == pytest.approx({name: theirs[name] for name in known}, abs=0.002)
    assert theirs["Nearly"] == pytest.approx(restored_at + GRACE - HOUR, abs=0.002)


def _value(past: list[tuple[Labels, list[tuple[int, float]]]], name: str) -> float:
    return next(points[0][1] for labels, points in past if ("alertname", name) in labels)


def _since_when(url: str, held: float) -> dict[str, float]:
    """ActiveAt of every alert, once they were restored."""
    deadline = time.monotonic() + 60
    while True:
        alerts = httpx.get(f"{url}/api/v1/alerts", trust_env=False).json()["data"]["alerts"]
        found = {each["labels"]["alertname"]: _seconds(each["activeAt"]) for each in alerts}
        if found.get("Held") == held:
            return found
        assert time.monotonic() < deadline, alerts
        time.sleep(0.1)


def _seconds(text: str) -> float:
    whole, _, part = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{part or 0}")
