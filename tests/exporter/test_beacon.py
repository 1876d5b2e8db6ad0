"""What browsers post: taken when it is well-formed, refused with a reason otherwise, never recorded in part."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from anvil_monitor.exporter import Instrument, beacon, instrument
from anvil_monitor.exporter.rate import Rate
from anvil_monitor.targets import load

URL = "/anvil-monitor/beacon"


def server(tmp_path: Path) -> tuple[TestClient, Instrument]:
    app = FastAPI()

    @app.get("/shop/{item}")
    async def shop(item: str) -> str:
        return item

    made = instrument(app, configuration=load(None, {}), directory=tmp_path)
    return TestClient(app), made


def recorded(made: Instrument) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(made.metrics())
    return {
        (sample.name.removesuffix("_sum"), sample.labels["url_template"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("browser_") and sample.name.endswith("_sum")
    }


def test_a_visit(tmp_path: Path) -> None:
    """All vitals are recorded in seconds under the page's route template; the answer is 204 and empty."""
    client, made = server(tmp_path)
    body = {"page": "/shop/anvil?q=secret", "load": 1.84, "ttfb": 0.1, "fcp": 0.3, "lcp": 1.2, "inp": 0.05, "cls": 0.02}
    answer = client.post(URL, content=json.dumps(body), headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.content) == (204, b"")
    page = "/shop/{item}"
    assert recorded(made) == {
        ("browser_page_load_duration_seconds", page): 1.84,
        ("browser_web_vital_ttfb_seconds", page): 0.1,
        ("browser_web_vital_fcp_seconds", page): 0.3,
        ("browser_web_vital_lcp_seconds", page): 1.2,
        ("browser_web_vital_inp_seconds", page): 0.05,
        ("browser_web_vital_cls", page): 0.02,
    }
    assert 'browser_page_load_duration_seconds_bucket{url_template="/shop/{item}",le="2.0"} 1' in made.metrics()


def test_a_page_that_is_no_route_shares_a_value(tmp_path: Path) -> None:
    """No browser can invent a label value."""
    client, made = server(tmp_path)
    for number in range(5):
        assert client.post(URL, json={"page": f"/made/up/{number}", "load": 1}).status_code == 204
    assert recorded(made) == {("browser_page_load_duration_seconds", "(unmatched)"): 5}


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[" * 4000, 400, "not JSON"),
        (b"[1]", 400, "must be an object"),
        (b'{"load": 1}', 400, "page must be a path"),
        (b'{"page": 7, "load": 1}', 400, "page must be a path"),
        (b'{"page": "https://x/", "load": 1}', 400, 'begins with "/"'),
        (b'{"page": "/' + b"x" * 2048 + b'", "load": 1}', 400, "at most 2048 characters"),
        (b'{"page": "/"}', 400, "nothing was measured"),
        (b'{"page": "/", "lod": 1}', 400, "unknown field 'lod'; allowed: page, load"),
        (b'{"page": "/", "load": "1"}', 400, "load must be a number from 0 to 600"),
        (b'{"page": "/", "load": true}', 400, "load must be a number"),
        (b'{"page": "/", "load": null}', 400, "load must be a number"),
        (b'{"page": "/", "load": -1}', 400, "load must be a number"),
        (b'{"page": "/", "load": NaN}', 400, "not JSON"),
        (b'{"page": "/", "load": 1e999}', 400, "load must be a number"),
        (b'{"page": "/", "load": 1' + b"0" * 400 + b"}", 400, "load must be a number"),
        (b'{"page": "/", "load": 1' + b"0" * 4050 + b"}", 400, "load must be a number"),
        (b'{"page": "/", "\\ud800": 1}', 400, "unknown field"),
        (b'{"page": "/", "load": 1, "lcp": 9999}', 400, "lcp must be a number"),
        (b'{"page": "/", "load": 1}' + b" " * 5000, 413, "at most 4096 bytes"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, body: bytes, status: int, reason: str) -> None:
    """4xx with what is wrong, nothing recorded, not even the part that was right."""
    client, made = server(tmp_path)
    answer = client.post(URL, content=body)
    assert answer.status_code == status
    assert reason in answer.json()["error"]
    assert recorded(made) == {}
    assert 'anvil_monitor_beacons_total{result="refused"} 1' in made.metrics()


def test_other_methods(tmp_path: Path) -> None:
    """A beacon is posted."""
    client, made = server(tmp_path)
    assert client.get(URL).status_code == 405
    assert client.get(URL).headers["allow"] == "POST, OPTIONS"
    assert recorded(made) == {}


def test_a_body_that_never_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """408 after a while, so that a dripping client holds nothing for long; a client that leaves is let go."""
    client, _made = server(tmp_path)
    monkeypatch.setattr(beacon, "BODY_SECONDS", 0.05)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def never() -> Any:
        await asyncio.sleep(60)

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    for receive, status in ((never, 408), (gone, 400)):
        scope = {
            "type": "http",
            "method": "POST",
            "path": URL,
            "headers": [],
            "client": ("10.0.0.1", 1),
            "root_path": "",
        }
        asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type, func-returns-value]
        assert sent[-2]["status"] == status


def test_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 and when to come again; nothing is recorded."""
    client, made = server(tmp_path)
    monkeypatch.setattr(Rate, "take", lambda *_: False)
    answer = client.post(URL, json={"page": "/", "load": 1})
    assert (answer.status_code, answer.headers["retry-after"], recorded(made)) == (429, "1", {})


def test_route_changes_are_apart_from_page_loads(tmp_path: Path) -> None:
    """Many quick route changes do not hide a slow first load: they are another metric."""
    client, made = server(tmp_path)
    assert client.post(URL, json={"page": "/shop/anvil", "soft": 0.2}).status_code == 204
    assert recorded(made) == {("browser_soft_navigation_duration_seconds", "/shop/{item}"): 0.2}


def test_a_path_is_decoded_once(tmp_path: Path) -> None:
    """A browser reports its address percent-encoded; the server's routes and the listed templates are not."""
    app = FastAPI()

    @app.get("/straße/{name}")
    async def street(name: str) -> str:
        return name

    made = instrument(app, configuration=load(None, {}), directory=tmp_path)
    assert TestClient(app).post(URL, json={"page": "/stra%C3%9Fe/%2541", "load": 1}).status_code == 204
    assert recorded(made) == {("browser_page_load_duration_seconds", "/straße/{name}"): 1}


def test_listed_templates_come_first(tmp_path: Path) -> None:
    """service.pages are tried before the application's own routes, whose templates still count."""
    file = tmp_path / "monitor.toml"
    file.write_text('[service]\nname = "shop"\npages = ["/shop/anvil", "/app/{rest:path}"]\n')
    app = FastAPI()

    @app.get("/shop/{item}")
    async def shop(item: str) -> str:
        return item

    made = instrument(app, configuration=file, directory=tmp_path / "pages")
    client = TestClient(app)
    for page in ("/shop/anvil", "/shop/other", "/app/a/b", "/elsewhere"):
        assert client.post(URL, json={"page": page, "load": 1}).status_code == 204
    pages = [page for _, page in recorded(made)]
    assert sorted(pages) == ["(unmatched)", "/app/{rest:path}", "/shop/anvil", "/shop/{item}"]
