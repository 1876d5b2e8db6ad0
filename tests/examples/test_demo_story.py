"""The demo from the outside: what it reads of its messages, and that a signal ends all of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from examples.inbox import Inbox, Received

ROOT = Path(__file__).resolve().parents[2]
MISSED = "API response time 312 ms (p95 over 30 s), target < 200 ms, since 14:02:10 UTC"
REMINDER = "Still: API response time 312 ms, target < 200 ms, for 20 s"
RECOVERED = "API response time recovered: 12 ms (p95 over 30 s), target < 200 ms, was missed for 1 min"


@pytest.mark.parametrize(
    ("text", "missed", "recovered"),
    [
        pytest.param(MISSED, True, False, id="a miss"),
        pytest.param(REMINDER, False, False, id="a reminder is no news"),
        pytest.param(RECOVERED, False, True, id="a recovery"),
        pytest.param(f"{REMINDER}\n\n{MISSED.replace('API', 'Other')}", False, False, id="another target's news"),
    ],
)
def test_a_message_is_read_as_a_person_would(text: str, missed: bool, recovered: bool) -> None:
    """The demo counts a target as told only by a message that says so of it."""
    message = Received(0, "mail", "shop", text)
    assert message.tells("API response time", "missed") is missed
    assert message.tells("API response time", "recovered") is recovered


def test_old_messages_do_not_count(tmp_path: Path) -> None:
    """What came before the breach, at another sink, or is half written is not the message that is waited for."""
    record = tmp_path / "messages.jsonl"
    lines = [json.dumps({"at": at, "sink": "mail", "title": "t", "text": MISSED}) for at in (1.0, 5.0)]
    record.write_text("\n".join(lines))  # the second has no end of line yet
    inbox = Inbox(record)
    assert inbox.told("mail", ["API response time"], "missed", since=2) == 0
    record.write_text("\n".join(lines) + "\n")
    assert inbox.told("mail", ["API response time"], "missed", since=2) == 1
    assert inbox.told("webhook", ["API response time"], "missed", since=2) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_that_was_started(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C or SIGTERM in the middle: every child is gone soon after, nothing is left on disk, the status is 130."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "examples.demo", "--fast", "--users", "5", "--rate", "5"],
        cwd=ROOT, env=dict(os.environ, TMPDIR=str(tmp_path)), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert demo.stdout
    told = []
    for line in demo.stdout:
        told.append(line)
        if "is watching it" in line or "FAILED" in line:
            break
    started = psutil.Process(demo.pid).children(recursive=True)
    began = time.monotonic()
    demo.send_signal(number)
    told += demo.communicate(timeout=60)[0].splitlines(keepends=True)
    assert demo.returncode == 130, "".join(told)
    assert time.monotonic() - began < 15
    assert len(started) >= 6, "sinks, the server and its two workers, the monitor, the traffic"
    assert not [child for child in started if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert not list(tmp_path.glob("anvil-monitor-demo-*"))
