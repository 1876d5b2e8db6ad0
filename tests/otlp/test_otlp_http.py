"""The endpoint: through the real ASGI application, with every kind of body."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from otlp_requests import counter, gauge, histogram, request

from anvil_monitor.exporter.otlp import Limits, Receiver, Totals
from anvil_monitor.exporter.server import Collector, create_app, otlp_app
from anvil_monitor.targets.load import parse

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
# Whoever sends begins now: what began before the receiver is counted from its first report on.
BODY = request(counter("jobs", 3, start=10)).SerializeToString()


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    made = Collector(parse(f'[[service]]\nname = "api"\nport = 1\n[monitor]\ndata = "{tmp_path}"\n'))
    yield made
    made.close()


Post = Callable[..., httpx.Response]


@pytest.fixture
def post(collector: Collector) -> Post:
    app = otlp_app(collector)

    def post(content: Any, headers: dict[str, str], method: str = "POST") -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:4318"
            ) as client:
                return await client.request(method, "/v1/metrics", content=content, headers=headers)

        return asyncio.run(ask())

    return post


def exposed(collector: Collector) -> dict[str, float]:
    return {
        family.metric.name + sample.suffix: sample.value
        for family in collector.totals.collect()
        for sample in family.samples
        if not family.metric.name.startswith("anvil_monitor_")
    }


def to_json(made: Any) -> bytes:
    """As an SDK writes it: numbers of kinds, lowerCamelCase."""
    return json_format.MessageToJson(made, use_integers_for_enums=True, indent=None).encode()


def test_protobuf_is_taken(post: Post, collector: Collector) -> None:
    """200 and an empty ExportMetricsServiceResponse."""
    answer = post(BODY, PROTOBUF)
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "application/x-protobuf", b"")
    assert exposed(collector) == {"jobs_total": 3}


def test_json_is_taken(post: Post, collector: Collector) -> None:
    """64-bit whole numbers as texts or as numbers, unknown fields, hex ids in exemplars."""
    made = json.loads(
        to_json(request(counter("jobs", 3, start=10), histogram([0.1, 0.3], name="wait", start=10), gauge("open", 2)))
    )
    metrics = made["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    metrics[0]["sum"]["dataPoints"][0]["exemplars"] = [{"traceId": "5b8efff798038103d269b633813fc60c", "asInt": 3}]
    metrics[0]["newField"] = {"of": "tomorrow"}
    metrics[1]["histogram"]["dataPoints"][0]["count"] = 2
    metrics[2]["gauge"]["dataPoints"][0].pop("asDouble")
    metrics[2]["gauge"]["dataPoints"][0]["asInt"] = "2"
    answer = post(json.dumps(made), {"content-type": "application/json; charset=utf-8"})
    assert (answer.status_code, answer.json(), answer.headers["content-type"]) == (200, {}, "application/json")
    assert exposed(collector)["jobs_total"] == 3
    assert exposed(collector)["wait_seconds_count"] == 2
    assert exposed(collector)["open"] == 2


def test_gzip_of_several_members_in_chunks(post: Post, collector: Collector) -> None:
    """As Node sends it: chunked, without a length, compressed if asked to."""
    packed = gzip.compress(BODY[:20], mtime=0) + gzip.compress(BODY[20:])

    async def chunks() -> AsyncIterator[bytes]:
        for i in range(len(packed)):
            yield packed[i : i + 1]

    assert post(chunks(), {**PROTOBUF, "content-encoding": "gzip"}).status_code == 200
    assert exposed(collector) == {"jobs_total": 3}


@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
def test_a_partial_success_says_how_many_and_why(post: Post, collector: Collector, headers: dict[str, str]) -> None:
    """In the encoding of the request; the good point is taken."""
    made = request(counter("jobs", 3, start=10), counter("jobs", -1, sign="minus"), gauge("up", 1))
    answer = post(to_json(made) if headers == JSON else made.SerializeToString(), headers)
    assert answer.status_code == 200
    found = ExportMetricsServiceResponse()
    if headers == JSON:
        json_format.Parse(answer.content, found)
    else:
        found.ParseFromString(answer.content)
    assert found.partial_success.rejected_data_points == 2
    assert "a monotonic sum is never negative (1)" in found.partial_success.error_message
    assert exposed(collector) == {"jobs_total": 3}


BOMB = gzip.compress(bytes(50 << 20))


@pytest.mark.parametrize(
    ("content", "headers", "status", "reason"),
    [
        (b"\xff\xff", PROTOBUF, 400, "no ExportMetricsServiceRequest"),
        (BODY[:-3], PROTOBUF, 400, "no ExportMetricsServiceRequest"),
        (b"{", JSON, 400, "not JSON"),
        (b"[" * 100_000, JSON, 400, "not JSON"),
        (b"[]", JSON, 400, "must be made of objects"),
        (b'{"resourceMetrics": 1}', JSON, 400, "resourceMetrics must be a list"),
        (
            b'{"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": 3, "sum": {}}]}]}]}',
            JSON,
            400,
            "name must be",
        ),
        (BODY, {"content-type": "text/plain"}, 415, "content type"),
        (BODY, {}, 415, "content type"),
        (BODY, {**PROTOBUF, "content-encoding": "br"}, 415, "content encoding"),
        (BODY, {**PROTOBUF, "content-encoding": "gzip"}, 400, "not gzip"),
        (gzip.compress(BODY, mtime=0)[:-4], {**PROTOBUF, "content-encoding": "gzip"}, 400, "cut short"),
        (gzip.compress(BODY) + b"rest", {**PROTOBUF, "content-encoding": "gzip"}, 400, "not gzip"),
        (b"", {**PROTOBUF, "content-encoding": "gzip"}, 400, "not gzip"),
        (BOMB, {**PROTOBUF, "content-encoding": "gzip"}, 413, "when unpacked"),
        (bytes(5 << 20), PROTOBUF, 413, "at most 4194304 bytes"),
        (b"\x0a\x00" * 10_001, PROTOBUF, 413, "resources, scopes and metrics"),
        (b'{"resourceMetrics": [%s]}' % b",".join([b"{}"] * 10_001), JSON, 413, "resources, scopes and metrics"),
        (
            request(gauge("x", 1), **{f"a{i}": "x" for i in range(300)}).SerializeToString(),
            PROTOBUF,
            413,
            "a resource has",
        ),
        (request(*[gauge("x", 1)] * 10_001).SerializeToString(), PROTOBUF, 413, "at most 10000"),
    ],
)
def test_a_hostile_body_gets_its_answer_and_leaves_nothing(
    post: Post, collector: Collector, content: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    """4xx with a reason as a google.rpc.Status, in the encoding of the request; nothing is recorded."""
    answer = post(content, headers)
    assert answer.status_code == status
    found = Status()
    if headers == JSON:
        json_format.Parse(answer.content, found)
    else:
        found.ParseFromString(answer.content)
    assert reason in found.message
    assert found.code > 0
    assert exposed(collector) == {}


def test_at_the_end_a_sender_is_told_to_come_again(post: Post, collector: Collector) -> None:
    """503, after which exporters send the same once more."""
    collector.receiver.close()
    assert post(BODY, PROTOBUF).status_code == 503


def test_only_post(post: Post) -> None:
    """405 says what is allowed."""
    answer = post(b"", {}, "GET")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_one_address_that_sends_too_often_is_told_to_wait(collector: Collector) -> None:
    """429 with Retry-After, which exporters heed."""
    transport = httpx.ASGITransport(otlp_app(collector), client=("203.0.113.7", 1))

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=transport, base_url="http://monitor:4318") as client:
            return [await client.post("/v1/metrics", content=BODY, headers=PROTOBUF) for _ in range(200)]

    answers = asyncio.run(ask())
    assert answers[0].status_code == 200
    late = [answer for answer in answers if answer.status_code == 429]
    assert late
    assert int(late[0].headers["retry-after"]) > 0


def scope(headers: dict[str, str]) -> dict[str, Any]:
    raw = [(key.encode(), value.encode()) for key, value in headers.items()]
    return {"type": "http", "method": "POST", "path": "/v1/metrics", "headers": raw, "client": None}


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    """408 after the time for a body; while too many are being read, the next gets 429 at once."""
    sent: list[Any] = []

    async def never() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    async def both() -> None:
        receiver = Receiver(Totals(limits=Limits(body_seconds=0.05, requests=1)))
        await asyncio.gather(receiver(scope(PROTOBUF), never, send), receiver(scope(PROTOBUF), never, send))
        receiver.close()

    asyncio.run(both())
    assert [message["status"] for message in sent if "status" in message] == [429, 408]


def test_a_client_that_leaves_leaves_nothing() -> None:
    """Half a body is no request."""
    totals = Totals()
    messages: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": BODY, "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        pass

    receiver = Receiver(totals)
    asyncio.run(receiver(scope(PROTOBUF), receive, send))
    receiver.close()
    assert totals.points == {}
    assert totals.requests == {"refused": 1}


def test_a_senders_requests_to_this_receiver_are_left_out(post: Post, collector: Collector) -> None:
    """Node counts its own exports as client requests."""
    own = {"server__address": "127.0.0.1", "server__port": 4318}
    other = {"server__address": "127.0.0.1", "server__port": 5432}
    made = [histogram([0.1], name="http.client.request.duration", start=10, **labels) for labels in (own, other)]
    assert post(request(*made).SerializeToString(), PROTOBUF).status_code == 200
    assert exposed(collector)["http_client_request_duration_seconds_count"] == 1
    assert collector.totals.points["ignored"] == 1


def test_pushed_metrics_and_beacons_are_in_the_exporters_metrics(collector: Collector) -> None:
    """One `/metrics` for all: what is pushed, and what browsers of the service report to the monitor."""
    app = create_app(parse('[[service]]\nname = "api"\nport = 1\n'), collector)

    async def ask() -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:9187") as client:
            assert (await client.post("/v1/metrics", content=BODY, headers=PROTOBUF)).status_code == 200
            assert (await client.get("/anvil-monitor/beacon/api.js")).status_code == 200
            beacon = await client.post("/anvil-monitor/beacon/api", json={"page": "/cart", "load": 1.5})
            assert beacon.status_code == 204
            assert (await client.post("/anvil-monitor/beacon/other", json={})).status_code == 404
            assert (await client.get("/-/healthy")).text == "ok\n"
            return (await client.get("/metrics")).text

    text = asyncio.run(ask())
    assert 'jobs_total{service="api"} 3' in text
    assert 'browser_page_load_duration_seconds_count{service="api",url_template="(unmatched)"} 1' in text
    names = [line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


def test_what_two_sources_know_is_said_once(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's memory by its processes and as it pushes it: one series, the processes' one."""
    from anvil_monitor.exporter import names
    from anvil_monitor.exporter.exposition import Family, Sample
    from anvil_monitor.exporter.otlp.protobuf import Decoder

    labels = (("service", "api"),)
    monkeypatch.setattr(
        collector._processes[0], "collect", lambda: [Family(names.PROCESS_MEMORY, [Sample("", labels, 7.0)])]
    )
    made = request(gauge("process.memory.usage", 5)).SerializeToString()
    collector.totals.apply(Decoder(Limits()).decode(made))
    found = {family.metric.name: [*family.samples] for family in collector.collect()}
    assert found["process_memory_usage_bytes"] == [Sample("", labels, 7.0)]
