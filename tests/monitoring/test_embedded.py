"""The whole system in one process, run for real against servers that come, go, slow down, hang and answer garbage."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from anvil_monitor.monitoring import embedded
from anvil_monitor.targets import Configuration, ConfigurationError, Secret


def test_a_breach_becomes_a_message_and_so_does_its_end(
    server: Any, start: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """All five targets get values; a slow server is told to people with value and limit, its recovery too."""
    server.latency = 0.04
    running = start()
    until(lambda: all(each["value"] is not None for each in running.state()["targets"]))
    until(lambda: running.target("api_response_time")["state"] == "ok")
    begin = time.monotonic()
    server.latency = 0.4
    until(lambda: any("API response time" in each["title"] for each in server.posted))
    took = time.monotonic() - begin
    message = next(each for each in server.posted if "API response time" in each["title"])
    assert "< 200 ms" in message["title"] + message["message"]
    assert took < 10, f"from breach to message: {took:.1f} s"
    assert "TargetMissed" in running.firing()
    server.latency = 0.04
    until(lambda: any("recovered" in each["title"] for each in server.posted))
    until(lambda: running.target("api_response_time")["state"] == "ok")
    sent = running.http.get("/api/v1/notifications").json()["data"]["notifications"]
    assert {each["state"] for each in sent} == {"sent"}
    assert running.close() < 5


def test_what_sends_is_ready_while_an_alert_is_pending(
    configuration: Configuration, server: Any, start: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """With nothing to tell there is no delivery process; while the `for` of a rule runs there is one, and nobody is
    told anything yet."""
    server.latency = 0.04
    targets = tuple(replace(target, hold=25.0) for target in configuration.targets)
    channels = tuple(replace(channel, labels=(("alertname", ("TargetMissed",)),)) for channel in configuration.channels)
    running = start(replace(configuration, targets=targets, channels=channels))
    until(lambda: running.target("api_response_time")["state"] == "ok")

    def processes() -> list[int]:
        found = []
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if "anvil_monitor.alerts.delivery_process" in child.cmdline():
                    found.append(child.pid)
        return found

    assert processes() == []
    server.latency = 0.4
    until(processes)
    assert server.posted == []
    assert "TargetMissed" not in running.firing()
    (pid,) = processes()
    assert running.close() < 5
    until(lambda: not psutil.pid_exists(pid))


def test_a_hanging_server_is_service_down(server: Any, start: Callable[..., Any], until: Callable[..., Any]) -> None:
    """A server that hangs: ServiceDown tells people, what does not depend on it goes on, and it recovers."""
    running = start()
    until(lambda: running.target("api_response_time")["value"] is not None)
    server.mode = "hang"
    until(lambda: running.state()["collectors"][0]["up"] is False, 10)
    until(lambda: "ServiceDown" in running.firing())
    until(lambda: any("does not answer" in each["title"] for each in server.posted))
    until(lambda: running.state()["collectors"][1]["up"] is True)
    until(lambda: running.target("memory")["state"] == "ok")
    server.released.set()
    server.mode = "healthy"
    until(lambda: "ServiceDown" not in running.firing())
    until(lambda: running.target("api_response_time")["value"] is not None)


def test_whatever_a_server_answers_the_monitor_goes_on(
    server: Any, start: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """Dripping, dying, garbage: each is told with its reason, the other target is scraped on, and the end is seen."""
    running = start()
    for mode in ("garbage", "drip", "die", "error", "no http"):
        until(lambda: running.state()["collectors"][0]["up"] is True, 10)
        server.mode = mode
        until(lambda: running.state()["collectors"][0]["error"], 10)
        server.mode = "healthy"
    until(lambda: running.target("api_response_time")["value"] is not None)
    until(lambda: running.state()["collectors"][1]["up"] is True)


def test_its_own_metrics_and_health(start: Callable[..., Any], until: Callable[..., Any]) -> None:
    """/metrics has the host, the monitor itself and the server's processes; /-/healthy answers."""
    running = start()
    assert running.http.get("/-/healthy").text == "ok\n"
    text = running.http.get("/metrics").text
    for name in ("system_memory_usage_bytes", "anvil_monitor_series", "process_count"):
        assert f"\n{name}" in text, name
    until(lambda: running.http.get("/api/v1/targets").json()["data"]["activeTargets"][0]["health"] == "up")
    wanted = {"up", "target:value", "target:limit", "scrape_duration_seconds"}
    until(lambda: wanted <= set(running.http.get("/api/v1/label/__name__/values").json()["data"]))


def test_unknown_paths_and_wrong_methods(start: Callable[..., Any]) -> None:
    """404 and 405 in the error envelope, with the headers that keep a page from being framed or fed."""
    running = start()
    answer = running.http.get("/api/v1/nothing")
    assert (answer.status_code, answer.json()["errorType"]) == (404, "not_found")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert running.http.post("/api/v1/rules").status_code == 405


