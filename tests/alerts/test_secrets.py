"""Planted secrets are in nothing that is written: log, page, API, metrics, ledger, commands, files."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from anvil_monitor.alerts.model import Draft
from anvil_monitor.alerts.outbox import Outbox

CONFIG = """
[service]
url = "http://127.0.0.1:9"
[channels.failing]
url = "env:FAILING"
[channels.mail]
url = "file:mail.url"
[channels.hook]
url = "env:HOOK"
signing_key = "env:HOOK_KEY"
[channels.broken]
url = "env:BROKEN"
[monitor]
listen = "127.0.0.1:0"
otlp = "off"
data = "data"
token = "env:MONITOR_TOKEN"
scrape_interval = "1s"
"""
PATHS = (
    "/", "/metrics", "/api/v1/targets-state", "/api/v1/notifications", "/api/v1/status/config", "/api/v1/alerts",
    "/api/v1/status/flags", "/api/v1/rules", "/api/v1/targets", "/-/healthy", "/nothing", "/api/v1/query?query=up",
)  # fmt: skip


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "anvil_monitor.monitoring.cli", *arguments]


def test_no_secret_is_written_anywhere(tmp_path: Path, make_sink: Any, until: Any) -> None:
    """A monitor that runs, with channels that refuse, fail, are unreachable or misconfigured; and every command."""
    sink = make_sink()
    sink.statuses = [500, 403, 404]
    environ = {
        **os.environ,
        "FAILING": f"json://planted-user:planted-word@127.0.0.1:{sink.port}/planted-path?+X-Key=planted-header",
        "HOOK": f"webhook+http://127.0.0.1:{sink.port}/planted-hook?key=planted-query",
        "HOOK_KEY": "planted-signing-key",
        "BROKEN": "nosuchplugin://planted-host/planted-thing",
        "MONITOR_TOKEN": "planted-monitor-token",
    }
    config = tmp_path / "monitor.toml"
    config.write_text(CONFIG)
    (tmp_path / "mail.url").write_text("mailto://planted-name:planted-pass@127.0.0.1:9?from=a@planted.test&to=b@c.test")
    log = (tmp_path / "log").open("wb")
    monitor = subprocess.Popen(command("up", "--config", str(config)), env=environ, stdout=log, stderr=log)
    written: dict[str, str] = {}
    try:
        found: list[str] = []

        def url() -> bool:
            assert monitor.poll() is None, (tmp_path / "log").read_text()
            found[:] = re.findall(r"http://127\.0\.0\.1:\d+", (tmp_path / "log").read_text())
            return bool(found)

        asyncio.run(until(url))
        outbox = Outbox(tmp_path / "data" / "outbox.sqlite3")
        names = ("failing", "mail", "hook", "broken")
        outbox.record([Draft(name, name, "failure", "Title", "Body") for name in names], [], time.time())
        asyncio.run(until(lambda: {one.channel for one in outbox.ledger() if one.reason} == set(names), 60.0))
        outbox.close()
        for child in psutil.Process(monitor.pid).children(recursive=True):
            written[f"environment of {child.pid}"] = repr(child.environ()) + repr(child.cmdline())
        headers = {"Authorization": "Bearer planted-monitor-token"}
        for path in PATHS:
            for name, given in (("", headers), (" without a token", {})):
                answer = httpx.get(found[0] + path, headers=given, trust_env=False)
                written[path + name] = answer.text + repr(answer.headers)
        for arguments in (["check", "--offline"], ["notifications"], ["notifications", "show", "1", "2", "3", "4"],
                          ["notifications", "--json"], ["notify"], ["notify", "broken", "--preview"],
                          ["notify", "hook", "--preview"]):  # fmt: skip
            done = subprocess.run(
                command(*arguments, "--config", str(config)), env=environ, capture_output=True, text=True, timeout=60
            )
            written[" ".join(arguments)] = done.stdout + done.stderr
    finally:
        monitor.terminate()
        monitor.wait(20)
        log.close()
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file():
            written[str(path)] = path.read_bytes().decode("latin-1")
    written["log"] = (tmp_path / "log").read_text()
    assert {name for name, text in written.items() if "planted" in text} == set()
    assert "HTTP status" in written["log"]
    entries = json.loads(written["notifications --json"])
    assert {one["channel"] for one in entries} == set(names)
    assert any(name.startswith("environment of") for name in written)
    # They are real ones: the service did get them.
    assert any("planted-signing" not in one and "X-Anvil-Signature" in one for one, _ in sink.posts)
    assert any(one.get("X-Key") == "planted-header" for one, _ in sink.posts)
    assert "is no URL that" in written["check --offline"]
