"""The notifier behind a real Alertmanager that runs our generated alertmanager.yml, down to a webhook sink."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from anvil_monitor.alerts import alertmanager
from anvil_monitor.alerts.notifier import create_app


def wait_for(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


@pytest.fixture
def notifier(configure: Any, make_sink: Any) -> Iterator[tuple[Any, Any, str]]:
    """A notifier under uvicorn with one sink: the sink, the configuration, the address to post to."""
    sink = make_sink()
    configuration = configure({"team": sink.url}, group_wait=0.2, group_interval=0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = create_app(configuration, dict(os.environ))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        wait_for(lambda: server.started)
        yield sink, configuration, f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1/alerts"
        server.should_exit = True
        thread.join()


@pytest.fixture
def post(notifier: Any, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Post alerts to an Alertmanager in front of the notifier."""
    _, configuration, address = notifier
    file = tmp_path / "alertmanager.yml"
    file.write_text(alertmanager.dump(configuration, notifier=address))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [f"--config.file={file}", f"--storage.path={tmp_path / 'data'}", "--cluster.listen-address=",
                 f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    log = (tmp_path / "alertmanager.log").open("wb")
    process = subprocess.Popen(["prometheus-alertmanager", *arguments], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    wait_for(lambda: answers(f"{url}/-/ready"))

    def send(*alerts: Any) -> None:
        body = [
            {"labels": alert.labels, "annotations": alert.annotations,
             "startsAt": datetime.fromtimestamp(alert.starts_at, UTC).isoformat(),
             **({} if alert.firing else {"endsAt": datetime.fromtimestamp(alert.ends_at, UTC).isoformat()})}
            for alert in alerts
        ]  # fmt: skip
        request = urllib.request.Request(
            f"{url}/api/v2/alerts", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=5).close()

    yield send
    process.terminate()
    process.wait(10)
    log.close()


@pytest.mark.needs("prometheus-alertmanager")
def test_through_a_real_alertmanager(notifier: Any, post: Any, alerts: Any) -> None:
    """Firing, a second alert beside it, ServiceDown in front of the rest, and the ends: each told once."""
    sink = notifier[0]
    now = time.time()

    def titles() -> list[str]:
        return [message["title"] for message in sink.received]

    missed, memory = alerts.missed(at=now - 60), alerts.missed("memory", title="Server memory", at=now - 60)
    post(missed)
    wait_for(lambda: titles() == ["app: API response time 312 ms, target < 200 ms"])
    post(missed, memory)
    wait_for(lambda: titles()[1:] == ["app: Server memory 312 ms, target < 200 ms"])
    assert "Still: API response time 312 ms" in sink.received[1]["message"]
    post(alerts.over(missed, time.time()), alerts.over(memory, time.time()))
    wait_for(lambda: len(titles()) == 3)
    assert titles()[2] == "app: API response time recovered, Server memory recovered"
    post(alerts.other("ServiceDown", service="shop", at=now - 60))
    wait_for(lambda: titles()[3:] == ["shop: ServiceDown"])
    post(alerts.missed(service="shop", at=now - 60), alerts.missed(service="third", at=now - 60))
    wait_for(lambda: titles()[4:] == ["third: API response time 312 ms, target < 200 ms"])
