"""The notifier over HTTP: what Alertmanager posts, what others may post, and what is refused and why."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from anvil_monitor.alerts import notifier
from anvil_monitor.alerts.forms import Form
from anvil_monitor.alerts.letters import Letter
from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.notifier import MAX_BODY, create_app
from anvil_monitor.alerts.outbox import Outbox, OutboxError
from anvil_monitor.alerts.rounds import Rounds
from anvil_monitor.alerts.sender import Outcome
from anvil_monitor.alerts.webhook import WebhookError, alert_from_webhook
from anvil_monitor.targets import Channel, ConfigurationError, Secret

URL = "json://127.0.0.1:9/secret-path"


class Recorder:
    """A sender that delivers everything."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str, str]] = []

    async def send(self, channel: Channel, url: str, letter: Letter) -> Outcome:
        self.sent.append((channel.name, letter.title, letter.forms[Form.TEXT].body, letter.kind))
        return Outcome(True)


def webhook(*alerts: Alert, key: str = '{}:{service="app"}') -> dict[str, Any]:
    """The body that Alertmanager would post for ``alerts``."""

    def when(at: float | None) -> str:
        return datetime.fromtimestamp(at, UTC).isoformat() if at is not None else "0001-01-01T00:00:00Z"

    firing = any(alert.firing for alert in alerts)
    return {
        "version": "4", "groupKey": key, "status": "firing" if firing else "resolved", "receiver": "anvil-monitor",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "", "truncatedAlerts": 0,
        "alerts": [
            {"status": "firing" if alert.firing else "resolved", "labels": alert.labels, "fingerprint": "x",
             "annotations": alert.annotations, "startsAt": when(alert.starts_at), "endsAt": when(alert.ends_at),
             "generatorURL": ""}
            for alert in alerts
        ],
    }  # fmt: skip


class AtOnce(Rounds):
    """What is posted has been told when it is answered."""

    def take(self, *arguments: Any) -> bool:
        fresh = super().take(*arguments)
        self.round()
        return fresh


@pytest.fixture
def serve(
    configure: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[TestClient, Recorder]]]:
    """A notifier with given channels and monitor settings, running until the test ends."""
    clients: list[TestClient] = []
    monkeypatch.setattr(notifier, "Rounds", AtOnce)

    def start(channels: Any = None, **monitor: Any) -> tuple[TestClient, Recorder]:
        sender = Recorder()
        monitor = {"group_wait": 0.0, **monitor}
        app = create_app(configure(channels or {"team": URL}, **monitor), {}, sender=sender, clock=clock)
        client = TestClient(app, base_url="http://127.0.0.1:9095")
        client.__enter__()
        clients.append(client)
        return client, sender

    yield start
    for client in clients:
        client.__exit__(None, None, None)


def ledger(client: TestClient) -> list[str]:
    entries = client.get("/api/v1/notifications").json()["data"]["notifications"]
    return [f"{entry['channel']}: {entry['title']}" for entry in reversed(entries)]


def test_firing_then_resolved(serve: Any, clock: Any, alerts: Any) -> None:
    """A group is one message when it fires and one when it is over, in our own words; the ledger shows both."""
    client, _ = serve()
    alert = alerts.missed()
    answer = client.post("/api/v1/alerts", json=webhook(alert))
    assert (answer.status_code, answer.json()) == (200, {"status": "accepted", "alerts": 1})
    clock.now += 80
    client.post("/api/v1/alerts", json=webhook(alerts.over(alert, clock.now)))
    assert ledger(client) == [
        "team: app: API response time 312 ms, target < 200 ms",
        "team: app: API response time recovered",
    ]


