"""``POST /api/v1/write``: samples that another Prometheus sends (remote write 1.0), as if we had scraped them.

A request is taken whole or not at all: what is wrong with one sample is found before the first is stored. Statuses as
in Prometheus: a sender drops what got a 4xx and repeats what got a 5xx.
https://prometheus.io/docs/specs/prw/remote_write_spec/
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Final, Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .samples import Labels
from .snappy import SnappyError, TooLargeError, unpack

PATH: Final = "/api/v1/write"
MOST_BODY: Final = 4 * 2**20
MOST_UNPACKED: Final = 16 * 2**20
MOST_SERIES: Final = 50_000  # of one request
MOST_SAMPLES: Final = 200_000
MOST_LABELS: Final = 100  # of one series
MOST_OPEN: Final = 8  # requests at a time
BODY_SECONDS: Final = 30.0
AHEAD: Final = 10 * 60 * 1000  # ms; a sender whose clock is wrong must not lock a series until then
KNOWN: Final = 100_000
METRIC: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

Batches = dict[int, list[tuple[Labels, float]]]


class Sink(Protocol):
    """Where samples go: the store."""

    max_series: int

    def append(self, time_ms: int, samples: list[tuple[Labels, float]]) -> int: ...


class WriteError(Exception):
    """Why nothing of a request was taken, and the HTTP status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Receiver:
    """The endpoint. ``clock`` gives Unix seconds; ``thread`` unpacks and stores, one request at a time.

    ``samples`` taken and requests ``refused`` are counted since the start.
    """

    def __init__(self, sink: Sink, thread: Executor, clock: Callable[[], float]) -> None:
        self._sink, self._thread, self._clock = sink, thread, clock
        self._decoder = Decoder()
        self._last: dict[Labels, tuple[int, bytes]] = {}
        self._open = 0
        self.samples = self.refused = 0

    def route(self) -> Route:
        return Route(PATH, self._endpoint, methods=["POST"])

    async def _endpoint(self, request: Request) -> Response:
        if self._open >= MOST_OPEN:
            return PlainTextResponse(f"{MOST_OPEN} requests are being taken already\n", 503, {"Retry-After": "5"})
        self._open += 1
        try:
            _admit(request)
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(request)
            await asyncio.get_running_loop().run_in_executor(self._thread, self.take, body)
        except TimeoutError:
            return PlainTextResponse("the body did not come in time\n", 408)
        except WriteError as error:
            self.refused += 1
            return PlainTextResponse(f"{error}\n", error.status)
        except ClientDisconnect:
            return Response(status_code=400)
        except RuntimeError as error:  # the thread has ended: we are on our way out
            return PlainTextResponse(f"{error}\n", 503)
        finally:
            self._open -= 1
        return Response(status_code=204)

    def take(self, body: bytes) -> None:
        """Store what ``body`` (packed) holds. Raises :class:`WriteError`; then nothing of it was stored."""
        try:
            found = self._decoder.decode(unpack(body, MOST_UNPACKED))
        except TooLargeError as error:
            raise WriteError(413, str(error)) from None
        except (SnappyError, FormatError) as error:
            raise WriteError(400, str(error)) from None
        batches, last = self._ordered(found)
        if len(self._last) + len(last) > 2 * self._sink.max_series:
            self._last.clear()
        self._last.update(last)
        given = taken = 0
        for at in sorted(batches):
            given += len(batches[at])
            taken += self._sink.append(at, batches[at])
        self.samples += taken
        if taken < given:
            raise WriteError(400, f"{given - taken} of {given} samples had no place: out of order, or too many series")

    def _ordered(self, found: Iterator[tuple[Labels, int, float]]) -> tuple[Batches, dict[Labels, tuple[int, bytes]]]:
        batches: Batches = defaultdict(list)
        last: dict[Labels, tuple[int, bytes]] = {}
        latest = round(self._clock() * 1000) + AHEAD
        try:
            for labels, at, value in found:
                bits = struct.pack("<d", value)
                before = last.get(labels) or self._last.get(labels)
                if before is not None and at <= before[0]:
                    if (at, bits) == before:  # sent again: it is there
                        continue
                    raise WriteError(400, "out of order sample" if at < before[0] else "duplicate sample for timestamp")
                if at > latest or at < -(2**53):
                    raise WriteError(400, "out of bounds")
                last[labels] = (at, bits)
                batches[at].append((labels, value))
        except FormatError as error:
            raise WriteError(400, str(error)) from None
        return batches, last


