"""The script in pages that are strict, and with visitors who are: what it needs, sets, keeps and sends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browsers import BEACON, Site, chromium, serving
from starlette.types import Receive, Scope, Send

from anvil_monitor.exporter.beacon import METRICS, Beacon, script
from anvil_monitor.exporter.pagetemplates import PageTemplates
from anvil_monitor.exporter.recorder import Recorder

pytestmark = pytest.mark.needs("chromium")

POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'; require-trusted-types-for 'script'"


def page(tags: str = '<script src="/anvil-monitor/beacon.js" defer></script>', head: str = "") -> str:
    return f'<!doctype html><meta charset="utf-8"><title>x</title>{head}{tags}<h1>A page</h1><button>b</button>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    context = browser.new_context()
    made = context.new_page()
    errors: list[str] = []
    made.on("pageerror", lambda error: errors.append(str(error)))
    made.on("console", lambda message: errors.append(message.text))
    yield made
    context.close()
    assert errors == []


def visit(site: Site, tab: Any, url: str, silent: bool = False) -> None:
    if silent:
        tab.goto(f"{url}/")
        tab.wait_for_timeout(300)
    else:
        site.loaded(tab, f"{url}/")
    tab.click("button")
    site.leave(tab, silent)


WATCH = """window.violations = [];
addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective));"""


def test_a_strict_content_security_policy(tab: Any) -> None:
    """No inline script, no eval, no style, nothing from elsewhere: 'self' for script and connection is enough."""
    site = Site(
        {
            "/": page('<script src="/watch.js"></script><script src="/anvil-monitor/beacon.js" defer></script>'),
            "/watch.js": WATCH,
        },
        {"content-security-policy": POLICY},
    )
    with serving(site) as url:
        site.loaded(tab, f"{url}/")
        tab.click("button")
        tab.evaluate("history.pushState({}, '', '/route')")
        tab.wait_for_timeout(100)
        assert tab.evaluate("violations") == []
        site.leave(tab)
    assert {"load", "ttfb", "fcp", "lcp", "cls"} <= set(site.of("/"))
    assert "soft" in site.of("/route")


def test_a_policy_that_forbids_it_breaks_nothing(browser: Any) -> None:
    """Without connect-src nothing is sent, and the page has no error of ours."""
    site = Site({"/": page()}, {"content-security-policy": "default-src 'none'; script-src 'self'"})
    tab = browser.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    with serving(site) as url:
        visit(site, tab, url, silent=True)
    tab.close()
    assert (errors, site.posted) == ([], [])


@pytest.mark.parametrize("how", ["defer", "async", "", "twice", "late"])
def test_however_it_is_included(tab: Any, how: str) -> None:
    """Deferred, asynchronous, blocking, added by another script after the load; a second tag does nothing."""
    tag = f'<script src="/anvil-monitor/beacon.js" {how if how in ("defer", "async") else ""}></script>'
    late = """<script>addEventListener("load", () => setTimeout(() => {
      document.head.append(Object.assign(document.createElement("script"), { src: "/anvil-monitor/beacon.js" }));
    }, 300));</script>"""
    site = Site({"/": page({"twice": tag * 2, "late": late}.get(how, tag))})
    with serving(site) as url:
        site.loaded(tab, f"{url}/")
        site.leave(tab)
    assert [sorted(each) for each in site.posted] == [
        ["load", "page", "ttfb"],
        ["cls", "fcp", "lcp", "page"],
    ]


def test_nothing_is_left_in_the_page_or_the_browser(tab: Any) -> None:
    """No cookie, no storage, no name in the page's window, no function replaced; nothing that tells visitors apart."""
    site = Site({"/": page(), "/without": page("")})
    facts = """() => [Object.keys(window).sort().join(), document.cookie, localStorage.length, sessionStorage.length,
      [fetch, XMLHttpRequest, history.pushState, EventTarget.prototype.addEventListener].map(String).join()]"""
    with serving(site) as url:
        tab.goto(f"{url}/without")
        before = tab.evaluate(facts)
        site.loaded(tab, f"{url}/")
        after = tab.evaluate(facts)
        databases = tab.evaluate("indexedDB.databases()")
        site.leave(tab)
        cookies = tab.context.cookies()
    assert before == after
    assert (databases, cookies) == ([], [])
    allowed = {"page", "load", "soft", "lcp", "fcp", "inp", "ttfb", "cls"}
    assert all(set(each) <= allowed for each in site.posted)
    assert all("cookie" not in fields for _, fields in site.requests)


