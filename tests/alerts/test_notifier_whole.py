"""The bundle's way to a person with its real parts: Prometheus evaluates, Alertmanager posts, the notifier tells.

All of them are processes of their own on loopback, and two of them are killed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from real_prometheus import push, running

from anvil_monitor.alerts import alertmanager
from anvil_monitor.targets import load

pytestmark = pytest.mark.needs("prometheus", "prometheus-alertmanager")

TOKEN = "hush-hush-4417"
RULES = """
groups:
  - name: missed
    interval: 200ms
    rules:
      - alert: TargetMissed
        expr: switch > 0
        labels: {severity: critical}
        annotations: {title: API response time, measure: p95 over 1 min, value: "0.312", limit: "0.2", unit: seconds,
                      summary: "API response time of {{ $labels.service }} is 312 ms"}
      - alert: Watchdog
        expr: vector(1)
        labels: {severity: none}
"""
PROMETHEUS = """
global: {{evaluation_interval: 200ms}}
rule_files: [{rules}]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}]}}
"""
# Signs of life that may be missed for seconds instead of minutes.
NOTIFIER = """
import sys
from anvil_monitor.alerts import posted
from anvil_monitor.monitoring import cli
posted.PATIENCE = 2.4
sys.exit(cli.main(sys.argv[1:]))
"""
CONFIG = """
[monitor]
data = "{folder}/data"
token = "file:{folder}/token"
external_url = "http://127.0.0.1:{port}"
prometheus = "{prometheus}"
group_wait = "200ms"
group_interval = "300ms"
flap_limit = 2
flap_window = "1h"

[[service]]
name = "shop"
[[service]]
name = "blog"
url = "http://127.0.0.1:8001"
[[service]]
name = "moved"
url = "http://127.0.0.1:8002"

[channels.team]
url = "env:TEAM_URL"
[channels.mail]
url = "env:MAIL_URL"
services = ["shop"]
[channels.on-call]
url = "env:ON_CALL_URL"
escalate_after = "3s"
[channels.office]
url = "env:OFFICE_URL"
hours = {{ days = ["{closed}"], from = "00:00", to = "24:00", timezone = "UTC" }}

