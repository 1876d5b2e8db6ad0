"""What a template computes with, and how Go prints it: numbers, text, labels, elements of a query, instants, spans.

Wording after Go's text/template and fmt; the oracle is promtool (tests/alerts/test_rules_templates.py).
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

# Of any text that a template makes. A mistake in a template must not fill the memory.
LONGEST: Final = 64 * 1024
DEEPEST: Final = 50
FLOAT: Final = re.compile(r"[+-]?(?:D\.?D?|\.D)(?:[eE][+-]?D)?".replace("D", r"(?:\d+(?:_\d+)*)"), re.ASCII)
ENDLESS: Final = re.compile(r"[+-]?inf(?:inity)?|nan", re.IGNORECASE)
HEXADECIMAL: Final = re.compile(r"[+-]?0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)p[+-]?\d+", re.IGNORECASE | re.ASCII)
METHODS: Final = {"Year": "%Y", "Day": "%d", "Hour": "%H", "Minute": "%M", "Second": "%S", "YearDay": "%j"}


@dataclass(frozen=True, slots=True)
class Element:
    """One element of what ``query`` gives: ``.Labels`` and ``.Value``."""

    labels: Mapping[str, str]
    value: float


class Html(str):
    """What ``safeHtml`` gives: a text that is printed and compared, but that no function takes for one."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Instant:
    """What ``toTime`` gives: a time in UTC, milliseconds since 1970."""

    milliseconds: int

    @property
    def time(self) -> datetime.datetime:
        return datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=self.milliseconds)

    def __str__(self) -> str:
        part = f"{self.time.microsecond // 1000:03d}".rstrip("0")
        return f"{_date(self.time)} {self.time:%H:%M:%S}{f'.{part}' if part else ''} +0000 UTC"


