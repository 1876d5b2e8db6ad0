"""A real Prometheus beside our engine, for the tests that compare the two."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"promql_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def oracle() -> ModuleType:
    """The module beside this one with data, queries and comparison."""
    return _beside("oracle")


@pytest.fixture
def differences() -> ModuleType:
    """The module beside this one that lists what may differ."""
    return _beside("differences")


@pytest.fixture
def prometheus(tmp_path: Path, oracle: ModuleType) -> Iterator[Callable[[Any], Any]]:
    """Starts a Prometheus that holds the given samples; ends it afterwards."""
    running: list[subprocess.Popen[bytes]] = []

    def start(data: Any) -> Any:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = tmp_path / "prometheus.yml"
        config.write_text("storage: {tsdb: {out_of_order_time_window: 30d}}\n")
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
        command += ["--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y", "--log.level=error"]
        command += [f"--web.listen-address=127.0.0.1:{port}"]
        log = (tmp_path / "log").open("wb")
        running.append(subprocess.Popen(command, stdout=log, stderr=log))
        log.close()
        server = oracle.Prometheus(f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(f"{server.url}/-/ready", timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.05)
        server.write(data)
        return server

    yield start
    for process in running:
        process.terminate()
        process.wait(10)