[[maintenance]]
name = "move"
services = ["moved"]
from = {begins}
to = {ends}
"""


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 40.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not in time"
        time.sleep(0.05)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


@dataclass
class Program:
    """A process that is started, killed and started again."""

    command: list[str]
    ready: str
    log: Path
    environ: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=self.environ or None)
        wait_for(f"{self.command[0]} answers: {self.log.read_text()}", lambda: answers(self.ready))

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)


@dataclass
class Stack:
    """All parts; ``sinks`` and ``box`` are where people are told."""

    prometheus: str
    alertmanager: Program
    notifier: Program
    sinks: dict[str, Any]
    box: Any
    address: str
    window_ends: float

    def switch(self, service: str, on: bool) -> None:
        now = int(time.time() * 1000)
        labels = (("__name__", "switch"), ("service", service), ("target", "api_response_time"))
        push(self.prometheus, [(labels, [(now, float(on))])])

    def titles(self, channel: str, service: str) -> list[str]:
        """What a channel was told of the alerts of a service."""
        found = [str(message["title"]) for message in self.sinks[channel].received]
        told = [title.partition(": ")[2] for title in found if title.startswith(f"{service}: ")]
        return [title for title in told if not title.startswith("acknowledged by")]

    def known(self) -> str:
        """What Alertmanager says that fires."""
        with urllib.request.urlopen(
            self.alertmanager.ready.replace("/-/ready", "/api/v2/alerts"), timeout=10
        ) as answer:
            return str(answer.read())

    def ask(self, path: str) -> Any:
        request = urllib.request.Request(f"{self.address}{path}", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["data"]


@pytest.fixture
def stack(tmp_path: Path, make_sink: Any, mail: Any) -> Iterator[Stack]:
    port, peer = free_port(), free_port()
    box, mail_url = mail
    sinks = {name: make_sink() for name in ("team", "on-call", "office")}
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    (tmp_path / "rules.yml").write_text(RULES)
    text = PROMETHEUS.format(rules=tmp_path / "rules.yml", port=peer)
    with contextlib.ExitStack() as ends:
        options = ("--rules.alert.resend-delay=1s",)
        prometheus = ends.enter_context(running(tmp_path / "prometheus", text, options=options))
        now = datetime.now(UTC).replace(microsecond=0)
        window = (now - timedelta(hours=1), now + timedelta(seconds=8))
        config = tmp_path / "monitor.toml"
        config.write_text(CONFIG.format(
            folder=tmp_path, port=port, prometheus=prometheus, closed=f"{now + timedelta(days=3):%a}".lower(),
            begins=window[0].isoformat(), ends=window[1].isoformat(),
        ))  # fmt: skip
        configuration = load(config, {})
        file = tmp_path / "alertmanager.yml"
        address = f"http://127.0.0.1:{port}"
        file.write_text(alertmanager.dump(configuration, notifier=f"{address}/api/v1/alerts"))
        environ = {"TEAM_URL": sinks["team"].url, "ON_CALL_URL": sinks["on-call"].url, "MAIL_URL": mail_url,
                   "OFFICE_URL": sinks["office"].url, "HOME": str(tmp_path), "TZ": "UTC"}  # fmt: skip
        notifier = Program(
            [sys.executable, "-c", NOTIFIER, "notifier", "--config", str(config), "--listen", f"127.0.0.1:{port}"],
            f"{address}/-/healthy", tmp_path / "notifier.log", environ,
        )  # fmt: skip
        manager = Program(
            ["prometheus-alertmanager", f"--config.file={file}", f"--storage.path={tmp_path / 'alertmanager'}",
             "--cluster.listen-address=", f"--web.listen-address=127.0.0.1:{peer}"],
            f"http://127.0.0.1:{peer}/-/ready", tmp_path / "alertmanager.log",
        )  # fmt: skip
        for program in (notifier, manager):
            ends.callback(program.kill)
            program.start()
        yield Stack(prometheus, manager, notifier, sinks, box, address, window[1].timestamp())


def test_what_monitor_toml_says_holds_in_the_bundle(stack: Stack) -> None:
    """Maintenance, hours, escalation, acknowledging by link, the picture, flapping; a notifier and an Alertmanager
    that are killed. Each firing and each end is told once."""
    began = time.time()
    series = (("__name__", "target:value"), ("service", "shop"), ("target", "api_response_time"))
    past = [(int((began - 3000 + 30 * step) * 1000), 0.1 + step / 600) for step in range(100)]
    push(stack.prometheus, [(series, past)])
    for service in ("shop", "blog", "moved"):
        stack.switch(service, True)

    # Told, with a picture of what Prometheus has of the last hour; a link of the message acknowledges.
    missed = "API response time 312 ms, target < 200 ms"
    wait_for("shop is told", lambda: stack.titles("team", "shop") == [missed])
    message = next(each for each in stack.sinks["team"].received if each["title"].startswith("shop: "))
    link = re.search(r"Acknowledge: (http://\S+/act/ack\?\S+)", message["message"])
    assert link
    with urllib.request.urlopen(link[1], timeout=10) as page:
        assert b"Acknowledge?" in page.read()
    assert stack.ask("/api/v1/acks")["acks"] == []
    with urllib.request.urlopen(link[1], b"who=Ada", timeout=10) as page:
        assert b"Acknowledged by Ada" in page.read()
    (ack,) = stack.ask("/api/v1/acks")["acks"]
    assert ack["author"] == "Ada"
    letter = wait_for("the mail", lambda: stack.box.messages)[0]
    (picture,) = [part for part in letter.walk() if part.get_content_type() == "image/png"]
    assert picture.get_content().startswith(b"\x89PNG")

    # What nobody acknowledges reaches the second channel; what is acknowledged does not.
    wait_for("blog is escalated", lambda: stack.titles("on-call", "blog") == [missed])
    assert stack.titles("on-call", "shop") == []

    # Maintenance holds back, though Alertmanager posts, and what still fires is told when it ends.
    if time.time() < stack.window_ends - 1:
        assert stack.titles("team", "moved") == []
    wait_for("the maintenance ends", lambda: stack.titles("team", "moved") == [missed])
    assert time.time() >= stack.window_ends

    # A notifier that is killed has forgotten nothing, and repeats nothing; what ended meanwhile is told.
    stack.notifier.kill()
    stack.switch("blog", False)
    wait_for("Alertmanager knows", lambda: "blog" not in stack.known())
    stack.notifier.start()
    wait_for("blog is over", lambda: stack.titles("team", "blog")[1:] == ["API response time recovered"])
    wait_for("on-call hears it, too", lambda: len(stack.titles("on-call", "blog")) == 2)
    assert stack.titles("team", "shop") == [missed]
    assert [ack["author"] for ack in stack.ask("/api/v1/acks")["acks"]] == ["Ada"]

    # An Alertmanager that loses everything never posts the end: Prometheus is asked, and it is told for what it is.
    stack.alertmanager.kill()
    stack.switch("moved", False)
    for part in (stack.alertmanager.log.parent / "alertmanager").iterdir():
        part.unlink()
    wait_for("the rule is over", lambda: "moved" not in urllib.request.urlopen(
        f"{stack.prometheus}/api/v1/alerts", timeout=5).read().decode())  # fmt: skip
    stack.alertmanager.start()
    wait_for("moved is over", lambda: stack.titles("team", "moved")[1:] == ["API response time recovered"])
    assert stack.titles("team", "shop") == [missed]

    # What comes and goes is told as that, once.
    def flaps() -> list[str]:
        return [one["title"] for one in stack.sinks["team"].received if "of blog comes and goes" in one["title"]]

    states = itertools.cycle((True, False))

    def toggled() -> list[str]:
        stack.switch("blog", on := next(states))
        wait_for("Alertmanager knows", lambda: ("blog" in stack.known()) == on)
        time.sleep(0.4)  # a group is posted every 0.3 s
        return flaps()

    (told,) = wait_for("flapping", toggled)
    assert told == "API response time of blog comes and goes: TargetMissed has fired 3 times within 1 h"

    # The end of what was acknowledged is told; outside its hours a channel was told of nothing.
    stack.switch("shop", False)
    wait_for("shop is over", lambda: stack.titles("team", "shop")[1:] == ["API response time recovered"])
    wait_for("nobody looks after it", lambda: stack.ask("/api/v1/acks")["acks"] == [])
    assert stack.sinks["office"].received == []
    assert len(flaps()) == 1
    assert TOKEN not in stack.notifier.log.read_text()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{stack.address}/api/v1/acks", timeout=5)
