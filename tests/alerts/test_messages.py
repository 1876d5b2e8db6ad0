"""The words: what a person reads when a target is missed, goes on being missed, recovers; and hostile text in it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from anvil_monitor.alerts.messages import ALERTS_SHOWN, TITLE_LENGTH, message, plain
from anvil_monitor.alerts.model import Alert, Notification

AT = 1_800_000_000.0


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Local times in these tests are Berlin's."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def note(**what: Any) -> Notification:
    return Notification("app", AT + 80, "new alerts", **what)


def test_a_missed_target(alerts: Any) -> None:
    """The first line has title, value, measure, promise and local time; then description and links."""
    title, body = message(note(firing=(alerts.missed(),)))
    assert title == "app: API response time 312 ms, target < 200 ms"
    assert body.splitlines() == [
        "API response time 312 ms (p95 over 1 min), target < 200 ms, since 09:00:00 CET",
        "The API answers slowly.",
        "Dashboard: http://127.0.0.1:9109/",
        "Runbook: https://example.test/runbooks/target-missed",
    ]


def test_a_recovered_target(alerts: Any) -> None:
    """A recovery says what it measures now, how long it was missed, and from when to when."""
    alert = alerts.over(alerts.missed(), AT + 80)
    title, body = message(note(resolved=(alert,), current={alert.fingerprint: 0.142}))
    assert title == "app: API response time recovered"
    assert body.splitlines()[0] == (
        "API response time recovered: 142 ms (p95 over 1 min), target < 200 ms, "
        "was missed for 1 min 20 s, 09:00:00 CET to 09:01:20 CET"
    )


@pytest.mark.parametrize(
    ("current", "words"),
    [
        (None, "recovered, target < 200 ms, was missed for 1 min 20 s, "),
        (float("nan"), "no longer missed: no traffic now"),
    ],
)
def test_a_recovery_claims_only_what_is_known(alerts: Any, current: float | None, words: str) -> None:
    """Without a value of now the message names the last one as such; without traffic it does not say recovered."""
    alert = alerts.over(alerts.missed(), AT + 80)
    known = {} if current is None else {alert.fingerprint: current}
    assert words in message(note(resolved=(alert,), current=known))[1]


def test_several_alerts_are_one_message(alerts: Any) -> None:
    """Alerts of one service make one message: what is new in full, what goes on in a line, what is over."""
    new = alerts.missed()
    still = alerts.missed("memory", title="Server memory", unit="bytes", value="612000000", limit="500000000")
    over = alerts.over(alerts.missed("db_query_time", title="Database query time"), AT + 60)
    title, body = message(note(firing=(new,), still=(still,), resolved=(over,)))
    assert title == "app: API response time 312 ms, target < 200 ms"
    first, second, third = body.split("\n\n")
    assert first.startswith("API response time 312 ms")
    assert second == "Still: Server memory 612 MB, target < 500 MB, for 1 min 20 s"
    assert third.startswith("Database query time recovered")
    title, _ = message(note(firing=(new, still)))
    assert title == "app: 2 alerts: API response time, Server memory"


def test_an_end_while_others_go_on_is_the_news(alerts: Any) -> None:
    """The title begins with what is over, and says that something still fires."""
    still = alerts.missed()
    over = alerts.over(alerts.missed("db_query_time", title="Database query time"), AT + 60)
    title, _ = message(note(still=(still,), resolved=(over,)))
    assert title == "app: Database query time recovered; still: API response time 312 ms, target < 200 ms"


def test_a_repeated_message_says_so(alerts: Any) -> None:
    """After repeat_interval the message says still and for how long."""
    title, body = message(note(still=(alerts.missed(),)))
    assert title == "app: still: API response time 312 ms, target < 200 ms"
    assert body.startswith("Still, for 1 min 20 s: API response time 312 ms (p95 over 1 min)")


def test_users_are_a_promise_upwards(alerts: Any) -> None:
    """A target of users reads 100+ users, not < 100."""
    users = alerts.missed("concurrent_users", title="Concurrent users", unit="users", value="37", limit="100")
    assert message(note(firing=(users,)))[0] == "app: Concurrent users 37 users, target 100+ users"


def test_a_foreign_alert_is_told_by_its_summary(alerts: Any) -> None:
    """Alerts of other rules need no annotation of ours; none at all leaves the alert's name."""
    down = alerts.other("ServiceDown")
    assert message(note(firing=(down,)))[0] == "app: ServiceDown"
    assert message(note(firing=(down,)))[1] == "app: ServiceDown, since 09:00:00 CET"
    bare = Alert({"alertname": "Bare"}, {}, AT)
    assert message(Notification("", AT, "new alerts", firing=(bare,)))[0] == "Bare"
    over = message(note(resolved=(alerts.over(down, AT + 80),)))
    assert over[0] == "ServiceDown of app is over"
    assert over[1].startswith("ServiceDown of app is over, after 1 min 20 s, 09:00:00 CET to 09:01:20 CET\nIt was: app")


