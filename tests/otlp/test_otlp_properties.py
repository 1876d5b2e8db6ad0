"""Any well-formed requests against a plain model; any bytes against the endpoint."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from otlp_requests import Sink, counter, gauge, histogram, request

from anvil_monitor.exporter.exposition import render
from anvil_monitor.exporter.otlp import Limits, Receiver, Totals, jsonform
from anvil_monitor.exporter.otlp.points import RefusedError
from anvil_monitor.exporter.otlp.protobuf import Decoder

LABELS = st.sampled_from(["", "GET", "POST"])
EDGES = (0.1, 1.0)


@st.composite
def lives(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    """A process's lives, each a list of reports: what it has counted so far, by label, with what was last measured."""
    found = []
    now = 0.0
    for _ in range(draw(st.integers(1, 3))):
        now += draw(st.integers(1, 5))
        start, counted, values = now, dict.fromkeys(("", "GET", "POST"), 0), []
        reports: list[dict[str, Any]] = []
        for _ in range(draw(st.integers(1, 4))):
            now += draw(st.integers(1, 5))
            label = draw(LABELS)
            counted[label] += draw(st.integers(0, 5))
            values += draw(st.lists(st.sampled_from([0.05, 0.1, 0.5, 3.0]), max_size=3))
            level = draw(st.integers(-5, 5))
            reports.append(
                {"start": start, "time": now, "counted": dict(counted), "values": list(values), "level": level}
            )
        found.append(reports)
    return found


def metrics_of(report: dict[str, Any]) -> list[Any]:
    at = {"start": report["start"], "time": report["time"]}
    made = [counter("jobs", n, **at, method=label) for label, n in report["counted"].items() if n]
    made.append(histogram(report["values"], **at, name="wait", bounds=EDGES))
    made.append(gauge("queue", report["level"], report["time"]))
    return made


@settings(max_examples=60, deadline=None)
@given(st.lists(lives(), min_size=1, max_size=3), st.randoms(use_true_random=False), st.booleans())
def test_any_order_and_split_gives_what_a_plain_model_gives(
    instances: list[list[list[dict[str, Any]]]], shuffle: random.Random, merge: bool
) -> None:
    """Totals are the sums over all lives of all instances of what each had counted at its end.

    Within a life the points may come in any order and in any number of requests, of several instances mixed.
    """
    queues = []
    for number, its_lives in enumerate(instances):
        queue: list[tuple[str, Any]] = []
        for reports in its_lives:
            points = [(str(number), metric) for report in reports for metric in metrics_of(report)]
            shuffle.shuffle(points)
            queue += points
        queues.append(queue)
    sink = Sink()
    sink.clock.now += 1000  # all of them began after the receiver
    while any(queues):
        queue = shuffle.choice([each for each in queues if each])
        amount = shuffle.randint(1, len(queue))
        made = ExportMetricsServiceRequest()
        for instance, metric in queue[:amount]:
            made.MergeFrom(request(metric, instance=instance))
        del queue[:amount]
        assert sink.send(made, 0.1) == {}
    counted: dict[str, float] = {}
    values: list[float] = []
    levels: list[float] = []
    for its_lives in instances:
        for reports in its_lives:
            for label, n in reports[-1]["counted"].items():
                if n:
                    counted[label] = counted.get(label, 0) + n
            values += reports[-1]["values"]
        levels.append(its_lives[-1][-1]["level"])
    expected = {
        f"jobs_total{{{f'method={label},' if label else ''}service=api}}": float(n) for label, n in counted.items()
    }
    expected["queue{service=api}"] = max(levels)
    for edge in (*EDGES, float("inf")):
        text = "+Inf" if edge == float("inf") else f"{edge:g}"
        expected[f"wait_seconds_bucket{{le={text},service=api}}"] = sum(value <= edge for value in values)
    expected["wait_seconds_count{service=api}"] = len(values)
    expected["wait_seconds_sum{service=api}"] = pytest.approx(sum(values))
    assert sink.series() == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(lives(), min_size=1, max_size=2))
def test_json_says_what_protobuf_says(instances: list[list[list[dict[str, Any]]]]) -> None:
    """The same points, whichever encoding a request comes in."""
    made = ExportMetricsServiceRequest()
    for number, its_lives in enumerate(instances):
        for reports in its_lives:
            made.MergeFrom(request(*(each for report in reports for each in metrics_of(report)), instance=str(number)))
    text = json_format.MessageToJson(made, use_integers_for_enums=True).encode()
    one, two = Decoder(Limits()).decode(made.SerializeToString()), jsonform.decode(text, Limits())
    assert one == two
    assert one.size > 0


GOOD = request(
    counter("jobs", 3, start=10, method="GET"), histogram([0.1, 0.4], start=10), gauge("queue", 2),
    counter("jobs", 3, start=10, delta=True),
)  # fmt: skip
PROTOBUF, JSON = GOOD.SerializeToString(), json_format.MessageToJson(GOOD, indent=None).encode()
UNBOUNDED = Limits(rate=1e9, burst=1e9)


class Door:
    """The endpoint without a network: what it answers and what it keeps."""

    def __init__(self, limits: Limits = UNBOUNDED) -> None:
        self.totals = Totals(limits=limits)
        self.receiver = Receiver(self.totals)

    def ask(self, body: bytes, kind: str, *, zipped: bool = False) -> int:
        return asyncio.run(self.answer(body, kind, zipped=zipped))

    async def answer(self, body: bytes, kind: str, *, zipped: bool = False) -> int:
        headers = [(b"content-type", kind.encode())] + [(b"content-encoding", b"gzip")] * zipped
        scope = {"type": "http", "method": "POST", "path": "/v1/metrics", "headers": headers, "client": None}
        statuses: list[int] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await self.receiver(scope, receive, send)
        (status,) = statuses
        return status

    def kept(self) -> str:
        families = [each for each in self.totals.collect() if not each.metric.name.startswith("anvil_monitor_")]
        return render(families)