def test_on_disk_before_the_answer(
    serve: Any, tmp_path: Path, alerts: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the answer 200 what was posted is in the file: another connection sees it. After a kill it is told."""
    client, _ = serve()
    monkeypatch.setattr(AtOnce, "round", lambda _: None)  # killed before the next one
    assert client.post("/api/v1/alerts", json=webhook(alerts.missed())).status_code == 200
    with contextlib.closing(Outbox(tmp_path / "outbox.sqlite3")) as other:
        assert [Alert.from_json(row["alert"]) for row in other.rows("SELECT * FROM posted")] == [alerts.missed()]
    assert ledger(client) == []
    monkeypatch.undo()
    client.__exit__(None, None, None)
    again, _ = serve()
    asyncio.run(until(lambda: ledger(again) == ["team: app: API response time 312 ms, target < 200 ms"]))


def test_the_same_post_again(serve: Any, clock: Any, alerts: Any) -> None:
    """A post that Alertmanager repeats because our answer was lost is told once; after repeat_interval it is told."""
    client, _ = serve()
    body = webhook(alerts.missed())
    client.post("/api/v1/alerts", json=body)
    clock.now += 5
    assert client.post("/api/v1/alerts", json=body).json()["status"] == "known already"
    assert len(ledger(client)) == 1
    clock.now += 4 * 3600
    client.post("/api/v1/alerts", json=body)
    assert ledger(client)[1] == "team: app: still: API response time 312 ms, target < 200 ms"


def test_an_end_that_nobody_was_told_of(serve: Any, alerts: Any) -> None:
    """A resolved alert whose firing no channel heard of is accepted and told to nobody."""
    client, _ = serve()
    answer = client.post("/api/v1/alerts", json=webhook(alerts.over(alerts.missed(), 1_800_000_060.0)))
    assert answer.status_code == 200
    assert ledger(client) == []


def test_channels_choose(serve: Any, alerts: Any) -> None:
    """Severities and services of a channel hold behind Alertmanager, too."""
    secret = Secret("monitor.toml", URL)
    client, _ = serve({"critical": Channel("critical", secret, severities=("critical",)),
                       "shop": Channel("shop", secret, services=("shop",))})  # fmt: skip
    slow = alerts.other("Slow", severity="warning", service="shop")
    client.post("/api/v1/alerts", json=webhook(alerts.missed(), slow))
    assert ledger(client) == ["critical: app: API response time 312 ms, target < 200 ms", "shop: shop: Slow"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON (line 1, column 2)"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "is a list, not an object"),
        (b"{}", '"version" is not "4"'),
        (b'{"version": "4"}', '"alerts" is not a list'),
        (b'{"version": "4", "alerts": []}', "at least one alert"),
        (b'{"version": "4", "alerts": [1]}', "alerts[0] is a number, not an object"),
        (b'{"version": "4", "alerts": [{"status": "maybe"}]}', "alerts[0].status is neither"),
        (b'{"version": "4", "alerts": [{"status": "firing"}]}', "alerts[0].startsAt is no time"),
        (b'{"version": "4", "alerts": [{"status": "firing", "startsAt": "2026-01-01T00:00:00Z"}]}', "labels is null"),
        (b'{"version":"4","alerts":[{"status":"firing","startsAt":"2026-01-01T00:00:00Z","labels":{"a":1}}]}',
         "alerts[0].labels holds a number"),
        (b'{"version":"4","alerts":[{"status":"firing","startsAt":"2026-01-01T00:00:00Z","labels":{"a":"\\ud800"}}]}',
         "half a surrogate pair"),
        (b'{"version":"4","alerts":[' + b"{}," * 1000 + b"{}]}", "at most 1000"),
    ],
)  # fmt: skip
def test_a_bad_body_is_refused_with_its_reason(serve: Any, body: bytes, words: str) -> None:
    """A body that is no webhook is answered 400 with where and what, and nothing of it is kept."""
    client, _ = serve()
    answer = client.post("/api/v1/alerts", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert ledger(client) == []


def test_one_bad_alert_spoils_the_post(serve: Any, alerts: Any) -> None:
    """Nothing is recorded in part: a good alert beside a bad one is not told."""
    client, _ = serve()
    body = webhook(alerts.missed(), alerts.other("Bad"))
    body["alerts"][1]["labels"] = {"alertname": 7}
    assert client.post("/api/v1/alerts", json=body).status_code == 400
    assert ledger(client) == []


def test_limits_and_types(serve: Any, alerts: Any) -> None:
    """More than 1 MiB is 413, another content type is 415, another method is 405."""
    client, _ = serve()
    headers = {"Content-Type": "application/json"}
    assert client.post("/api/v1/alerts", content=b" " * (MAX_BODY + 1), headers=headers).status_code == 413
    text = json.dumps(webhook(alerts.missed()))
    assert client.post("/api/v1/alerts", content=text, headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.get("/api/v1/alerts").status_code == 405
    assert ledger(client) == []


def test_a_token_is_asked_for(serve: Any, alerts: Any) -> None:
    """With a token, posts, the ledger, silences and acknowledgements need it; health and metrics do not."""
    client, _ = serve(token=Secret("monitor.toml", "s3cret"))
    body = webhook(alerts.missed())
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}):
        answer = client.post("/api/v1/alerts", json=body, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"][:5]) == (401, "Basic")
        for path in ("notifications", "silences", "acks"):
            assert client.get(f"/api/v1/{path}", headers=headers).status_code == 401
        for path in ("silences", "acks"):
            assert client.post(f"/api/v1/{path}", json={}, headers=headers).status_code == 401
    assert client.get("/-/healthy").status_code == 200
    assert client.get("/metrics").status_code == 200
    right = {"Authorization": "Bearer s3cret"}
    assert client.post("/api/v1/alerts", json=body, headers=right).status_code == 200
    assert client.get("/api/v1/notifications", headers=right).status_code == 200


def test_what_a_person_holds_back(serve: Any, clock: Any, alerts: Any) -> None:
    """Acknowledging and silencing over HTTP hold here as on the monitor's page: no repetition of what somebody looks
    after, nothing of what is silenced; both are listed, and can be taken back."""
    client, _ = serve(token=Secret("monitor.toml", "s3cret"), repeat_interval=600.0)
    client.headers["Authorization"] = "Bearer s3cret"
    missed, shop = alerts.missed(), alerts.missed(service="shop")
    client.post("/api/v1/alerts", json=webhook(missed))
    silence = {"matchers": ["service=shop"], "for": "2h", "author": "Ada", "reason": "move"}
    answer = client.post("/api/v1/silences", json=silence)
    assert answer.json()["data"]["silence"]["id"] == 1
    answer = client.post("/api/v1/acks", json={"alert": missed.fingerprint[:6], "author": "Ada"})
    assert answer.json()["data"]["acks"][0]["fingerprint"] == missed.fingerprint
    clock.now += 700
    client.post("/api/v1/alerts", json=webhook(missed))
    client.post("/api/v1/alerts", json=webhook(shop, key="shop"))
    assert [title for title in ledger(client) if "acknowledged by" not in title] == [
        "team: app: API response time 312 ms, target < 200 ms"]  # fmt: skip
    assert client.post("/api/v1/acks", json={"alert": "ffff", "author": "Ada"}).status_code == 400
    assert client.delete("/api/v1/silences/1").status_code == 200
    assert client.delete(f"/api/v1/acks/{missed.fingerprint}").status_code == 200
    client.post("/api/v1/alerts", json=webhook(shop, key="shop"))
    titles = ledger(client)
    assert "team: shop: API response time 312 ms, target < 200 ms" in titles
    assert "team: app: still: API response time 312 ms, target < 200 ms" in titles


def test_metrics_and_ledger_hold_no_secret(serve: Any, alerts: Any, until: Any) -> None:
    """Both name channels, states and counts, and never a URL."""
    client, sender = serve()
    client.post("/api/v1/alerts", json=webhook(alerts.missed()))
    asyncio.run(until(lambda: 'outcome="delivered"} 1' in client.get("/metrics").text))
    assert [title for _, title, _, _ in sender.sent] == ["app: API response time 312 ms, target < 200 ms"]
    text = client.get("/metrics").text
    assert 'anvil_monitor_notifications{channel="team",state="' in text
    assert "anvil_monitor_queue_age_seconds" in text
    assert "secret-path" not in text + client.get("/api/v1/notifications").text
    assert client.get("/api/v1/notifications?limit=x").status_code == 400


def test_a_disk_that_fails(serve: Any, alerts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outbox that cannot be written is 503, so that Alertmanager tries again; then it is accepted."""
    client, _ = serve()

    def full(*_: Any) -> None:
        raise OutboxError("no space is left")

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "execute_all", full)
        answer = client.post("/api/v1/alerts", json=webhook(alerts.missed()))
        assert answer.status_code == 503
    assert client.post("/api/v1/alerts", json=webhook(alerts.missed())).json()["status"] == "accepted"


