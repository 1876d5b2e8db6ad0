"""What servers push to a running monitor: over OTLP, and from their visitors' browsers."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from anvil_monitor.monitoring import preflight
from anvil_monitor.targets import Configuration, Secret, load

STOCK = [0.1, 0.25, 1.0]  # as Node's: no edge at 200 ms


def push(url: str, requests: int, headers: dict[str, str] | None = None) -> httpx.Response:
    """One export of a Node server: ``requests`` of 0.15 s each since it began."""
    began = 1_800_000_000 * 10**9
    point = {
        "startTimeUnixNano": str(began), "timeUnixNano": str(began + requests * 10**9), "count": str(requests),
        "sum": 0.15 * requests, "bucketCounts": ["0", str(requests), "0", "0"], "explicitBounds": STOCK,
        "attributes": [{"key": "http.request.method", "value": {"stringValue": "GET"}}],
    }  # fmt: skip
    metric = {"name": "http.server.request.duration", "unit": "s",
              "histogram": {"aggregationTemporality": 2, "dataPoints": [point]}}  # fmt: skip
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}},
                               {"key": "service.instance.id", "value": {"stringValue": "a"}}]}  # fmt: skip
    body = {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": [metric]}]}]}
    return httpx.post(f"{url}/v1/metrics", json=body, headers=headers, trust_env=False, timeout=10)


@pytest.fixture
def pushing(configuration: Configuration) -> Configuration:
    """The watched server pushes instead of being fetched."""
    service = replace(configuration.services[0], metrics_url="")
    return replace(configuration, services=(service,))


def otlp_url(running: Any, until: Callable[..., Any]) -> str:
    said = until(lambda: next((text for text in running.view.said if "OpenTelemetry" in text), ""))
    return str(said.rpartition(" ")[2].removesuffix("/v1/metrics"))


def test_what_is_pushed_drives_the_targets(
    pushing: Configuration, start: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """A histogram without an edge at the limit gives values marked as estimates, and users by Little's law."""
    running = start(pushing)
    url, began = otlp_url(running, until), time.monotonic()

    def state() -> dict[str, Any]:
        # Twenty requests a second, of 0.15 s each: three at once.
        assert push(url, 1000 + int(20 * (time.monotonic() - began))).status_code == 200
        return {each["target"]: each for each in running.state()["targets"]}

    until(lambda: (found := state())["api_response_time"]["value"] and found["concurrent_users"]["value"])
    until(lambda: state()["concurrent_users"]["value"] == pytest.approx(3.0, rel=0.5))
    found = state()
    assert 0.1 < found["api_response_time"]["value"] < 0.25
    assert found["api_response_time"]["text"].startswith("≈ ")
    assert found["concurrent_users"]["estimated"]
    assert {each["job"] for each in running.state()["collectors"]} == {"exporter"}
    address = running.url.removeprefix("http://").rpartition(":")
    monitor = replace(pushing.monitor, host=address[0], port=int(address[2]))
    problems = preflight.remote(replace(pushing, monitor=monitor), {})
    assert any("comes without an edge at 0.2" in str(problem) for problem in problems), problems


def test_the_monitors_own_address_takes_it_too(pushing: Configuration, start: Callable[..., Any]) -> None:
    """Where another program has OTLP's port, ``up`` says so, runs, and takes metrics on its own address."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        otlp = ("127.0.0.1", taken.getsockname()[1])
        running = start(replace(pushing, monitor=replace(pushing.monitor, otlp=otlp)))
        assert push(running.url, 10).status_code == 200
    assert any("nothing is taken over OTLP" in text for text in running.view.said)
    assert 'http_server_request_duration_seconds_count{service="shop"' in running.http.get("/metrics").text


def test_senders_bring_the_token(pushing: Configuration, start: Callable[..., Any], until: Callable[..., Any]) -> None:
    """With a token, what is pushed without it is refused on both addresses; a browser needs none."""
    monitor = replace(pushing.monitor, token=Secret("env:MONITOR_TOKEN"))
    running = start(replace(pushing, monitor=monitor), MONITOR_TOKEN="hush-hush")
    for url in (running.url, otlp_url(running, until)):
        assert push(url, 10).status_code == 401
        assert push(url, 10, {"Authorization": "Bearer hush-hush"}).status_code == 200
        script = httpx.get(f"{url}/anvil-monitor/beacon/shop.js", trust_env=False)
        assert (script.status_code, script.headers["content-type"][:15]) == (200, "text/javascript")
        page = {"page": "/", "load": 1.5}
        sent = httpx.post(f"{url}/anvil-monitor/beacon/shop", json=page, trust_env=False,
                          headers={"Sec-Fetch-Site": "same-origin"})  # fmt: skip
        assert sent.status_code == 204, sent.text


def test_prometheus_does_not_scrape_what_pushes(tmp_path: Path) -> None:
    """Neither the embedded scraper nor the generated prometheus.yml has a target for it."""
    from anvil_monitor.monitoring.generate import files
    from anvil_monitor.monitoring.scrape import endpoints

    path = tmp_path / "monitor.toml"
    path.write_text('[service]\nmetrics = "otlp"\n', encoding="utf-8")
    configuration = load(path)
    assert endpoints(configuration, None) == ()
    assert "job_name: server" not in files(configuration)["monitoring/prometheus/prometheus.yml"]


def test_the_exporter_alone_takes_pushes_and_asks_for_the_token(tmp_path: Path, until: Callable[..., Any]) -> None:
    """``anvil-monitor exporter`` answers on two addresses, both guarded; SIGTERM ends both."""
    config = tmp_path / "monitor.toml"
    config.write_text('[service]\nname = "shop"\nmetrics = "otlp"\n[monitor]\ndata = "data"\ntoken = "env:TOKEN"\n')
    command = [sys.executable, "-m", "anvil_monitor.monitoring.cli", "exporter", "--config", str(config),
               "--listen", "127.0.0.1:0", "--otlp", "127.0.0.1:0"]  # fmt: skip
    out = tmp_path / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "TOKEN": "hush-hush"})
    try:
        until(lambda: out.read_text().count("http://") == 2 or process.poll() is not None)
        own, pushed = re.findall(r"http://[\d.:]+", out.read_text())
        bearer = {"Authorization": "Bearer hush-hush"}

        def status(headers: dict[str, str]) -> int:
            try:
                return push(pushed, 10, headers).status_code
            except httpx.ConnectError:
                return 0

        until(lambda: status({}) == 401)
        assert status(bearer) == 200
        assert httpx.get(f"{own}/metrics", trust_env=False).status_code == 401
        text = httpx.get(f"{own}/metrics", headers=bearer, trust_env=False).text
        assert 'http_server_request_duration_seconds_count{service="shop"' in text
    finally:
        process.terminate()
        assert process.wait(10) == 0, out.read_text()
    assert "hush" not in out.read_text()
