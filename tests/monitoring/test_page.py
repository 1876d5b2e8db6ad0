"""The page in a real browser: what it shows, that it lives, and that it says when it does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.needs("chromium")

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]
PAGE = Path(__file__).resolve().parents[2] / "monitoring" / "page"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that collects what goes wrong on it, and which address it asks beside the monitor's own."""
    made = browser.new_page(viewport={"width": 1440, "height": 900})
    made.wrong = []
    made.on("pageerror", lambda error: made.wrong.append(str(error)))
    made.on("console", lambda line: made.wrong.append(line.text) if "Content Security" in line.text else None)
    made.asked = set()
    made.on("request", lambda request: made.asked.add(request.url.split("/")[2] if "//" in request.url else ""))
    yield made
    made.close()


def text(page: Any, selector: str) -> str:
    return str(page.locator(selector).inner_text())


def test_the_page_shows_the_targets_live(server: Any, start: Callable[..., Any], page: Any) -> None:
    """Five cards with value, promise and line; a breach shows in words and colour without a reload, and its alert."""
    server.latency = 0.04
    running = start()
    page.goto(running.url)
    page.get_by_text("Every target is kept").wait_for(timeout=20_000)
    assert page.locator(".card").count() == 5
    card = page.locator(".card", has=page.get_by_role("heading", name="API response time"))
    assert "target < 200 ms" in card.inner_text()
    assert "kept" in card.inner_text()
    assert card.locator(".spark .limit").count() == 1
    colour = card.evaluate("card => getComputedStyle(card, '::before').backgroundColor")

    server.latency = 0.4
    page.get_by_text("Missed: API response time").first.wait_for(timeout=20_000)
    assert "missed" in card.inner_text()
    assert card.evaluate("card => getComputedStyle(card, '::before').backgroundColor") != colour
    page.locator("#alerts").get_by_text("API response time of shop").wait_for(timeout=20_000)
    page.locator("#notifications").get_by_text("delivered").first.wait_for(timeout=20_000)
    assert "missed" in page.title()
    assert {"shop", "exporter"} <= set(text(page, "#collectors").replace("server ", "").split())
    assert page.asked <= {running.url.removeprefix("http://"), ""}
    assert page.wrong == []


def test_the_page_says_that_the_monitor_is_gone(start: Callable[..., Any], page: Any) -> None:
    """When the monitor ends, the page greys out and says since when what it shows is old."""
    running = start()
    page.goto(running.url)
    page.locator(".card").first.wait_for(timeout=20_000)
    running.close()
    page.get_by_text("The monitor itself cannot be reached").wait_for(timeout=20_000)
    assert "What you see is from" in text(page, "#stale")
    assert text(page, "#link") == "not live"
    assert "not live" in page.title()
    assert page.wrong == []


def state(**changed: Any) -> dict[str, Any]:
    target = {
        "service": "shop", "target": "memory", "title": "Server memory", "unit": "bytes", "direction": "below",
        "promise": "< 500 MB", "measure": "mean over 1 min", "limit": 5e8, "limit_text": "500 MB", "value": 4e8,
        "text": "400 MB", "ratio": 0.8, "fill": 0.8, "samples": 10, "state": "ok", "since": 1000.0, "note": "",
        "alert": "", "usual": {"text": ""},
        "history": [[1000.0 + 5 * i, None if i % 7 == 3 else 1e8 + i * 1e6] for i in range(181)],
    }  # fmt: skip
    whole = {
        "now": 2000.0, "started": 1000.0, "version": "1", "evaluated_at": 1999.0, "evaluation_interval": 5.0,
        "targets": [target], "alerts": [], "notifications": [], "channels": ["hook"], "collectors": [],
        "problems": [], "series": 5, "versions": {},
    }  # fmt: skip
    for key, value in changed.items():
        (target if key in target else whole)[key] = value
    return whole


