"""The probe, at real sockets and real TLS: a service that answers, fails, hangs, or is not there."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from anvil_monitor.exporter.certificates import expiry
from anvil_monitor.exporter.probe import Probe
from anvil_monitor.targets import ProcessFinder, Service


@contextmanager
def answering(text: bytes | None) -> Iterator[tuple[str, list[bytes]]]:
    """A service that answers every connection with ``text`` and closes; ``None``: it says nothing until the end."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            asked.append(connection.recv(1000))
            if text is None:
                held.append(connection)
                continue
            connection.sendall(text)
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/health?x=1", asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in held:
            connection.close()
        thread.join()


def told(made: Probe) -> dict[str, float | str]:
    """The values of one collection by metric without its prefix; the reason of a failure under ``reason``."""
    found: dict[str, float | str] = {}
    for family in made.collect():
        (sample,) = family.samples
        labels = dict(sample.labels)
        found[family.metric.name.removeprefix("probe_")] = sample.value
        found |= {name: labels[name] for name in ("url", "reason") if name in labels}
    return found


def probe(url: str, **settings: Any) -> dict[str, float | str]:
    """What one collection tells."""
    made = Probe(Service("shop", url, url, ProcessFinder.PORT, "1"), **{"patience": 10, **settings})
    made.start()
    return told(made)


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [(b"HTTP/1.1 200 OK\r\n\r\n", 200, ""), (b"HTTP/1.1 404 Not Found\r\n\r\n", 404, ""),
     (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", 302, ""),
     (b"HTTP/1.1 500 Oh\r\n\r\n", 500, "status"), (b"garbage\r\n", None, "protocol"), (b"", None, "protocol"),
     (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", None, "protocol")],
)  # fmt: skip
def test_answers(text: bytes, status: int | None, reason: str) -> None:
    """Below 500 is a success, also a redirect, which is not followed; 5xx, garbage and nothing at all are none."""
    with answering(text) as (url, asked):
        found = probe(url)
        assert (found["success"], found.get("http_status_code"), found.get("reason", "")) == (
            not reason,
            status,
            reason,
        )
        assert (found.get("failure"), found["url"]) == (1 if reason else None, url.partition("?")[0])
    assert asked[0].startswith(b"GET /health?x=1 HTTP/1.1\r\n")
    assert b"anvil-monitor-probe" in asked[0]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def test_nobody_there() -> None:
    """A refused connection and a name that nobody has are no success, each with its reason."""
    assert probe(f"http://127.0.0.1:{free_port()}")["reason"] == "connection"
    assert probe("http://nobody.invalid/", timeout=5.0)["reason"] in ("dns", "timeout")
    assert probe("http://" + "x" * 70 + ".example/")["reason"] == "url"


def test_a_name_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection does not wait for it longer than its patience, and says what hangs."""
    let_go = threading.Event()

    def hangs(*_: object, **__: object) -> NoReturn:
        let_go.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "later")

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    made = Probe(Service("shop", "http://shop.example", "", ProcessFinder.PORT, "1"), patience=0.05)
    made.start()
    found = told(made)
    let_go.set()
    assert (found["success"], found["reason"]) == (0, "dns")


def test_a_service_that_hangs() -> None:
    """It delays one collection by the patience, the next ones hardly; it is not asked again meanwhile, but is once the
    question has timed out."""
    with answering(None) as (url, asked):
        made = Probe(Service("shop", url, url, ProcessFinder.PORT, "1"), patience=0.2, timeout=2.0)
        made.start()
        found = told(made)
        assert (found["success"], found["reason"]) == (0, "timeout")
        assert float(found["duration_seconds"]) >= 0.2
        made._patience = 60.0  # a test that waits for it does not end
        for _ in range(3):
            made.start()
            assert told(made)["reason"] == "timeout"
        assert len(asked) == 1
        until(lambda: not alive(made))
        assert told(made)["reason"] == "timeout"
        made.start()
        assert told(made)["reason"] == "timeout"
        until(lambda: len(asked) == 2)


def test_one_that_hung_and_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its recovery is seen at the next collections, and the patience is back."""
    monkeypatch.setattr("anvil_monitor.exporter.probe.HANGING_PATIENCE", 5.0)
    with answering(None) as (hangs, _), answering(b"HTTP/1.1 200 OK\r\n\r\n") as (well, _):
        made = Probe(Service("shop", hangs, "", ProcessFinder.PORT, "1"), patience=0.05, timeout=0.2)
        made.start()
        assert told(made)["reason"] == "timeout"
        until(lambda: not alive(made))
        (question,) = made._questions
        assert question._hangs
        question._url, made._patience = well, 10.0
        made.start()
        assert told(made)["success"] == 1
        assert not question._hangs


def alive(made: Probe) -> bool:
    return any(question._thread is not None and question._thread.is_alive() for question in made._questions)


def until(fact: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def test_one_that_drips_is_ended() -> None:
    """A byte now and then keeps a socket from timing out; the question ends all the same, and the next one is asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def drip() -> None:
        with socket.socket() as connection:
            while True:
                try:
                    connection, _ = listener.accept()
                    asked.append(connection.recv(1000))
                    for byte in b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 50:
                        connection.sendall(bytes((byte,)))
                        time.sleep(0.02)
                except OSError:
                    connection.close()
                    if listener.fileno() < 0:
                        return

    thread = threading.Thread(target=drip)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    made = Probe(Service("shop", url, url, ProcessFinder.PORT, "1"), patience=0.02, timeout=0.3)
    try:
        until(lambda: bool(made.start() or told(made)["reason"] == "timeout") and len(asked) > 1)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        until(lambda: bool(made.start() or not alive(made)))
        thread.join()


def test_several_urls() -> None:
    """Each URL has its own sample; one that hangs delays no other, and the collection by one patience only."""
    with answering(b"HTTP/1.1 200 OK\r\n\r\n") as (well, _), answering(None) as (hangs, _), answering(None) as (too, _):
        urls = (hangs, well, too, f"{well}&y=2", f"http://127.0.0.1:{free_port()}/")
        made = Probe(Service("shop", well, well, ProcessFinder.PORT, "1", probes=urls), patience=1.0, timeout=60.0)
        began = time.monotonic()
        made.start()
        families = {family.metric.name: family.samples for family in made.collect()}
        assert time.monotonic() - began < 30  # not the timeout of one that hangs
        assert [sample.value for sample in families["probe_success"]] == [0, 1, 0, 1, 0]
        assert len({sample.labels for sample in families["probe_success"]}) == 5
        reasons = [dict(sample.labels)["reason"] for sample in families["probe_failure"]]
        assert reasons == ["timeout", "timeout", "connection"]
    until(lambda: not alive(made))


def test_a_password_in_the_url() -> None:
    """User, password and query go to the service; no label has them."""
    with answering(b"HTTP/1.1 200 OK\r\n\r\n") as (url, asked):
        found = probe(url.replace("http://", "http://me:s%40cret@") + "&key=s@cret")
        assert found["success"] == 1
        assert found["url"] == url.partition("?")[0]
    assert b"Authorization: Basic bWU6c0BjcmV0\r\n" in asked[0]
    assert b"GET /health?x=1&key=s@cret " in asked[0]


class Authority:
    """A certificate authority whose certificates lie in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self.sign("authority", self.key, timedelta(days=30), authority=True)
        (folder / "ca.pem").write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def sign(
        self, name: str, key: ec.EllipticCurvePrivateKey, ends: timedelta, *, authority: bool = False, own: bool = False
    ) -> x509.Certificate:
        now = datetime.now(UTC).replace(microsecond=0)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = subject if own or authority else self.certificate.subject
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + min(ends, timedelta()) - timedelta(days=1))
            .not_valid_after(now + ends)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(  # Python 3.13 asks for it, as RFC 5280 does
                x509.KeyUsage(
                    digital_signature=not authority,
                    key_cert_sign=authority,
                    crl_sign=authority,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key((key if own else self.key).public_key()),
                critical=False,
            )
            .sign(key if own else self.key, hashes.SHA256())
        )

    @contextmanager
    def serving(
        self, name: str, ends: timedelta, *, own: bool = False
    ) -> Iterator[tuple[str, float, list[str | None]]]:
        """A TLS server: its URL, when its certificate ends, the names that it was asked for."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.sign(name, key, ends, own=own)
        (self.folder / "server.pem").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + certificate.public_bytes(Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem")
        asked: list[str | None] = []
        context.sni_callback = lambda _, wanted, __: asked.append(wanted)
        listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.settimeout(5)
                with suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
                    if secured.recv(1000):
                        secured.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            url = f"https://localhost:{listener.getsockname()[1]}/"
            yield url, certificate.not_valid_after_utc.timestamp(), asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize(
    ("name", "ends", "own", "reason"),
    [("localhost", timedelta(days=20), False, ""), ("localhost", timedelta(minutes=2), False, ""),
     ("localhost", timedelta(hours=-2), False, "certificate_expired"),
     ("localhost", timedelta(days=20), True, "certificate_untrusted"),
     ("shop.example", timedelta(days=20), False, "certificate_name")],
    ids=["good", "ends soon", "expired", "self-signed", "another name"],
)  # fmt: skip
def test_certificates(authority: Authority, name: str, ends: timedelta, own: bool, reason: str) -> None:
    """A trusted certificate made out to the host is a success; others fail and say why; each tells when it ends. The
    server is asked for by name (SNI)."""
    trusted = ssl.create_default_context(cafile=authority.folder / "ca.pem")
    with authority.serving(name, ends, own=own) as (url, until_when, asked):
        found = probe(url, trusted=trusted)
        assert found["certificate_expiry_timestamp_seconds"] == until_when
        assert (found["success"], found.get("reason", "")) == (not reason, reason)
        assert found.get("http_status_code") == (None if reason else 204)
        assert set(asked) == {"localhost"}


def test_a_certificate_that_this_machine_does_not_know(authority: Authority) -> None:
    """Without ``trusted`` the system's certificates decide, and a test authority is not among them."""
    with authority.serving("localhost", timedelta(days=20)) as (url, until_when, _):
        found = probe(url)
        assert (found["reason"], found["certificate_expiry_timestamp_seconds"]) == ("certificate_untrusted", until_when)


def test_no_tls_where_tls_is_asked_for() -> None:
    """A plain HTTP server under https: fails as TLS, without an expiry."""
    with answering(b"HTTP/1.1 200 OK\r\n\r\n") as (url, _):
        found = probe(url.replace("http:", "https:"))
        assert (found["reason"], found.get("certificate_expiry_timestamp_seconds")) == ("tls", None)


@settings(deadline=None)
@given(text=st.binary(max_size=200), cut=st.integers(0, 600), flip=st.integers(0, 600))
def test_a_broken_certificate_has_no_end(authority: Authority, text: bytes, cut: int, flip: int) -> None:
    """Random bytes, a real certificate cut off or with a byte changed: a time or ``None``, no error."""
    whole = authority.certificate.public_bytes(Encoding.DER)
    assert expiry(whole) == authority.certificate.not_valid_after_utc.timestamp()
    assert expiry(text) is None
    changed = bytearray(whole)
    changed[flip % len(whole)] ^= 0xFF
    for broken in (whole[: cut % len(whole)], bytes(changed)):
        assert expiry(broken) is None or isinstance(expiry(broken), float)


def test_certificates_after_2049(authority: Authority) -> None:
    """From 2050 on the time is written with four digits of the year."""
    far = authority.sign("x", authority.key, datetime(2060, 5, 4, 3, 2, 1, tzinfo=UTC) - datetime.now(UTC))
    assert expiry(far.public_bytes(Encoding.DER)) == far.not_valid_after_utc.timestamp() > 2.8e9
