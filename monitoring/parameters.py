"""The parameters of an API request, read as Prometheus reads them, with its words where one is wrong."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from .promql import QueryError
from .promql.nodes import Selector
from .promql.parse import parse
from .samples import Matcher

BODY_LIMIT: Final = 2**20
DURATION: Final = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?")
UNITS: Final = (365 * 86400.0, 7 * 86400.0, 86400.0, 3600.0, 60.0, 1.0, 0.001)
NO_MATCHER: Final = "match[] must contain at least one non-empty matcher"
STATUS: Final = {"bad_data": 400, "execution": 422, "timeout": 503, "not_found": 404, "internal": 500}


class ApiError(Exception):
    """An answer that is an error: ``kind`` is Prometheus's error type, which also decides the HTTP status."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def status(self) -> int:
        return STATUS[self.kind]


class Parameters:
    """Query string and form together; a parameter given twice keeps its first value, except where all are asked for."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs

    @classmethod
    async def of(cls, request: Request) -> Parameters:
        """Raises :class:`ApiError` for a body that is too long, no form or no text."""
        pairs = list(request.query_params.multi_items())
        if request.method == "POST":
            body = bytearray()
            async for part in request.stream():
                body += part
                if len(body) > BODY_LIMIT:
                    raise ApiError("bad_data", f"error parsing form values: more than {BODY_LIMIT} bytes")
            try:
                pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=1000) + pairs
            except ValueError as error:
                raise ApiError("bad_data", f"error parsing form values: {error}") from None
        return cls(pairs)

    def text(self, name: str, default: str = "") -> str:
        return next((value for key, value in self._pairs if key == name), default)

    def texts(self, name: str) -> list[str]:
        return [value for key, value in self._pairs if key == name]

    def time(self, name: str, default: float | None = None) -> float:
        """Unix seconds, from a number or RFC 3339."""
        text = self.text(name)
        if not text and default is not None:
            return default
        try:
            return _time(text)
        except (ValueError, OverflowError):
            optional = "" if default is None else f"Invalid time value for '{name}': "
            raise invalid(name, f'{optional}cannot parse "{text}" to a valid timestamp') from None

    def duration(self, name: str) -> float:
        """Seconds, from a number or a Prometheus duration."""
        text = self.text(name)
        try:
            seconds = _finite(text)
        except ValueError:
            match = DURATION.fullmatch(text)
            if not text or match is None:
                raise invalid(name, f'cannot parse "{text}" to a valid duration') from None
            seconds = sum(int(part) * unit for part, unit in zip(match.groups("0"), UNITS, strict=True))
        if abs(seconds) > 1e10:
            raise invalid(name, f'cannot parse "{text}" to a valid duration. It overflows int64')
        return seconds

    def limit(self) -> int | None:
        """How many results at most; None for all."""
        text = self.text("limit", "0")
        if not text.isdecimal() or len(text) > 18:
            raise invalid("limit", f'cannot parse "{text}" to a valid limit')
        return int(text) or None

    def matchers(self) -> list[tuple[Matcher, ...]]:
        """The selectors given as ``match[]``."""
        found = []
        for text in self.texts("match[]"):
            try:
                node = parse(text)
            except QueryError as error:
                reason = NO_MATCHER if NO_MATCHER.partition("] ")[2] in str(error) else str(error)
                raise invalid("match[]", reason) from None
            if not isinstance(node, Selector) or node.offset or node.at is not None:
                raise invalid("match[]", f"{text!r} is no series selector")
            if all(matcher.matches_empty for matcher in node.matchers):
                raise invalid("match[]", NO_MATCHER)
            found.append(node.matchers)
        return found


def invalid(name: str, reason: str) -> ApiError:
    return ApiError("bad_data", f'invalid parameter "{name}": {reason}')


def _time(text: str) -> float:
    try:
        seconds = _finite(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("RFC 3339 asks for a zone") from None
        seconds = moment.timestamp()
    if abs(seconds) > 1e11:
        raise ValueError("out of range")
    return round(seconds, 3)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or "_" in text:
        raise ValueError(text)
    return number


def rfc3339(seconds: float) -> str:
    """As Go writes a time; the zero time where there is none."""
    if not seconds:
        return "0001-01-01T00:00:00Z"
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
    return re.sub(r"\.?0*\+00:00$", "Z", text)