def mutated(body: bytes, places: list[tuple[int, int]], cut: int) -> bytes:
    made = bytearray(body)
    for place, value in places:
        made[place % len(made)] = value
    return bytes(made[: len(made) - cut % len(made)]) if cut else bytes(made)


PLACES = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=8)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(mutated, st.sampled_from([PROTOBUF, JSON, gzip.compress(PROTOBUF)]), PLACES, st.integers(0, 50)),
    ),
    st.sampled_from(["application/x-protobuf", "application/json"]),
    st.booleans(),
)
def test_any_bytes_are_taken_or_refused_and_never_break_anything(body: bytes, kind: str, zipped: bool) -> None:
    """200 or 4xx; of a refused request nothing is kept; what is exposed can always be written and is UTF-8."""
    door = Door()
    status = door.ask(body, kind, zipped=zipped)
    kept = door.kept()
    assert status in (200, 400, 413)
    assert status == 200 or kept == ""
    kept.encode()
    door.receiver.close()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON document that could hold something else."""
    found: list[tuple[Any, Any]] = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found.append((value, key))
        found += places(inner)
    return found


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), JSON_VALUES)
def test_anything_anywhere_in_the_json_is_taken_or_refused(place: int, value: Any) -> None:
    """Each field of a good request, replaced by any JSON value."""
    made = json.loads(JSON)
    found = places(made)
    owner, key = found[place % len(found)]
    owner[key] = value
    totals = Totals()
    try:
        request_made = jsonform.decode(json.dumps(made).encode(), Limits())
    except RefusedError as refused:
        assert refused.status in (400, 413)
        str(refused).encode()
        return
    totals.apply(request_made)
    render(totals.collect()).encode()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def hostile(number: int, chance: random.Random) -> tuple[bytes, str, bool]:
    """One of many: rubbish, half a request, a bomb, a good request that nobody has seen before."""
    kinds = ("application/x-protobuf", "application/json")
    match number % 8:
        case 0:
            return chance.randbytes(chance.randint(0, 400)), chance.choice(kinds), False
        case 1:
            return (
                mutated(PROTOBUF, [(chance.randrange(5000), chance.randrange(256)) for _ in range(4)], 0),
                kinds[0],
                False,
            )
        case 2:
            return mutated(JSON, [(chance.randrange(5000), chance.randrange(128))], 0), kinds[1], False
        case 3:
            return (
                BOMB if number % 800 == 3 else PROTOBUF[: chance.randrange(len(PROTOBUF))],
                kinds[0],
                number % 800 == 3,
            )
        case 4:
            return b"[" * 5000, kinds[1], False
        case 5:  # a service, an instance, a metric and labels of its own each time
            name = f"m{number}"
            made = request(counter(name, 1, **{f"k{number}": "v" * 250}), service=f"s{number}", instance=name)
            return made.SerializeToString(), kinds[0], False
        case 6:  # one instance with ever more series
            made = request(*(histogram([0.1], user=f"u{number}-{i}" + "x" * 100) for i in range(3)))
            return made.SerializeToString(), kinds[0], False
        case _:
            return EMPTIES if number % 800 == 7 else b"\x0a\x00" * 500, kinds[0], False


BOMB = gzip.compress(bytes(8 << 20))
EMPTIES = b"\x0a\x00" * 200_000  # as many empty messages as fit into 400 kB


def test_ten_thousand_hostile_bodies_cost_bounded_memory() -> None:
    """Through the real endpoint: each gets 200 or its 4xx; who was there before is counted all the while."""
    door = Door()
    chance = random.Random(20_261_123)

    async def all_of_them() -> tuple[set[int], int, int]:
        before_all = request(counter("orders", 3, start=10), service="shop", instance="mine")
        statuses = {await door.answer(before_all.SerializeToString(), "application/x-protobuf")}
        for number in range(5, 8000, 8):  # as many services, instances and series as are kept
            await door.answer(*hostile(number, chance)[:2])
        before = most = resident()
        for number in range(10_000):
            body, kind, zipped = hostile(number, chance)
            statuses.add(await door.answer(body, kind, zipped=zipped))
            if number % 50 == 0:
                most = max(most, resident())
        return statuses, before, most

    statuses, before, most = asyncio.run(all_of_them())
    assert statuses == {200, 400, 413}
    assert most - before < 100 << 20, f"{(most - before) >> 20} MB"
    assert len(door.totals._instances) <= UNBOUNDED.instances
    series = sum(service.size for service in door.totals._services.values())
    assert series <= UNBOUNDED.services * UNBOUNDED.series
    later = request(counter("orders", 8, 20, start=10), service="shop", instance="mine").SerializeToString()
    assert door.ask(later, "application/x-protobuf") == 200
    assert 'orders_total{service="shop"} 8' in door.kept()
    door.receiver.close()


def test_the_largest_bodies_leave_no_memory_behind() -> None:
    """Four megabytes of empty messages take forty times that while they are decoded, one after the other."""
    door = Door()
    body = b"\x0a\x00" * 2_000_000
    assert door.ask(body, "application/x-protobuf") == 413
    before = resident()
    for _ in range(8):
        assert door.ask(body, "application/x-protobuf") == 413
    assert resident() - before < 100 << 20
    door.receiver.close()
