"""A real Express server with OpenTelemetry's own auto-instrumentation pushes to the exporter, unchanged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import uvicorn

from anvil_monitor.exporter.server import Collector, create_app
from anvil_monitor.targets.load import parse
from examples.processes import free_port

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "node"
DOCUMENT = EXAMPLE.parents[1] / "docs" / "node.md"
REGISTER = "@opentelemetry/auto-instrumentations-node/register"
pytestmark = pytest.mark.needs("npm")


@pytest.fixture(scope="session")
def modules() -> Path:
    """``node_modules`` of the example as its lock file has them, kept between runs."""
    named = os.environ.get("ANVIL_MONITOR_TEST_CACHE")
    base = Path(named) if named else Path(tempfile.gettempdir()) / f"anvil-monitor-test-cache-{os.getuid()}"
    digest = hashlib.sha256((EXAMPLE / "package-lock.json").read_bytes()).hexdigest()[:12]
    kept = base / f"node-{digest}"
    if not (kept / "whole").exists():
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(EXAMPLE / name, kept)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            subprocess.run(command, cwd=kept, capture_output=True, text=True, timeout=100, check=True)
        except subprocess.SubprocessError as error:  # no registry, or a slow one
            pytest.skip(f"npm cannot install the example: {getattr(error, 'stderr', None) or error}")
        (kept / "whole").touch()
    return kept / "node_modules"


class Exporter:
    """The exporter as ``anvil-monitor exporter`` runs it, on a port of its own."""

    def __init__(self, data: Path) -> None:
        configuration = parse(f'[[service]]\nname = "anvil"\nport = 1\n[monitor]\ndata = "{data}"\n')
        self.collector = Collector(configuration)
        app = create_app(configuration, self.collector)
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        until(lambda: self._server.started, "the exporter starts")
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def samples(self) -> dict[tuple[str, ...], float]:
        """Every sample of ``/metrics`` that is about the service: its name and its other labels, as texts."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found: dict[tuple[str, ...], float] = {}
        for line in text.splitlines():
            series, _, value = line.rpartition(" ")
            name, _, labels = series.partition("{")
            pairs = sorted(labels.rstrip("}").split(",")) if labels else []
            if 'service="anvil"' in pairs:
                found[name, *(pair for pair in pairs if pair != 'service="anvil"')] = float(value)
        return found

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self.collector.close()


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Exporter]:
    made = Exporter(tmp_path / "data")
    yield made
    made.close()


