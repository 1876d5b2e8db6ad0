"""``/metrics``: formats, compression, storms of scrapes, and what goes wrong."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from anvil_monitor.exporter import instrument
from anvil_monitor.exporter.endpoint import Answer, Endpoint
from anvil_monitor.targets import load

PROMETHEUS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain"


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    app = FastAPI()

    @app.get("/items/{number}")
    async def item(number: int) -> int:
        return number

    instrument(app, configuration=load(None, {}), directory=tmp_path, meters=False, registry=False)
    client = TestClient(app)
    client.get("/items/1")
    return client


def test_openmetrics_for_who_prefers_it(client: TestClient) -> None:
    """Prometheus's own Accept header gets OpenMetrics that its parser takes; anybody else the text format."""
    answer = client.get("/metrics", headers={"Accept": PROMETHEUS})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    found = {family.name: family.unit for family in openmetrics_families(answer.text)}
    assert found["http_server_request_duration_seconds"] == "seconds"
    assert found["http_server_response_body_size_bytes"] == "bytes"
    plain = client.get("/metrics", headers={"Accept": "text/html"})
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert list(text_string_to_metric_families(plain.text))


def test_gzip_for_who_takes_it(client: TestClient) -> None:
    """Compressed when it is asked for, and a HEAD says how long."""
    packed = client.get("/metrics", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(packed.text)
    assert "content-encoding" not in client.get("/metrics", headers={"Accept-Encoding": "identity"}).headers
    head = client.head("/metrics", headers={"Accept-Encoding": "identity"})
    assert int(head.headers["content-length"]) > 1000
    assert head.text == ""


def test_the_servers_own_processes_are_in_it(client: TestClient) -> None:
    """Memory and CPU of the live workers, without a service label, however many workers there are."""
    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    (memory,) = families["process_memory_usage_bytes"].samples
    assert memory.labels == {}
    assert memory.value > 1e7
    assert families["process_count"].samples[0].value == 1


def nobody(_name: str) -> str:
    return ""


def test_a_storm_of_scrapes_is_written_twice_at_most() -> None:
    """Fifty scrapes while one is written: the first gets its own text, all others share the next, none an older one."""
    written: list[int] = []
    started, gate = threading.Event(), threading.Event()

    def text(_openmetrics: bool) -> str:
        written.append(len(written))
        started.set()
        assert gate.wait(10)
        return f"text {len(written)}\n"

    endpoint = Endpoint(load(None, {}).services[0], text)
    bodies: list[bytes] = []

    async def ask() -> None:
        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                bodies.append(message["body"])

        async def receive() -> Any:
            raise AssertionError("not asked")

        await endpoint({"type": "http", "method": "GET", "headers": []}, receive, send)

    async def storm() -> None:
        first = asyncio.create_task(ask())
        assert await asyncio.to_thread(started.wait, 10)
        others = [asyncio.create_task(ask()) for _ in range(49)]
        await asyncio.sleep(0.01)  # all of them have arrived
        gate.set()
        await asyncio.gather(first, *others)

    asyncio.run(storm())
    assert len(written) == 2
    assert bodies == [b"text 1\n"] + [b"text 2\n"] * 49
    assert endpoint._pages == {}


def test_a_later_scrape_is_never_given_an_older_text() -> None:
    """What is shared is shared by those who waited, and is then forgotten."""
    written: list[int] = []

    def text(_openmetrics: bool) -> str:
        written.append(0)
        return f"{len(written)}\n"

    endpoint = Endpoint(load(None, {}).services[0], text)
    assert [endpoint.page(nobody).body for _ in range(3)] == [b"1\n", b"2\n", b"3\n"]


def test_pages_that_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    """A scrape gets 503 and a hint, the log the reason; the next scrape tries again."""
    texts = iter([OSError("belongs to uid 4711"), "fine\n"])

    def text(_openmetrics: bool) -> str:
        found = next(texts)
        if isinstance(found, OSError):
            raise found
        return found

    endpoint = Endpoint(load(None, {}).services[0], text)
    assert endpoint.page(nobody) == Answer(503, b"the metrics of this service cannot be read; see the server's log\n")
    assert "belongs to uid 4711" in caplog.text
    assert endpoint.page(nobody).status == 200


def test_a_registry_of_ones_own(tmp_path: Path) -> None:
    """``registry=`` takes a prometheus_client registry other than the global one; its metrics are in /metrics."""
    registry = CollectorRegistry()
    app = FastAPI()
    instrument(app, configuration=load(None, {}), directory=tmp_path, meters=False, registry=registry)
    Counter("orders", "Orders.", registry=registry).inc(3)
    families = {family.name: family for family in text_string_to_metric_families(TestClient(app).get("/metrics").text)}
    assert families["orders"].samples[0].value == 3
