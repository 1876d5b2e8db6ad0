"""The bytes of a request in, those of an answer out. Everything here may come from anybody."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Final, Literal

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from ..asgi import Receive
from .points import RefusedError

Encoding = Literal["protobuf", "json"]
TYPES: Final[Mapping[str, Encoding]] = {"application/x-protobuf": "protobuf", "application/json": "json"}
NAMES: Final[Mapping[Encoding, str]] = {encoding: name for name, encoding in TYPES.items()}
# google.rpc.Code of what HTTP says
CODES: Final = {400: 3, 405: 12, 408: 4, 413: 8, 415: 3, 429: 8, 503: 14}
CHUNK: Final = 1 << 16


def encoding_of(content_type: str) -> Encoding:
    """Protobuf or JSON. Raises :class:`RefusedError` (415)."""
    encoding = TYPES.get(content_type.partition(";")[0].strip().lower())
    if encoding is None:
        raise RefusedError(415, f"the content type must be {' or '.join(TYPES)}")
    return encoding


def check_content_encoding(name: str) -> bool:
    """Whether the body is gzip. Raises :class:`RefusedError` (415) if it is anything else than that or plain."""
    name = name.strip().lower()
    if name not in ("", "identity", "gzip"):
        raise RefusedError(415, "the content encoding must be gzip or none")
    return name == "gzip"


async def read(receive: Receive, most: int) -> bytes:
    """The whole body. Raises :class:`RefusedError`: 413 above ``most`` bytes, 400 if the client left."""
    body = bytearray()  # chunks may be of one byte each
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "the client left before its body had arrived")
        body += message.get("body", b"")
        if len(body) > most:
            raise RefusedError(413, f"a body has at most {most} bytes")
        if not message.get("more_body", False):
            return bytes(body)


def unzip(body: bytes, most: int) -> bytes:
    """A gzip body, of one member or several, unpacked. Raises :class:`RefusedError`: 400, and 413 above ``most`` bytes.

    It is never unpacked further than that: a bomb costs what a large request does.
    """
    found = bytearray()
    rest = body
    while rest:
        one = zlib.decompressobj(wbits=31)
        try:
            while not one.eof:
                piece = one.decompress(rest, CHUNK)
                found += piece
                rest = one.unused_data if one.eof else one.unconsumed_tail
                if len(found) > most:
                    raise RefusedError(413, f"a body has at most {most} bytes when unpacked")
                if not one.eof and not rest and not piece:
                    raise RefusedError(400, "the gzip body is cut short")
        except zlib.error:
            raise RefusedError(400, "the body is not gzip") from None
    if not found and not body:
        raise RefusedError(400, "the body is not gzip")
    return bytes(found)


def success(encoding: Encoding, rejected: Mapping[str, int]) -> bytes:
    """The answer 200: everything was taken, or how many points were not, and why (OTLP's partial success)."""
    reasons = sorted(rejected.items(), key=lambda each: -each[1])
    text = "; ".join(f"{reason} ({count})" for reason, count in reasons[:5])
    if len(reasons) > 5:
        text += f"; and {len(reasons) - 5} more reasons"
    if encoding == "json":
        part = {"rejectedDataPoints": str(sum(rejected.values())), "errorMessage": text}
        return json.dumps({"partialSuccess": part} if rejected else {}).encode()
    answer = ExportMetricsServiceResponse()
    if rejected:
        answer.partial_success.rejected_data_points = sum(rejected.values())
        answer.partial_success.error_message = text
    return bytes(answer.SerializeToString())


def failure(encoding: Encoding, status: int, reason: str) -> bytes:
    """A ``google.rpc.Status``, which OTLP asks for: its two fields are written here, its package is not needed."""
    code = CODES.get(status, 2)
    if encoding == "json":
        return json.dumps({"code": code, "message": reason}, ensure_ascii=False).encode()
    text = reason.encode()
    return bytes((8, code, 18)) + _varint(len(text)) + text


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes((*found, value))
