"""The user's own metrics under a real uvicorn: one truth, whichever worker answers and whichever is killed."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

SERVER = """
import os
from fastapi import FastAPI
from opentelemetry import metrics
from prometheus_client import Counter, Gauge, Histogram, REGISTRY
from prometheus_client.core import GaugeMetricFamily
from anvil_monitor.exporter import instrument

ORDERS = Counter("orders", "Orders.", ["pay"])
BASKET = Histogram("basket_euros", "Baskets.", buckets=[10, 100])
BUSY = Gauge("busy", "Workers.", multiprocess_mode="sum")
BUSY.set(1)
sold = metrics.get_meter("shop").create_counter("items.sold", "{item}")
metrics.get_meter("shop").create_observable_up_down_counter(
    "carts", [lambda options: [metrics.Observation(2, {"kind": "open"})]])
handled = metrics.get_meter("shop").create_histogram("handling.time", "s")

class Custom:
    def collect(self):
        yield GaugeMetricFamily("custom", "A collector's.", value=3)

REGISTRY.register(Custom())
app = FastAPI()

@app.get("/buy")
def buy() -> int:
    ORDERS.labels("card").inc()
    BASKET.observe(50)
    sold.add(2, {"kind": "book"})
    handled.record(0.02)
    return os.getpid()

instrument(app)
"""


UVICORN = "uvicorn served:app --port {port} --workers 3 --log-level warning --no-access-log"
GUNICORN = (
    "gunicorn served:app --bind 127.0.0.1:{port} --workers 3 --worker-class uvicorn_worker.UvicornWorker "
    "--preload --log-level warning"
)


@pytest.fixture(params=[UVICORN, GUNICORN], ids=["spawned", "forked after the import"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, psutil.Process]]:
    (tmp_path / "served.py").write_text(SERVER)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *request.param.format(port=port).split()]
    environ = {**os.environ, "ANVIL_MONITOR_PAGES": str(tmp_path / "pages")}
    process = subprocess.Popen(command, cwd=tmp_path, env=environ)
    try:
        yield port, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait(5)


def get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def shown(port: int) -> dict[str, float]:
    families = text_string_to_metric_families(get(port, "/metrics"))
    return {f"{s.name}{sorted(s.labels.items()) or ''}": s.value for family in families for s in family.samples}


def test_the_users_own_metrics(server: tuple[int, psutil.Process]) -> None:
    """Counters and histograms of both libraries are exact over workers and kills; levels are those of the living."""
    port, _ = server
    bought, pids, until = 0, set[int](), monotonic() + 60
    while len(pids) < 3 and monotonic() < until:
        try:
            pids.add(int(get(port, "/buy")))
            bought += 1
        except OSError:
            sleep(0.05)
    assert len(pids) == 3
    for _ in range(2):
        while monotonic() < until and shown(port).get("busy") != 3:
            sleep(0.05)
        for found in (shown(port) for _ in range(5)):  # whoever answers
            expected = {
                "orders_total[('pay', 'card')]": bought, "basket_euros_count": bought,
                "basket_euros_sum": 50 * bought, "items_sold_total[('kind', 'book')]": 2 * bought,
                "handling_time_seconds_count": bought, "busy": 3, "carts[('kind', 'open')]": 6, "custom": 3,
            }  # fmt: skip
            assert {name: found.get(name) for name in expected} == expected
            assert not [name for name in found if name.startswith(("process_start", "process_virtual"))]
        psutil.Process(pids.pop()).kill()
        before = bought
        while bought < before + 20 and monotonic() < until:
            try:
                pids.add(int(get(port, "/buy")))
                bought += 1
            except OSError:
                sleep(0.05)
