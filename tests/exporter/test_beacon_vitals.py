"""Our numbers beside those of the web-vitals library (npm), for the same visits in one real browser.

The library defines what the names mean (https://web.dev/articles/vitals). It is fetched for this test alone.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from browsers import Site, chromium, serving

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.needs("npm")]

VERSION = "6.2.3"
PAGE = """<!doctype html><meta charset="utf-8"><title>x</title>
<script src="/anvil-monitor/beacon.js"></script><script src="/web-vitals.js"></script>
<script>
for (const name of ["CLS", "FCP", "INP", "LCP", "TTFB"]) {
  webVitals[`on${name}`]((metric) => navigator.sendBeacon("/elsewhere", JSON.stringify(
    [metric.name.toLowerCase(), metric.value, metric.navigationType])), { reportSoftNavs: true });
}
</script>
<h1>A heading</h1><main><p>A paragraph</p></main><img src="/slow.svg" alt="">
<button id="long">work</button><button id="short">work less</button><button id="none">do nothing</button>
<button id="go">go</button><input>
<script>
const work = (ms) => () => { const t = performance.now(); while (performance.now() - t < ms); };
const at = (id, run) => { document.getElementById(id).onclick = run; };
const larger = (text) => { document.querySelector("main").innerHTML = `<h1 style="font-size: 60px">${text}</h1>`; };
at("long", work(300));
at("short", work(150));
at("go", async () => {
  history.pushState({}, "", "/two");
  larger(await (await fetch("/slow.svg")).text() && "something much larger than all the rest of this page");
});
const move = () => document.body.prepend(Object.assign(document.createElement("div"), { style: "height: 100px" }));
</script>"""
# Two shifts in one session, and one alone.
SHIFTS = "<script>setTimeout(move, 400); setTimeout(move, 700); setTimeout(move, 2000)</script>"
LATER = "<script>setTimeout(() => larger('What comes later, and is the largest text of the page'), 600)</script>"


def slow() -> str:
    time.sleep(0.4)
    return "<svg xmlns='http://www.w3.org/2000/svg' width='5' height='5'><rect width='5' height='5'/></svg>"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("npm")
    npm = shutil.which("npm") or "npm"
    subprocess.run(
        [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", f"web-vitals@{VERSION}"],
        check=True, capture_output=True, timeout=100,
    )  # fmt: skip
    return (folder / "node_modules/web-vitals/dist/web-vitals.iife.js").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # Playwright switches the back/forward cache off.
    with chromium(ignore_default_args=["--disable-back-forward-cache"]) as running:
        yield running


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    context = browser.new_context()
    made = context.new_page()
    errors: list[object] = []
    made.on("pageerror", lambda error: errors.append(error))
    yield made
    context.close()
    assert errors == []


@pytest.fixture
def site(library: str) -> Site:
    pages: dict[str, Any] = {"/web-vitals.js": library, "/slow.svg": slow, "/elsewhere.html": "<p>elsewhere"}
    return Site(pages | {"/": PAGE, "/shifts": PAGE + SHIFTS, "/later": PAGE + LATER})


def theirs(site: Site, kind: str = "navigate") -> dict[str, float]:
    """The library's last word on each vital of a navigation of that type, in seconds."""
    return {name: value if name == "cls" else value / 1000 for name, value, each in site.elsewhere if each == kind}


def ours(site: Site, page: str) -> dict[str, float]:
    return {name: value for name, value in site.of(page).items() if name not in ("page", "load", "soft")}


def close(expected: dict[str, float]) -> Any:
    """We round to a millisecond, and CLS to four digits."""
    return pytest.approx(expected, abs=0.0011)


def idle(tab: Any) -> None:
    """The library looks at interactions when the page is idle, and may miss them if it is left before."""
    tab.wait_for_timeout(1300)


def test_a_visit(tab: Any, site: Site) -> None:
    """All five, with a paint that comes late and interactions after it."""
    with serving(site) as url:
        tab.goto(f"{url}/later")
        tab.wait_for_function("document.querySelector('main h1')")
        tab.wait_for_timeout(200)
        tab.click("#short")
        tab.click("#none")
        idle(tab)
        site.leave(tab)
    found = ours(site, "/later")
    assert found == close(theirs(site))
    assert set(found) == {"lcp", "inp", "cls", "fcp", "ttfb"}
    assert found["lcp"] > 0.6
    assert found["inp"] > 0.15


def test_sessions_of_shifts(tab: Any, site: Site) -> None:
    """Shifts less than a second apart add up; the worst session counts, not the sum of all."""
    with serving(site) as url:
        tab.goto(f"{url}/shifts")
        tab.wait_for_function("document.querySelectorAll('div').length === 3")
        tab.wait_for_timeout(200)
        site.leave(tab)
    found = ours(site, "/shifts")
    assert found == close(theirs(site))
    assert found["cls"] > 0.02


def test_many_interactions(tab: Any, site: Site) -> None:
    """Of more than fifty the slowest but one counts."""
    with serving(site) as url:
        site.loaded(tab, f"{url}/")
        tab.click("#long")
        tab.click("#short")
        tab.focus("input")
        for _ in range(60):
            tab.keyboard.press("a")
        idle(tab)
        site.leave(tab)
    found = ours(site, "/")
    assert found == close(theirs(site))
    assert 0.15 <= found["inp"] < 0.3


