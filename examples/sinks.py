"""Where the demo's messages arrive: a webhook and a mail server on loopback that print and record what comes.

Run by itself: ``python -m examples.sinks --record messages.jsonl`` and point two channels at it::

    ANVIL_WEBHOOK_URL=json://127.0.0.1:8025/alerts
    ANVIL_MAIL_URL='mailto://127.0.0.1:8026/?from=monitor@example.org&to=you@example.org'
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from aiosmtpd.controller import Controller

LARGEST = 2**20  # bytes of one message
Record = Callable[[str, str, str], None]  # sink, title, text


def recorder(path: Path | None) -> Record:
    """A function that prints a message and adds it to ``path`` as one line of JSON with the time it came (epoch s)."""
    lock = Lock()

    def record(sink: str, title: str, text: str) -> None:
        at = time.time()
        clock = time.strftime("%H:%M:%S", time.localtime(at))
        with lock:
            print(f"{clock} {sink}: {title}", *text.strip().splitlines(), sep="\n    ", flush=True)
            if path:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"at": at, "sink": sink, "title": title, "text": text}) + "\n")

    return record


def webhook(port: int, record: Record) -> ThreadingHTTPServer:
    """A server (not yet running) that takes what Apprise's ``json://`` posts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            if length > LARGEST:
                self.send_error(413)
                return
            try:
                body = json.loads(self.rfile.read(length))
                title, text = str(body["title"]), str(body["message"])
            except (ValueError, KeyError, TypeError) as error:
                self.send_error(400, f"not a message: {type(error).__name__}")
                return
            record("webhook", title, text)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server


def mail(port: int, record: Record) -> Controller:
    """A mail server (not yet running)."""

    class Handler:
        async def handle_DATA(self, _server: object, _session: object, mail: Any) -> str:  # noqa: N802
            message = message_from_bytes(mail.content, policy=policy.default)
            assert isinstance(message, EmailMessage)
            body = message.get_body(("plain", "html"))
            record("mail", str(message["Subject"]), body.get_content() if body else "")
            return "250 taken"

    return Controller(Handler(), hostname="127.0.0.1", port=port, data_size_limit=LARGEST)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.sinks", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--webhook-port", type=int, default=8025)
    parser.add_argument("--mail-port", type=int, default=8026)
    parser.add_argument("--record", type=Path, help="add every message to this file, one line of JSON each")
    options = parser.parse_args()
    record = recorder(options.record)
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before any thread starts, so that all inherit it
    http, smtp = webhook(options.webhook_port, record), mail(options.mail_port, record)
    smtp.start()
    Thread(target=http.serve_forever, daemon=True).start()
    print(f"webhook on 127.0.0.1:{http.server_port}, mail on 127.0.0.1:{options.mail_port}", flush=True)
    signal.sigwait(signals)
    http.shutdown()
    http.server_close()
    smtp.stop()


if __name__ == "__main__":
    main()
