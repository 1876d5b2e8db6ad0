"""Route changes of a single-page application, in a real browser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import Site, chromium, serving
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from anvil_monitor.exporter import instrument
from anvil_monitor.targets import load

pytestmark = pytest.mark.needs("chromium")

SHOP = """<!doctype html><meta charset="utf-8"><title>x</title><script src="/anvil-monitor/beacon.js" defer></script>
<h1>home</h1><main><p>hello</p></main><button id="first">push, then fetch</button>
<button id="then">fetch, then push</button><button id="work">work</button><button id="redirect">redirect</button>
<script>
const show = (text) => { document.querySelector("main").innerHTML = `<h2>${text}, the largest text of them all</h2>`; };
const data = async () => (await fetch("/data")).text();
const at = (id, run) => { document.getElementById(id).onclick = run; };
at("first", async () => { history.pushState({}, "", "/products/7?tab=1"); show(await data()); });
at("then", async () => { const text = await data(); history.pushState({}, "", "/products/8"); show(text); });
at("work", () => { const t = performance.now(); while (performance.now() - t < 400); });
at("redirect", () => { history.pushState({}, "", "/old"); history.replaceState({}, "", "/new"); show("new"); });
</script>"""


def slow() -> str:
    time.sleep(0.7)
    return "data"


PAGES = {"/": SHOP, "/data": slow}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(params=["navigation API", "history"])
def tab(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A tab whose browser has the Navigation API, and one whose browser does not."""
    context = browser.new_context()
    made = context.new_page()
    errors: list[object] = []
    made.on("pageerror", lambda error: errors.append(error))
    if request.param == "history":
        made.add_init_script("Object.defineProperty(window, 'navigation', {value: undefined})")
    yield made
    context.close()
    assert errors == []


def test_the_time_of_a_route(tab: Any) -> None:
    """From the input that led to the route until the page is at rest: a router that loads before it changes the address
    costs the visitor as much time as one that loads after. The first load is not touched by it."""
    site = Site(PAGES)
    with serving(site) as url:
        site.loaded(tab, f"{url}/")
        tab.click("#first")
        tab.wait_for_function("document.querySelector('h2')")
        tab.wait_for_timeout(1000)
        tab.click("#then")
        tab.wait_for_url("**/products/8")
        tab.wait_for_timeout(300)
        site.leave(tab)
    assert 0.7 <= site.of("/products/7")["soft"] < 5
    assert 0.7 <= site.of("/products/8")["soft"] < 5
    assert "soft" not in site.of("/")
    assert {"load", "ttfb", "fcp", "lcp"} <= set(site.of("/"))
    assert not {"load", "ttfb"} & {*site.of("/products/7"), *site.of("/products/8")}


def test_what_is_measured_after_it_is_the_new_routes(tab: Any) -> None:
    """A slow click and a shift of the layout on the second route say nothing about the first."""
    site = Site(PAGES)
    with serving(site) as url:
        site.loaded(tab, f"{url}/")
        tab.click("#first")
        tab.wait_for_function("document.querySelector('h2')")
        tab.click("#work")
        tab.wait_for_timeout(800)  # shifts within half a second of a click are expected ones
        tab.evaluate("document.querySelector('h1').style.height = '300px'")
        tab.wait_for_timeout(200)
        site.leave(tab)
    home, product = site.of("/"), site.of("/products/7")
    assert 0.4 <= product["inp"] < 5
    assert 0 <= home["inp"] < 0.4
    assert 0 < product["cls"] < 1
    assert home["cls"] == 0
    assert 0.6 <= product["lcp"] < 5  # from the click to the paint of what was fetched
    assert "lcp" in home


def test_what_is_no_route_change(tab: Any) -> None:
    """Another hash, the same address again, and a query that is kept up to date."""
    site = Site(PAGES)
    with serving(site) as url:
        site.loaded(tab, f"{url}/")
        tab.click("#work")
        tab.evaluate("location.hash = 'part'")
        tab.evaluate("history.pushState({}, '', '/#other')")
        tab.evaluate("history.replaceState({}, '', '/?q=a')")
        tab.evaluate("history.pushState({}, '', '/?q=a')")
        tab.wait_for_timeout(200)
        site.leave(tab)
    assert [sorted(each) for each in site.posted] == [
        ["load", "page", "ttfb"],
        ["cls", "fcp", "inp", "lcp", "page"],
    ]


