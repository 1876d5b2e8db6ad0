"""The dead man's switch: it beats while the monitor lives and can write, else it is silent; its URL stays secret."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from starlette.testclient import TestClient

from anvil_monitor.alerts import alertmanager
from anvil_monitor.alerts import heartbeat as beating
from anvil_monitor.alerts.heartbeat import Heartbeat, refused
from anvil_monitor.alerts.notifier import create_app
from anvil_monitor.alerts.outbox import Outbox, OutboxError
from anvil_monitor.targets import Configuration, ConfigurationError, Secret
from anvil_monitor.targets.load import parse

HIDDEN = "hush-hush-uuid"


class Waiting:
    """Whoever waits for the calls. ``status`` is what it answers; ``hang``: nothing."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.status = 200
        self.hang = False
        self.released = Event()
        waiting = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                waiting.calls.append(self.path)
                if waiting.hang:
                    waiting.released.wait(20)
                    return
                self.send_response(waiting.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/{HIDDEN}"
        Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    sink = Waiting()
    yield sink
    sink.close()


async def well() -> str:
    return ""


def heartbeat(url: str, interval: float = 0.02) -> Heartbeat:
    return Heartbeat(Secret("env:BEAT"), interval, {"BEAT": url})


async def beats(one: Heartbeat, ailing: Callable[[], Any], until: Callable[..., Any], condition: Any) -> None:
    task = asyncio.create_task(one.run(ailing))
    try:
        await until(condition)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_it_beats_while_all_is_well(waiting: Waiting, until: Callable[..., Any]) -> None:
    """A GET of the very URL, again and again, each of them counted."""
    one = heartbeat(waiting.url)
    asyncio.run(beats(one, well, until, lambda: one.counts["sent"] >= 3))
    assert set(waiting.calls) == {f"/{HIDDEN}"}
    assert (one.counts["failed"], one.counts["withheld"]) == (0, 0)


def test_it_is_silent_while_something_ails(
    waiting: Waiting, until: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is called, the reason is logged once, and the end of it brings the beats back."""
    reasons = ["the outbox is full"] * 5

    async def ailing() -> str:
        return reasons.pop() if reasons else ""

    one = heartbeat(waiting.url)
    with caplog.at_level(logging.INFO):
        asyncio.run(beats(one, ailing, until, lambda: one.counts["sent"] >= 1))
    assert one.counts["withheld"] == 5
    assert [each for each in caplog.messages if each.startswith("heartbeat")] == [
        "heartbeat: withheld: the outbox is full",
        "heartbeat: sent again",
    ]


def test_a_monitor_that_hangs_does_not_beat(waiting: Waiting, until: Callable[..., Any]) -> None:
    """Where the question itself gets no answer, there is no beat."""

    async def hanging() -> str:
        await asyncio.Event().wait()
        return ""

    one = heartbeat(waiting.url)
    asyncio.run(beats(one, hanging, until, lambda: one.counts["withheld"] >= 1))
    assert waiting.calls == []


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("status", "answered HTTP 500"),
        ("redirect", "answered HTTP 302"),
        ("hang", "timed out|no answer within"),
        ("closed", "the connection failed"),
        ("no URL", "what env:BEAT holds is no URL that can be called"),
        ("unset", "the environment variable BEAT is not set"),
    ],
)
def test_a_call_that_fails_is_told_without_its_url(
    trouble: str, said: str, waiting: Waiting, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted as failed, with the reason in the log; nothing of the URL is in any log, the HTTP library's neither."""
    monkeypatch.setattr(beating, "TIMEOUT", 0.3)
    waiting.status = {"status": 500, "redirect": 302}.get(trouble, 200)
    waiting.hang = trouble == "hang"
    url = {"closed": f"http://127.0.0.1:9/{HIDDEN}", "no URL": f"ftp://{HIDDEN}", "unset": ""}.get(trouble, waiting.url)
    one = heartbeat(url)
    with caplog.at_level(logging.DEBUG):
        assert not asyncio.run(one.beat())
    assert one.counts == {"sent": 0, "failed": 1, "withheld": 0}
    (told,) = [each for each in caplog.messages if each.startswith("heartbeat: ")]
    assert re.search(said, told)
    assert HIDDEN not in caplog.text + repr(one.families())


def test_what_can_be_called() -> None:
    """http and https with a host; the reason never repeats the text."""
    assert refused("https://hc-ping.com/uuid") == refused("http://127.0.0.1:3001/api/push/x?status=up") == ""
    for url in ("", "hc-ping.com/x", "ftp://host/x", "https:///x", "https://host:99999/x", "http://[::1/x"):
        assert refused(url).startswith("is no URL"), url


def test_the_keys_of_monitor_toml() -> None:
    """The URL is a secret and may not stand in the file; the interval is a time."""
    text = '[monitor]\nheartbeat = "env:BEAT"\nheartbeat_interval = "30s"\n'
    monitor = parse(text).monitor
    assert (monitor.heartbeat, monitor.heartbeat_interval) == (Secret("env:BEAT"), 30.0)
    assert (parse("").monitor.heartbeat, parse("").monitor.heartbeat_interval) == (None, 60.0)
    with pytest.raises(ConfigurationError) as wrong:
        parse(f'[monitor]\nheartbeat = "https://hc-ping.com/{HIDDEN}"\n')
    assert HIDDEN not in str(wrong.value)


HERE = "http://127.0.0.1:9095"


def posted(name: str, status: str = "firing") -> dict[str, Any]:
    alert = {"status": status, "labels": {"alertname": name, "service": "anvil-monitor", "severity": "none"},
             "annotations": {}, "startsAt": "2026-01-31T12:00:00Z", "endsAt": "2026-01-31T12:01:00Z"}  # fmt: skip
    return {"version": "4", "groupKey": "{}", "alerts": [alert]}


def watched(configure: Callable[..., Configuration]) -> Configuration:
    return configure(heartbeat=Secret("env:BEAT"), heartbeat_interval=30.0)


def test_the_notifier_beats_when_the_watchdog_is_posted(
    waiting: Waiting, configure: Callable[..., Configuration], until: Callable[..., Any]
) -> None:
    """Each post of a firing Watchdog is one beat, also where the same was posted before; no other alert is."""
    with TestClient(create_app(watched(configure), {"BEAT": waiting.url}), base_url=HERE) as client:
        for name, status in (("TargetMissed", "firing"), ("Watchdog", "resolved")):
            assert client.post("/api/v1/alerts", json=posted(name, status)).status_code == 200
        for count in (1, 2):
            assert client.post("/api/v1/alerts", json=posted("Watchdog")).status_code == 200
            asyncio.run(until(lambda count=count: f'outcome="sent"}} {count}' in client.get("/metrics").text))
    assert len(waiting.calls) == 2


def test_a_notifier_that_cannot_write_does_not_beat(
    waiting: Waiting, configure: Callable[..., Configuration], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Watchdog that the outbox does not take is answered with 503, and the URL is not called."""

    def full(*_: Any) -> None:
        raise OutboxError("database or disk is full")

    monkeypatch.setattr(Outbox, "prove", full)
    with TestClient(create_app(watched(configure), {"BEAT": waiting.url}), base_url=HERE) as client:
        status = client.post("/api/v1/alerts", json=posted("Watchdog")).status_code
    assert status == 503
    assert waiting.calls == []


@pytest.mark.needs("amtool")
def test_alertmanager_posts_the_watchdog_as_often(tmp_path: Path, configure: Callable[..., Configuration]) -> None:
    """Where a heartbeat is set, a route of its own repeats it; Alertmanager takes the file. Else nothing changes."""
    plain, text = alertmanager.dump(configure()), alertmanager.dump(watched(configure))
    (route,) = yaml.safe_load(text)["route"]["routes"]
    assert (route["matchers"], route["repeat_interval"]) == (['alertname="Watchdog"'], "30s")
    assert "routes" not in yaml.safe_load(plain)["route"]
    path = tmp_path / "alertmanager.yml"
    path.write_text(text, encoding="utf-8")
    ran = subprocess.run([shutil.which("amtool") or "", "check-config", str(path)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@contextlib.contextmanager
def alertmanager_before(app: Any, configuration: Configuration, folder: Path) -> Iterator[str]:
    """The address of a real Alertmanager with our generated file, in front of the notifier ``app``."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as listener, (folder / "log").open("wb") as log:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        file = folder / "alertmanager.yml"
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1/alerts"
        file.write_text(alertmanager.dump(configuration, notifier=address), encoding="utf-8")
        arguments = [f"--config.file={file}", f"--storage.path={folder / 'data'}", "--cluster.listen-address=",
                     f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
        process = subprocess.Popen(["prometheus-alertmanager", *arguments], stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)
            server.should_exit = True
            thread.join(10)


@pytest.mark.needs("prometheus-alertmanager")
def test_through_a_real_alertmanager(
    waiting: Waiting, configure: Callable[..., Configuration], until: Callable[..., Any], tmp_path: Path
) -> None:
    """A Watchdog that fires is repeated as often as the heartbeat beats, and each time the URL is called."""
    configuration = configure(heartbeat=Secret("env:BEAT"), heartbeat_interval=1.0)
    app = create_app(configuration, {"BEAT": waiting.url})
    labels = {"alertname": "Watchdog", "service": "anvil-monitor", "severity": "none"}

    def taken(url: str) -> bool:
        try:
            return httpx.post(f"{url}/api/v2/alerts", json=[{"labels": labels}], trust_env=False).is_success
        except httpx.HTTPError:
            return False

    with alertmanager_before(app, configuration, tmp_path) as url:
        asyncio.run(until(lambda: taken(url)))
        asyncio.run(until(lambda: len(waiting.calls) >= 3, 30))
