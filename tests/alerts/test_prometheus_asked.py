"""What the notifier asks of Prometheus, and that a Prometheus which is away, slow or hostile costs seconds at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from real_prometheus import push, running

from anvil_monitor.alerts import prometheus
from anvil_monitor.alerts.prometheus import LARGEST, TIMEOUT, Prometheus, nobody_knows

RULES = """
groups:
  - name: all
    interval: 200ms
    rules:
      - {alert: TargetMissed, expr: switch > 0, labels: {severity: critical}}
      - {alert: Pending, expr: switch > 0, for: 1h}
"""


@pytest.fixture
def answering() -> Iterator[Callable[[bytes, str], str]]:
    """The URL of an HTTP server that answers so."""
    ends, over = [], Event()

    def serve(body: bytes, how: str = "") -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if how == "hang":
                    over.wait(30)
                    return
                self.send_response(302 if how == "redirect" else 200)
                self.send_header("Location", "http://127.0.0.1:9/")
                self.end_headers()
                for _ in range(100 if how == "drip" else 1):
                    self.wfile.write(body)
                    if how == "drip" and over.wait(0.1):
                        return

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who has waited enough hangs up
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        ends.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield serve
    over.set()
    for server in ends:
        server.shutdown()
        server.server_close()


@pytest.mark.needs("prometheus")
def test_a_real_prometheus_is_understood(alerts: Any, tmp_path: Path) -> None:
    """The last hour of a target and no other, what it measures now, and which alerts fire; labels that Prometheus adds
    for Alertmanager (``external_labels``) are no difference, and what is about to fire counts."""
    (tmp_path / "rules.yml").write_text(RULES)
    config = f"global: {{external_labels: {{dc: one}}}}\nrule_files: [{tmp_path}/rules.yml]"
    with running(tmp_path / "prometheus", config) as url:
        now = time.time()
        asked, missed, quoted = Prometheus(url), alerts.missed(), alerts.missed("memory", service='a"b\\')
        for one, value in ((missed, 0.1), (quoted, 0.7)):
            labels = (("__name__", "target:value"), ("service", one.service), ("target", one.labels["target"]))
            push(url, [(labels, [(int((now - 1200 + 30 * step) * 1000), value + step / 1000) for step in range(41)])])
        push(url, [((("__name__", "switch"), ("service", "app"), ("target", "memory")), [(int(now * 1000), 1.0)])])
        points = asked.history(missed, now - 3600, now)
        assert 30 <= len(points) <= 60
        assert points[-1][1] == pytest.approx(0.14, abs=0.002)
        assert asked.history(quoted, now - 3600, now)[-1][1] == pytest.approx(0.74, abs=0.002)
        assert asked.history(alerts.missed("other"), now - 3600, now) == ()
        assert asked.measure(missed) == pytest.approx(0.14, abs=0.002)
        assert asked.measure(alerts.missed("other")) is None

        labels = {"service": "app", "target": "memory", "dc": "one"}
        fires = alerts.other("TargetMissed", **labels)
        pending = prometheus.Alert({"alertname": "Pending", **labels}, {}, now)
        away = alerts.other("TargetMissed", service="shop", target="memory")
        deadline = time.monotonic() + 20
        while not all(asked.fires([fires, pending]).values()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert asked.fires([fires, pending, away]) == {
            fires.fingerprint: True, pending.fingerprint: True, away.fingerprint: False}  # fmt: skip


@pytest.mark.parametrize(
    ("body", "how", "said"),
    [
        (b"", "hang", "no answer within 0.3 s"),
        (b" ", "drip", "no answer within 0.3 s"),
        (b" " * (LARGEST + 1), "", "its answer is larger than"),
        (b"<html>", "", "not as a Prometheus does"),
        (b"[" * 100_000, "", "not as a Prometheus does"),
        (b'{"status": "success", "data": null}', "", "otherwise than a Prometheus"),
        (b'{"status": "success", "data": {"result": 7, "alerts": {"x": 1}}}', "", "otherwise"),
        (b'{"status": "success", "data": {"result": {"x": 1}, "alerts": [1]}}', "", "otherwise"),
        (
            b'{"status": "success", "data": {"result": [{"values": [["x", null]]}], "alerts": [{"labels": 1}]}}',
            "",
            "otherwise",
        ),
        (b"", "redirect", "not as a Prometheus does"),
    ],
)
def test_without_an_answer(
    answering: Any, alerts: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch, body: bytes, how: str, said: str
) -> None:
    """No history, no value, and nobody knows whether an alert fires; the log says why, once."""
    if how in ("hang", "drip"):
        monkeypatch.setattr(prometheus, "TIMEOUT", 0.3)
    asked, missed = Prometheus(answering(body, how)), alerts.missed()
    assert asked.history(missed, 0.0, 3600.0) == ()
    assert said in caplog.text
    assert asked.measure(missed) is None
    assert asked.fires([missed]) == nobody_knows([missed])
    assert len([one for one in caplog.messages if said and said in one]) <= 1


def test_nobody_is_there(alerts: Any) -> None:
    """Every question is answered, with nothing; a failed question is not repeated for each of many alerts."""
    asked, calls = Prometheus("http://127.0.0.1:9", clock=lambda: 5.0), []
    real = asked._ask
    asked._ask = lambda *given: (calls.append(given), real(*given))[1]  # type: ignore[method-assign]
    assert [asked.measure(alerts.missed(f"target_{number}")) for number in range(10)] == [None] * 10
    assert len(calls) == 1
    assert TIMEOUT == 2.0
