"""docker-compose.yml without an engine: valid, locked down, and in agreement with what is generated."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from anvil_monitor.monitoring import generate

ROOT = Path(__file__).parents[2]
DEMO = ("--env-file", "monitoring/demo.env")
OWN = {"exporter", "notifier", "token", "example"}


def compose(plugin: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("ANVIL_", "COMPOSE_"))}
    return subprocess.run([plugin, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, env=environ)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    return found


@pytest.mark.needs("docker-compose")
def test_compose_accepts_the_file(plugin: str) -> None:
    """`docker compose config -q` finds nothing wrong, with and without the demo."""
    for arguments in ((), DEMO, ("--profile", "demo")):
        done = compose(plugin, *arguments, "config", "-q")
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.needs("docker-compose")
def test_the_demo_brings_the_example_server_under_the_watched_name(plugin: str) -> None:
    """Without the demo `server` is the host; with it the name is free for the example server's container."""
    plain = json.loads(compose(plugin, "config", "--format", "json").stdout)["services"]
    demo = json.loads(compose(plugin, *DEMO, "config", "--format", "json").stdout)["services"]
    assert set(demo) - set(plain) == {"example"}
    for name in ("prometheus", "exporter"):
        assert any(entry.startswith("server=") for entry in plain[name]["extra_hosts"])
        assert not any(entry.startswith("server=") for entry in demo[name]["extra_hosts"])
    assert "server" in demo["example"]["networks"]["default"]["aliases"]


def test_every_container_is_locked_down(services: dict[str, Any]) -> None:
    """Read-only root, no capability, no new privileges, a memory limit, ports on loopback, a health check for all."""
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "mem_limit" in service, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert not service.get("privileged"), name
        assert ("healthcheck" in service) == (name != "token"), name


def test_images_are_pinned_by_version(services: dict[str, Any]) -> None:
    """Each image names a version; `latest` would be another program tomorrow."""
    for name, service in services.items():
        tag = service["image"].rpartition(":")[2]
        assert any(digit.isdigit() for digit in tag), name
        assert ("build" in service) == (name in OWN), name


def test_addresses_in_the_generated_files_are_services(services: dict[str, Any]) -> None:
    """Whom the generated files talk to is a service of the compose file, on the port that it listens on."""
    for address in (generate.EXPORTER, generate.NOTIFIER, generate.PROMETHEUS, generate.ALERTMANAGER):
        host, port = address.split(":")
        assert host in services
        assert f":{port}/" in str(services[host]["healthcheck"]["test"])


def test_the_notifier_gets_what_its_configuration_names(services: dict[str, Any]) -> None:
    """The Prometheus that it asks is the bundle's, its links lead to its published port, and every variable that
    bundle.toml names, also in a line to be switched on, is handed to it."""
    monitor, notifier = generate.bundle_configuration().monitor, services["notifier"]
    assert monitor.prometheus == f"http://{generate.PROMETHEUS}"
    (published,) = notifier["ports"]
    assert re.sub(r"\$\{\w+:-(\d+)\}", r"\1", published) == f"{monitor.external_url.removeprefix('http://')}:9095"
    named = re.findall(r'"env:(\w+)"', (ROOT / "monitoring/bundle.toml").read_text(encoding="utf-8"))
    assert set(named) == {"ANVIL_CHANNEL_URL", "HEARTBEAT_URL"}
    assert set(named) <= set(notifier["environment"])


def test_mounted_files_exist_and_are_read_only(services: dict[str, Any]) -> None:
    """Every bind mount is a file or folder of this tree, mounted read-only."""
    for name, service in services.items():
        for volume in service.get("volumes", ()):
            source, target, *mode = volume.split(":")
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{name}: {source}"
                assert mode == ["ro"], f"{name}: {target}"


def test_the_rules_are_where_prometheus_looks(services: dict[str, Any]) -> None:
    """The folder of the generated rules is mounted where prometheus.yml loads its rule file from."""
    mounts = dict(volume.split(":")[:2] for volume in services["prometheus"]["volumes"])
    assert mounts["./alerts/generated"] == generate.RULES
    boards = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert boards["./dashboards/generated"] == generate.BOARDS