def test_back_forward_and_another_query(tab: Any) -> None:
    """Each shows another page: it counts, each time."""
    site = Site(PAGES)
    with serving(site) as url:
        site.loaded(tab, f"{url}/")
        tab.click("#work")
        for step in ("history.pushState({}, '', '/a?page=1')", "history.pushState({}, '', '/a?page=2')"):
            tab.evaluate(step)
            tab.click("#work")
        tab.go_back()
        tab.click("#work")
        tab.go_forward()
        tab.click("#work")
        tab.wait_for_timeout(200)
        site.leave(tab)
    assert sum("soft" in each and each["page"] == "/a" for each in site.posted) == 4


def test_a_route_that_nobody_clicked_for(tab: Any) -> None:
    """It took from its own beginning; one change after the other counts, each for itself."""
    site = Site(PAGES)
    with serving(site) as url:
        site.loaded(tab, f"{url}/")
        for path in ("/a", "/b"):
            tab.evaluate(f"history.pushState({{}}, '', '{path}'); data().then(show)")
            tab.wait_for_timeout(1500)
        site.leave(tab)
    assert 0.7 <= site.of("/a")["soft"] < 2.2
    assert 0.7 <= site.of("/b")["soft"] < 2.2  # two of them, and the pause between, take longer


def test_a_redirect_is_one_route_change(tab: Any) -> None:
    """A route that leads on to another before the page is at rest is not counted, the other is."""
    site = Site(PAGES)
    with serving(site) as url:
        site.loaded(tab, f"{url}/")
        tab.click("#redirect")
        tab.wait_for_timeout(700)
        site.leave(tab)
    assert site.of("/old") == {}
    assert "soft" in site.of("/new")


def test_a_redirect_while_the_page_loads_is_part_of_the_load(tab: Any) -> None:
    """A router that writes its own address first does not take away the page's load time."""
    page = SHOP + "<script>setTimeout(() => history.replaceState({}, '', '/home'), 50)</script><img src='/data'>"
    site = Site({**PAGES, "/": page})
    with serving(site) as url:
        site.loaded(tab, f"{url}/")
        site.leave(tab)
    assert {each["page"] for each in site.posted} == {"/home"}
    assert site.of("/home")["load"] >= 0.7
    assert "soft" not in site.of("/home")


def test_a_page_that_is_never_at_rest_is_given_up(tab: Any) -> None:
    """A clock that changes the page for ever is no slow route; one that ticks each second does not disturb."""
    site = Site(PAGES, limit=3000)
    with serving(site) as url:
        site.loaded(tab, f"{url}/")
        tab.evaluate("window.clock = setInterval(() => show(Date()), 100)")
        tab.click("#redirect")
        tab.wait_for_timeout(3200)
        tab.evaluate("clearInterval(clock); setInterval(() => show(Date()), 1000)")
        tab.click("#first")
        # It does not wait for the visitor to leave.
        assert site.wait(tab, "soft", page="/products/7")["soft"] < 3
        site.leave(tab)
    assert "soft" not in site.of("/new")


def test_the_metric(browser: Any, tmp_path: Path) -> None:
    """Route changes arrive under the template that monitor.toml lists, in a metric of their own."""

    def page(request: Request) -> Response:
        return HTMLResponse(SHOP)

    def data(request: Request) -> Response:
        return Response(slow())

    file = tmp_path / "monitor.toml"
    file.write_text('[service]\nname = "shop"\npages = ["/products/{id}"]\n')
    app = Starlette(routes=[Route("/", page), Route("/data", data)])
    made = instrument(app, configuration=load(file, {}), directory=tmp_path / "pages")

    def counts() -> dict[tuple[str, str], float]:
        return {
            (sample.name.removesuffix("_count"), sample.labels["url_template"]): sample.value
            for family in text_string_to_metric_families(made.metrics())
            for sample in family.samples
            if sample.name.startswith("browser_") and sample.name.endswith("_count")
        }

    soft, loads = "browser_soft_navigation_duration_seconds", "browser_page_load_duration_seconds"
    with serving(app) as url:
        tab = browser.new_page()
        tab.goto(f"{url}/")
        tab.click("#first")
        tab.wait_for_function("document.querySelector('h2')")
        tab.click("#then")
        tab.wait_for_url("**/products/8")
        tab.wait_for_timeout(200)
        tab.goto("about:blank")
        deadline = time.monotonic() + 15
        while counts().get((soft, "/products/{id}")) != 2 and time.monotonic() < deadline:
            tab.wait_for_timeout(50)
        tab.close()
    assert counts()[soft, "/products/{id}"] == 2
    assert counts()[loads, "/"] == 1
    assert (soft, "/") not in counts()
    assert (loads, "/products/{id}") not in counts()