def test_what_cannot_start_says_why(configure: Any, tmp_path: Path) -> None:
    """A token or an outbox that is not to be had, or in use, ends the start with a problem in words."""
    with pytest.raises(ConfigurationError, match="ANVIL_NOT_SET is not set"):
        create_app(configure({"team": URL}, token=Secret("env:ANVIL_NOT_SET")), {})
    (tmp_path / "file").write_text("")
    configuration = configure({"team": URL})
    broken = replace(configuration, monitor=replace(configuration.monitor, data=tmp_path / "file"))
    with pytest.raises(ConfigurationError, match=r"the outbox .* cannot be used"):
        create_app(broken, {})
    with TestClient(create_app(configuration, {})), pytest.raises(ConfigurationError, match="in use by another"):
        create_app(configuration, {})


def test_times_as_alertmanager_writes_them() -> None:
    """Nanoseconds and zones are read; the year 1 is no end; a resolved alert without an end ends now."""
    item = {"status": "resolved", "labels": {}, "startsAt": "2027-01-15T09:00:00.123456789+01:00"}
    alert = alert_from_webhook({**item, "endsAt": "0001-01-01T00:00:00Z"}, 5.0)
    assert (round(alert.starts_at, 6), alert.ends_at) == (1_800_000_000.123456, 5.0)
    assert alert_from_webhook(item, 6.0).ends_at == 6.0
    with pytest.raises(WebhookError, match="startsAt is no time"):
        alert_from_webhook({**item, "startsAt": "yesterday"}, 5.0)