@pytest.fixture
def shown(page: Any) -> Callable[..., Any]:
    """The page's files, fed with a made-up state."""

    def show(at: str = "", **changed: Any) -> Any:
        def answer(route: Any) -> None:
            name = route.request.url.partition("#")[0].rpartition("/")[2]
            if name == "targets-state":
                route.fulfill(body=json.dumps({"status": "success", "data": state(**changed)}))
            else:
                route.fulfill(path=PAGE / (name or "index.html"))

        page.route("http://monitor.test/**", answer)
        page.goto("about:blank")
        page.goto(f"http://monitor.test/{at}")
        page.locator(".card").first.wait_for(timeout=10_000)
        return page

    return show


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"state": "missed", "note": "1.6 times its limit"},
            ["missed", "1.6 times its limit", "Missed: Server memory"],
        ),
        ({"state": "no_data", "text": "no data", "value": None, "fill": None}, ["no data", "No data: Server memory"]),
        ({"state": "waiting", "text": "waiting", "value": None, "history": []}, ["Waiting for first measurements"]),
        ({"state": "idle", "text": "no traffic", "value": None, "fill": None}, ["idle", "No traffic"]),
        ({"problems": ["the outbox is full"]}, ["the outbox is full"]),
        ({"channels": []}, ["No channel is configured"]),
        ({"evaluated_at": 1900.0}, ["has evaluated nothing for", "not live"]),
    ],
)
def test_each_state_has_its_words(shown: Callable[..., Any], changed: dict[str, Any], words: list[str]) -> None:
    """No state is told by colour alone."""
    page = shown(**changed)
    seen = text(page, "body")
    for each in words:
        assert each in seen
    assert page.wrong == []


USUAL = {
    "text": "Usually 120 MB; drift is told over 160 MB.",
    "baseline": [[1000.0, 1.2e8], [1840.0, 1.3e8]],
    "upper": [[1000.0, 1.6e8], [1840.0, 1.7e8]],
    "lower": [],
}
ALERT = {
    "name": "TargetMissed", "service": "shop", "target": "memory", "severity": "critical", "state": "firing",
    "since": 1990.0, "fired_at": 1990.0, "recovering": False, "summary": "Server memory of shop is 612 MB",
    "description": "", "runbook_url": "https://monitor.test/runbooks/TargetMissed", "fingerprint": "feed",
    "details": [["Version", "1.4.2, first seen 14:02:10 UTC"]],
}  # fmt: skip


def test_what_is_usual_is_on_the_plot_and_in_words(shown: Callable[..., Any]) -> None:
    """A quiet band from the usual value to where drift is told, in words below and for who cannot see the plot."""
    page = shown(usual=USUAL)
    assert page.locator(".spark .usual-line").count() == page.locator(".spark .band").count() == 1
    assert page.locator(".spark .told").count() == 1
    assert "drift is told over 160 MB" in text(page, ".card")
    label = page.get_by_role("img").get_attribute("aria-label")
    assert "from 100 MB to 280 MB; limit 500 MB. Usually 120 MB" in label
    assert page.wrong == []


def test_who_is_learning_says_so(shown: Callable[..., Any]) -> None:
    """Without a past there is no line, and a sentence that says until when."""
    page = shown(usual={"text": "Drift: still learning. Speaks after 4 d 6 h of history.", "baseline": [], "upper": []})
    assert page.locator(".spark .told, .spark .band, .key").count() == 0
    assert "still learning" in text(page, ".card")


def test_a_deploy_is_on_the_plot(shown: Callable[..., Any]) -> None:
    """Where a version followed another there is a mark; where the first was first seen there was no deploy."""
    versions = [{"version": "<b>1.4.2</b>", "since": 1600.0}, {"version": "1.4.1", "since": 1100.0}]
    page = shown(versions={"shop": versions})
    assert page.locator(".deploy").count() == 1
    left = page.locator(".deploy").evaluate("mark => parseFloat(mark.style.left)")
    assert left == pytest.approx(100 * 600 / 900, abs=0.1)
    assert "<b>1.4.2</b>, first seen" in text(page, ".service")
    assert page.wrong == []


