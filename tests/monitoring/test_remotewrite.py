"""Remote write: a real Prometheus sends to us; hostile and wrong bodies get their 4xx and leave nothing."""

from __future__ import annotations

import dataclasses
import math
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import real_prometheus
from hypothesis import given
from hypothesis import strategies as st
from real_prometheus import HEADERS, snappy, varint, write_request
from starlette.applications import Starlette
from starlette.testclient import TestClient

from anvil_monitor.monitoring import remotewrite
from anvil_monitor.monitoring.remotewrite import Receiver, WriteError
from anvil_monitor.monitoring.samples import STALE_NAN, Labels, labels_of
from anvil_monitor.monitoring.snappy import SnappyError, TooLargeError, unpack
from anvil_monitor.monitoring.store import Store
from anvil_monitor.monitoring.threads import Threads
from anvil_monitor.targets import Secret

NOW = 1_700_000_000
UP = labels_of(__name__="up", job="a")


class Taken:
    """What a store is asked to append."""

    max_series = 1000

    def __init__(self) -> None:
        self.samples: list[tuple[int, Labels, float]] = []

    def append(self, time_ms: int, samples: list[tuple[Labels, float]]) -> int:
        self.samples += [(time_ms, labels, value) for labels, value in samples]
        return len(samples)


@pytest.fixture
def sink() -> Taken:
    return Taken()


@pytest.fixture
def receiver(sink: Taken) -> Iterator[Receiver]:
    with Threads(1, "test") as thread:
        yield Receiver(sink, thread, lambda: NOW)


@pytest.fixture
def client(receiver: Receiver) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=[receiver.route()])) as made:
        yield made


def body(*series: tuple[Labels, list[tuple[int, float]]]) -> bytes:
    return snappy(write_request(series))


def test_samples_arrive_bit_by_bit(client: TestClient, sink: Taken) -> None:
    """Values to the last bit (NaN, stale marker, minus zero), times in ms, negative ones too; 204 without a body."""
    values = [0.1 + 0.2, -0.0, math.inf, STALE_NAN, 0.0]
    sent = body((UP, [(-5 + i, value) for i, value in enumerate(values)]), (labels_of(__name__="b"), [(7, 1.0)]))
    answer = client.post("/api/v1/write", content=sent, headers=HEADERS)
    assert (answer.status_code, answer.content) == (204, b"")
    got = {at: struct.pack("<d", value) for at, labels, value in sink.samples if labels == UP}
    assert got == {-5 + i: struct.pack("<d", value) for i, value in enumerate(values)}
    assert (7, labels_of(__name__="b"), 1.0) in sink.samples


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ([(999, 1.0)], "out of order sample"),
        ([(1000, 2.0)], "duplicate sample for timestamp"),
        ([(1001, 1.0), (1001, 3.0)], "duplicate sample for timestamp"),
        ([(1005, 1.0), (1004, 1.0)], "out of order sample"),
        ([((NOW + 3600) * 1000, 1.0)], "out of bounds"),
    ],
)
def test_out_of_order_is_refused_whole(
    client: TestClient, sink: Taken, second: list[tuple[int, float]], words: str
) -> None:
    """400 in Prometheus's words, and nothing of the request is stored, the good part neither."""
    assert client.post("/api/v1/write", content=body((UP, [(1000, 1.0)])), headers=HEADERS).status_code == 204
    other = labels_of(__name__="good")
    answer = client.post("/api/v1/write", content=body((other, [(2000, 1.0)]), (UP, second)), headers=HEADERS)
    assert (answer.status_code, answer.text.strip()) == (400, words)
    assert [labels for _, labels, _ in sink.samples] == [UP]
    assert client.post("/api/v1/write", content=body((UP, [(1000, 1.0)])), headers=HEADERS).status_code == 204


def _labels_message(*pairs: tuple[bytes, bytes]) -> bytes:
    inner = b"".join(
        b"\x0a" + varint(len(n) + len(v) + 4) + b"\x0a" + varint(len(n)) + n + b"\x12" + varint(len(v)) + v
        for n, v in pairs
    )
    return b"\x0a" + varint(len(inner)) + inner


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 400, "ends early"),
        (b"\xff" * 20, 400, "no length"),
        (snappy(b"\xff"), 400, "ends early"),
        (snappy(b"\x0a\x05ab"), 400, "ends early"),
        (snappy(b"\x0b"), 400, "cannot be read"),
        (varint(2**31) + b"\x00a", 413, "unpacked"),
        (b"\x05\x00a", 400, "shorter than it says"),
        (b"\x01\x04ab", 400, "longer than it says"),
        (b"\x08\x01\x05", 400, "outside itself"),
        (snappy(_labels_message((b"job", b"a"))), 400, "invalid metric name"),
        (snappy(_labels_message((b"__name__", b"a"), (b"a-b", b"c"))), 400, "label names"),
        (snappy(_labels_message((b"__name__", b"a"), (b"a", b"c"), (b"a", b"d"))), 400, "the same label twice"),
        (snappy(_labels_message((b"__name__", b"\xff"))), 400, "no UTF-8"),
        (snappy(_labels_message(*[(f"a{i}".encode(), b"c") for i in range(101)])), 400, "more than 100 labels"),
        (snappy(b"\x0a\x02\x22\x00"), 400, "invalid metric name"),
        (snappy(b"\x0a\x11" + _labels_message((b"__name__", b"a"))[2:] + b"\x22\x00"), 400, "native histograms"),
        (snappy(b"\0" * 100), 400, "cannot be read"),
        (b"a" * (remotewrite.MOST_BODY + 1), 413, "at most"),
    ],
)
def test_a_hostile_body_gets_its_answer(
    client: TestClient, sink: Taken, content: bytes, status: int, words: str
) -> None:
    """4xx with a reason; nothing is stored."""
    answer = client.post("/api/v1/write", content=content, headers=HEADERS)
    assert answer.status_code == status, answer.text
    assert words in answer.text
    assert sink.samples == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Encoding": "gzip"},
        {"Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request"},
    ],
)
def test_what_it_does_not_speak(client: TestClient, headers: dict[str, str]) -> None:
    """415 for another encoding and for remote write 2.0, after which a sender falls back to 1.0."""
    answer = client.post("/api/v1/write", content=body((UP, [(1, 1.0)])), headers={**HEADERS, **headers})
    assert answer.status_code == 415
    assert client.get("/api/v1/write").status_code == 405


