"""A server that is asked over HTTP and whose CPU time the kernel counts: ours, or the real Prometheus."""

from __future__ import annotations

import http.client
import json
import shutil
import struct
import subprocess
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.engine.data import Data
from bench.machine import command, cpu_seconds, free_port

PROMETHEUS = "prometheus"
PATIENCE, KEPT = 60.0, 3.0
SLICE = 300
"""Seconds of samples in one remote write request."""

Parameters = dict[str, str]
HEADERS = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf",
           "X-Prometheus-Remote-Write-Version": "0.1.0"}  # fmt: skip


class Server:
    """One kept connection to a process on a loopback port."""

    def __init__(self, name: str, pid: int, port: int) -> None:
        self.name, self.pid, self.port = name, pid, port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        self._used = 0.0

    def fetch(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
        self._connect()
        self._connection.request(method, path, body, headers or {})
        answer = self._connection.getresponse()
        found = answer.read()
        self._used = time.monotonic()
        if answer.status not in (200, 204):
            raise SystemExit(f"bench: {self.name} answers {path.split('?')[0]} with {answer.status}: {found[:300]!r}")
        return found

    def close(self) -> None:
        self._connection.close()

    def _connect(self) -> None:
        """Anew, where the last use is so long ago that the server may be closing it (uvicorn: after 5 s)."""
        if time.monotonic() - self._used > KEPT:
            self._connection.close()
            self._connection.connect()
            self._used = time.monotonic()

    def ask(self, path: str, parameters: Parameters, turns: int = 1) -> tuple[bytes, float]:
        """The answer, and the CPU seconds of one of ``turns`` equal questions."""
        self._connect()
        target = f"{path}?{urllib.parse.urlencode(parameters)}"
        before = cpu_seconds(self.pid)
        for _ in range(turns):
            found = self.fetch("GET", target)
        return found, (cpu_seconds(self.pid) - before) / turns

    def cpu(self) -> float:
        return cpu_seconds(self.pid)

    def json(self, path: str, parameters: Parameters | None = None) -> Any:
        return json.loads(self.ask(path, parameters or {})[0])

    def value(self, query: str) -> float:
        """Of an instant query with one element."""
        result = self.json("/api/v1/query", {"query": query})["data"]["result"]
        return float(result[0]["value"][1]) if result else 0.0

    def settle(self, quiet: float = 0.02, patience: float = PATIENCE) -> None:
        """Wait until it does next to nothing by itself (a compaction, a collection of garbage)."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            before = cpu_seconds(self.pid)
            time.sleep(0.5)
            if cpu_seconds(self.pid) - before < quiet * 0.5:
                return


@contextmanager
def started(
    name: str, line: Sequence[str], port: int, ready: str, log: Path, patience: float = PATIENCE
) -> Iterator[Server]:
    """Start a program, wait until ``ready`` is answered, and end it afterwards, by its process id."""
    with log.open("wb") as output, subprocess.Popen(line, stdout=output, stderr=output) as process:
        try:
            server, deadline = Server(name, process.pid, port), time.monotonic() + patience
            while not _answers(port, ready):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"bench: {name} does not start: {log.read_text(errors='replace')[-600:]}")
                time.sleep(0.05)
            try:
                yield server
            finally:
                server.close()
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def prometheus(folder: Path, pin: Sequence[str] = (), config: str = "{}\n") -> Iterator[Server]:
    """A real one on loopback, empty; ``folder`` takes its files."""
    folder.mkdir(parents=True)
    port = free_port()
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    line = [
        *pin, shutil.which(PROMETHEUS) or PROMETHEUS, f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data", "--storage.tsdb.retention.time=100y", "--web.enable-admin-api",
        "--web.enable-remote-write-receiver", f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    with started("Prometheus", line, port, "/-/ready", folder / "log") as server:
        yield server


@contextmanager
def ours(folder: Path, data: tuple[int, int], pin: Sequence[str] = (), history: Path | None = None) -> Iterator[Server]:
    """Our engine and API over a store that holds ``make(*data)`` once it answers: in memory, or with its history."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    line = [*pin, *command("bench.engine.ours", str(port), *map(str, data), *([str(history)] if history else []))]
    with started("anvil-monitor", line, port, "/loaded", folder / "ours.log", 300) as server:
        yield server


def fill(server: Server, data: Data) -> float:
    """All samples by remote write, five minutes at a time as they came; the CPU seconds that it took."""
    before = cpu_seconds(server.pid)
    for begin in range(data.start, data.end, SLICE):
        parts = []
        for source in data.sources:
            low, high = np.searchsorted(source.times, [begin * 1000, (begin + SLICE) * 1000]).tolist()
            if low < high:
                parts += _written(source.labels, source.times[low:high], source.values[low:high])
        server.fetch("POST", "/api/v1/write", _snappy(b"".join(parts)), HEADERS)
    return cpu_seconds(server.pid) - before


# A sample of a WriteRequest: field 2 with a double and a varint of the 6 bytes that milliseconds since 1970 take.
SAMPLE = np.dtype([("head", "V3"), ("value", "<f8"), ("tag", "u1"), ("time", "u1", 6)])


def _written(labels: Sequence[Any], times: Any, values: Any) -> Iterator[bytes]:
    samples = np.zeros(len(times), SAMPLE)
    samples["head"], samples["tag"] = np.void(b"\x12\x10\x09"), 0x10
    for place in range(6):
        samples["time"][:, place] = (times >> (7 * place)) & 127 | (128 if place < 5 else 0)
    for column, pairs in enumerate(labels):
        samples["value"] = values[:, column]
        body = b"".join(_field(_field(name.encode()) + b"\x12" + _sized(value.encode())) for name, value in pairs)
        yield _field(body + samples.tobytes())


def _field(body: bytes) -> bytes:
    return b"\x0a" + _sized(body)


def _sized(body: bytes) -> bytes:
    return _varint(len(body)) + body


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _snappy(body: bytes) -> bytes:
    """Snappy's block format, with literals alone."""
    parts = [_varint(len(body))]
    for begin in range(0, len(body), 65536):
        part = body[begin : begin + 65536]
        parts += [b"\xf4" + struct.pack("<H", len(part) - 1), part]
    return b"".join(parts)
