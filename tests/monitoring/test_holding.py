"""What a person holds back: by command, over HTTP and on the page."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anvil_monitor.alerts import acks
from anvil_monitor.alerts.model import Alert, Told
from anvil_monitor.alerts.notifier import OUTBOX_FILE
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.monitoring.cli import main
from anvil_monitor.monitoring.holding import moment
from anvil_monitor.targets import Configuration, Maintenance, Once, load

JSON = {"Content-Type": "application/json"}
GOOD: dict[str, Any] = {"matchers": ["service=shop"], "for": "2h", "author": "Ada", "reason": "moving the cache"}


@pytest.fixture
def command(configuration_file: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs ``anvil-monitor`` with the configuration; its exit status and all that it printed."""

    def run(*arguments: str) -> tuple[int, str]:
        status = main([*arguments, "--config", str(configuration_file)])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def test_a_silence_by_command_reaches_a_monitor_that_runs(
    start: Callable[..., Any], command: Callable[..., tuple[int, str]], server: Any, until: Callable[..., Any]
) -> None:
    """Another process adds it; the breach is then seen on the page and told to nobody, until it is ended."""
    running = start()
    until(lambda: running.target("api_response_time")["value"] is not None)
    status, said = command("silence", "add", "service=shop", "--for", "1h", "--reason", "drill", "--author", "Ada")
    assert status == 0
    assert "silence 1: service=shop until" in said
    server.latency = 0.4
    until(lambda: "TargetMissed" in running.firing())
    (silence,) = running.state()["silences"]
    assert (silence["author"], silence["reason"], silence["matchers"]) == ("Ada", "drill", ["service=shop"])
    shop = [alert for alert in running.state()["alerts"] if alert["service"] == "shop"]
    assert {tuple(alert["silenced_by"]) for alert in shop} == {(1,)}
    assert server.posted == []
    assert "Ada" in command("silence", "list")[1]
    assert command("silence", "end", "1") == (0, "silence 1 has ended\n")
    until(lambda: server.posted)
    assert command("silence", "list") == (0, "nothing is silenced\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["add", "shop", "--for", "2h", "--reason", "x"], "LABEL=VALUE"),
        (["add", "a!=b", "--for", "2h", "--reason", "x"], "a label has to be named"),
        (["add", "a=b", "--for", "two hours", "--reason", "x"], "as in 30m"),
        (["add", "a=b", "--for", "0", "--reason", "x"], "as in 30m"),
        (["add", "a=b", "--for", "9999999w", "--reason", "x"], "more than a year"),
        (["add", "a=b", "--for", "2h", "--reason", " "], "author and a reason"),
        (["add", "a=b", "--for", "2h", "--reason", "x", "--author", ""], "author and a reason"),
        (["end", "7"], "no silence 7"),
    ],
)
def test_what_is_wrong_with_a_command_is_told(
    start: Callable[..., Any], command: Callable[..., tuple[int, str]], arguments: list[str], words: str
) -> None:
    """Exit status 2, and what to do."""
    start().close()
    status, said = command("silence", *arguments)
    assert status == 2
    assert words in said


def test_a_folder_that_no_monitor_uses_is_told(command: Callable[..., tuple[int, str]]) -> None:
    """A silence that nobody would read is not written: the wrong --config is a mistake."""
    status, said = command("silence", "list")
    assert status == 2
    assert "no monitor has run with the folder" in said


