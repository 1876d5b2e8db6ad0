"""The demo's sinks record what really arrives, from any channel that Apprise would send through."""

from __future__ import annotations

import json
import signal
import smtplib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from examples.processes import free_port

ROOT = Path(__file__).resolve().parents[2]


class Sinks:
    def __init__(self, folder: Path) -> None:
        self.record = folder / "messages.jsonl"
        self.webhook, self.mail = free_port(0), free_port(0)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "examples.sinks", "--record", str(self.record),
             "--webhook-port", str(self.webhook), "--mail-port", str(self.mail)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout
        assert "webhook on" in self.process.stdout.readline()

    def post(self, body: bytes) -> int:
        url = f"http://127.0.0.1:{self.webhook}/alerts"
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=5) as response:
            status: int = response.status
        return status

    def messages(self, count: int) -> list[dict[str, Any]]:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            lines = self.record.read_text().splitlines() if self.record.exists() else []
            if len(lines) >= count:
                return [json.loads(line) for line in lines]
            time.sleep(0.02)
        raise AssertionError(f"fewer than {count} messages in 10 s")


@pytest.fixture
def sinks(tmp_path: Path) -> Iterator[Sinks]:
    sinks = Sinks(tmp_path)
    yield sinks
    sinks.process.send_signal(signal.SIGTERM)
    sinks.process.communicate(timeout=10)
    assert sinks.process.returncode == 0


def test_a_webhook_is_recorded(sinks: Sinks) -> None:
    """What Apprise's json:// posts is recorded with the time it came."""
    assert sinks.post(json.dumps({"title": "API response time 312 ms", "message": "a\nb"}).encode()) == 204
    (message,) = sinks.messages(1)
    assert (message["sink"], message["title"], message["text"]) == ("webhook", "API response time 312 ms", "a\nb")
    assert abs(message["at"] - time.time()) < 10


def test_what_is_no_message_is_refused(sinks: Sinks) -> None:
    """A body that is not a message gets 400, and the sink goes on."""
    with pytest.raises(urllib.error.HTTPError) as error:
        sinks.post(b"[1]")
    error.value.close()
    assert error.value.code == 400
    assert sinks.post(b'{"title": "t", "message": "m"}') == 204


def test_mail_is_recorded(sinks: Sinks) -> None:
    """A mail's subject and text are recorded, whatever its encoding."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "monitor@example.org", "you@example.org", "Größe — 312 ms"
    mail.set_content("Ziel < 200 ms …")
    with smtplib.SMTP("127.0.0.1", sinks.mail, timeout=5) as smtp:
        smtp.send_message(mail)
    (message,) = sinks.messages(1)
    assert (message["sink"], message["title"], message["text"].strip()) == ("mail", "Größe — 312 ms", "Ziel < 200 ms …")
