"""The example shop, as it is run: uvicorn with two workers, measured by one line."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest
from browsers import chromium
from prometheus_client.parser import text_string_to_metric_families

from examples.processes import Processes, free_port


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("shop")
    environ = dict(os.environ, SHOP_DATA=str(folder / "data"), ANVIL_MONITOR_PAGES=str(folder / "pages"))
    environ.pop("ANVIL_MONITOR_CONFIG", None)
    processes, port = Processes(folder, environ), free_port(0)
    processes.start("server", "uvicorn", "examples.server:app", "--port", str(port), "--workers", "2")
    # A connection for each request, so that both workers are asked.
    limits = httpx.Limits(max_keepalive_connections=0)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=20, trust_env=False) as client:
            deadline = time.monotonic() + 30
            while True:
                processes.check()
                try:
                    client.get("/api/items/1").raise_for_status()
                    break
                except httpx.TransportError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            client.headers["pid"] = str(processes.running["server"].pid)
            yield client
    finally:
        processes.end()


def memory(shop: httpx.Client) -> int:
    root = psutil.Process(int(shop.headers["pid"]))
    return sum(each.memory_info().rss for each in [root, *root.children(recursive=True)])


def test_the_shop_sells(shop: httpx.Client) -> None:
    """List, detail and search answer from the database; what is not there is 404, what is wrong is 422."""
    assert [item["id"] for item in shop.get("/api/items", params={"page": 1}).json()] == list(range(21, 41))
    assert shop.get("/api/items/7").json()["name"] == "rivet no. 7"
    assert all("tongs" in item["name"] for item in shop.get("/api/search", params={"q": "tongs"}).json())
    assert shop.get("/api/items/9999").status_code == 404
    assert shop.get("/api/search", params={"q": ""}).status_code == 422


def test_its_page_measures_itself(shop: httpx.Client) -> None:
    """The page has the beacon script, which is served beside it, and pictures that load."""
    page = shop.get("/").text
    assert '<script src="/anvil-monitor/beacon.js" defer></script>' in page
    assert "sendBeacon" in shop.get("/anvil-monitor/beacon.js").text
    assert shop.get("/pictures/1.svg").headers["content-type"] == "image/svg+xml"


@pytest.mark.needs("chromium")
def test_a_real_browser_visits_its_page(shop: httpx.Client) -> None:
    """Page load and all five vitals of a visit with Chromium arrive under the page's own route, each once."""
    with chromium() as browser:
        tab = browser.new_page()
        tab.goto(f"{shop.base_url}/", wait_until="load")
        tab.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
        tab.click("h1")
        tab.wait_for_timeout(100)
        tab.goto("about:blank")
        deadline = time.monotonic() + 15
        while len(counted := visits(shop)) < 6 and time.monotonic() < deadline:
            tab.wait_for_timeout(100)
    vitals = [
        f"browser_web_vital_{name}" for name in ("cls", "fcp_seconds", "inp_seconds", "lcp_seconds", "ttfb_seconds")
    ]
    assert counted == {(name, "/"): 1.0 for name in ["browser_page_load_duration_seconds", *vitals]}
    assert 'anvil_monitor_beacons_total{result="taken"} 2' in shop.get("/metrics").text


def visits(shop: httpx.Client) -> dict[tuple[str, str], float]:
    return {
        (sample.name.removesuffix("_count"), sample.labels["url_template"]): sample.value
        for family in text_string_to_metric_families(shop.get("/metrics").text)
        for sample in family.samples
        if sample.name.startswith("browser_") and sample.name.endswith("_count")
    }


def test_it_is_slow_in_both_workers_and_recovers(shop: httpx.Client) -> None:
    """One call makes every worker's queries slow and takes memory for real; one call undoes it."""
    before = memory(shop)
    shop.post("/demo/slow", json={"seconds": 0.2, "memory_mb": 100}).raise_for_status()
    for _ in range(6):
        assert shop.get("/api/items/7").elapsed.total_seconds() >= 0.2
    deadline = time.monotonic() + 10
    while memory(shop) < before + 80e6:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    shop.post("/demo/recover").raise_for_status()
    while memory(shop) > before + 50e6:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert min(shop.get("/api/items/7").elapsed.total_seconds() for _ in range(6)) < 0.2


def test_how_slow_is_bounded(shop: httpx.Client) -> None:
    """A slowness beyond reason is refused and changes nothing."""
    assert shop.post("/demo/slow", json={"seconds": 1e6}).status_code == 422
    assert shop.post("/demo/slow", json={"memory_mb": -1}).status_code == 422


def test_what_it_measures_names_routes_and_queries(shop: httpx.Client) -> None:
    """One line of code gives request durations by route template and query durations."""
    text = shop.get("/metrics").text
    assert 'http_route="/api/items/{number}"' in text
    assert "db_client_operation_duration_seconds_bucket" in text
    assert "/api/items/7" not in text