@pytest.mark.parametrize(("signal", "value"), [("globalPrivacyControl", "true"), ("doNotTrack", "'1'")])
def test_a_visitor_who_asks_not_to_be_tracked(tab: Any, signal: str, value: str) -> None:
    """Is not measured, although nothing of what is sent is about a person."""
    tab.add_init_script(f"Object.defineProperty(Navigator.prototype, '{signal}', {{get: () => {value}}})")
    site = Site({"/": page()})
    with serving(site) as url:
        visit(site, tab, url, silent=True)
    assert site.posted == []


@pytest.mark.parametrize(("sample", "chance", "sent"), [("0.3", 0.2, True), ("0.3", 0.31, False), ("0", 0, False)])
def test_a_part_of_the_visits(tab: Any, sample: str, chance: float, sent: bool) -> None:
    """data-sample decides for the whole visit."""
    tab.add_init_script(f"Math.random = () => {chance}")
    site = Site({"/": page(f'<script src="/anvil-monitor/beacon.js" data-sample="{sample}" defer></script>')})
    with serving(site) as url:
        visit(site, tab, url, silent=not sent)
    assert bool(site.posted) is sent


def test_another_endpoint(tab: Any) -> None:
    """data-endpoint, here relative: the script may come from one place and post to another."""
    site = Site(
        {
            "/": page('<script src="/static/rum.js" data-endpoint="anvil-monitor/beacon"></script>'),
            "/static/rum.js": script()[0].decode(),
        }
    )
    with serving(site) as url:
        visit(site, tab, url)
    assert "load" in site.of("/")


def test_no_keepalive(tab: Any) -> None:
    """A browser whose fetch cannot outlive the page sends a beacon in its old way."""
    tab.add_init_script("delete Request.prototype.keepalive; window.fetch = undefined")
    site = Site({"/": page()})
    with serving(site) as url:
        visit(site, tab, url)
    assert {"load", "ttfb", "fcp", "lcp", "cls"} <= set(site.of("/"))


def test_a_page_whose_policy_hides_where_it_comes_from(tab: Any) -> None:
    """Referrer-Policy: no-referrer makes other ways to post say "null" as their origin."""
    site = Site({"/": page()}, {"referrer-policy": "no-referrer"})
    with serving(site) as url:
        visit(site, tab, url)
    assert [fields["origin"] for _, fields in site.requests] == [url] * len(site.posted)
    assert site.posted


@pytest.mark.parametrize("listed", [True, False])
def test_a_page_of_another_origin(browser: Any, tmp_path: Any, listed: bool) -> None:
    """With its origin in the list its beacons are taken, without cookies; else they are refused."""
    pages: dict[str, str] = {}
    site = Site(pages)
    tab = browser.new_context().new_page()
    messages: list[str] = []
    tab.on("console", lambda message: messages.append(message.text))
    recorder = Recorder(tmp_path)
    taken: list[dict[bytes, bytes]] = []
    statuses: list[int] = []
    edges = {metric.name: (1.0,) for metric in METRICS.values()}
    with serving(site) as www:
        beacon = Beacon(recorder, PageTemplates(["/"]), edges, [www] if listed else [])

        async def monitor(scope: Scope, receive: Receive, send: Send) -> None:
            async def seen(message: Any) -> None:
                if message["type"] == "http.response.start" and not scope["path"].endswith(".js"):
                    statuses.append(message["status"])
                await send(message)

            if not scope["path"].endswith(".js"):
                taken.append(dict(scope["headers"]))
            await beacon(scope, receive, seen)

        with serving(monitor) as other:
            tab.context.add_cookies([{"name": "session", "value": "secret", "url": other}])
            # Cookies do not tell ports apart: the browser has one that it could send.
            pages["/"] = page(f'<script src="{other}{BEACON}/shop.js" defer></script>')
            tab.goto(f"{www}/")
            tab.wait_for_timeout(300)
            tab.goto("about:blank")
            tab.wait_for_timeout(300)
            tab.context.close()
    recorder.close()
    assert statuses == ([204] * 2 if listed else [403] * 2)
    assert all(b"cookie" not in headers for headers in taken)
    assert bool(messages) is not listed
