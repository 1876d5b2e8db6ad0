"""The Prometheus HTTP API: paths, parameters, envelope, errors. Beside a real Prometheus: test_api_prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from anvil_monitor.alerts.rulefile import Alerting, Group, Recording
from anvil_monitor.monitoring import apistatus, apisyntax
from anvil_monitor.monitoring.api import routes
from anvil_monitor.monitoring.apistate import Sources, exponent_text
from anvil_monitor.monitoring.promql import Engine
from anvil_monitor.monitoring.rulemanager import GroupState, evaluate
from anvil_monitor.monitoring.samples import labels_of
from anvil_monitor.monitoring.store import Store
from anvil_monitor.monitoring.threads import Threads

NOW = 1_700_000_000.0


@pytest.fixture
def api() -> Iterator[TestClient]:
    store = Store()
    for i in range(13):
        at = round((NOW - 60 + 5 * i) * 1000)
        store.append(at, [(labels_of(__name__="up", job="server", instance="a:1"), 1.0)])
        store.append(at, [(labels_of(__name__="requests_total", job="server", code="200"), 10.0 * i)])
    engine = Engine(store)
    group = Group("g", 5.0, (Recording("r:up", "up"), Alerting("Bad", "up == 1", annotations={"summary": "it is up"})))
    state = GroupState.of(group)
    evaluate(group, state, NOW, engine.instant, store.append, lambda text, labels, value: text)
    with Threads(1, "test") as threads:
        sources = Sources(store, engine, [(group, state)], [], lambda: NOW, threads)
        with TestClient(Starlette(routes=routes(sources))) as client:
            yield client


def data(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["status"] == "success"
    return body["data"]


def test_an_instant_query_gives_a_vector(api: TestClient) -> None:
    """GET and POST give the same; whole seconds are whole numbers, values are text."""
    expected = {
        "resultType": "vector",
        "result": [{"metric": {"__name__": "up", "instance": "a:1", "job": "server"}, "value": [1700000000, "1"]}],
    }
    assert data(api.get("/api/v1/query", params={"query": "up"})) == expected
    assert data(api.post("/api/v1/query", data={"query": "up", "time": f"{NOW:.3f}"})) == expected
    assert data(api.post("/api/v1/query?query=up")) == expected
    assert data(api.get("/api/v1/query", params={"query": "up", "time": "2023-11-14T22:13:20Z"})) == expected


def test_scalar_string_and_matrix(api: TestClient) -> None:
    """Each kind of value has its own shape."""
    assert data(api.get("/api/v1/query", params={"query": "1+1"})) == {
        "resultType": "scalar",
        "result": [1700000000, "2"],
    }
    assert data(api.get("/api/v1/query", params={"query": '"a"', "time": "4.5"})) == {
        "resultType": "string",
        "result": [4.5, "a"],
    }
    found = data(api.get("/api/v1/query", params={"query": "requests_total[11s]"}))
    assert found["resultType"] == "matrix"
    assert found["result"][0]["values"] == [[1699999990, "100"], [1699999995, "110"], [1700000000, "120"]]


def test_a_range_query_gives_a_matrix(api: TestClient) -> None:
    """Values at start, start + step, … up to end; the step in seconds or as a duration."""
    for step in ("15", "15s", "15000ms"):
        parameters = {"query": "requests_total", "start": NOW - 30, "end": NOW, "step": step}
        found = data(api.get("/api/v1/query_range", params=parameters))
        assert [value for _, value in found["result"][0]["values"]] == ["60", "90", "120"]


@pytest.mark.parametrize(
    ("path", "parameters", "words"),
    [
        ("query", {}, 'invalid parameter "query"'),
        ("query", {"query": "up("}, 'invalid parameter "query"'),
        (
            "query",
            {"query": "up", "time": "soon"},
            """invalid parameter "time": Invalid time value for 'time': cannot parse "soon" to a valid""",
        ),
        ("query", {"query": "up", "time": "1e400"}, 'invalid parameter "time"'),
        (
            "query_range",
            {"query": "up", "end": "5", "step": "1"},
            'invalid parameter "start": cannot parse "" to a valid',
        ),
        (
            "query_range",
            {"query": "up", "start": "9", "end": "5", "step": "1"},
            "end timestamp must not be before start",
        ),
        ("query_range", {"query": "up", "start": "1", "end": "5", "step": "0"}, "zero or negative query resolution"),
        ("query_range", {"query": "up", "start": "1", "end": "5", "step": "x"}, 'cannot parse "x" to a valid duration'),
        ("query_range", {"query": "up", "start": "0", "end": "20000", "step": "1"}, "maximum resolution of 11,000"),
        (
            "query_range",
            {"query": "up[5m]", "start": "1", "end": "5", "step": "1"},
            'invalid expression type "range vector"',
        ),
        ("series", {}, "no match[] parameter provided"),
        ("series", {"match[]": "{}"}, "match[]"),
        ("series", {"match[]": 'up{job=~".*"} offset 5m'}, "match[]"),
        ("labels", {"match[]": "1+1"}, "no series selector"),
        ("label/no-name/values", {}, 'invalid label name: "no-name"'),
        ("rules", {"type": "both"}, 'invalid parameter "type": not supported value "both"'),
        ("labels", {"limit": "-1"}, 'invalid parameter "limit"'),
    ],
)
def test_a_wrong_parameter_is_bad_data(api: TestClient, path: str, parameters: dict[str, str], words: str) -> None:
    """400, error type bad_data, and words that name the parameter."""
    answer = api.get(f"/api/v1/{path}", params=parameters)
    assert answer.status_code == 400
    body = answer.json()
    assert (body["status"], body["errorType"]) == ("error", "bad_data")
    assert words in body["error"]


def test_a_query_that_fails_is_an_execution_error(api: TestClient) -> None:
    """422 for a query that parses and cannot be answered."""
    answer = api.get("/api/v1/query", params={"query": 'label_replace(up, "", "x", "job", "(.*)")'})
    assert answer.status_code == 422
    assert answer.json()["errorType"] == "execution"


def test_a_body_that_is_too_long_is_refused(api: TestClient) -> None:
    """A form of more than a megabyte is not read to its end."""
    answer = api.post("/api/v1/query", content=b"query=" + b"1" * 2_000_000)
    assert answer.status_code == 400


def test_series_labels_and_values(api: TestClient) -> None:
    """Series by selector; label names and values, with and without one, and within a time."""
    found = data(api.get("/api/v1/series", params={"match[]": ['{job="server"}', "up"]}))
    assert {each["__name__"] for each in found} == {"ALERTS", "ALERTS_FOR_STATE", "r:up", "requests_total", "up"}
    assert data(api.post("/api/v1/labels", data={"match[]": "requests_total"})) == ["__name__", "code", "job"]
    assert data(api.get("/api/v1/label/code/values")) == ["200"]
    assert data(api.get("/api/v1/label/code/values", params={"end": NOW - 100})) == []
    assert len(data(api.get("/api/v1/labels", params={"limit": "2"}))) == 2


def test_rules_and_alerts(api: TestClient) -> None:
    """Rules with their health and their alerts, as Prometheus lists them."""
    (group,) = data(api.get("/api/v1/rules"))["groups"]
    recording, alerting = group["rules"]
    assert (group["name"], group["interval"], group["lastEvaluation"]) == ("g", 5.0, "2023-11-14T22:13:20Z")
    assert (recording["type"], recording["name"], recording["health"]) == ("recording", "r:up", "ok")
    assert (alerting["type"], alerting["state"], alerting["health"]) == ("alerting", "firing", "ok")
    expected = {
        "labels": {"alertname": "Bad", "instance": "a:1", "job": "server"},
        "annotations": {"summary": "it is up"},
        "state": "firing",
        "activeAt": "2023-11-14T22:13:20Z",
        "value": "1e+00",
    }
    assert alerting["alerts"] == [expected]
    assert data(api.get("/api/v1/alerts")) == {"alerts": [expected]}
    (only,) = data(api.get("/api/v1/rules", params={"type": "alert"}))["groups"]
    assert [rule["name"] for rule in only["rules"]] == ["Bad"]


def test_grafana_takes_it_for_a_prometheus(api: TestClient) -> None:
    """Its health check: 1+1 is a scalar, and the build information has no list of features (which would mean Mimir)."""
    assert data(api.get("/api/v1/query", params={"query": "1+1", "time": "4"}))["result"] == [4, "2"]
    found = data(api.get("/api/v1/status/buildinfo"))
    assert "features" not in found
    assert found["version"] == "2.42.0"


def test_numbers_with_exponent() -> None:
    """The value of an alert always has an exponent, in its shortest form."""
    texts = {0.0: "0e+00", 1.0: "1e+00", 0.312: "3.12e-01", 512e6: "5.12e+08", 0.1 + 0.2: "3.0000000000000004e-01"}
    assert {value: exponent_text(value) for value in texts} == texts
    assert exponent_text(float("nan")) == "NaN"


def test_a_limit_says_that_it_cut(api: TestClient) -> None:
    """Not more than asked for, and a warning only where there was more."""
    cut = ["results truncated due to limit"]
    for path, parameters in (
        ("query", {"query": '{job="server"}'}),
        ("query_range", {"query": '{job="server"}', "start": NOW - 30, "end": NOW, "step": 15}),
        ("series", {"match[]": '{job="server"}'}),
        ("labels", {}),
        ("label/__name__/values", {}),
    ):
        body = api.get(f"/api/v1/{path}", params={**parameters, "limit": "1"}).json()
        found = body["data"]["result"] if path.startswith("query") else body["data"]
        assert (len(found), body["warnings"]) == (1, cut)
        assert "warnings" not in api.get(f"/api/v1/{path}", params={**parameters, "limit": "100"}).json()
    wrong = api.get("/api/v1/labels", params={"limit": "x"}).json()["error"]
    assert wrong == 'invalid parameter "limit": strconv.Atoi: parsing "x": invalid syntax'


def test_lookback_and_stats(api: TestClient) -> None:
    """``lookback_delta`` shortens how far an instant selector sees; ``stats`` tells how long the query took."""
    late = {"query": "up", "time": NOW + 60}
    assert len(data(api.get("/api/v1/query", params=late))["result"]) == 1
    assert data(api.get("/api/v1/query", params={**late, "lookback_delta": "30s"}))["result"] == []
    body = api.get("/api/v1/query", params={**late, "lookback_delta": "x"}).json()
    assert body["error"] == 'error parsing lookback delta duration: cannot parse "x" to a valid duration'
    assert "stats" not in data(api.get("/api/v1/query", params=late))
    assert data(api.get("/api/v1/query", params={**late, "stats": "all"}))["stats"]["timings"]["execTotalTime"] > 0


def test_rules_are_found_by_filter(api: TestClient) -> None:
    """By name, group, label; without their alerts; and page by page."""

    def names(**parameters: str) -> list[str]:
        asked = {name.replace("__", "[]"): value for name, value in parameters.items()}
        groups = data(api.get("/api/v1/rules", params=asked))["groups"]
        return [rule["name"] for group in groups for rule in group["rules"]]

    assert names(rule_name__="Bad") == ["Bad"]
    assert names(rule_group__="g") == ["r:up", "Bad"]
    assert names(rule_group__="h") == names(file__="other.yml") == names(match__='{team="x"}') == []
    (group,) = data(api.get("/api/v1/rules", params={"exclude_alerts": "true", "type": "alert"}))["groups"]
    assert "alerts" not in group["rules"][0]
    assert "groupNextToken" not in data(api.get("/api/v1/rules", params={"group_limit": "1"}))
    for parameters, words in (
        ({"group_next_token": "x"}, "group_limit needs to be present in order to paginate over the groups"),
        ({"group_limit": "1", "group_next_token": "x"}, "invalid group_next_token 'x'. were rule groups changed?"),
        ({"group_limit": "0"}, "group_limit needs to be greater than 0"),
        ({"exclude_alerts": "perhaps"}, "error converting exclude_alerts"),
    ):
        answer = api.get("/api/v1/rules", params=parameters)
        assert (answer.status_code, answer.json()["errorType"]) == (400, "bad_data")
        assert words in answer.json()["error"]


def test_the_store_describes_itself(api: TestClient) -> None:
    """How many series of what, between which times."""
    found = data(api.get("/api/v1/status/tsdb"))
    assert found["headStats"]["numSeries"] == 5
    assert (found["headStats"]["minTime"], found["headStats"]["maxTime"]) == ((NOW - 60) * 1000, NOW * 1000)
    assert {"name": "up", "value": 1} in found["seriesCountByMetricName"]
    assert len(data(api.get("/api/v1/status/tsdb", params={"limit": "1"}))["seriesCountByMetricName"]) == 1
    assert api.get("/api/v1/status/tsdb", params={"limit": "0"}).status_code == 400
    for path in ("config", "flags", "runtimeinfo"):
        assert data(api.get(f"/api/v1/status/{path}"))


def test_a_query_as_a_tree(api: TestClient) -> None:
    """``/parse_query`` gives the tree of Prometheus 3, parentheses included."""
    found = data(
        api.get("/api/v1/parse_query", params={"query": 'sum by (a) (rate(x{b="c"}[5m] offset 1m)) / on(a) (y)'})
    )
    assert (found["type"], found["op"], found["bool"]) == ("binaryExpr", "/", False)
    assert found["matching"] == {"card": "one-to-one", "labels": ["a"], "on": True, "include": []}
    assert found["rhs"]["type"] == "parenExpr"
    total = found["lhs"]
    assert (total["type"], total["op"], total["grouping"], total["without"]) == ("aggregation", "sum", ["a"], False)
    rate = total["expr"]
    expected = {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"}
    assert rate["func"] == expected
    (window,) = rate["args"]
    assert (window["type"], window["range"], window["offset"]) == ("matrixSelector", 300_000, 60_000)
    assert window["matchers"] == [
        {"name": "b", "value": "c", "type": "="},
        {"name": "__name__", "value": "x", "type": "="},
    ]
    assert api.get("/api/v1/parse_query", params={"query": "sum("}).status_code == 400
    for text in ("-(a)", "topk(3, a)", "a[5m:1m] @ end()", '"text"', "1", "a and b", "sum without (c) (d)", "time()"):
        assert data(api.post("/api/v1/parse_query", data={"query": text}))["type"]


def test_escaped_label_names(api: TestClient) -> None:
    """A label name that is no identifier comes escaped; what cannot be read is taken as it is."""
    assert data(api.get("/api/v1/label/U__job/values")) == ["server"]
    assert apisyntax.unescape("U__my_2e_label__x") == "my.label_x"
    assert apisyntax.unescape("U__bad_zz_") == "U__bad_zz_"
    assert apisyntax.unescape("U__bad_ffffffff_") == "U__bad_ffffffff_"


def test_metadata_is_what_targets_say() -> None:
    """Help, type and unit from the comments of a text; the rest of a comment is ignored."""
    lines = [
        "# HELP a_total So \\n many",
        "# TYPE a_total counter",
        "# UNIT b seconds",
        "# just words",
        "# TYPE c untyped",
    ]
    assert apistatus.describe(lines) == {
        "a_total": {"type": "counter", "help": "So \n many", "unit": ""},
        "b": {"type": "unknown", "help": "", "unit": "seconds"},
        "c": {"type": "unknown", "help": "", "unit": ""},
    }


def test_what_the_engine_warns_of_is_passed_on(api: TestClient) -> None:
    """A quantile out of range is a warning, a rate of what is no counter an info; both are in the answer."""
    body = api.get("/api/v1/query", params={"query": "quantile(2, up)"}).json()
    assert "quantile value should be between 0 and 1" in body["warnings"][0]
    body = api.get("/api/v1/query", params={"query": "rate(up[1m])"}).json()
    assert "metric might not be a counter" in body["infos"][0]
