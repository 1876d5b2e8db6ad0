"""``beacon.js`` in a real browser."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from browsers import chromium, serving
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from anvil_monitor.exporter import Instrument, instrument
from anvil_monitor.targets import load

PAGE = """<!doctype html><html><meta charset="utf-8"><title>x</title>
<script src="/anvil-monitor/beacon.js" defer></script>
<h1>A large heading that is the largest paint</h1><img src="/slow.svg" width="10" height="10">
<button>work</button>
<script>document.querySelector("button").onclick = () => {
  const t = performance.now();
  while (performance.now() - t < 120);
  setTimeout(() => document.body.prepend(Object.assign(document.createElement("div"), {style: "height: 200px"})), 800);
};</script></html>"""


def page(request: Request) -> Response:
    return HTMLResponse(PAGE)


def slow(request: Request) -> Response:
    time.sleep(0.5)
    return Response("<svg xmlns='http://www.w3.org/2000/svg'/>", media_type="image/svg+xml")


def means(made: Instrument) -> dict[str, float]:
    found: dict[str, dict[str, Any]] = {}
    for family in text_string_to_metric_families(made.metrics()):
        for sample in family.samples:
            if sample.labels.get("url_template") == "/shop/{item}" and "le" not in sample.labels:
                name, _, part = sample.name.rpartition("_")
                found.setdefault(name, {})[part] = sample.value
    return {name: values["sum"] / values["count"] for name, values in found.items()}


@pytest.mark.needs("chromium")
def test_a_real_visit(tmp_path: Path) -> None:
    """Load time, paints, the slowest interaction and the layout shift of a visit arrive when the page is left."""
    app = Starlette(routes=[Route("/shop/{item}", page), Route("/slow.svg", slow)])
    made = instrument(app, configuration=load(None, {}), directory=tmp_path)
    with serving(app) as url, chromium() as browser:
        tab = browser.new_page()
        errors: list[object] = []
        tab.on("pageerror", lambda error: errors.append(error))
        tab.goto(f"{url}/shop/anvil?q=1", wait_until="load")
        tab.click("button")
        # Half a second after a click the shifts that it causes are expected: this one is not.
        tab.wait_for_function("document.querySelector('div')")
        tab.wait_for_timeout(200)
        tab.goto("about:blank")
        deadline = time.monotonic() + 15
        while len(means(made)) < 6 and time.monotonic() < deadline:
            tab.wait_for_timeout(50)
    found = means(made)
    assert errors == []
    assert 0.5 <= found["browser_page_load_duration_seconds"] < 10
    assert 0 <= found["browser_web_vital_ttfb_seconds"] < 5
    assert 0 < found["browser_web_vital_fcp_seconds"] <= found["browser_web_vital_lcp_seconds"] < 10
    assert 0.1 <= found["browser_web_vital_inp_seconds"] < 5
    assert 0 < found["browser_web_vital_cls"] < 2
