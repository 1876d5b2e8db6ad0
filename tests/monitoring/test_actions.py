"""Where the links of messages lead: what a scanner, a person, and somebody without a link can do there."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from anvil_monitor.alerts import actions
from anvil_monitor.alerts.model import Alert
from anvil_monitor.targets import Configuration, Secret

EXTERNAL = "https://monitor.test"


@pytest.fixture
def linked(
    configuration: Configuration, start: Callable[..., Any], server: Any, until: Callable[..., Any]
) -> tuple[Any, dict[str, str]]:
    """A monitor with a token and an external URL that has told of a breach: it, and the links of the message."""
    monitor = replace(configuration.monitor, token=Secret("env:MONITOR_TOKEN"), external_url=EXTERNAL)
    running = start(replace(configuration, monitor=monitor), MONITOR_TOKEN="hush-hush")
    server.latency = 0.4
    message = until(lambda: next((each["message"] for each in server.posted if "/act/" in each["message"]), None))
    found = re.findall(rf"(\w[\w ]*): {EXTERNAL}(/act/\S+)", message)
    return running, {name: html.unescape(path) for name, path in found}


def acks(running: Any) -> list[Any]:
    answer = running.http.get("/api/v1/acks", headers={"Authorization": "Bearer hush-hush"})
    return list(answer.json()["data"]["acks"])


def silences(running: Any) -> list[Any]:
    answer = running.http.get("/api/v1/silences", headers={"Authorization": "Bearer hush-hush"})
    return list(answer.json()["data"]["silences"])


def test_a_link_is_opened_then_its_button_acts(linked: Any) -> None:
    """Without the token: GET, HEAD and GET again change nothing; POST acknowledges, under the name that is given."""
    running, links = linked
    path = links["Acknowledge"]
    for _ in range(2):
        opened = running.http.get(path)
        assert running.http.head(path).status_code == 200
        assert opened.status_code == 200
        assert '<form method="post" class="act">' in opened.text
        assert "form-action 'self'" in opened.headers["content-security-policy"]
        assert "script" not in opened.headers["content-security-policy"]
        assert opened.headers["referrer-policy"] == "no-referrer"
        assert opened.headers["cache-control"] == "no-store"
    assert acks(running) == []
    done = running.http.post(path, data={"who": "Ada <b>"})
    assert done.status_code == 200
    assert "Acknowledged by ada &lt;b&gt;".lower() in done.text.lower()
    assert {ack["author"] for ack in acks(running)} == {"Ada <b>"}
    assert running.http.get("/act/page.css").headers["content-type"].startswith("text/css")


def test_a_link_silences_for_as_long_as_is_chosen(linked: Any) -> None:
    """The form offers 30 min, 1 h, 4 h and the next morning; what it does not offer silences nothing."""
    running, links = linked
    form = running.http.get(links["Silence"]).text
    assert re.findall(r'value="(\w+)"', form) == ["30m", "1h", "4h", "morning"]
    assert re.search(r"until \w+day, 8:00", form)
    assert running.http.post(links["Silence"], data={"for": "9y"}).status_code == 400
    assert silences(running) == []
    done = running.http.post(links["Silence"], data={"who": "Ada", "for": "4h"})
    assert "Silenced for 4 h by Ada" in done.text
    assert {silence["ends"] - silence["starts"] for silence in silences(running)} == {4 * 3600}


def test_a_link_silences_for_an_hour_where_nothing_is_chosen(linked: Any) -> None:
    """The silence names the labels of the alert, who, and that it came through a link; nothing else is silenced."""
    running, links = linked
    assert running.http.post(links["Silence"]).status_code == 200
    made = silences(running)
    assert made
    for silence in made:
        assert silence["author"] == silence["reason"] == "a link in a message"
        assert "service=shop" in silence["matchers"]
        assert silence["ends"] - silence["starts"] == 3600


def test_without_a_whole_link_nothing_happens(linked: Any, server: Any, until: Callable[..., Any]) -> None:
    """A link that was changed, or is about what is over, says so; the token is still asked for everywhere else."""
    running, links = linked
    path = links["Acknowledge"]
    for wrong, status in (
        (path.replace("/act/ack", "/act/silence"), 403),
        (re.sub(r"until=\d+", "until=9999999999", path), 403),
        (re.sub(r"of=[0-9a-f]{4}", "of=0000", path), 403),
        (path[:-1] + ("A" if path[-1] != "A" else "B"), 403),
        ("/act/ack", 403),
        ("/act/other", 404),
    ):
        for method in ("GET", "POST"):
            answer = running.http.request(method, wrong)
            assert answer.status_code == status, wrong
            assert "hush" not in answer.text
    assert acks(running) == silences(running) == []
    assert running.http.get("/").status_code == running.http.get("/page.css").status_code == 401
    assert running.http.post("/api/v1/acks", json={}).status_code == 401
    server.latency = 0.04
    until(lambda: running.http.get(path).status_code == 410)
    assert running.http.post(path).status_code == 410
    assert acks(running) == []


def test_a_large_or_broken_form_names_nobody(linked: Any) -> None:
    """What cannot be read as a name leaves the link's own."""
    running, links = linked
    many = running.http.post(links["Acknowledge"], content="&".join(f"a{number}=b" for number in range(50)))
    assert many.status_code == 200
    answer = running.http.post(links["Acknowledge"], content=b"who=" + b"x" * 10_000)
    assert answer.status_code == 200
    assert {ack["author"] for ack in acks(running)} == {"a link in a message"}


def test_without_an_external_url_there_are_no_links(
    start: Callable[..., Any], server: Any, until: Callable[..., Any]
) -> None:
    """Nobody has said under which address the monitor can be reached: messages have no links, and none would work."""
    running = start()
    server.latency = 0.4
    until(lambda: server.posted)
    assert "/act/" not in server.posted[0]["message"]
    assert running.http.get("/act/ack").status_code == 404


@pytest.mark.needs("chromium")
def test_a_link_in_a_browser(linked: Any) -> None:
    """The page shows what it is about and its button works under its own policy, without a script."""
    api = pytest.importorskip("playwright.sync_api")
    running, links = linked
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(java_script_enabled=False)
        wrong: list[str] = []
        page.on("console", lambda line: wrong.append(line.text))
        page.goto(f"{running.url}{links['Acknowledge']}")
        assert "of shop" in page.locator("li").first.inner_text()
        page.get_by_label("Your name").fill("Ada")
        page.get_by_role("button", name="Acknowledge").click()
        page.get_by_text("Acknowledged by Ada").wait_for(timeout=20_000)
        browser.close()
    assert wrong == []
    assert {ack["author"] for ack in acks(running)} == {"Ada"}


def test_no_text_of_an_alert_becomes_markup() -> None:
    """Summaries come from whoever writes rules or posts alerts: they are shown as text, one line each."""
    attack = "<img src=x onerror=alert(1)>\n</li><script>alert(1)</script>"
    shown = actions.listed([Alert({"alertname": "A"}, {"summary": attack}, 0.0), Alert({"alertname": attack}, {}, 0.0)])
    assert "<img" not in shown
    assert "<script" not in shown
    assert shown.count("<li>") == 2
    page = bytes(actions.page(attack, "").body).decode()
    assert "<img" not in page
    many = [Alert({"alertname": str(number)}, {}, 0.0) for number in range(30)]
    assert "… and 10 more" in actions.listed(many)
