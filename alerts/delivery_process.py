"""The process that sends, with Apprise in it: one for each channel that has something to say.

Apprise costs 36 MB, its calls cannot be cancelled and share one thread pool, so it lives behind a pipe where it can be
ended. One JSON object a line comes in on standard input (``url``, ``title``, ``body``, ``kind``) and one goes out on
standard output for each (``delivered``, ``retryable``, ``reason``, ``retry_after``). URLs are secrets: they come
through the pipe, not through the command line, and no text of Apprise's or of an exception's leaves here, because
those hold URLs. The process ends when its standard input does.

Run as ``python -P -m anvil_monitor.alerts.delivery_process``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import smtplib
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

# HTTP: the request is refused as it stands. 408, 425 and 429 ask for another try; so do all of 5xx.
AGAIN: Final = frozenset({408, 425, 429})


class Witness:
    """Sees what Apprise does not return: the last HTTP or SMTP status, and the last error of the connection."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.http = 0
        self.smtp = 0
        self.retry_after: float | None = None
        self.error: BaseException | None = None

    def install(self) -> None:
        """Stand between Apprise's plugins and the two libraries by which almost all of them send."""
        import requests

        send = requests.Session.send

        def watched_send(session: requests.Session, request: Any, **options: Any) -> requests.Response:
            with self._catch():
                response = send(session, request, **options)
            self.http = response.status_code
            # Only seconds; the other form, a date, is rare and its answer is our own backoff.
            after = response.headers.get("Retry-After", "")
            self.retry_after = float(after) if after.isascii() and after.isdigit() and len(after) < 6 else None
            return response

        requests.Session.send = watched_send  # type: ignore[assignment,method-assign]
        for name in ("connect", "starttls", "login", "sendmail"):
            self._watch_smtp(name, getattr(smtplib.SMTP, name))

    def _watch_smtp(self, name: str, method: Callable[..., Any]) -> None:
        def watched(*arguments: Any, **options: Any) -> Any:
            with self._catch():
                return method(*arguments, **options)

        setattr(smtplib.SMTP, name, watched)

    @contextlib.contextmanager
    def _catch(self) -> Iterator[None]:
        try:
            yield
        except smtplib.SMTPResponseException as error:
            self.smtp = error.smtp_code
            raise
        except smtplib.SMTPRecipientsRefused as error:
            self.smtp = max((code for code, _ in error.recipients.values()), default=0)
            raise
        except Exception as error:
            self.error = error
            raise

    def outcome(self) -> dict[str, Any]:
        """Why a send failed, and whether to try again."""
        if self.http >= 300:
            retryable = self.http >= 500 or self.http in AGAIN
            return _failure(f"HTTP status {self.http}", retryable, self.retry_after)
        if self.smtp:
            return _failure(f"SMTP status {self.smtp}", self.smtp < 500)
        if self.error is not None:
            return _failure(describe(self.error), True)
        return _failure("the service did not accept it", True)


def _failure(reason: str, retryable: bool, retry_after: float | None = None) -> dict[str, Any]:
    return {"delivered": False, "retryable": retryable, "reason": reason, "retry_after": retry_after}


def describe(error: BaseException) -> str:
    """A connection error in words of our own: what it says itself may hold the URL."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({cause.reason or 'no reason given'})"
        if isinstance(cause, socket.gaierror):
            return "the host name was not found"
        if isinstance(cause, TimeoutError):
            return "the connection timed out"
        if isinstance(cause, OSError) and cause.errno is not None and cause.errno in errno.errorcode:
            return f"the connection failed ({os.strerror(cause.errno)})"
    name = type(error).__name__
    return "the connection timed out" if "Timeout" in name else f"the connection failed ({name})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and everything under it; requests and urllib3 keep causes in ``args`` and ``reason``, too."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [getattr(one, "reason", None), *one.args, one.__cause__, one.__context__]


class Sending:
    """Apprise, with the channel's URL kept between messages (some services limit their rate by instance)."""

    def __init__(self) -> None:
        import apprise

        self._apprise = apprise
        self._witness = Witness()
        self._witness.install()
        # Text is sent as it is, and nothing is kept on disk.
        self._asset = apprise.AppriseAsset(
            app_id="anvil-monitor", interpret_escapes=False, interpret_emojis=False, storage_mode="memory"
        )
        self._url = ""
        self._channel: Any = None

    def send(self, request: dict[str, str]) -> dict[str, Any]:
        if self._channel is None or request["url"] != self._url:
            channel = self._apprise.Apprise(asset=self._asset)
            if not channel.add(request["url"]):
                return _failure("its URL is none that Apprise understands", False)
            self._channel, self._url = channel, request["url"]
        self._witness.clear()
        result = self._channel.notify(
            title=request["title"],
            body=request["body"],
            notify_type=request["kind"],
            body_format=self._apprise.NotifyFormat.TEXT,
        )
        if result:
            return {"delivered": True, "retryable": False, "reason": "", "retry_after": None}
        return self._witness.outcome()


def serve(requests: Iterator[bytes], answers: BinaryIO) -> None:
    """Answer each request in turn. The first line out says that Apprise was loaded, or why not."""

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value).encode() + b"\n")
        answers.flush()

    try:
        sending = Sending()
    except ImportError:
        answer({"error": "Apprise is not installed: pip install 'anvil-monitor[stack]'"})
        return
    answer({"ready": True})
    for line in requests:
        try:
            outcome = sending.send(json.loads(line))
        except Exception as error:  # noqa: BLE001 (a plugin's fault must not end the process)
            outcome = _failure(f"the service's plugin failed ({type(error).__name__})", True)
        answer(outcome)


def main() -> int:
    # Only our own lines may go to the parent; what a plugin prints may hold a secret and goes nowhere.
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(0)  # the parent is gone, or done with us: a send that hangs must not keep us

    threading.Thread(target=read, daemon=True).start()
    serve(iter(lines.get, b""), answers)
    return 1


if __name__ == "__main__":
    sys.exit(main())
