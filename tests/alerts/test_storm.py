"""Ten thousand alerts at once: at most one message a group, and little memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.pipeline import Pipeline

STORM = """
import dataclasses, json, pathlib, re, sys
from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.pipeline import Pipeline
from anvil_monitor.targets import Channel, Secret, load

folder, now = pathlib.Path(sys.argv[1]), [1.8e9]
shipped = load(None, {})
channels = tuple(Channel(name, Secret("monitor.toml", "json://127.0.0.1/")) for name in ("team", "boss"))
configuration = dataclasses.replace(shipped, channels=channels)
outbox = Outbox(folder / "outbox.sqlite3")
pipeline = Pipeline(configuration, outbox, lambda: now[0])

def memory(name):  # not getrusage: its peak is that of the process that started this one, too
    return int(re.search(name + r":\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024

before = memory("VmRSS")
alerts = [
    Alert({"alertname": "TargetMissed" if i % 3 else "Mine", "service": f"service-{i % 20}", "target": f"target_{i}",
           "severity": "critical"},
          {"summary": f"target {i} is missed", "description": "x" * 200, "value": "0.3", "title": f"Target {i}",
           "runbook_url": "https://example.test/runbook"}, now[0] - 60)
    for i in range(10_000)
]
counts = []
for _ in range(5):
    pipeline.update(alerts)
    counts.append(sum(outbox.counts().values()))
    now[0] += 60
pipeline.update([dataclasses.replace(alert, ends_at=now[0]) for alert in alerts])
counts.append(sum(outbox.counts().values()))
print(json.dumps({"counts": counts, "memory": memory("VmHWM") - before}))
"""


def test_ten_thousand_alerts_of_twenty_services(tmp_path: Path) -> None:
    """One message a service and channel, none in the rounds after it, one for all the ends; below 50 MB more."""
    ran = subprocess.run(
        [sys.executable, "-c", STORM, str(tmp_path)], capture_output=True, text=True, check=True, timeout=110
    )
    found = json.loads(ran.stdout)
    assert found["counts"] == [40, 40, 40, 40, 40, 80]
    assert found["memory"] < 50e6


def test_a_storm_that_comes_in_gusts(configure: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """Two thousand alerts that fire and end at random within five minutes: a message a service and group_interval."""
    chance = random.Random(7)
    pipeline = Pipeline(configure({"team": "json://127.0.0.1/"}), outbox, clock)
    many = [alerts.missed(f"target_{number}", service=f"service-{number % 4}") for number in range(2000)]
    firing: dict[int, Any] = {}
    begin = clock.now
    for _ in range(60):
        clock.now += 5
        for number in chance.sample(range(len(many)), 100):
            if firing.pop(number, None) is None:
                firing[number] = many[number]
        pipeline.update(list(firing.values()))
    told = Counter(message.topic for message in outbox.ledger(10_000))
    assert set(told) == {f"service-{number}" for number in range(4)}
    assert max(told.values()) <= (clock.now - begin) / 30 + 1
