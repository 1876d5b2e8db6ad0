"""The parameters of an API request, read as Prometheus reads them, with its words where one is wrong."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import Receive, Scope

from .promql import QueryError
from .promql.nodes import Selector
from .promql.parse import parse
from .samples import Matcher

BODY_LIMIT: Final = 2**20
DURATION: Final = re.compile(r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?")
INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
TRUTHS: Final = {"": False} | dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | (
    dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False)
)  # fmt: skip
UNITS: Final = (365 * 86400.0, 7 * 86400.0, 86400.0, 3600.0, 60.0, 1.0, 0.001)
NO_MATCHER: Final = "match[] must contain at least one non-empty matcher"
STATUS: Final = {
    "bad_data": 400,
    "execution": 422,
    "canceled": 499,
    "timeout": 503,
    "unavailable": 503,
    "not_found": 404,
    "internal": 500,
}


TRUNCATED: Final = "results truncated due to limit"
TIMED_OUT: Final = "query timed out in query execution"
NOTHING: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answers where there is more to say than its data."""

    data: Any
    warnings: Sequence[str] = ()
    infos: Sequence[str] = ()


class ApiError(Exception):
    """An answer that is an error: ``kind`` is Prometheus's error type, which also decides the HTTP status."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def status(self) -> int:
        return STATUS[self.kind]


class Left(Exception):  # noqa: N818  not an error
    """The client has left: nobody waits for an answer."""


class Parameters:
    """Query string and form together; a parameter given twice keeps its first value, except where all are asked for.

    ``path``: what stands for the variable parts of the path. Whoever asks may set ``cancel`` when the answer is no
    longer wanted, and ``patience``, how many seconds it may take at most.
    """

    def __init__(self, pairs: list[tuple[str, str]], path: Mapping[str, str] = NOTHING) -> None:
        self._pairs = pairs
        self.path = path
        self.cancel = threading.Event()
        self.patience: float | None = None

    @classmethod
    async def of(cls, request: Request) -> Parameters:
        """See ``read``."""
        return await cls.read(request.scope, request.receive)

    @classmethod
    async def read(cls, scope: Scope, receive: Receive) -> Parameters:
        """Raises :class:`ApiError` for a body that is too long, no form or no text, :class:`Left` for half a body."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if scope["method"] == "POST":
            body = bytearray()
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Left
                body += message.get("body", b"")
                if len(body) > BODY_LIMIT:
                    raise ApiError("bad_data", f"error parsing form values: more than {BODY_LIMIT} bytes")
                more = message.get("more_body", False)
            try:
                pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=1000) + pairs
            except ValueError as error:
                raise ApiError("bad_data", f"error parsing form values: {error}") from None
        return cls(pairs, scope.get("path_params", NOTHING))

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
        text = self.text("limit") or "0"
        number = _whole(text, 'strconv.Atoi: parsing "{}": invalid syntax', "limit")
        if number < 0:
            raise invalid("limit", "limit must be non-negative")
        return number or None

    def count(self, name: str) -> int:
        """A whole number that may be left out, as the endpoints of metadata read it (-1: all)."""
        text = self.text(name)
        if not text:
            return -1
        if not INTEGER.fullmatch(text):
            raise ApiError("bad_data", f"{name} must be a number")
        return int(text)

    def timeout(self) -> float | None:
        """Seconds that a query may take; None where nothing is said."""
        if not self.text("timeout"):
            return None
        seconds = self.duration("timeout")
        if seconds <= 0:
            raise ApiError("timeout", TIMED_OUT)
        return seconds

    def lookback(self) -> float | None:
        """Seconds that an instant selector looks back; None for the usual five minutes."""
        if not self.text("lookback_delta"):
            return None
        try:
            seconds = self.duration("lookback_delta")
        except ApiError as error:
            reason = str(error).partition('": ')[2]
            raise ApiError("bad_data", f"error parsing lookback delta duration: {reason}") from None
        return seconds if seconds > 0 else None

    def truth(self, name: str) -> bool:
        """A switch, as Go's ``strconv.ParseBool`` reads it; no when left out."""
        text = self.text(name)
        if text not in TRUTHS:
            reason = f'error converting {name}: strconv.ParseBool: parsing "{text}": invalid syntax'
            raise invalid(name, reason)
        return TRUTHS[text]

    def matchers(self, *, named: bool = True) -> list[tuple[Matcher, ...]]:
        """The selectors given as ``match[]``. Whether its name is in an error differs from endpoint to endpoint."""
        found = []
        for text in self.texts("match[]"):
            try:
                found.append(_matchers(text))
            except ApiError as error:
                raise (invalid("match[]", str(error)) if named else error) from None
        return found


def _matchers(text: str) -> tuple[Matcher, ...]:
    try:
        node = parse(text)
    except QueryError as error:
        raise ApiError("bad_data", NO_MATCHER if NO_MATCHER.partition("] ")[2] in str(error) else str(error)) from None
    if not isinstance(node, Selector) or node.offset or node.at is not None:
        raise ApiError("bad_data", f"{text!r} is no series selector")
    if all(matcher.matches_empty for matcher in node.matchers):
        raise ApiError("bad_data", NO_MATCHER)
    return node.matchers


def _whole(text: str, words: str, name: str) -> int:
    if not INTEGER.fullmatch(text):
        raise invalid(name, words.format(text))
    return int(text)


def cut(found: list[Any], limit: int | None) -> Answer:
    """At most ``limit`` of ``found``, and a warning if that is not all."""
    if limit is None or len(found) <= limit:
        return Answer(found)
    return Answer(found[:limit], (TRUNCATED,))


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
