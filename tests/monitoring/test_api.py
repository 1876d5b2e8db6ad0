"""The Prometheus HTTP API: paths, parameters, envelope, errors; and the same from a real Prometheus."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from anvil_monitor.alerts.rulefile import Alerting, Group, Recording
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
        ("labels", {"match[]": "1+1"}, "match[]"),
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


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text("{}\n", encoding="utf-8")
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        shutil.which("prometheus") or "",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
    ]
    with subprocess.Popen(
        [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/-/ready").status_code == 200:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield url
        process.terminate()


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("query", {"query": "1+1", "time": "4"}),
        ("query", {"query": "vector(1) * 1e21", "time": "4.125"}),
        ("query", {"query": '"text"', "time": "4"}),
        ("query", {"query": "1/0", "time": "2015-07-01T20:10:51.781Z"}),
        ("query", {"query": "no_such_series", "time": "4"}),
        ("query", {"query": "no_such_series[5m]", "time": "4"}),
        ("query", {"query": "up(", "time": "4"}),
        ("query", {"time": "4"}),
        ("query", {"query": "1", "time": "soon"}),
        ("query_range", {"query": "time()", "start": "0", "end": "60", "step": "15s"}),
        ("query_range", {"query": "1", "start": "0", "end": "60"}),
        ("query_range", {"query": "1", "start": "60", "end": "0", "step": "1"}),
        ("query_range", {"query": "1", "start": "0", "end": "60", "step": "0"}),
        ("query_range", {"query": "1", "start": "0", "end": "60", "step": "-5"}),
        ("query_range", {"query": "1", "start": "0", "end": "20000", "step": "1"}),
        ("query_range", {"query": "up[5m]", "start": "0", "end": "60", "step": "1"}),
        ("query_range", {"query": "1", "start": "0", "end": "60", "step": "1y"}),
        ("series", {}),
        ("series", {"match[]": "{}"}),
        ("series", {"match[]": "no_such_series"}),
        ("labels", {"match[]": "no_such_series"}),
        ("label/job/values", {"match[]": "no_such_series"}),
        ("label/no-name/values", {}),
        ("rules", {"type": "both"}),
        ("alerts", {}),
        ("query_exemplars", {"query": "up", "start": "0", "end": "1"}),
    ],
)
def test_it_answers_as_prometheus_does(api: TestClient, prometheus: str, path: str, parameters: dict[str, str]) -> None:
    """The same request gives the same status, error type and data as a real Prometheus without such series."""
    ours, theirs = (
        api.get(f"/api/v1/{path}", params=parameters),
        httpx.get(f"{prometheus}/api/v1/{path}", params=parameters),
    )
    assert ours.status_code == theirs.status_code, (ours.text, theirs.text)
    mine, other = ours.json(), theirs.json()
    assert mine["status"] == other["status"]
    assert mine.get("errorType") == other.get("errorType")
    if path != "alerts":
        assert mine.get("data") == other.get("data")
    if "query" not in other.get("error", "") or "parse error" not in other["error"]:
        assert mine.get("error") == other.get("error")