def _admit(request: Request) -> None:
    """What can be said before the body. A web page cannot send these types without asking first; nobody answers it."""
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    if kind.strip().lower() != "application/x-protobuf":
        raise WriteError(415, "remote write is application/x-protobuf")
    proto = parameters.replace(" ", "").removeprefix("proto=")
    if proto not in ("", "prometheus.WriteRequest"):
        raise WriteError(415, f"{proto[:80]} is not taken, prometheus.WriteRequest (remote write 1.0) is")
    if request.headers.get("content-encoding", "").lower() != "snappy":
        raise WriteError(415, "remote write is packed with snappy")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:18]) > MOST_BODY:
        raise WriteError(413, f"a body has at most {MOST_BODY} bytes")


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            raise WriteError(413, f"a body has at most {MOST_BODY} bytes")
    return bytes(body)


class FormatError(ValueError):
    """The bytes are no remote write request, or not one of float samples."""


class Decoder:
    """Reads ``prometheus.WriteRequest``. Label sets that came before are recognised by their bytes."""

    def __init__(self) -> None:
        self._known: dict[bytes, Labels] = {}

    def decode(self, data: bytes) -> Iterator[tuple[Labels, int, float]]:
        """Label set, time (ms) and value of every sample. Raises :class:`FormatError` where it comes to the fault."""
        at, end, series, samples = 0, len(data), 0, 0
        while at < end:
            number, begin, at = _field(data, at, end)
            if number != 1:
                continue
            series += 1
            for one in self._series(data, begin, at):
                samples += 1
                if samples > MOST_SAMPLES:
                    raise FormatError(f"more than {MOST_SAMPLES} samples in one request")
                yield one
            if series > MOST_SERIES:
                raise FormatError(f"more than {MOST_SERIES} series in one request")

    def _series(self, data: bytes, at: int, end: int) -> Iterator[tuple[Labels, int, float]]:
        begin = at
        while at < end and data[at] == 0x0A:  # the labels come first, whoever writes them
            _, _, at = _field(data, at, end)
        head = data[begin:at]
        labels = self._known.get(head)
        if labels is None:
            labels = _labels(head)
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[head] = labels
        while at < end:
            number, begin, at = _field(data, at, end)
            if number == 2:
                yield (labels, *_sample(data, begin, at))
            elif number == 1:
                raise FormatError("a series has labels after its samples")
            elif number == 4:
                raise FormatError("native histograms are not kept; set send_native_histograms: false")


def _labels(head: bytes) -> Labels:
    pairs: list[tuple[str, str]] = []
    at = 0
    while at < len(head):
        _, begin, at = _field(head, at, len(head))
        texts = {1: "", 2: ""}
        inner = begin
        while inner < at:
            number, first, inner = _field(head, inner, at)
            try:
                texts[number] = head[first:inner].decode()
            except UnicodeDecodeError:
                raise FormatError("a label is no UTF-8") from None
        pairs.append((texts[1], texts[2]))
        if len(pairs) > MOST_LABELS:
            raise FormatError(f"a series has more than {MOST_LABELS} labels")
    labels = tuple(sorted(pair for pair in pairs if pair[1]))
    names = dict(labels)
    if len(names) != len(labels):
        raise FormatError("a series has the same label twice")
    if not METRIC.fullmatch(names.get("__name__", "")) or not all(LABEL.fullmatch(name) for name in names):
        raise FormatError("invalid metric name or label names")
    return labels


def _sample(data: bytes, at: int, end: int) -> tuple[int, float]:
    value, time = 0.0, 0
    while at < end:
        tag = data[at]
        if tag == 0x09 and at + 9 <= end:
            (value,) = struct.unpack_from("<d", data, at + 1)
            at += 9
        elif tag == 0x10:
            time, at = _varint(data, at + 1, end)
        else:
            _, _, at = _field(data, at, end)
    return time - (1 << 64) if time >= 1 << 63 else time, value


def _field(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Number of the field at ``at``, where its contents begin and where they end."""
    tag, at = _varint(data, at, end)
    kind = tag & 7
    if kind == 2:
        size, at = _varint(data, at, end)
        last = at + size
    elif kind == 0:
        last = _varint(data, at, end)[1]
    elif kind in (1, 5):
        last = at + (8 if kind == 1 else 4)
    else:
        last = -1
    if last < 0 or tag < 8:
        raise FormatError("the message cannot be read")
    if last > end:
        raise FormatError("the message ends early")
    return tag >> 3, at, last


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value & (2**64 - 1), at
        shift += 7
    raise FormatError("the message ends early")