def test_the_author_is_who_is_logged_in(
    start: Callable[..., Any], command: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --author the login name stands."""
    start().close()
    monkeypatch.setenv("LOGNAME", "ada")
    command("silence", "add", "a=b", "--for", "2h", "--reason", "x")
    assert "ada" in command("silence", "list")[1]


def test_silences_over_http(start: Callable[..., Any]) -> None:
    """Added, listed and ended; Alertmanager's names are taken, too."""
    running = start()
    before = time.time()
    answer = running.http.post("/api/v1/silences", json=GOOD)
    assert answer.status_code == 200
    made = answer.json()["data"]["silence"]
    assert before + 7190 < made["ends"] < time.time() + 7200
    other = {"matchers": [{"name": "target", "value": "mem.*", "isRegex": True}], "for": "1d",
             "createdBy": "Bob", "comment": "load test"}  # fmt: skip
    assert running.http.post("/api/v1/silences", json=other).status_code == 200
    listed = running.http.get("/api/v1/silences").json()["data"]["silences"]
    assert [(one["author"], one["matchers"]) for one in listed] == [
        ("Ada", ["service=shop"]), ("Bob", ['target=~"mem.*"'])]  # fmt: skip
    assert running.http.delete(f"/api/v1/silences/{made['id']}").status_code == 200
    assert [one["author"] for one in running.http.get("/api/v1/silences").json()["data"]["silences"]] == ["Bob"]
    assert running.http.delete("/api/v1/silences/99").status_code == 404


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (json.dumps(GOOD), {"Content-Type": "text/plain"}, 415, "application/json"),
        (json.dumps(GOOD), {"Content-Type": "application/x-www-form-urlencoded"}, 415, "application/json"),
        ("{", JSON, 400, "no JSON"),
        ("[" * 5000, JSON, 400, "no JSON"),
        ("[]", JSON, 400, "no JSON object"),
        (" " * 20_000, JSON, 413, "larger"),
        (json.dumps({**GOOD, "matchers": []}), JSON, 400, "a label has to be named"),
        (json.dumps({**GOOD, "matchers": "service=shop"}), JSON, 400, "must be a list"),
        (json.dumps({**GOOD, "matchers": ["a=~(a+)+("]}), JSON, 400, "regular expression"),
        (json.dumps({**GOOD, "for": "long"}), JSON, 400, "duration"),
        (json.dumps({**GOOD, "for": 7}), JSON, 400, "must be text"),
        (json.dumps({**GOOD, "for": "9" * 400 + "w"}), JSON, 400, "year"),
        (json.dumps({**GOOD, "author": ""}), JSON, 400, "author and a reason"),
        (json.dumps({**GOOD, "reason": None}), JSON, 400, "must be text"),
    ],
)
def test_what_is_wrong_with_a_request_is_told(
    start: Callable[..., Any], body: str, headers: dict[str, str], status: int, words: str
) -> None:
    """4xx with the reason, and nothing is held back: a form of a page elsewhere among them."""
    running = start()
    answer = running.http.post("/api/v1/silences", content=body, headers=headers)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert running.http.get("/api/v1/silences").json()["data"]["silences"] == []


