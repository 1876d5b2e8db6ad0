"""A real Prometheus for tests: started on loopback, fed over remote write, ended by its process id."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

Labels = tuple[tuple[str, str], ...]


@contextlib.contextmanager
def running(
    folder: Path, config: str = "{}\n", *, data: Path | None = None, options: Sequence[str] = ()
) -> Iterator[str]:
    """Its URL. ``folder`` takes configuration, data and log; ``data`` is a store that exists already."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        shutil.which("prometheus") or "",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={data or folder / 'data'}",
        "--storage.tsdb.retention.time=100y",
        "--web.enable-remote-write-receiver",
        f"--web.listen-address=127.0.0.1:{port}",
        *options,
    ]
    url, log = f"http://127.0.0.1:{port}", folder / "log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"{url}/-/ready", trust_env=False).status_code == 200:
                        break
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()


def write_request(series: Sequence[tuple[Labels, Sequence[tuple[int, float]]]]) -> bytes:
    """A remote write request, uncompressed: label sets with (ms, value) samples."""
    return b"".join(_field(1, _series(labels, samples)) for labels, samples in series)


def snappy(body: bytes) -> bytes:
    """Snappy's block format, with literals alone."""
    out = varint(len(body))
    for begin in range(0, len(body), 65536):
        part = body[begin : begin + 65536]
        out += b"\xf4" + struct.pack("<H", len(part) - 1) + part
    return out


HEADERS = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}


def push(url: str, series: Sequence[tuple[Labels, Sequence[tuple[int, float]]]]) -> None:
    answer = httpx.post(f"{url}/api/v1/write", content=snappy(write_request(series)), headers=HEADERS, trust_env=False)
    assert answer.is_success, answer.text


def varint(number: int) -> bytes:
    out = bytearray()
    number &= (1 << 64) - 1
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(body)) + body


def _series(labels: Labels, samples: Sequence[tuple[int, float]]) -> bytes:
    body = b"".join(_field(1, _field(1, name.encode()) + _field(2, value.encode())) for name, value in labels)
    for at, value in samples:
        body += _field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + varint(at))
    return body
