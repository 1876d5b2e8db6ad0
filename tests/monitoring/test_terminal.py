"""What `up` says: lines for what happens, a table of how things stand."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from anvil_monitor.monitoring.terminal import PlainView, table, view

TARGET = {
    "service": "shop", "target": "api_response_time", "title": "API response time", "text": "142 ms",
    "promise": "< 200 ms", "measure": "p95 over 1 min", "state": "ok", "since": 90.0, "note": "",
    "history": [[1.0, 0.1], [2.0, None]],
}  # fmt: skip
ALERT = {
    "name": "TargetMissed",
    "service": "shop",
    "target": "api_response_time",
    "state": "firing",
    "summary": "it is slow",
}
MESSAGE = {
    "id": 1,
    "channel": "hook",
    "title": "slow",
    "state": "queued",
    "created": 1.0,
    "finished": None,
    "reason": "",
}
COLLECTOR = {
    "job": "server",
    "service": "shop",
    "instance": "a:1",
    "url": "http://a:1",
    "up": True,
    "error": "",
    "samples": 5,
}


def overview(**changed: Any) -> dict[str, Any]:
    whole = {
        "now": 100.0,
        "targets": [TARGET],
        "alerts": [],
        "notifications": [],
        "collectors": [COLLECTOR],
        "problems": [],
    }
    return {**whole, **changed}


def lines(*overviews: dict[str, Any]) -> list[list[str]]:
    """What is said at each overview, without the time of day."""
    stream = io.StringIO()
    shown = PlainView(stream, clock=lambda: 0.0)
    said = []
    for each in overviews:
        stream.seek(0)
        stream.truncate()
        shown.show(each)
        said.append([line.split("  ", 1)[1] for line in stream.getvalue().splitlines()])
    return said


def test_each_thing_is_said_once() -> None:
    """A second overview that says the same says nothing."""
    first, second = lines(overview(problems=["p"]), overview(problems=["p"]))
    assert first == [
        "server shop is scraped: 5 samples from http://a:1",
        "API response time 142 ms, target < 200 ms: kept",
        "problem: p",
    ]
    assert second == []


def test_the_story_of_a_breach() -> None:
    """Missed, firing, told, delivered, recovered, resolved: in that order."""
    slow = {**TARGET, "state": "missed", "text": "312 ms", "note": "1.6 times its limit"}
    sent = {**MESSAGE, "state": "sent", "finished": 1.5}
    said = lines(
        overview(),
        overview(targets=[slow], alerts=[{**ALERT, "state": "pending"}]),
        overview(targets=[slow], alerts=[ALERT], notifications=[MESSAGE]),
        overview(targets=[slow], alerts=[ALERT], notifications=[sent]),
        overview(notifications=[sent]),
    )
    assert said[1:] == [
        [
            "API response time 312 ms, target < 200 ms: MISSED (1.6 times its limit)",
            "alert TargetMissed pending: it is slow",
        ],
        ["alert TargetMissed firing: it is slow", "notification for hook: slow"],
        ["sent to hook in 500 ms: slow"],
        ["API response time 142 ms, target < 200 ms: kept", "alert TargetMissed resolved: shop api_response_time"],
    ]


def test_what_an_earlier_run_sent_is_no_news() -> None:
    """Messages of the ledger that were sent before the start are not told again; one still queued is."""
    old = [{**MESSAGE, "id": 1, "state": "sent", "finished": 2.0}, {**MESSAGE, "id": 2}]
    assert lines(overview(notifications=old))[0][-1] == "notification for hook: slow"
    assert sum("sent to" in line for line in lines(overview(notifications=old))[0]) == 0


def test_the_reason_of_a_failure_is_said() -> None:
    """A server that cannot be scraped and a message that was given up come with their reasons."""
    down = {**COLLECTOR, "up": False, "error": "answered HTTP 503"}
    dead = {**MESSAGE, "state": "dead", "finished": 2.0, "reason": "no answer"}
    _, said = lines(overview(notifications=[MESSAGE]), overview(collectors=[down], notifications=[dead]))
    assert said == [
        "server shop cannot be scraped: answered HTTP 503",
        "could not be delivered to hook: slow (no answer)",
    ]


def test_no_label_moves_the_cursor() -> None:
    """What a rule makes of a label, and what is said of a server's answer, is one line and no command to a terminal."""
    evil = "a\x1b[2J\x1b]0;title\x07\nproblem: none\u202e"
    alert = {**ALERT, "summary": evil}
    collector = {**COLLECTOR, "up": False, "error": evil}
    (said,) = lines(overview(alerts=[alert], collectors=[collector], problems=[evil]))
    assert len(said) == 4
    assert all(line.isprintable() for line in said)


def test_the_table_shows_each_target() -> None:
    """Value, promise and state of each; the service only where there are several."""
    console = Console(file=io.StringIO(), width=140)
    console.print(table(overview()))
    console.print(table(overview(targets=[TARGET, {**TARGET, "service": "blog"}])))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for each in ("142 ms", "< 200 ms", "p95 over 1 min", "kept for 10 s", "blog"):
        assert each in text


def test_a_pipe_gets_plain_lines() -> None:
    """No control characters where nobody looks."""
    assert isinstance(view(io.StringIO(), "http://127.0.0.1:1"), PlainView)