def test_a_message_leads_to_its_card(shown: Callable[..., Any]) -> None:
    """The part of the address that a message's link ends with brings its card into view, with the focus on it."""
    page = shown(at="#shop/memory")
    assert page.evaluate("document.activeElement.className") == "card"
    assert shown(at="#nobody/%E0%A4%A").wrong == []


def test_what_fires_comes_first_on_a_telephone(shown: Callable[..., Any]) -> None:
    """Above the targets, with where to look, and a runbook only where its address leads to a page."""
    page = shown(alerts=[ALERT, {**ALERT, "runbook_url": "javascript:alert(1)", "state": "pending"}])
    page.set_viewport_size({"width": 360, "height": 800})
    top = "element => element.getBoundingClientRect().top"
    assert page.locator("#alerts-panel").evaluate(top) < page.locator("#targets").evaluate(top)
    assert "1 alert fires" in text(page, "header")
    assert "Version: 1.4.2, first seen" in text(page, "#alerts")
    links = page.locator("#alerts a")
    assert (links.count(), links.get_attribute("href")) == (1, "https://monitor.test/runbooks/TargetMissed")
    page.set_viewport_size({"width": 1440, "height": 800})
    assert page.locator("#alerts-panel").evaluate(top) > page.locator("#targets").evaluate(top)


def test_every_control_has_a_name(shown: Callable[..., Any]) -> None:
    """No two buttons of a screen reader's list are the same, and each says what it is about."""
    page = shown(alerts=[{**ALERT, "summary": "A is slow"}, {**ALERT, "summary": "B is slow"}])
    names = [button.get_attribute("aria-label") for button in page.locator("#alerts button").all()]
    assert names == ["Acknowledge: A is slow", "Silence: A is slow", "Acknowledge: B is slow", "Silence: B is slow"]


def test_nothing_from_outside_becomes_markup(shown: Callable[..., Any]) -> None:
    """A title, a reason or a URL that holds markup is shown as text."""
    attack = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    message = {
        "id": 1, "channel": attack, "service": attack, "kind": "failure", "title": attack, "body": attack,
        "created": 1990.0, "finished": None, "state": "dead", "attempts": 3, "reason": attack,
    }  # fmt: skip
    alert = {
        "name": attack, "service": attack, "target": "", "severity": "critical", "state": "firing", "since": 1990.0,
        "fired_at": 1990.0, "recovering": False, "summary": attack, "description": attack, "runbook_url": "",
    }  # fmt: skip
    collector = {
        "job": "server", "service": attack, "instance": "", "url": attack, "up": False, "error": attack, "at": 1990.0,
        "since": 1990.0, "duration": 0.1, "samples": 0,
    }  # fmt: skip
    page = shown(
        title=attack,
        note=attack,
        text=attack,
        notifications=[message],
        alerts=[alert],
        collectors=[collector],
        problems=[attack],
    )
    assert page.locator("img").count() == 0
    assert page.locator("body script").count() == 0
    assert "owned" not in page.title()
    assert attack in text(page, "#alerts")


@pytest.mark.parametrize("width", [360, 768, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_any_screen(shown: Callable[..., Any], width: int, scheme: str) -> None:
    """From a telephone to a desk, light and dark: nothing is wider than the screen, and text stands out."""
    page = shown(problems=["a long problem " * 20])
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    contrast = page.evaluate("""() => {
      const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map((v) => { v /= 255;
        return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
      const card = light(getComputedStyle(document.querySelector('.card')).backgroundColor);
      const texts = '.card .value, .card .promise, .card .measure, .card .note, .card .usual, .axis span';
      return [...document.querySelectorAll(texts)].map((e) => {
        const ink = light(getComputedStyle(e).color);
        return (Math.max(ink, card) + .05) / (Math.min(ink, card) + .05); });
    }""")
    assert min(contrast) >= 4.5
