"""The process that sends, with Apprise in it: one for each channel that has something to say.

Apprise costs 30 MB, its calls cannot be cancelled and share one thread pool, so it lives behind a pipe where it can be
ended. One JSON object a line comes in on standard input (``url``, ``title``, ``kind``, ``forms``, ``chosen``,
``picture``; or ``url`` alone: get ready for it) and one goes out on standard output for each: an
:class:`~.outcomes.Outcome`. URLs are secrets: they come through the pipe, not through the command line, and no text of
Apprise's or of an exception's leaves here, because those hold URLs. The process ends when its standard input does.

Run as ``python -P -m anvil_monitor.alerts.delivery_process``.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import smtplib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, BinaryIO, Final

from . import plugins
from .fitting import PLOT_MARK, fitted, form_of
from .outcomes import Outcome, describe, of_status

PICTURE: Final = "last-hour.png"


class Witness:
    """Sees what Apprise does not return: the last HTTP or SMTP status, and the last error of the connection."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.http = 0
        self.smtp = 0
        self.retry_after = ""
        self.error: BaseException | None = None

    def install(self) -> None:
        """Stand between Apprise's plugins and the two libraries by which almost all of them send."""
        import requests

        send = requests.Session.send

        def watched_send(session: requests.Session, request: Any, **options: Any) -> requests.Response:
            # Where a service sends us on to is not where the user has sent us; and a POST that is sent on becomes a GET
            # of some page, whose answer would count as delivered.
            with self._catch():
                response = send(session, request, **{**options, "allow_redirects": False})
            self.http = response.status_code
            self.retry_after = response.headers.get("Retry-After", "")
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

    def outcome(self) -> Outcome:
        """Why a send failed, and whether to try again."""
        if self.http >= 300:
            return of_status(self.http, self.retry_after)
        if self.smtp:
            return Outcome(False, self.smtp < 500, f"SMTP status {self.smtp}")
        if self.error is not None:
            return Outcome(False, True, describe(self.error))
        return Outcome(False, True, "the service did not accept it")


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
        self._plugin: Any = None

    def answer(self, request: dict[str, Any]) -> Outcome:
        """Send, or only get ready to."""
        if not self._ready(request["url"]):
            return Outcome(False, False, "its URL is none that Apprise understands")
        return self._send(request) if "forms" in request else Outcome(True)

    def _ready(self, url: str) -> bool:
        if self._plugin is None or url != self._url:
            plugins.load(url)
            channel = self._apprise.Apprise(asset=self._asset)
            if not channel.add(url):
                return False
            self._channel, self._url, self._plugin = channel, url, channel[0]
        return True

    def _send(self, request: dict[str, Any]) -> Outcome:
        form = form_of(self._plugin, request["chosen"], request["forms"])
        title, body = fitted(self._plugin, form, request["title"], request["forms"][form])
        body, pictures = self._picture(form, body, request["picture"])
        self._witness.clear()
        sent = self._channel.notify(
            title=title,
            body=body,
            notify_type=request["kind"],
            body_format="text" if form == "short" else form,
            attach=pictures or None,
        )
        return Outcome(True) if sent else self._witness.outcome()

    def _picture(self, form: str, body: str, encoded: str) -> tuple[str, list[Any]]:
        """The picture for a service that shows one: in its place in a mail, else beside the message."""
        fits = bool(encoded) and form in ("html", "markdown") and self._plugin.attachment_support
        inline = fits and form == "html" and hasattr(self._plugin, "inline")
        shown = f'<p><img src="cid:{PICTURE}" alt="the last hour" width="560"></p>' if inline else ""
        body = body.replace(PLOT_MARK, shown)
        if not fits:
            return body, []
        if inline:
            self._plugin.inline = True
        from apprise.attachment.memory import AttachMemory

        attach: Any = AttachMemory
        return body, [attach(base64.b64decode(encoded), name=PICTURE, mimetype="image/png")]


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
            outcome = sending.answer(json.loads(line))
        except Exception as error:  # noqa: BLE001 (a plugin's fault must not end the process)
            outcome = Outcome(False, True, f"the service's plugin failed ({type(error).__name__})")
        answer(asdict(outcome))


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