def test_no_page_elsewhere_may_ask(start: Callable[..., Any]) -> None:
    """A browser asks first whether a page of another origin may send JSON, or DELETE: it gets no leave."""
    running = start()
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = running.http.options("/api/v1/silences", headers=headers)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_an_acknowledgement_by_command_and_over_http(
    start: Callable[..., Any], command: Callable[..., tuple[int, str]], server: Any, until: Callable[..., Any]
) -> None:
    """What people were told of is shown with its ID; its beginning acknowledges it; the page's state says by whom."""
    running = start()
    until(lambda: running.target("api_response_time")["value"] is not None)
    assert command("ack") == (0, "nothing that people were told of is open\n")
    server.latency = 0.4
    until(lambda: any("API response time" in each["title"] + each["message"] for each in server.posted))

    def alert() -> Any:
        shown = [each for each in running.state()["alerts"] if each["target"] == "api_response_time"]
        return next((each for each in shown if each["name"] == "TargetMissed"), None)

    until(alert)
    fingerprint = alert()["fingerprint"]
    assert fingerprint[:8] in command("ack")[1]
    assert command("ack", "feed", "--author", "Ada")[0] == 2
    status, said = command("ack", fingerprint[:6], "--author", "Ada", "--reason", "restarting it")
    assert (status, said) == (0, f"{fingerprint[:8]} TargetMissed shop api_response_time is acknowledged\n")
    assert (alert()["acknowledged"]["author"], alert()["acknowledged"]["reason"]) == ("Ada", "restarting it")
    assert "restarting it" in command("ack")[1]
    assert running.http.delete(f"/api/v1/acks/{fingerprint}").status_code == 200
    assert running.http.delete(f"/api/v1/acks/{fingerprint}").status_code == 404
    body = {"matchers": ["target=api_response_time"], "author": "Bob"}
    assert running.http.post("/api/v1/acks", json=body).status_code == 200
    assert alert()["acknowledged"]["author"] == "Bob"
    (ack,) = {one["fingerprint"]: one for one in running.http.get("/api/v1/acks").json()["data"]["acks"]
              if one["fingerprint"] == fingerprint}.values()  # fmt: skip
    assert (ack["author"], ack["reason"]) == ("Bob", "seen")
    assert command("ack", fingerprint, "--undo")[1].endswith("is no longer acknowledged\n")
    for wrong, words in (({"alert": "feed"}, "no alert"), ({"alert": fingerprint}, "author"), ({}, "must be a list"),
                         ({"alert": 7, "author": "Bob"}, "must be text")):  # fmt: skip
        answer = running.http.post("/api/v1/acks", json=wrong)
        assert answer.status_code == 400
        assert words in answer.json()["error"]


@pytest.mark.needs("chromium")
def test_the_page_acknowledges(start: Callable[..., Any], server: Any, until: Callable[..., Any]) -> None:
    """Its button asks who, once; the alert then says who has seen it."""
    api = pytest.importorskip("playwright.sync_api")
    running = start()
    server.latency = 0.4
    until(lambda: "TargetMissed" in running.firing())
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.goto(running.url)
        row = page.locator("#alerts li", has_text="API response time of shop").first
        row.get_by_role("button", name="Acknowledge").click(timeout=20_000)
        page.get_by_label("Your name").fill("Ada <b>L</b>")
        assert page.get_by_label("How long").count() == 0 or not page.get_by_label("How long").is_visible()
        page.keyboard.press("Enter")
        page.locator("#alerts").get_by_text("seen by Ada <b>L</b>").first.wait_for(timeout=20_000)
        browser.close()
    (ack,) = running.http.get("/api/v1/acks").json()["data"]["acks"]
    assert ack["author"] == "Ada <b>L</b>"


@pytest.mark.needs("chromium")
def test_the_page_silences_an_alert(start: Callable[..., Any], server: Any, until: Callable[..., Any]) -> None:
    """With the keyboard alone: its button asks who, how long and why; that alert of that target is silenced, no other.
    What is wrong is said where it is asked, and Escape does nothing."""
    api = pytest.importorskip("playwright.sync_api")
    running = start()
    server.latency = 0.4
    until(lambda: "TargetMissed" in running.firing())
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.goto(running.url)
        row = page.locator("#alerts li", has_text="API response time of shop").first
        row.get_by_role("button", name="Silence").focus(timeout=20_000)
        page.keyboard.press("Enter")
        page.get_by_role("dialog", name="Silence").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("dialog").wait_for(state="hidden")
        page.keyboard.press("Enter")  # the button has the focus again
        page.keyboard.type("Ada")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")
        assert page.get_by_role("radio", name="for 4 h").is_checked()
        page.keyboard.press("Tab")
        page.keyboard.type("   ")
        page.keyboard.press("Enter")
        page.get_by_role("alert").get_by_text("It was not done").wait_for(timeout=20_000)
        page.keyboard.type("moving the cache")
        page.keyboard.press("Enter")
        page.locator("#silences").get_by_text("Ada: moving the cache").wait_for(timeout=20_000)
        browser.close()
    (silence,) = running.http.get("/api/v1/silences").json()["data"]["silences"]
    assert silence["matchers"] == ["alertname=TargetMissed", "service=shop", "target=api_response_time"]
    assert silence["ends"] - silence["starts"] == 4 * 3600