@given(st.binary(max_size=300))
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    """Whatever comes, packed or not: stored or refused, never another failure."""
    with Threads(1, "test") as thread:
        receiver = Receiver(Taken(), thread, lambda: NOW)
        for content in (data, snappy(data)):
            try:
                receiver.take(content)
            except WriteError as error:
                assert error.status in (400, 413)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 70), st.binary(min_size=1, max_size=70)), max_size=30))
def test_snappy_of_every_kind(parts: list[tuple[int, int, bytes]]) -> None:
    """Literals and copies with offsets of one, two and four bytes, overlapping ones too, against a plain model."""
    packed, plain = bytearray(), bytearray()
    for kind, size, text in parts:
        if kind == 0 or not plain:
            packed += bytes([(len(text) - 1) << 2]) if len(text) <= 60 else bytes([60 << 2, len(text) - 1])
            packed += text
            plain += text
            continue
        offset = 1 + (size * 7) % min(len(plain), 2000)
        if kind == 1:
            size = 4 + size % 8
            packed += bytes([1 | (size - 4) << 2 | (offset >> 8) << 5, offset & 255])
        else:
            size = min(size, 64)
            packed += bytes([kind | (size - 1) << 2]) + offset.to_bytes(2 if kind == 2 else 4, "little")
        for _ in range(size):
            plain.append(plain[-offset])
    assert unpack(varint(len(plain)) + bytes(packed), 100_000) == bytes(plain)
    with pytest.raises((SnappyError, TooLargeError)):
        unpack(varint(len(plain) + 1) + bytes(packed), 100_000)


def test_a_store_that_is_full_says_so() -> None:
    """Series beyond the store's bound: 400 with the number, and what has room is kept."""
    store = Store(max_series=1)
    with Threads(1, "test") as thread:
        receiver = Receiver(store, thread, lambda: NOW)
        with pytest.raises(WriteError, match="1 of 2 samples had no place"):
            receiver.take(body((UP, [(1, 1.0)]), (labels_of(__name__="b"), [(1, 1.0)])))
    assert store.series_count == 1


@pytest.mark.needs("prometheus")
def test_a_real_prometheus_writes_to_us(start: Callable[..., Any], tmp_path: Path) -> None:
    """What Prometheus scraped is here, equal to what it holds."""
    monitor = start()
    config = f"""
global: {{scrape_interval: 500ms, external_labels: {{from: elsewhere}}}}
scrape_configs:
- job_name: self
  static_configs: [{{targets: ["{monitor.url.removeprefix("http://")}"]}}]
remote_write:
- url: {monitor.url}/api/v1/write
  queue_config: {{batch_send_deadline: 200ms}}
"""
    with real_prometheus.running(tmp_path / "prometheus", config) as url:
        deadline = time.monotonic() + 20
        query = 'up{from="elsewhere",job="self"}'
        while len(found := _values(monitor.http, f"{query}[1m]")) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        with httpx.Client(base_url=url, trust_env=False) as theirs:
            true = _values(theirs, 'up{job="self"}[1m]')
        assert dict(map(tuple, found)).items() <= dict(map(tuple, true)).items()
        names = monitor.http.get("/api/v1/label/__name__/values", params={"match[]": '{from="elsewhere"}'}).json()[
            "data"
        ]
        assert len(names) > 20


def _values(client: httpx.Client, query: str) -> list[list[Any]]:
    result = client.get("/api/v1/query", params={"query": query}).json()["data"]["result"]
    return list(result[0]["values"]) if result else []


def test_the_token_is_asked_for(start: Callable[..., Any], configuration: Any) -> None:
    """A monitor with a token takes nothing without it."""
    changed = dataclasses.replace(configuration.monitor, token=Secret("env:TOKEN"))
    monitor = start(dataclasses.replace(configuration, monitor=changed), TOKEN="hunter2")
    content = body((labels_of(__name__="pushed"), [(round(time.time() * 1000), 1.0)]))
    assert monitor.http.post("/api/v1/write", content=content, headers=HEADERS).status_code == 401
    allowed = {**HEADERS, "Authorization": "Bearer hunter2"}
    assert monitor.http.post("/api/v1/write", content=content, headers=allowed).status_code == 204