def test_the_ends_of_our_own_alerts_are_told_in_words(alerts: Any) -> None:
    """Of ServiceDown and TargetNoData the end says what holds again."""
    down = Alert({"alertname": "ServiceDown", "service": "app"}, {"title": "app", "summary": "app does not answer"}, AT)
    silent = Alert({"alertname": "TargetNoData", "service": "app"}, {"title": "Server memory", "summary": "s"}, AT)
    both = tuple(alerts.over(alert, AT + 80) for alert in (down, silent))
    assert message(note(resolved=both))[0] == "app answers again, Server memory is measured again"


def test_no_data_does_not_read_as_a_value(alerts: Any) -> None:
    """TargetNoData carries the target's annotations, but its value is no measure: it is told by its summary."""
    alert = alerts.missed(summary="app: no data for API response time")
    silent = Alert({**alert.labels, "alertname": "TargetNoData"}, alert.annotations, AT)
    title, body = message(note(firing=(silent,)))
    assert title == "app: no data for API response time"
    assert "312" not in body


def test_another_day_has_its_date(alerts: Any) -> None:
    """A time that is not of today comes with its date, and each with its own zone."""
    old = alerts.missed(at=AT - 200 * 86400)
    assert "since 2026-06-29 10:00:00 CEST" in message(note(firing=(old,)))[1]


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("one\r\nBcc: all@example.test", "one Bcc: all@example.test"),
        ("a\x00b\x1b[31mc\u2028d\u202ee", "a b [31mc d e"),
        ("<!channel> <@U1> @everyone @Here", "<\u200b!channel> <\u200b@U1> @\u200beveryone @\u200bHere"),
        ("half a pair \ud800", "half a pair"),
        ("p95 < 200 ms & more @ 5 am, me@allied.test", "p95 < 200 ms & more @ 5 am, me@allied.test"),
    ],
)
def test_hostile_text_is_harmless(text: str, safe: str) -> None:
    """No new line, control character, direction mark or mention of everybody gets through; plain text does."""
    assert plain(text) == safe


def test_hostile_annotations(alerts: Any) -> None:
    """Title and lines stay single, links are only http, and everything has a length."""
    alert = alerts.missed(
        title="Evil\nX-Header: 1 @everyone", description="d" * 9999, dashboard="javascript:alert(1)",
        value="nonsense\nvalue", limit="<!channel>", runbook_url="https://example.test/\nforged")  # fmt: skip
    title, body = message(Notification("app\nforged", AT, "new alerts", firing=(alert,)))
    assert "\n" not in title
    assert len(title) <= TITLE_LENGTH
    assert "@everyone" not in title + body
    assert "<!channel>" not in title + body
    assert "javascript" not in body
    assert "Runbook: https" not in body
    assert len(body.splitlines()) == 2
    assert max(map(len, body.splitlines())) <= 700


def test_an_outage_of_everything_stays_readable(alerts: Any) -> None:
    """Of many alerts the first are told and the rest are counted."""
    many = tuple(alerts.missed(f"target_{number}") for number in range(50))
    body = message(note(firing=many))[1]
    assert body.endswith(f"… and {50 - ALERTS_SHOWN} more")
    assert len(body) < 4000


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "", "1e400", "0x10"])
def test_any_value_can_be_told(alerts: Any, value: str) -> None:
    """Whatever stands for a value, there is a message."""
    title, body = message(note(firing=(alerts.missed(value=value),)))
    assert title
    assert body


@pytest.mark.parametrize("at", [-1e30, 1e30, float("nan"), float("inf")])
def test_any_time_can_be_told(alerts: Any, at: float) -> None:
    """A time outside every calendar does not cost the message."""
    assert message(note(firing=(alerts.missed(at=at),)))[1]
    assert message(note(resolved=(alerts.over(alerts.missed(at=at), AT),)))[1]
