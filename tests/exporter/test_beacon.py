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
from anvil_monitor.exporter.beacon import Rate
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
    assert 'browser_page_load_duration_seconds_bucket{url_template="/shop/{item}",le="2"} 1' in made.metrics()


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


def test_other_methods_and_other_sites(tmp_path: Path) -> None:
    """A beacon is posted, and by a page of this site."""
    client, made = server(tmp_path)
    assert client.get(URL).status_code == 405
    assert client.get(URL).headers["allow"] == "POST"
    answer = client.post(URL, json={"page": "/", "load": 1}, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
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


def test_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One client cannot use up everybody's share; after a rest it may send again; memory is bounded."""
    rate = Rate(rate=100, burst=200)
    assert sum(rate.take("greedy", 0.0) for _ in range(1000)) == 20
    assert rate.take("other", 0.0)
    assert sum(rate.take("greedy", 1.0) for _ in range(1000)) == 10
    assert sum(rate.take(str(number), 1.0) for number in range(10_000)) <= 200
    assert len(rate._clients) <= beacon.MAX_CLIENTS
    client, made = server(tmp_path)
    monkeypatch.setattr(Rate, "take", lambda *_: False)
    answer = client.post(URL, json={"page": "/", "load": 1})
    assert (answer.status_code, recorded(made)) == (429, {})


def test_the_script_is_small_and_cached(tmp_path: Path) -> None:
    """Under 3 kB, as JavaScript, with a time to live."""
    client, _ = server(tmp_path)
    answer = client.get(f"{URL}.js")
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "max-age" in answer.headers["cache-control"]
    assert len(answer.content) < 3000
    assert client.head(f"{URL}.js").content == b""
    assert client.post(f"{URL}.js").status_code == 405
