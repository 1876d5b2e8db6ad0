"""Does the service answer, seen from outside: one GET of each of its URLs at each collection.

An answer below 500 is a success. A redirect is an answer and is not followed: where it leads is a URL of its own. No
proxy is used. The certificate must be one that this machine trusts (``SSL_CERT_FILE`` names others) and must be made
out to the host; when it ends is told in any case.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import threading
import time
from dataclasses import dataclass, replace
from functools import cache
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from anvil_monitor.targets import Service

from . import certificates, names
from .exposition import Family, LabelPairs, Sample
from .names import Metric

# What OpenSSL says of a certificate (X509_V_ERR_*), in our words.
_VERIFY = {9: "certificate_not_yet_valid", 10: "certificate_expired", 62: "certificate_name", 64: "certificate_name"}
# Seconds that a collection waits for one that hung before: enough to see at once that it answers again.
HANGING_PATIENCE = 0.05
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Answer:
    """``reason``: empty for a success, else one of a few words. ``took`` in seconds."""

    reason: str
    took: float = 0.0
    status: int | None = None
    expiry: float | None = None


class Probe:
    """Asks one service; not thread-safe.

    A service that begins to hang delays one collection by ``patience`` seconds, whatever the number of its URLs; the
    next ones hardly wait for it until it has answered. A URL is asked again only when the question before has ended,
    after ``timeout`` seconds at the latest. ``trusted``: whose certificates are believed (by default the system's).
    """

    def __init__(
        self,
        service: Service,
        *,
        patience: float = 1.0,
        timeout: float = 10.0,
        trusted: ssl.SSLContext | None = None,
    ) -> None:
        self.service = service
        self._patience = patience
        self._began = 0.0
        urls = dict.fromkeys(service.probes or (service.url,))
        shown = _shown(list(urls))
        self._questions = [
            Question(url, (("service", service.name), ("url", label)), timeout, trusted)
            for url, label in zip(urls, shown, strict=True)
        ]

    def start(self) -> None:
        """Ask, each URL in a thread of its own; :meth:`collect` has the answers."""
        self._began = time.monotonic()
        for question in self._questions:
            question.start()

    def collect(self) -> list[Family]:
        """``probe_*``: a sample a URL; of one that has not answered within the patience a failure."""
        values: dict[Metric, list[Sample]] = {}
        for question in self._questions:
            answer = question.answer(self._began, self._patience)
            labels = question.labels
            values.setdefault(names.PROBE_SUCCESS, []).append(Sample("", labels, float(not answer.reason)))
            values.setdefault(names.PROBE_DURATION, []).append(Sample("", labels, answer.took))
            if answer.reason:
                reason = Sample("", (*labels, ("reason", answer.reason)), 1.0)
                values.setdefault(names.PROBE_FAILURE, []).append(reason)
            if answer.status is not None:
                values.setdefault(names.PROBE_STATUS, []).append(Sample("", labels, float(answer.status)))
            if answer.expiry is not None:
                values.setdefault(names.PROBE_CERTIFICATE, []).append(Sample("", labels, answer.expiry))
        return [Family(metric, samples) for metric, samples in values.items()]


class Question:
    """One URL: asked in a thread, ended by force when it takes too long."""

    def __init__(self, url: str, labels: LabelPairs, timeout: float, trusted: ssl.SSLContext | None) -> None:
        self.labels = labels
        self._url, self._timeout, self._trusted = url, timeout, trusted
        self._thread: threading.Thread | None = None
        self._began = 0.0
        self._hangs = False
        self._resolving = False
        self._socket: socket.socket | None = None
        self._answer = Answer("timeout")
        self._expiry: float | None = None

    def start(self) -> None:
        now = time.monotonic()
        if self._thread is not None and self._thread.is_alive():
            # One that drips is never silent for long enough to time out by itself.
            if now - self._began > self._timeout and (connected := self._socket) is not None:
                with contextlib.suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)
            return
        self._began = now
        self._thread = threading.Thread(target=self._ask, name=f"probe {self.labels[0][1]}", daemon=True)
        self._thread.start()

    def answer(self, began: float, patience: float) -> Answer:
        """What has come ``patience`` seconds after ``began`` (of the monotonic clock)."""
        thread = self._thread
        if thread is None:
            return Answer("timeout")
        deadline = began + (min(patience, HANGING_PATIENCE) if self._hangs else patience)
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            self._hangs = True
            waited = time.monotonic() - self._began
            return Answer("dns" if self._resolving else "timeout", waited, None, self._expiry)
        self._hangs = self._answer.reason == "timeout"
        return replace(self._answer, expiry=self._expiry)

    def _ask(self) -> None:
        status, reason = None, ""
        try:
            status = self._status()
            reason = "status" if status >= 500 else ""
        except ssl.SSLCertVerificationError as error:
            reason = _VERIFY.get(error.verify_code, "certificate_untrusted")
        except socket.gaierror:
            reason = "dns"
        except TimeoutError:
            reason = "timeout"
        except ssl.SSLError:
            reason = "tls"
        except _NotConnectedError:
            reason = "connection"
        except (OSError, http.client.HTTPException):
            reason = "protocol"
        except ValueError:
            reason = "url"
        took = time.monotonic() - self._began
        if took >= self._timeout:  # it was ended by force, and half an answer may look like one
            status, reason = None, "timeout"
        if reason.startswith("certificate"):
            with contextlib.suppress(OSError, ValueError):
                self._look()
        self._answer = Answer(reason, took, status)

    def _status(self) -> int:
        parts = urlsplit(self._url)
        context = (self._trusted or _trusted()) if parts.scheme == "https" else None
        host = parts.hostname or ""
        connection = http.client.HTTPConnection(host, parts.port or _PORTS.get(parts.scheme, 80))
        connection.default_port = _PORTS.get(parts.scheme, 80)  # is not named in the header Host
        connection.sock = self._connect(parts, context)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", path, headers=_headers(parts))
            return connection.getresponse().status
        finally:
            self._socket = None
            connection.close()

    def _look(self) -> None:
        """The certificate of one that is not trusted: nothing is asked or told over this connection."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._connect(urlsplit(self._url), context).close()
        self._socket = None

    def _connect(self, parts: SplitResult, context: ssl.SSLContext | None) -> socket.socket:
        """A connection to the first of the host's addresses that takes one; with ``context`` over TLS."""
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 80)
        self._resolving = True
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        finally:
            self._resolving = False
        failure: OSError = _NotConnectedError()
        for family, kind, protocol, _, address in addresses:
            made = socket.socket(family, kind, protocol)
            try:
                made.settimeout(max(0.01, self._began + self._timeout - time.monotonic()))
                made.connect(address)
            except TimeoutError as error:
                made.close()
                failure = error
            except OSError:
                made.close()
            else:
                self._socket = made
                return self._secured(made, host, context) if context else made
        raise failure

    def _secured(self, made: socket.socket, host: str, context: ssl.SSLContext) -> socket.socket:
        try:
            secured = context.wrap_socket(made, server_hostname=host)  # takes `made` over
        except BaseException:
            made.close()
            raise
        self._socket = secured
        certificate = secured.getpeercert(binary_form=True)
        self._expiry = certificates.expiry(certificate) if certificate else None
        return secured


class _NotConnectedError(OSError):
    """Nobody takes the connection."""


@cache
def _trusted() -> ssl.SSLContext:
    """Made once: reading all of a system's certificates takes some 20 ms."""
    return ssl.create_default_context()


def _headers(parts: SplitResult) -> dict[str, str]:
    # By this name an instrumented server knows that the request is no traffic.
    headers = {"User-Agent": names.PROBE_AGENT, "Connection": "close"}
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
    return headers


def _shown(urls: list[str]) -> list[str]:
    """The URLs as labels: without user, password, query and fragment, which may be secret; told apart by number."""
    shown: list[str] = []
    for url in urls:
        parts = urlsplit(url)
        label = plain = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        number = 1
        while label in shown:
            number += 1
            label = f"{plain}#{number}"
        shown.append(label)
    return shown