@pytest.mark.needs("chromium")
def test_the_page_shows_a_silence_and_ends_it(start: Callable[..., Any]) -> None:
    """Who, why and until when stand on the page; its button ends the silence."""
    api = pytest.importorskip("playwright.sync_api")
    running = start()
    running.http.post("/api/v1/silences", json={**GOOD, "reason": "<b>moving</b>"})
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.goto(running.url)
        row = page.locator("#silences li")
        row.get_by_text("Ada: <b>moving</b>").wait_for(timeout=20_000)
        assert "until" in row.inner_text()
        row.get_by_role("button", name="End").click()
        page.locator("#silences-panel").wait_for(state="hidden", timeout=20_000)
        browser.close()
    assert running.http.get("/api/v1/silences").json()["data"]["silences"] == []


@pytest.mark.needs("chromium")
def test_the_page_shows_maintenance(configuration: Configuration, start: Callable[..., Any]) -> None:
    """What is under maintenance, under which name, until when; a window that does not hold is not shown."""
    api = pytest.importorskip("playwright.sync_api")
    now = time.time()
    holds = Maintenance("move", Once(now - 60, now + 3600), ("shop",), ("memory",))
    later = Maintenance("later", Once(now + 3600, now + 7200))
    running = start(replace(configuration, maintenance=(holds, later)))
    (shown,) = running.state()["maintenance"]
    assert shown == {"name": "move", "services": ["shop"], "targets": ["memory"], "ends": now + 3600}
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.goto(running.url)
        row = page.locator("#silences li")
        row.get_by_text("maintenance: move").wait_for(timeout=20_000)
        assert "shop, memory" in row.inner_text()
        assert "until" in row.inner_text()
        browser.close()


def test_it_is_a_command(tmp_path: Path) -> None:
    """Without its part the command says what there is; help has examples of each."""
    line = [sys.executable, "-m", "anvil_monitor.monitoring.cli", "silence"]
    assert subprocess.run(line, capture_output=True, cwd=tmp_path, timeout=60).returncode == 2
    helped = subprocess.run([*line, "--help"], capture_output=True, text=True, cwd=tmp_path, timeout=60).stdout
    assert all(f"anvil-monitor silence {part}" in helped for part in ("add", "list", "end"))


def test_the_list_of_open_alerts_is_in_columns(
    configuration_file: Path, command: Callable[..., tuple[int, str]]
) -> None:
    """Each word of the head stands over the beginning of its column, who acknowledged and why among them, and nothing
    of a label or a name moves the terminal's cursor."""
    alerts = [
        Alert({"alertname": name, "service": "shop"}, {}, at)
        for name, at in (("Slow", 1_800_000_000.0), ("Red\x1b[31m\u202eand long", 1_700_000_000.0))
    ]
    with contextlib.closing(Outbox(load(configuration_file, {}).monitor.data / OUTBOX_FILE)) as outbox:
        outbox.record([], [Told("shop", "hook", tuple(alerts), ())], 1_800_000_000.0)
        acks.add(outbox, alerts[:1], author="Ada", reason="restarting it", at=1_800_000_060.0)
    status, said = command("ack")
    head, *rows = said.splitlines()
    starts = [head.index(word) for word in ("id", "alert", "seen by", "reason", "since")]
    cells = [[row[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for row in rows]
    moments = [moment(1_700_000_000.0), moment(1_800_000_000.0)]
    assert status == 0
    assert [row[1:] for row in cells] == [
        ["Red\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}and long shop", "", "", moments[0]],
        ["Slow shop", "Ada", "restarting it", moments[1]],
    ]
    assert all(row[start - 2 : start] == "  " for row in rows for start in starts[1:])