def test_a_return_from_the_back_forward_cache(tab: Any, site: Site) -> None:
    """Is a view of its own: no load, its paints from the return on, its own interactions and shifts."""
    with serving(site) as url:
        site.loaded(tab, f"{url}/")
        tab.click("#short")
        idle(tab)
        tab.goto(f"{url}/elsewhere.html")
        site.wait(tab, "lcp")
        site.posted.clear()
        tab.go_back(wait_until="commit")
        tab.wait_for_timeout(500)
        tab.click("#short")
        idle(tab)
        site.leave(tab)
    found, expected = ours(site, "/"), theirs(site, "back-forward-cache")
    # The time of the second frame after the return: two callbacks, one after the other, ask for it.
    for vital in ("fcp", "lcp"):
        assert found.pop(vital) == pytest.approx(expected.pop(vital), abs=0.05)
    assert found == close(expected)
    assert found["ttfb"] == 0
    assert found["inp"] > 0.15
    assert "load" not in site.of("/")


def test_a_page_rendered_ahead(tab: Any, site: Site) -> None:
    """Times count from when somebody looks at it, never below 0. (Playwright does not prerender: we say so.)"""
    tab.add_init_script("""
      let ahead = true;
      Object.defineProperty(Document.prototype, "prerendering", { get: () => ahead });
      Object.defineProperty(PerformanceNavigationTiming.prototype, "activationStart", { get: () => ahead ? 0 : 300 });
      const change = new Event("prerenderingchange", { bubbles: true });
      window.look = () => { ahead = false; document.dispatchEvent(change); };
    """)
    with serving(site) as url:
        tab.goto(f"{url}/later")
        tab.wait_for_timeout(800)
        assert (site.posted, site.elsewhere) == ([], [])
        load = tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        tab.evaluate("look()")
        tab.click("#short")
        idle(tab)
        site.leave(tab)
    found = ours(site, "/later")
    assert found == close(theirs(site, "prerender"))
    assert found["ttfb"] == 0
    assert site.of("/later")["load"] == pytest.approx(load / 1000 - 0.3, abs=0.0011)


def test_a_page_that_was_hidden_while_it_loaded(tab: Any, site: Site) -> None:
    """Nobody waited for it: no load time, no later paint; what came before is kept."""
    go_on = threading.Event()

    def held() -> str:
        go_on.wait(20)
        return slow()

    site.pages = {**site.pages, "/slow.svg": held}
    tab.add_init_script("""
      let state = "visible";
      Object.defineProperty(Document.prototype, "visibilityState", { get: () => state });
      window.become = (to) => { state = to; document.dispatchEvent(new Event("visibilitychange", { bubbles: true })); };
    """)
    with serving(site) as url:
        try:
            tab.goto(f"{url}/", wait_until="commit")
            tab.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
            tab.wait_for_timeout(100)
            tab.evaluate("become('hidden'); become('visible')")
        finally:
            go_on.set()
        site.wait(tab, "ttfb")
        tab.evaluate("larger('What nobody waited for')")
        tab.wait_for_timeout(200)
        site.leave(tab, silent=True)
    found, expected = ours(site, "/"), theirs(site)
    # The library believes in this LCP only when the browser itself hides the page.
    assert found.pop("lcp") == found["fcp"]
    assert found == close(expected)
    assert "load" not in site.of("/")


def test_a_page_that_was_opened_in_the_background(tab: Any, site: Site) -> None:
    """Only what says nothing about waiting for it."""
    tab.add_init_script("Object.defineProperty(Document.prototype, 'visibilityState', { get: () => 'hidden' })")
    with serving(site) as url:
        tab.goto(f"{url}/")
        site.wait(tab, "ttfb")
        tab.wait_for_timeout(200)
        site.leave(tab, silent=True)
    assert ours(site, "/") == close(theirs(site))
    assert set(site.of("/")) == {"page", "ttfb"}


def test_a_route_change(tab: Any, site: Site) -> None:
    """The first page keeps its own; the route has the paint and the interaction that the library gives it, too."""
    with serving(site) as url:
        site.loaded(tab, f"{url}/")
        tab.click("#short")
        idle(tab)
        tab.click("#go")
        tab.wait_for_function("document.querySelector('main h1')")
        tab.wait_for_timeout(300)
        tab.click("#long")
        idle(tab)
        site.leave(tab)
    assert ours(site, "/") == close(theirs(site))
    found, expected = ours(site, "/two"), theirs(site, "soft-navigation")
    # We send no FCP of a route, nor a TTFB that is 0 by definition; the shift of its first paint we count to the route,
    # the library to the page before.
    assert {name: found[name] for name in ("lcp", "inp")} == close({name: expected[name] for name in ("lcp", "inp")})
    assert set(found) == {"lcp", "inp", "cls"}
    assert found["inp"] >= 0.3
    assert 0.4 < found["lcp"] < 5