def test_only_loopback_names_are_answered(start: Callable[..., Any]) -> None:
    """A request under another host name (a page elsewhere whose name points here) is refused."""
    running = start()
    for host, status in (("evil.example:9109", 403), ("localhost:9109", 200), ("127.0.0.1", 200), ("[::1]:9109", 200)):
        assert running.http.get("/api/v1/alerts", headers={"host": host}).status_code == status, host


def test_a_token_is_asked_for(
    configuration: Configuration, start: Callable[..., Any], until: Callable[..., Any]
) -> None:
    """With a token, nothing but the health is answered without it; the monitor's own scrape brings it."""
    monitor = replace(configuration.monitor, token=Secret("env:MONITOR_TOKEN"))
    running = start(replace(configuration, monitor=monitor), MONITOR_TOKEN="hush-hush")
    assert running.http.get("/-/healthy").status_code == 200
    for path in ("/", "/metrics", "/api/v1/targets-state"):
        answer = running.http.get(path)
        assert answer.status_code == 401
        assert "hush" not in answer.text
    wrong = {"Authorization": "Bearer hush"}
    assert running.http.get("/", headers=wrong).status_code == 401
    assert running.http.get("/", auth=("anyone", "hush-hush")).status_code == 200
    running.http.headers["Authorization"] = "Bearer hush-hush"
    until(lambda: {each["job"]: each["up"] for each in running.state()["collectors"]}.get("exporter"))


def test_an_address_in_use_is_a_configuration_error(configuration: Configuration) -> None:
    """Told before anything starts, with what to do."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        monitor = replace(configuration.monitor, port=taken.getsockname()[1])
        with pytest.raises(ConfigurationError, match="cannot listen on"):
            asyncio.run(embedded.run(replace(configuration, monitor=monitor), environ={}, stop=asyncio.Event()))
    assert not configuration.monitor.data.exists()


def test_a_second_monitor_on_one_outbox_is_refused(configuration: Configuration, start: Callable[..., Any]) -> None:
    """Two monitors would send every message twice: the second says so and ends."""
    start()
    second = start()
    assert isinstance(second.error, ConfigurationError)
    assert "in use" in str(second.error)


def test_a_token_that_cannot_be_read_is_a_configuration_error(configuration: Configuration) -> None:
    """The origin is named, and nothing starts."""
    monitor = replace(configuration.monitor, token=Secret("env:NOT_THERE"))
    with pytest.raises(ConfigurationError, match="NOT_THERE"):
        asyncio.run(embedded.run(replace(configuration, monitor=monitor), environ={}, stop=asyncio.Event()))


def test_a_running_query_does_not_hold_up_the_end(
    start: Callable[..., Any], until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopping takes less than 5 s even while somebody's query runs on."""
    began, release = threading.Event(), threading.Event()

    def endless(*_: object) -> None:
        began.set()
        release.wait(20)

    monkeypatch.setattr("anvil_monitor.monitoring.api.rules", endless)
    running = start()
    slow = threading.Thread(target=_get, args=(f"{running.url}/api/v1/rules",))
    slow.start()
    until(began.is_set)
    try:
        assert running.close() < 5
    finally:
        release.set()
        slow.join(10)


def _get(url: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        httpx.get(url, timeout=30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_within_5_s_of_a_signal(
    configuration_file: Path,
    server: Any,
    hook_url: str,
    until: Callable[..., Any],
    number: signal.Signals,
    tmp_path: Path,
) -> None:
    """`anvil-monitor up` as a process: it says where it is, narrates in lines, and ends with status 0 on a signal."""
    log = tmp_path / "log"
    command = [sys.executable, "-m", "anvil_monitor.monitoring.cli", "up", "--config", str(configuration_file)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "HOOK_URL": hook_url}, cwd=tmp_path
        )
    try:
        until(lambda: "is scraped" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        server.mode = "hang"  # a scrape under way must not hold it up
        begin = time.monotonic()
        process.send_signal(number)
        assert process.wait(10) == 0, log.read_text()
        assert time.monotonic() - begin < 5
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    text = log.read_text()
    assert "page and API on http://127.0.0.1:" in text
    assert "Traceback" not in text
    assert "HOOK" not in text


def test_the_command_says_that_its_port_is_taken(configuration_file: Path, tmp_path: Path) -> None:
    """Exit status 2 and one clear line."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "anvil_monitor.monitoring.cli", "up"]
        command += ["--config", str(configuration_file), "--listen", address]
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert found.returncode == 2
    assert f"cannot listen on {address}" in found.stderr
    assert "nothing was started" in found.stderr