def until(done: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = done()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def documented() -> dict[str, str]:
    """The variables that docs/node.md gives."""
    block = DOCUMENT.read_text().partition("```sh\n")[2].partition("```")[0]
    found = dict(line.removeprefix("export ").split("=", 1) for line in block.splitlines())
    return {name: value.strip('"') for name, value in found.items()}


class Node:
    """The example, started with environment variables alone."""

    def __init__(self, folder: Path, modules: Path, receiver: Exporter | Monitor, require: str, **more: str) -> None:
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
        (folder / "node_modules").symlink_to(modules)
        environment = {
            **documented(),
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PORT": "0",
            "NODE_OPTIONS": f"--require {require}",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_METRIC_EXPORT_INTERVAL": "400",
            "OTEL_METRIC_EXPORT_TIMEOUT": "400",
            **more,
        }
        self._out = folder / "out.txt"
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                ["node", "server.js"], cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT
            )
        self.url = until(self._listening, "the server listens")

    def _listening(self) -> str:
        text = self._out.read_text()
        assert self.process.poll() is None, text
        return text.partition("listening on ")[2].partition("\n")[0] if "listening on " in text and "\n" in text else ""

    def get(self, path: str, body: Any = None) -> int:
        data = None if body is None else json.dumps(body).encode()
        made = urllib.request.Request(f"{self.url}{path}", data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(made, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def use(self) -> None:
        """Nine requests of six kinds."""
        statuses = [self.get("/api/products/2") for _ in range(3)]
        statuses += [
            self.get("/api/products/9"),
            self.get("/nowhere"),
            self.get("/api/orders", {"product": 1, "amount": 2}),
        ]
        statuses += [
            self.get("/api/orders/slow?ms=120"),
            self.get("/api/orders/slow?ms=220"),
            self.get("/api/orders/broken"),
        ]
        assert statuses == [200, 200, 200, 404, 404, 201, 200, 200, 500]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def node(tmp_path: Path, modules: Path, exporter: Exporter) -> Iterator[Callable[..., Node]]:
    started: list[Node] = []

    def start(require: str = REGISTER, **more: str) -> Node:
        made = Node(tmp_path / f"server{len(started)}", modules, exporter, require, **more)
        started.append(made)
        return made

    yield start
    for each in started:
        each.close()


DURATION = "http_server_request_duration_seconds"
COUNTS = {
    ('http_request_method="GET"', 'http_response_status_code="200"', 'http_route="/api/products/:id"'): 3,
    ('http_request_method="GET"', 'http_response_status_code="404"', 'http_route="/api/products/:id"'): 1,
    ('http_request_method="GET"', 'http_response_status_code="404"', 'http_route="(unmatched)"'): 1,
    ('http_request_method="POST"', 'http_response_status_code="201"', 'http_route="/api/orders"'): 1,
    ('http_request_method="GET"', 'http_response_status_code="200"', 'http_route="/api/orders/slow"'): 2,
    (
        'error_type="500"', 'http_request_method="GET"', 'http_response_status_code="500"',
        'http_route="/api/orders/broken"',
    ): 1,
}  # fmt: skip


def counts(exporter: Exporter) -> dict[tuple[str, ...], float]:
    return {key[1:]: value for key, value in exporter.samples().items() if key[0] == f"{DURATION}_count"}


def test_environment_variables_alone_give_the_contracts_series(exporter: Exporter, node: Callable[..., Node]) -> None:
    """Durations by route and status, memory, CPU time; the missing edge is said; its own exports are no requests."""
    assert documented()["NODE_OPTIONS"] == f"--require {REGISTER}"
    server = node()
    server.use()
    until(lambda: counts(exporter) == COUNTS, "the nine requests are counted")
    found = exporter.samples()
    assert 50e6 < found["process_memory_usage_bytes",] < 1e9
    assert found["process_cpu_time_seconds_total",] > 0
    assert found["nodejs_eventloop_utilization_ratio",] >= 0
    missing = "anvil_monitor_histogram_edge_missing"
    assert found[missing, 'limit="0.2"', f'metric="{DURATION}"'] == 1
    assert not [key for key in found if key[0] == f"{DURATION}_bucket" and 'le="0.2"' in key]
    assert not [key for key in found if key[0].startswith(("http_client_", "system_"))]


def test_the_trap_sigterm_does_not_end_it(exporter: Exporter, node: Callable[..., Node]) -> None:
    """OpenTelemetry's own start file listens to SIGTERM and does not end: the server goes on, SIGINT ends it."""
    server = node()
    server.process.send_signal(signal.SIGTERM)
    for _ in range(10):
        assert server.get("/health") == 200
        time.sleep(0.05)
    assert server.process.poll() is None
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(10) == -signal.SIGINT


def test_with_the_edge_file_the_target_is_exact_and_sigterm_ends_it(
    exporter: Exporter, node: Callable[..., Node]
) -> None:
    """`target-edges.cjs` instead of OpenTelemetry's start file: an edge at 0.2; the last numbers are sent."""
    server = node("./target-edges.cjs", OTEL_METRIC_EXPORT_INTERVAL="60000")
    server.use()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == -signal.SIGTERM
    assert counts(exporter) == COUNTS
    found = exporter.samples()
    assert found["anvil_monitor_histogram_edge_missing", 'limit="0.2"', f'metric="{DURATION}"'] == 0
    slow = ('http_request_method="GET"', 'http_response_status_code="200"', 'http_route="/api/orders/slow"')
    by_edge = {edge: found[f"{DURATION}_bucket", *slow, f'le="{edge}"'] for edge in ("0.1", "0.2", "0.5")}
    assert by_edge == {"0.1": 0, "0.2": 1, "0.5": 2}


def test_json_gzip_and_delta_give_the_same(exporter: Exporter, node: Callable[..., Node]) -> None:
    """The other ways that the exporter of Node can be told to send."""
    server = node(
        OTEL_EXPORTER_OTLP_PROTOCOL="http/json",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
    )
    server.use()
    until(lambda: counts(exporter) == COUNTS, "the nine requests are counted")
    assert exporter.samples()["process_memory_usage_bytes",] > 50e6


def test_a_restart_goes_on_where_the_first_ended(exporter: Exporter, node: Callable[..., Node]) -> None:
    """A killed server's counts stay, the new one's are added: each start has another service.instance.id."""
    first = node()
    first.use()
    until(lambda: counts(exporter) == COUNTS, "the nine requests are counted")
    first.close()
    node().use()
    until(lambda: counts(exporter) == {key: 2 * n for key, n in COUNTS.items()}, "nine more are counted")


class Monitor:
    """``anvil-monitor up`` beside the Node server, as docs/node.md has it, in shorter times."""

    def __init__(self, folder: Path, port: int) -> None:
        monitor, self.otlp = free_port(0), free_port(0)
        self.url, self.api = f"http://127.0.0.1:{self.otlp}", f"http://127.0.0.1:{monitor}/api/v1"
        text = f'''
        [service]
        name = "anvil"
        url = "http://127.0.0.1:{port}/health"
        metrics = "otlp"
        port = {port}
        [targets.api_response_time]
        window = "4s"
        for = "1s"
        floor = 5
        [targets.memory]
        window = "4s"
        [targets.concurrent_users]
        window = "4s"
        [monitor]
        listen = "127.0.0.1:{monitor}"
        otlp = "127.0.0.1:{self.otlp}"
        data = "{folder}/data"
        scrape_interval = "400ms"
        scrape_timeout = "300ms"
        evaluation_interval = "400ms"
        '''
        (folder / "monitor.toml").write_text(text)
        self._log = folder / "up.txt"
        command = [sys.executable, "-m", "anvil_monitor.monitoring.cli", "up", "--config", "monitor.toml"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        until(self._ready, "the monitor answers")

    def _ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            return self.query("vector(1)") is not None
        except OSError:
            return False

    def query(self, promql: str) -> float | None:
        """The value of an instant query of one series."""
        with urllib.request.urlopen(f"{self.api}/query?{urlencode({'query': promql})}", timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    def close(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(20)


def test_the_same_targets_are_driven(tmp_path: Path, modules: Path) -> None:
    """A slow Node server misses the target that a slow FastAPI server misses: value, estimate, alert, memory, users."""
    port = free_port(0)
    monitor = Monitor(tmp_path, port)
    server = None
    try:
        server = Node(tmp_path / "server", modules, monitor, REGISTER, PORT=str(port))

        def value(target: str) -> Callable[[], float | None]:
            def ask() -> float | None:
                assert server is not None
                server.get("/api/orders/slow?ms=260")
                return monitor.query(f'target:value{{service="anvil",target="{target}"}}')

            return ask

        until(lambda: (value("api_response_time")() or 0) > 0.2, "the p95 is over its limit", 30)
        assert monitor.query('target:estimate{service="anvil",target="api_response_time"}') == 1
        assert 50e6 < until(value("memory"), "the memory has a value") < 500e6
        assert 0 < until(value("concurrent_users"), "the users have a value") < 5
        firing = 'ALERTS{alertname="TargetMissed",alertstate="firing",service="anvil",target="api_response_time"}'
        until(lambda: value("memory")() and monitor.query(firing), "the alert fires")
    finally:
        if server is not None:
            server.close()
        monitor.close()


def test_the_lock_file_names_no_registry() -> None:
    """Whoever installs the example asks the registry that they have set, and gets what was tested."""
    lock = json.loads((EXAMPLE / "package-lock.json").read_text())
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
