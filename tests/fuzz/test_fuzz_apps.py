"""The monitor's own web applications under hostile requests: the notifier, the API, and who is let in."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hostile import Caller, bounded, mutations
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from anvil_monitor.alerts.guard import Guard
from anvil_monitor.alerts.letters import Letter
from anvil_monitor.alerts.notifier import create_app
from anvil_monitor.alerts.sender import Outcome
from anvil_monitor.monitoring.api import routes
from anvil_monitor.monitoring.apistate import Sources
from anvil_monitor.monitoring.promql import Engine
from anvil_monitor.monitoring.samples import labels_of
from anvil_monitor.monitoring.store import Store
from anvil_monitor.monitoring.threads import Threads
from anvil_monitor.targets import Channel, Secret, load

NOW = 1_800_000_000.0
JSON = [(b"content-type", b"application/json")]
TOKEN = "a-secret-of-the-monitor"
ALERT = {
    "status": "firing", "labels": {"alertname": "TargetMissed", "service": "app", "severity": "critical"},
    "annotations": {"summary": "p95 of app is 0.31 s"}, "startsAt": "2027-01-15T08:00:00.000Z",
    "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "http://127.0.0.1/graph", "fingerprint": "c0ffee",
}  # fmt: skip
WEBHOOK = {
    "version": "4", "groupKey": '{}:{service="app"}', "status": "firing", "receiver": "anvil-monitor",
    "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "", "truncatedAlerts": 0,
}  # fmt: skip
WEBHOOKS = [
    json.dumps({**WEBHOOK, "alerts": [ALERT]}).encode(),
    json.dumps(
        {**WEBHOOK, "alerts": [{**ALERT, "status": "resolved", "endsAt": "2027-01-15T09:00:00+02:00"}, ALERT]}
    ).encode(),
]
WEBHOOK_PIECES = [
    b'"alerts": ',
    b'"9999-12-31T23:59:59-23:59"',
    b'"0001-01-01T00:00:00+23:59"',
    b'{"a": 1}',
    b"\\udfff",
    b'"resolved"',
]


class Nobody:
    """Takes every notification, and tells nobody."""

    async def send(self, channel: Channel, url: str, letter: Letter) -> Outcome:
        return Outcome(True)


@pytest.fixture
def notifier(tmp_path: Path) -> Iterator[Callable[..., Caller]]:
    """A notifier that runs, with a token if one is given."""
    with ExitStack() as ends:

        def make(token: str | None = None) -> Caller:
            shipped = load(None, {})
            secret = Secret("env:T", token) if token else None
            monitor = replace(shipped.monitor, data=tmp_path, token=secret)
            channels = (Channel("team", Secret("env:TEAM", "json://127.0.0.1:9/x")),)
            configuration = replace(shipped, channels=channels, monitor=monitor)
            app = create_app(configuration, {}, sender=Nobody(), clock=lambda: NOW)
            call = ends.enter_context(Caller(app))
            assert isinstance(app, Guard)
            assert isinstance(app.app, Starlette)
            running = app.app.router.lifespan_context(app.app)
            call.loop.run_until_complete(running.__aenter__())
            ends.callback(lambda: call.loop.run_until_complete(running.__aexit__(None, None, None)))
            return call

        yield make


def test_ten_thousand_webhooks(notifier: Callable[..., Caller]) -> None:
    """Each is accepted or gets its 4xx and a reason; memory does not grow."""
    call, seen = notifier(), set()

    def post(body: bytes) -> None:
        status, answer = call("POST", "/api/v1/alerts", body, headers=JSON)
        assert status == 200 or json.loads(answer)["error"]
        seen.add(status)

    bounded(post, mutations(WEBHOOKS, 10_000, 4, WEBHOOK_PIECES), 20_000_000)
    assert {200, 400} <= seen


def refuses(call: Caller, path: str) -> None:
    """Whatever stands in the header is 401, without a word of the token; the token itself is let in."""
    assert call("GET", path, headers=[(b"authorization", f"Bearer {TOKEN}".encode())])[0] == 200

    def ask(value: bytes) -> None:
        if TOKEN.encode() in value:
            return
        status, answer = call("GET", path, headers=[(b"authorization", value)])
        assert status == 401
        assert TOKEN.encode() not in answer

    seeds = [
        b"Bearer a-secret-of-the-monito",
        b"Basic OmEtc2VjcmV0",
        b"Digest x",
        b"Bearer",
        f"Bearer {TOKEN}".encode(),
    ]
    bounded(ask, mutations(seeds, 3_000, 5, [b"Bearer ", b"Basic ", b"====", "ü".encode("latin-1")]))


def test_tokens_of_the_monitor() -> None:
    """Bearer, Basic, or anything else: any bytes."""
    inside = Starlette(routes=[Route("/", lambda _: PlainTextResponse("in"))])
    with Caller(Guard(inside, "127.0.0.1", TOKEN)) as call:
        refuses(call, "/")


def test_tokens_of_the_notifier(notifier: Callable[..., Caller]) -> None:
    """The same for what Alertmanager posts to."""
    refuses(notifier(TOKEN), "/api/v1/notifications")


@pytest.fixture
def api() -> Iterator[Caller]:
    store = Store()
    for i in range(13):
        store.append(round((NOW - 60 + 5 * i) * 1000), [(labels_of(__name__="up", job="a"), 1.0)])
    with Threads(1, "test") as threads:
        sources = Sources(store, Engine(store), [], [], lambda: NOW, threads)
        caller = Caller(Starlette(routes=routes(sources)))
        with caller as call:
            yield call


def test_hostile_parameters(api: Caller) -> None:
    """Queries, times, steps, limits and selectors of any text: an answer in JSON, 4xx where it is an error."""
    good = {
        "query": "sum by (job) (rate(up[1m])) > 0.5 or -up offset 5m @ 1.8e9", "time": f"{NOW}",
        "start": f"{NOW - 60}", "end": "2027-01-15T08:00:00Z", "step": "15s", "limit": "10", "match[]": '{job=~"a.*"}',
    }  # fmt: skip
    paths = ["query", "query_range", "series", "labels", "label/job/values", "query_exemplars"]
    seeds = [value.encode() for value in good.values()]
    pieces = [
        b"((",
        b"[5m:1s]",
        b" by (",
        b"=~",
        b"{",
        b"}",
        b"(a+)+$",
        b"-1e308",
        b"9" * 30,
        b"1y",
        b"@ end()",
        b"%zz",
        b"topk(",
    ]
    turn = 0

    def ask(value: bytes) -> None:
        nonlocal turn
        turn += 1
        name = list(good)[turn % len(good)]
        form = urllib.parse.urlencode({**good, name: value}).encode()
        path = f"/api/v1/{paths[turn % len(paths)]}"
        for method, query, body in (("GET", form, b""), ("POST", b"", form), ("POST", value[:100], value)):
            if method == "POST" and "values" in path:
                continue
            status, answer = api(method, path, body, query)
            assert json.loads(answer)["status"] == ("success" if status == 200 else "error")

    bounded(ask, mutations(seeds, 1_500, 6, pieces), 30_000_000)


def test_bodies_without_end(api: Caller, notifier: Callable[..., Caller]) -> None:
    """A body is given up at its limit, however it is cut into pieces."""
    assert api("POST", "/api/v1/query", b"query=" + b"x" * 3_000_000, chunk=1000)[0] == 400
    status, answer = notifier()("POST", "/api/v1/alerts", b"[" * 5_000_000, headers=JSON, chunk=1000)
    assert (status, "error" in json.loads(answer)) == (413, True)


def test_any_label_name(api: Caller) -> None:
    """The name in the path of label values is any text."""

    def ask(value: bytes) -> None:
        name: Any = value.decode("utf-8", "replace").replace("/", "")
        api("GET", f"/api/v1/label/{name}/values")

    bounded(ask, mutations([b"job", "größe".encode(), b"__name__"], 1_000, 7))