@dataclass(frozen=True, slots=True)
class Span:
    """What ``toDuration`` gives: a length of time in nanoseconds."""

    nanoseconds: int

    def __str__(self) -> str:
        sign, size = ("-" if self.nanoseconds < 0 else ""), abs(self.nanoseconds)
        if size == 0:
            return "0s"
        for unit, one in (("ns", 1), ("µs", 1000), ("ms", 10**6)):
            if size < one * 1000:
                return f"{sign}{_decimal(size, one)}{unit}"
        minutes, rest = divmod(size, 60 * 10**9)
        hours, minutes = divmod(minutes, 60)
        text = f"{_decimal(rest, 10**9)}s"
        return sign + (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + text


@dataclass(frozen=True, slots=True)
class Data:
    """What a template may speak of: the labels of the element (with ``__name__``), its value, and what is around it.

    ``at``: the instant of the evaluation, in Unix seconds.
    """

    labels: Mapping[str, str]
    value: float
    external_labels: Mapping[str, str] = field(default_factory=dict)
    external_url: str = ""
    query: Query | None = None
    at: float = 0.0


# ``None`` is Go's nil, of which nothing can be asked.
GoValue: TypeAlias = (
    float | int | str | bool | Mapping[str, Any] | Sequence[Element] | Element | Instant | Span | Data | None
)
# What ``query`` asks; whoever expands a template says as of when.
Query: TypeAlias = Callable[[str], Sequence[Element]]


def plain(value: GoValue, depth: int = 0) -> str:
    """Go's ``%v``: the shortest digits that read back the same. Raises ``ValueError`` for what is no text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Instant | Span):
        return str(value)
    if isinstance(value, float):
        return shortest(value)
    if value is None:
        return "<nil>" if depth else "<no value>"
    if isinstance(value, Mapping):
        return f"map[{_joined((f'{name}:{plain(value[name], depth + 1)}' for name in sorted(value)), depth)}]"
    if isinstance(value, Data):
        given = (value.labels, value.external_labels, value.external_url, value.value)
        return f"{{{_joined((plain(each, depth + 1) for each in given), depth)}}}"
    if isinstance(value, Element) and not depth:
        return f"{{{plain(value.labels)} {plain(value.value)}}}"
    if not isinstance(value, Element) and not value:
        return "[]"
    raise ValueError("what a query found is no text: print the .Value or a label of an element")  # to Go, addresses


def _joined(pieces: Iterator[str], depth: int) -> str:
    """``pieces`` with spaces between them. Maps that hold each other double what they print with every step."""
    if depth > DEEPEST:
        raise ValueError(f"maps are nested more than {DEEPEST} deep")
    found: list[str] = []
    size = 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size > LONGEST:
            raise ValueError(f"the text is longer than {LONGEST} characters")
    return " ".join(found)


def inner(value: GoValue) -> str:
    """:func:`plain` where it is not printed by itself: by ``print`` or ``printf``."""
    if value is None:
        return "<nil>"
    return f"&{plain(value)}" if isinstance(value, Element) else plain(value)


def shortest(value: float) -> str:
    """A float as Go prints it unasked: an exponent below 1e-4 and from 1e6 on."""
    if special_ := special(value):
        return special_
    digits, exponent = _digits(value)
    sign = "-" if math.copysign(1, value) < 0 else ""
    if exponent < -4 or exponent >= 6:
        rest = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{rest}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    whole, part = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
    return f"{sign}{whole}.{part}" if part else f"{sign}{whole}"


def _digits(value: float) -> tuple[str, int]:
    """The shortest significant digits and the decimal exponent of the first."""
    mantissa, _, power = f"{abs(value)!r}".partition("e")
    whole, _, part = mantissa.partition(".")
    digits = (whole + part).lstrip("0")
    lead = len(whole) - 1 if whole.strip("0") else -(len(part) - len(part.lstrip("0"))) - 1
    return digits.rstrip("0") or "0", (lead + int(power or 0)) if digits else 0


def special(value: float) -> str:
    """NaN and the infinities as Go writes them; ``""`` for a number."""
    if math.isnan(value):
        return "NaN"
    return "" if math.isfinite(value) else "+Inf" if value > 0 else "-Inf"


ESCAPES: Final = {'"': '\\"', "\\": "\\\\"} | dict(zip("\a\b\f\n\r\t\v", (rf"\{c}" for c in "abfnrtv"), strict=True))


def quoted(text: str) -> str:
    """Go's ``%q``."""
    return '"' + "".join(ESCAPES.get(each) or _visible(each) for each in text) + '"'


def _visible(character: str) -> str:
    code = ord(character)
    if character.isprintable():
        return character
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _decimal(size: int, one: int) -> str:
    whole, part = divmod(size, one)
    text = f"{part:0{len(str(one)) - 1}d}".rstrip("0") if one > 1 else ""
    return f"{whole}.{text}" if text else str(whole)


def _date(time: datetime.datetime) -> str:
    return f"{time.year:04d}-{time:%m-%d}"


def number(value: GoValue) -> float:
    """A number, or text that is one. Raises ``ValueError``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, Span):
        return value.nanoseconds / 1e9
    if isinstance(value, str) and not isinstance(value, Html):
        return _parsed(value)
    raise ValueError(f"can't convert {kind(value)} to float")


def _parsed(text: str) -> float:
    """Go's ``strconv.ParseFloat``: no space around it, no other digits than ours, nothing that is too large."""
    if ENDLESS.fullmatch(text):
        return float(text)
    if HEXADECIMAL.fullmatch(text) or FLOAT.fullmatch(text):
        try:
            found = float.fromhex(text) if HEXADECIMAL.fullmatch(text) else float(text)
        except OverflowError:
            found = math.inf
        if math.isfinite(found):
            return found
        raise ValueError(f"strconv.ParseFloat: parsing {quoted(text)}: value out of range")
    raise ValueError(f"strconv.ParseFloat: parsing {quoted(text)}: invalid syntax")


STRUCT: Final = (
    "struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; Value float64 }"
)


def kind(value: GoValue) -> str:
    """The name of its type in Go."""
    if isinstance(value, Mapping):
        texts = all(isinstance(each, str) for each in value.values())
        return "map[string]string" if texts else "map[string]interface {}"
    if isinstance(value, Instant | Span):
        return "*time.Time" if isinstance(value, Instant) else "*time.Duration"
    if isinstance(value, Html | Data):
        return "template.HTML" if isinstance(value, Html) else STRUCT
    for each, name in ((bool, "bool"), (str, "string"), (int, "int"), (float, "float64")):
        if isinstance(value, each):
            return name
    return "nil" if value is None else "*template.sample" if isinstance(value, Element) else "template.queryResult"


def truth(value: GoValue) -> bool:
    """Whether Go's ``if`` takes it for true: not 0, not empty."""
    return True if isinstance(value, Element | Instant | Span | Data) else bool(value)


def get(value: GoValue, name: str) -> GoValue:
    """``value.name``: a label (empty where there is none), or what an element, the data, a time or a span has.

    Raises ``ValueError``.
    """
    if isinstance(value, Mapping):
        return missing(value) if name not in value else value[name]
    if value is None:
        return None
    if isinstance(value, Element) and name in ("Labels", "Value"):
        return value.labels if name == "Labels" else value.value
    if isinstance(value, Instant) and name in METHODS:
        return int(value.time.strftime(METHODS[name]))
    if isinstance(value, Instant) and name in ("Unix", "UnixMilli"):
        return value.milliseconds // 1000 if name == "Unix" else value.milliseconds
    if isinstance(value, Span) and name in ("Seconds", "Minutes", "Hours"):
        return value.nanoseconds / {"Seconds": 1e9, "Minutes": 6e10, "Hours": 3.6e12}[name]
    if isinstance(value, Data):
        fields = {"Labels": value.labels, "ExternalLabels": value.external_labels}
        fields |= {"ExternalURL": value.external_url, "Value": value.value}  # type: ignore[dict-item]
        if name in fields:
            return fields[name]
    raise ValueError(f"can't evaluate field {name} in type {kind(value)}")


class Arguments(dict[str, Any]):
    """What ``args`` gives: unlike labels, a name that is not there is nil."""


def missing(value: Mapping[str, Any]) -> GoValue:
    """What a map gives for a name that it does not have."""
    return None if isinstance(value, Arguments) else ""
