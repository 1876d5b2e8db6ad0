"""Who may post a beacon: pages of this site, pages of listed origins, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from anvil_monitor.exporter import instrument, names
from anvil_monitor.exporter.beacon import Beacon
from anvil_monitor.exporter.origins import normal
from anvil_monitor.exporter.pagetemplates import PageTemplates
from anvil_monitor.exporter.recorder import Recorder
from anvil_monitor.targets import load

URL = "/anvil-monitor/beacon"
BODY = {"page": "/", "load": 1}
WWW = "https://www.example.com"


def client(tmp_path: Path, *origins: str) -> TestClient:
    file = tmp_path / "monitor.toml"
    file.write_text(f'[service]\nname = "shop"\norigins = {list(origins)}\n')
    app = FastAPI()
    instrument(app, configuration=load(file, {}), directory=tmp_path / "pages")
    return TestClient(app, base_url="http://shop.example:8000")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 204),
        ({"Sec-Fetch-Site": "same-origin"}, 204),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://shop.example"}, 204),
        ({"Sec-Fetch-Site": "same-site", "Origin": "https://evil.shop.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://shop.example:8000"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "http://shop.example:8000"}, 204),
        ({"Origin": "https://SHOP.example:8000"}, 204),
        ({"Origin": "http://shop.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://shop.example:99999999"}, 403),
        ({"Origin": "file:///etc"}, 403),
        ({"Origin": "https://shop.example", "Host": "shop.example"}, 204),
        ({"Origin": "https://shop.example", "Host": "shop.example:80"}, 204),
        ({"Origin": "http://[::1]:8000", "Host": "[::1]:8000"}, 204),
        ({"Origin": "null", "Host": ""}, 403),
        ({"Origin": WWW, "Sec-Fetch-Site": "cross-site"}, 204),
        ({"Origin": f"{WWW}:443"}, 204),
        ({"Origin": "http://www.example.com"}, 403),
        ({"Origin": f"{WWW}.evil.example"}, 403),
    ],
)
def test_where_a_beacon_comes_from(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    """What the browser says counts, else Origin against Host (whose scheme a proxy may have changed)."""
    answer = client(tmp_path, WWW).post(URL, json=BODY, headers=headers)
    assert answer.status_code == status, answer.text
    assert "access-control-allow-credentials" not in answer.headers


def test_a_listed_origin_may_read_the_answer(tmp_path: Path) -> None:
    """CORS for it alone, told to caches, for refusals too; no other origin gets a header."""
    shop = client(tmp_path, WWW)
    for body, status in ((BODY, 204), ({"page": "/"}, 400)):
        answer = shop.post(URL, json=body, headers={"Origin": WWW, "Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == WWW
        assert answer.headers["vary"] == "Origin"
    answer = shop.post(URL, json=BODY, headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"] == "Origin"


def test_preflight(tmp_path: Path) -> None:
    """A browser that asks first is told POST and Content-Type; from elsewhere it is refused."""
    shop = client(tmp_path, WWW)
    asks = {"Access-Control-Request-Method": "POST", "Sec-Fetch-Site": "cross-site"}
    answer = shop.options(URL, headers={"Origin": WWW, **asks})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == WWW
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert answer.headers["access-control-allow-headers"] == "content-type"
    answer = shop.options(URL, headers={"Origin": "https://evil.example", **asks})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    answer = shop.options(URL)
    assert (answer.status_code, answer.headers["allow"]) == (204, "POST, OPTIONS")


def test_origins_as_browsers_write_them() -> None:
    """What somebody lists is compared as a browser would send it."""
    assert normal("HTTPS://WWW.Example.com:443") == "https://www.example.com"
    assert normal("http://a.example:8080") == "http://a.example:8080"
    assert [normal(text) for text in ("null", "", "https://", "ftp://a", "http://a:b")] == [""] * 5


def test_outside_a_server(tmp_path: Path) -> None:
    """One ASGI application serves the script and takes beacons, for a site whose server is not in Python."""
    recorder = Recorder(tmp_path / "pages")
    edges = {"browser_page_load_duration_seconds": (1.0, 2.0)}
    beacon = Beacon(recorder, PageTemplates(["/products/{id}"]), edges, [WWW])
    site = TestClient(beacon)
    assert site.get(f"{URL}/shop.js").headers["content-type"].startswith("text/javascript")
    answer = site.post(f"{URL}/shop", json={"page": "/products/7", "load": 1.5}, headers={"Origin": WWW})
    assert answer.status_code == 204
    metric = names.PAGE_LOAD
    cells = recorder.histogram(metric, ("/products/{id}",), (1.0, 2.0)).cells
    assert list(cells) == [1.5, 0, 1, 0]
    recorder.close()
