"""The same requests to a real Prometheus 2.42 and to ours, over the same samples and rules: the same bodies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import real_prometheus
from starlette.applications import Starlette
from starlette.testclient import TestClient

from anvil_monitor.alerts import rulefile
from anvil_monitor.monitoring.api import routes
from anvil_monitor.monitoring.apistate import Sources
from anvil_monitor.monitoring.promql import Engine
from anvil_monitor.monitoring.rulemanager import GroupState
from anvil_monitor.monitoring.samples import STALE_NAN, Labels, labels_of
from anvil_monitor.monitoring.store import Store
from anvil_monitor.monitoring.threads import Threads

pytestmark = pytest.mark.needs("prometheus")

BASE = 1_700_000_000
RULES = """\
groups:
- name: g
  interval: 1h
  rules:
  - record: r:up
    expr: sum(up)
    labels: {team: a}
  - alert: Bad
    expr: up == 1
    for: 5m
    labels: {severity: critical}
    annotations: {summary: "it is {{ $value }}"}
- name: h
  interval: 1h
  limit: 7
  rules:
  - alert: Other
    expr: vector(1)
"""


def samples() -> list[tuple[Labels, list[tuple[int, float]]]]:
    """Half an hour: a counter with a reset, gauges with NaN and infinity, a histogram, a series that ends."""
    times = [(BASE + 15 * i) * 1000 + 123 for i in range(121)]
    up = labels_of(__name__="up", job="server", instance="a:1")
    made = [(up, [(at, 1.0) for at in times])]
    for code, size in (("200", 10), ("500", 1)):
        labels = labels_of(__name__="requests_total", job="server", instance="a:1", code=code)
        made.append((labels, [(at, float(size * (i + 50 if i < 80 else i - 30))) for i, at in enumerate(times)]))
    for le, share in (("0.1", 3), ("0.2", 8), ("1.0", 9), ("+Inf", 10)):
        made.append(
            (
                labels_of(__name__="size_bucket", job="server", le=le),
                [(at, share * float(i + 50)) for i, at in enumerate(times)],
            )
        )
    made.append((labels_of(__name__="odd", of="nan"), [(at, math.nan) for at in times]))
    made.append((labels_of(__name__="odd", of="inf"), [(at, -math.inf) for at in times]))
    made.append((labels_of(__name__="odd", of="tiny"), [(at, 1.25e-7 * (i + 1)) for i, at in enumerate(times)]))
    made.append((labels_of(__name__="odd", of="huge"), [(at, 1.5e21) for at in times]))
    made.append((labels_of(__name__="odd", of='ä "quote" \\ <&>'), [(at, -0.0) for at in times]))
    made.append((labels_of(__name__="gone", job="old"), [*((at, 5.0) for at in times[:40]), (times[40], STALE_NAN)]))
    return made


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, httpx.Client]]:
    folder = tmp_path_factory.mktemp("prometheus")
    rule_file = folder / "rules.yml"
    rule_file.write_text(RULES, encoding="utf-8")
    config = (
        f"global: {{evaluation_interval: 1h}}\nrule_files: [{rule_file}]\n"
        "storage: {tsdb: {out_of_order_time_window: 30d}}\n"
    )
    data, store = samples(), Store()
    for labels, points in data:
        for at, value in points:
            store.append(at, [(labels, value)])
    groups = rulefile.load(RULES, rule_file)
    with (
        real_prometheus.running(folder, config) as url,
        Threads(1, "test") as threads,
        httpx.Client(base_url=url, trust_env=False) as theirs,
    ):
        real_prometheus.push(url, data)
        states = [(group, GroupState.of(group)) for group in groups]
        sources = Sources(store, Engine(store), states, [], lambda: BASE + 1800.0, threads)
        with TestClient(Starlette(routes=routes(sources))) as ours:
            yield ours, theirs


AT = f"{BASE + 1200}"
SPAN = {"start": f"{BASE + 300}", "end": f"{BASE + 1500}"}
QUERIES = (
    "1+1",
    "-1e-7",
    "1e21",
    "0/0",
    "-1/0",
    "time()",
    '"text"',
    "vector(1) * 1e21",
    "pi()",
    "scalar(up)",
    "1 == bool 1",
    "up",
    "no_such",
    "no_such[5m]",
    'odd{of!="nan"}',
    "odd",
    "requests_total[1m]",
    "up[1m:15s]",
    "up offset 5m",
    "gone",
    f"up @ {BASE + 600}",
    "requests_total @ start()",
    '{__name__=~"up|odd"}',
    '{__name__!="",job="server"}',
    'up{job=""}',
    "rate(requests_total[5m])",
    "sum by (code) (increase(requests_total[5m]))",
    "requests_total > 100",
    "up == bool 1",
    "histogram_quantile(0.95, sum by (le) (rate(size_bucket[5m])))",
    "sum(requests_total) by (job)",
    "topk(1, requests_total)",
    "sort_desc(requests_total)",
    'count_values("v", odd)',
    'absent(no_such{a="b"})',
    "absent(up)",
    "requests_total / ignoring(code) group_left up",
    "max_over_time(odd[5m])",
    "avg_over_time(requests_total[10m:1m])",
    'label_replace(up, "host", "$1", "instance", "(.*):.*")',
    'label_join(up, "all", "-", "job", "instance")',
    "quantile(0.5, requests_total)",
    "up and on(job) requests_total",
    "up unless requests_total",
    "resets(requests_total[30m])",
    "requests_total * on(job) up",
    'label_replace(up, "", "x", "job", "(.*)")',
    'label_replace(requests_total, "code", "", "code", ".*")',
    "up(",
    "sum(",
    "foo bar",
    "rate(up)",
    "up{a=b}",
    "1 + ",
    "up[5m] + 1",
    "",
    "nosuchfunction(up)",
    'up{job=~"("}',
    "{}",
    '{job=~".*"}',
    "sum(up[5m])",
    "quantile(up)",
    '-"a"',
    "topk(NaN, up)",
)
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    *(("query", {"query": text, "time": AT}) for text in QUERIES),
    *(("query_range", {"query": text, **SPAN, "step": "60"}) for text in QUERIES),
    ("query", {"query": "up", "time": "2023-11-14T22:33:20Z"}),
    ("query", {"query": "up", "time": "2023-11-14T23:33:20.5+01:00"}),
    ("query", {"query": "1", "time": "1e3"}),
    ("query", {"query": "1/0", "time": "2015-07-01T20:10:51.781Z"}),
    ("query", {"query": "1", "time": "4.1239"}),
    ("query", {"query": "1", "time": "soon"}),
    ("query", {"query": "1", "time": "-5.5"}),
    ("query", {"query": "1", "time": "NaN"}),
    ("query", {"query": "1", "time": "4", "timeout": "x"}),
    ("query", {"query": "1", "time": "4", "timeout": "5s"}),
    ("query", {"query": "1", "time": "4", "timeout": "0"}),
    ("query", {"query": "1", "time": "4", "timeout": "-1"}),
    ("query", {"time": "4"}),
    ("query_range", {"query": "up", **SPAN, "step": "1m"}),
    ("query_range", {"query": "up", **SPAN, "step": "1h30m"}),
    ("query_range", {"query": "up", **SPAN, "step": "0.5", "end": f"{BASE + 310}"}),
    ("query_range", {"query": "up", **SPAN}),
    ("query_range", {"query": "up", **SPAN, "step": "x"}),
    ("query_range", {"query": "up", **SPAN, "step": "0"}),
    ("query_range", {"query": "up", **SPAN, "step": "-5"}),
    ("query_range", {"query": "up", **SPAN, "step": "1y"}),
    ("query_range", {"query": "up", **SPAN, "step": "1e30"}),
    ("query_range", {"query": "up", **SPAN, "step": "NaN"}),
    ("query_range", {"query": "up", "start": "0", "end": "20000", "step": "1"}),
    ("query_range", {"query": "up", "start": "0", "end": "11000", "step": "1"}),
    ("query_range", {"query": "up", "start": "60", "end": "0", "step": "1"}),
    ("query_range", {"query": "up", "end": "0", "step": "1"}),
    ("query_range", {"query": "up", "start": "0", "step": "1"}),
    ("query_range", {"query": "up", "start": "a", "end": "b", "step": "c"}),
    ("series", {}),
    ("series", {"match[]": "up"}),
    ("series", {"match[]": ["up", "requests_total"], **SPAN}),
    ("series", {"match[]": '{__name__!=""}', **SPAN}),
    ("series", {"match[]": '{job=~"s.*",code!="200"}'}),
    ("series", {"match[]": "up", "start": "0", "end": "1"}),
    ("series", {"match[]": "gone", "start": f"{BASE + 1200}", "end": f"{BASE + 1500}"}),
    ("series", {"match[]": "up", "start": "9", "end": "1"}),
    ("series", {"match[]": "up", "start": "x"}),
    ("series", {"match[]": "{}"}),
    ("series", {"match[]": '{job=~".*"}'}),
    ("series", {"match[]": "1"}),
    ("series", {"match[]": "up["}),
    ("series", {"match[]": "no_such"}),
    ("labels", {}),
    ("labels", {"match[]": "requests_total"}),
    ("labels", {"match[]": ["up", "odd"]}),
    ("labels", {**SPAN}),
    ("labels", {"match[]": "no_such"}),
    ("labels", {"start": "x"}),
    ("labels", {"end": "x"}),
    ("labels", {"match[]": "{}"}),
    ("labels", {"match[]": "up("}),
    ("labels", {"match[]": "1+1"}),
    ("label/job/values", {}),
    ("label/job/values", {"match[]": '{__name__!=""}', **SPAN}),
    ("label/__name__/values", {}),
    ("label/le/values", {"match[]": "size_bucket"}),
    ("label/of/values", {}),
    ("label/nothing/values", {}),
    ("label/no-name/values", {}),
    ("label/1/values", {}),
    ("label/job/values", {"start": "9", "end": "1"}),
    ("label/job/values", {"match[]": "1+"}),
    ("rules", {}),
    ("rules", {"type": "alert"}),
    ("rules", {"type": "record"}),
    ("rules", {"type": "both"}),
    ("rules", {"type": "ALERT"}),
    ("alerts", {}),
    ("targets", {}),
    ("targets", {"state": "dropped"}),
    ("targets/metadata", {}),
    ("targets/metadata", {"limit": "x"}),
    ("targets/metadata", {"match_target": '{job="a"}'}),
    ("targets/metadata", {"match_target": "up("}),
    ("scrape_pools", {}),
    ("alertmanagers", {}),
    ("metadata", {}),
    ("metadata", {"metric": "up"}),
    ("metadata", {"limit": "x"}),
    ("query_exemplars", {"query": "up", "start": "0", "end": "1"}),
    ("query_exemplars", {"query": "up"}),
    ("query_exemplars", {"query": "up("}),
    ("query_exemplars", {"query": "up", "start": "2", "end": "1"}),
    ("query_exemplars", {"query": "up", "start": "x", "end": "1"}),
    ("format_query", {"query": "foo/bar"}),
    ("format_query", {"query": "sum by (job,a)(rate(x{b='c'}[5m] offset 1m))"}),
    ("format_query", {"query": "sum("}),
    ("format_query", {}),
]

# What is different, and why: by path and one parameter that tells. Anything else is a fault.
DIFFERENT = {
    ("query", "topk(NaN, up)"): "the words of 3.x: Parameter value is NaN",
    ("query_range", "topk(NaN, up)"): "the words of 3.x: Parameter value is NaN",
    ("query", 'label_replace(up, "", "x", "job", "(.*)")'): "names the destination in quotes",
    ("query_range", 'label_replace(up, "", "x", "job", "(.*)")'): "names the destination in quotes",
    ("query", "NaN"): "2.42 takes NaN for a time in the year 1677; here it is refused",
    ("query_range", "NaN"): "2.42 takes a step of NaN for a negative one; here it is no duration",
    ("rules", "record"): "2.42 lists groups that have no such rule, 3.x leaves them out",
}


def keyed(body: Any) -> Any:
    """Where Prometheus promises no order: series by labels."""
    if isinstance(body, dict) and body.get("resultType") in ("vector", "matrix"):
        return {**body, "result": sorted(body["result"], key=lambda one: sorted(one["metric"].items()))}
    if isinstance(body, list) and body and isinstance(body[0], dict):
        return sorted(body, key=lambda one: sorted(one.items()))
    return body


@pytest.mark.parametrize(
    "number", range(len(REQUESTS)), ids=lambda i: f"{REQUESTS[i][0]} {REQUESTS[i][1].get('query', REQUESTS[i][1])}"[:60]
)
def test_the_same_request_gives_the_same_body(both: tuple[TestClient, httpx.Client], number: int) -> None:
    """Status, error type, words and data of a GET are Prometheus's; what is posted answers the same."""
    path, parameters = REQUESTS[number]
    if any((path, value) in DIFFERENT for value in parameters.values() if isinstance(value, str)):
        ours, theirs = (client.get(f"/api/v1/{path}", params=parameters).json() for client in both)
        assert ours != theirs, "no longer different: take it off the list"
        return
    ours, theirs = (client.get(f"/api/v1/{path}", params=parameters) for client in both)
    mine, other = ours.json(), theirs.json()
    assert ours.status_code == theirs.status_code, (mine, other)
    assert (mine["status"], mine.get("errorType")) == (other["status"], other.get("errorType")), (mine, other)
    assert keyed(mine.get("data")) == keyed(other.get("data"))
    # promql-parser words its errors differently, and gives no place; the parameter is named alike.
    words, true = mine.get("error", ""), other.get("error", "")
    if parameters.get("timeout"):
        assert words.startswith("query timed out") == true.startswith("query timed out")  # in its queue, or later
    elif "parse error" not in true:
        assert words == true
    else:
        assert words.startswith("invalid parameter") == true.startswith("invalid parameter")
    posted = both[0].post(f"/api/v1/{path}", data=parameters)
    if posted.status_code != 405:
        assert (posted.status_code, posted.json()) == (ours.status_code, mine)
    else:
        assert both[1].post(f"/api/v1/{path}", data=parameters).status_code == 405
