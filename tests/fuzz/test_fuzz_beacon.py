"""The beacon endpoint and the rest of what ``instrument`` answers itself, under hostile requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from hostile import Caller, bounded, mutations
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from anvil_monitor.exporter import Instrument, instrument
from anvil_monitor.exporter.beacon import METRICS, RefusedError, parse
from anvil_monitor.exporter.names import UNMATCHED
from anvil_monitor.exporter.origins import Origins, normal
from anvil_monitor.exporter.rate import Rate
from anvil_monitor.targets import load

URL = "/anvil-monitor/beacon"
SEEDS = [
    b'{"page": "/shop/anvil", "load": 1.84, "ttfb": 0.1}',
    b'{"page": "/", "lcp": 1.2, "fcp": 0.3, "inp": 0.05, "cls": 0.02}',
    b'{"page": "/products/7?q=1#x", "soft": 0.4}',
]
PIECES = [b"page", b"load", b'"cls": ', b"/", b"1" * 310, b"%2f%2e%2e", b'"lcp": 1e308,']
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
BEACONS = st.dictionaries(st.sampled_from([*METRICS, "page", "other"]), JSON | st.floats() | st.just("/"), max_size=5)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Caller, Instrument]]:
    """A server whose endpoint takes as many as are sent."""
    monkeypatch.setattr(Rate, "take", lambda *_: True)
    monkeypatch.setenv("SHOP_TOKEN", "a-secret-of-the-shop")
    file = tmp_path / "monitor.toml"
    file.write_text('[service]\nname = "shop"\nmetrics_token = "env:SHOP_TOKEN"\npages = ["/products/{id}"]\n')
    app = FastAPI()

    @app.get("/shop/{item}")
    async def shop(item: str) -> str:
        return item

    shown = instrument(app, configuration=load(file), directory=tmp_path / "pages")
    with Caller(app) as call:
        yield call, shown
    shown.close()


def recorded(shown: Instrument) -> dict[str, float]:
    """Values counted, by page template."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(shown.metrics()):
        for sample in family.samples:
            if sample.name.startswith("browser_") and sample.name.endswith("_count"):
                page = sample.labels["url_template"]
                found[page] = found.get(page, 0) + sample.value
    return found


def test_ten_thousand_bodies(made: Any) -> None:
    """Each is taken whole or gets its 4xx with a reason; memory does not grow; no label value is invented."""
    call, shown = made
    values = 0

    def post(body: bytes) -> None:
        nonlocal values
        status, answer = call("POST", URL, body, chunk=700)
        if status == 204:
            values += len(json.loads(body)) - 1
        else:
            assert status in (400, 413)
            assert json.loads(answer)["error"]

    bounded(post, mutations(SEEDS, 10_000, 1, PIECES))
    counts = recorded(shown)
    assert set(counts) <= {UNMATCHED, "/shop/{item}", "/products/{id}"}
    assert sum(counts.values()) == values > 100


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=300)
    | BEACONS.map(lambda beacon: json.dumps(beacon).encode())
    | JSON.map(json.dumps).map(str.encode)
)
def test_what_is_taken_is_right(body: bytes) -> None:
    """Parsing raises nothing but the refusal; what it lets pass is a path and finite numbers in their bounds."""
    try:
        page, values = parse(body)
    except RefusedError as refused:
        assert refused.status == 400
        assert str(refused).isprintable()
        return
    assert page.startswith("/")
    assert values
    assert all(type(value) is float and 0 <= value <= 1000 for value in values.values())


def test_hostile_headers(made: Any) -> None:
    """Origin, Host, Sec-Fetch-Site, Accept-Encoding, If-None-Match and Authorization may hold any bytes."""
    call, _ = made
    seeds = [
        b"https://shop.example:8000",
        b"same-origin",
        b"gzip;q=0.5, br",
        b'W/"abc"',
        b"Bearer a-secret-of-the-sho",
        b"[::1]:80",
    ]
    names = [
        b"origin",
        b"host",
        b"sec-fetch-site",
        b"accept-encoding",
        b"if-none-match",
        b"authorization",
        b"content-length",
    ]
    pieces = [b"Bearer ", b"http://[", b":99999999", b";q=", b"%", "ü".encode("latin-1")]
    turn = 0

    def ask(value: bytes) -> None:
        nonlocal turn
        turn += 1
        given = [(names[turn % len(names)], value), (names[turn * 3 % len(names)], value[::-1])]
        for method in ("POST", "OPTIONS"):
            call(method, URL, SEEDS[0], headers=given)
        call("GET", f"{URL}.js", headers=given)
        status, answer = call("GET", "/metrics", headers=given)
        assert status == 401
        assert b"a-secret-of-the-shop" not in answer

    bounded(ask, mutations(seeds, 2_500, 2, pieces))


@given(st.text(max_size=60), st.text(max_size=60))
def test_origins_of_any_text(listed: str, given_: str) -> None:
    """A text that is no origin is never a listed one."""
    origins = Origins([listed])
    assert not origins.lists(given_) or normal(given_) == normal(listed) != ""


def test_hostile_pages_take_linear_time_and_little_memory(made: Any) -> None:
    """The longest path that is taken, in forms that make matchers go back and forth."""
    call, shown = made
    paths = [
        "/" * 2048,
        "/a" * 1024,
        "/products/" + "{" * 2000,
        "/" + "%2f" * 680,
        "/products/" + "x" * 2030,
        "/\u2028" * 600,
    ]

    def post(body: bytes) -> None:
        assert call("POST", URL, body)[0] == 204

    bounded(post, [json.dumps({"page": path[:2048], "load": 1}, ensure_ascii=False).encode() for path in paths] * 300)
    assert set(recorded(shown)) <= {UNMATCHED, "/products/{id}"}
