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
        "alert": "", "history": [[1000.0 + 5 * i, None if i % 7 == 3 else 1e8 + i * 1e6] for i in range(181)],
    }  # fmt: skip
    whole = {
        "now": 2000.0, "started": 1000.0, "version": "1", "evaluated_at": 1999.0, "evaluation_interval": 5.0,
        "targets": [target], "alerts": [], "notifications": [], "channels": ["hook"], "collectors": [],
        "problems": [], "series": 5,
    }  # fmt: skip
    for key, value in changed.items():
        (target if key in target else whole)[key] = value
    return whole


@pytest.fixture
def shown(page: Any) -> Callable[..., Any]:
    """The page's files, fed with a made-up state."""

    def show(**changed: Any) -> Any:
        def answer(route: Any) -> None:
            name = route.request.url.rpartition("/")[2]
            if name == "targets-state":
                route.fulfill(body=json.dumps({"status": "success", "data": state(**changed)}))
            else:
                route.fulfill(path=PAGE / (name or "index.html"))

        page.route("http://monitor.test/**", answer)
        page.goto("http://monitor.test/")
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
      const texts = '.card .value, .card .promise, .card .measure, .card .note, .axis span';
      return [...document.querySelectorAll(texts)].map((e) => {
        const ink = light(getComputedStyle(e).color);
        return (Math.max(ink, card) + .05) / (Math.min(ink, card) + .05); });
    }""")
    assert min(contrast) >= 4.5
