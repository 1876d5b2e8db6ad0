"""The functions of a rule's template: numbers and text printed exactly as Prometheus (Go's fmt) prints them.

Meaning and wording after Prometheus's template/template.go; the oracle is promtool
(tests/alerts/test_rules_templates.py).
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import quote_plus


@dataclass(frozen=True, slots=True)
class Element:
    """One element of what ``query`` gives: ``.Labels`` and ``.Value``."""

    labels: Mapping[str, str]
    value: float


GoValue: TypeAlias = float | int | str | bool | Mapping[str, str] | Sequence[Element] | Element

VERB: Final = re.compile(
    r"%(?:(?P<flags>[-+0 ](?=[0-9.]*[feg])|-(?=[0-9.]*[svqd]))?(?P<width>[1-9]\d?)?(?:\.(?P<precision>\d{0,2})(?!d))?"
    r"(?P<verb>[vsqdfeg])|(?P<percent>%))"
)
MOST: Final = 64


@dataclass(frozen=True, slots=True)
class Function:
    """``call`` takes ``least`` to ``most`` values."""

    call: Callable[..., GoValue]
    least: int
    most: int


def plain(value: GoValue) -> str:
    """Go's ``%v``: the shortest digits that read back the same."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{name}:{value[name]}" for name in sorted(value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Element | Sequence):
        raise ValueError("an element of a query is no text: print its .Value or a label of it")
    return str(value) if isinstance(value, int) else shortest(value)


def shortest(value: float) -> str:
    """A float as Go prints it unasked: an exponent below 1e-4 and from 1e6 on."""
    if special := _special(value):
        return special
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


def _special(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "" if math.isfinite(value) else "+Inf" if value > 0 else "-Inf"


def _g4(value: float) -> str:
    return _special(value) or f"{value:.4g}"


def number(value: GoValue) -> float:
    """A number, or text that is one. Raises ``ValueError``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"strconv.ParseFloat: parsing {json.dumps(value)}: invalid syntax") from None
    raise ValueError("can't convert a map to float")


def humanize(value: GoValue) -> str:
    """Four digits and a metric prefix: ``1.234M``, ``12.3m``."""
    v = number(value)
    if v == 0 or not math.isfinite(v):
        return _g4(v)
    prefix = ""
    if abs(v) >= 1:
        for step in "kMGTPEZY":
            if abs(v) < 1000:
                break
            prefix, v = step, v / 1000
        return _g4(v) + prefix
    for step in "munpfazy":
        if abs(v) >= 1:
            break
        prefix, v = step, v * 1000
    return _g4(v) + prefix


def humanize1024(value: GoValue) -> str:
    """As :func:`humanize` with binary prefixes: ``1.234Mi``."""
    v = number(value)
    if abs(v) <= 1 or not math.isfinite(v):
        return _g4(v)
    prefix = ""
    for step in ("ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"):
        if abs(v) < 1024:
            break
        prefix, v = step, v / 1024
    return _g4(v) + prefix


def humanize_duration(value: GoValue) -> str:
    """Seconds as ``312ms``, ``1.84s``, ``2m 5s``, ``1d 2h 3m 4s``."""
    v = number(value)
    if not math.isfinite(v):
        return _g4(v)
    if v == 0:
        return _g4(v) + "s"
    if abs(v) >= 1:
        sign, v = ("-", -v) if v < 0 else ("", v)
        whole = int(v)
        seconds, minutes, hours, days = whole % 60, whole // 60 % 60, whole // 3600 % 24, whole // 86400
        if days:
            return f"{sign}{days}d {hours}h {minutes}m {seconds}s"
        if hours:
            return f"{sign}{hours}h {minutes}m {seconds}s"
        return f"{sign}{minutes}m {seconds}s" if minutes else f"{sign}{_g4(v)}s"
    prefix = ""
    for step in "munpfazy":
        if abs(v) >= 1:
            break
        prefix, v = step, v * 1000
    return f"{_g4(v)}{prefix}s"


def humanize_percentage(value: GoValue) -> str:
    """A ratio as ``12.3%``."""
    return _g4(number(value) * 100) + "%"


def humanize_timestamp(value: GoValue) -> str:
    """Unix seconds as a UTC date and time, as Go prints it."""
    v = number(value)
    if not math.isfinite(v):
        return _g4(v)
    if abs(v * 1e9) >= 2**63:
        raise ValueError(f"{shortest(v)} cannot be represented as a nanoseconds timestamp since it overflows int64")
    milliseconds = int(v * 1e9 / abs(v * 1e9 or 1)) * (int(abs(v * 1e9)) // 10**6)  # towards zero, as Go divides
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=milliseconds)
    part = f"{at.microsecond // 1000:03d}".rstrip("0")
    return f"{at:%Y-%m-%d %H:%M:%S}{f'.{part}' if part else ''} +0000 UTC"


def printf(form: GoValue, *arguments: GoValue) -> str:
    """Go's ``Sprintf`` for the verbs that :data:`VERB` knows. Raises ``ValueError`` for any other."""
    if not isinstance(form, str):
        raise ValueError("wrong type for value; expected string")
    if reason := printf_problem(form):
        raise ValueError(reason)
    rest = list(arguments)

    def one(match: re.Match[str]) -> str:
        verb = match["verb"]
        if match["percent"]:
            return "%"
        return _verb(verb, rest.pop(0), match) if rest else f"%!{verb}(MISSING)"

    text = VERB.sub(one, form)
    if rest:
        text += "%!(EXTRA " + ", ".join(f"{_type(value)}={plain(value)}" for value in rest) + ")"
    return text


def printf_problem(form: str) -> str:
    """What of ``form`` is not known here; ``""`` where nothing is."""
    rest = VERB.sub("", form)
    if "%" not in rest:
        return ""
    return f"printf {rest[rest.index('%') :]!r} is not supported; %v %s %q %d %e %f %g %% are, with width and precision"


def _verb(verb: str, value: GoValue, match: re.Match[str]) -> str:
    precision = None if match["precision"] is None else int(match["precision"] or 0)
    flags, width = match["flags"] or "", int(match["width"] or 0)
    if isinstance(value, float) and verb in "fegv":
        text = _special(value) or _float(verb, value, precision)
        if flags in ("+", " ") and text[0] not in "+-":
            text = flags + text
        if flags == " " and text[0] == "+":
            text = " " + text[1:]
    elif isinstance(value, str) and verb in "svq":
        text = value if precision is None else value[:precision]
        text = json.dumps(text, ensure_ascii=False) if verb == "q" else text
    elif isinstance(value, bool):
        if verb != "v":
            return f"%!{verb}(bool={_padded(plain(value), flags, width, value)})"
        text = plain(value)
    elif (isinstance(value, int) and verb in "dv") or (isinstance(value, Mapping) and verb in "sv"):
        text = plain(value)
    else:
        return f"%!{verb}({_type(value)}={_padded(plain(value), flags, width, value)})"
    return _padded(text, flags, width, value)


def _float(verb: str, value: float, precision: int | None) -> str:
    if precision is None and verb in "gv":
        return shortest(value)
    return f"{value:.{6 if precision is None else precision}{'g' if verb == 'v' else verb}}"


def _padded(text: str, flags: str, width: int, value: GoValue) -> str:
    if flags == "-":
        return text.ljust(width)
    if flags == "0" and isinstance(value, float) and math.isfinite(value):
        sign = "-" if text.startswith("-") else ""
        return sign + text[len(sign) :].rjust(width - len(sign), "0")
    return text.rjust(width)


def _type(value: GoValue) -> str:
    if isinstance(value, Mapping):
        return "map[string]string"
    if isinstance(value, bool):
        return "bool"
    return "string" if isinstance(value, str) else "int" if isinstance(value, int) else "float64"


def _index(among: GoValue, key: GoValue) -> GoValue:
    if isinstance(among, Mapping) and isinstance(key, str):
        return among.get(key, "")
    if isinstance(among, Sequence) and not isinstance(among, str) and isinstance(key, int):
        if not 0 <= key < len(among):
            raise ValueError(f"index out of range: {key}")
        return among[key]
    raise ValueError("index: only labels by name and elements by number can be looked up here")


def _text(value: GoValue) -> str:
    if not isinstance(value, str):
        raise ValueError("wrong type for value; expected string")
    return value


def _title(value: GoValue) -> str:
    """Go's ``strings.Title``: what stands behind no letter, digit, ``_`` or non-ASCII mark becomes a capital."""
    text, before, out = _text(value), " ", []
    for letter in text:
        inside = before == "_" or before.isalnum() or (ord(before) > 127 and not before.isspace())
        out.append(letter if inside else letter.title())
        before = letter
    return "".join(out)


def truth(value: GoValue) -> bool:
    """Whether Go's ``if`` takes it for true: not 0, not empty."""
    return True if isinstance(value, Element) else bool(value)


def field(value: GoValue, name: str) -> GoValue:
    """``value.name``: a label (empty where there is none), or what an element of a query has. Raises ``ValueError``."""
    if isinstance(value, Mapping):
        return value.get(name, "")
    if isinstance(value, Element) and name in ("Labels", "Value"):
        return value.labels if name == "Labels" else value.value
    raise ValueError(f"can't evaluate field {name}")


def _elements(value: GoValue) -> Sequence[Element]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return value
    raise ValueError("wrong type for value; expected the result of a query")


def _element(value: GoValue) -> Element:
    if not isinstance(value, Element):
        raise ValueError("wrong type for value; expected an element of a query")
    return value


def _first(value: GoValue) -> Element:
    found = _elements(value)
    if not found:
        raise ValueError("first() called on vector with no elements")
    return found[0]


def _sort_by_label(label: GoValue, value: GoValue) -> GoValue:
    name = _text(label)
    return sorted(_elements(value), key=lambda each: each.labels.get(name, ""))


def _order(left: GoValue, right: GoValue) -> int:
    """-1, 0 or 1. Go compares what is of one basic type only."""
    if type(left) is not type(right) or not isinstance(left, int | float | str) or not isinstance(right, type(left)):
        raise ValueError("incompatible types for comparison")
    return 0 if left == right else -1 if left < right else 1  # type: ignore[operator]


def _equal(left: GoValue, *others: GoValue) -> bool:
    return any(_order(left, other) == 0 for other in others)


def _length(value: GoValue) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, Mapping | Sequence):
        return len(value)
    raise ValueError(f"len of type {_type(value)}")


def _print(*values: GoValue) -> str:
    text = ""
    for before, value in zip((None, *values), values, strict=False):
        gap = before is not None and not isinstance(before, str) and not isinstance(value, str)
        text += (" " if gap else "") + plain(value)
    return text


def _link(expression: GoValue, tab: int) -> str:
    return f"/graph?g0.expr={quote_plus(_text(expression))}&g0.tab={tab}"


FUNCTIONS: Final = {
    "humanize": Function(humanize, 1, 1),
    "humanize1024": Function(humanize1024, 1, 1),
    "humanizeDuration": Function(humanize_duration, 1, 1),
    "humanizePercentage": Function(humanize_percentage, 1, 1),
    "humanizeTimestamp": Function(humanize_timestamp, 1, 1),
    "printf": Function(printf, 1, MOST),
    "print": Function(_print, 0, MOST),
    "println": Function(lambda *values: " ".join(map(plain, values)) + "\n", 0, MOST),
    "index": Function(_index, 2, 2),
    "len": Function(_length, 1, 1),
    "title": Function(_title, 1, 1),
    "toUpper": Function(lambda value: _text(value).upper(), 1, 1),
    "toLower": Function(lambda value: _text(value).lower(), 1, 1),
    "first": Function(_first, 1, 1),
    "value": Function(lambda element: _element(element).value, 1, 1),
    "label": Function(lambda name, element: _element(element).labels.get(_text(name), ""), 2, 2),
    "strvalue": Function(lambda element: _element(element).labels.get("__value__", ""), 1, 1),
    "sortByLabel": Function(_sort_by_label, 2, 2),
    "tableLink": Function(lambda expression: _link(expression, 1), 1, 1),
    "graphLink": Function(lambda expression: _link(expression, 0), 1, 1),
    "eq": Function(_equal, 2, MOST),
    "ne": Function(lambda left, right: _order(left, right) != 0, 2, 2),
    "lt": Function(lambda left, right: _order(left, right) < 0, 2, 2),
    "le": Function(lambda left, right: _order(left, right) <= 0, 2, 2),
    "gt": Function(lambda left, right: _order(left, right) > 0, 2, 2),
    "ge": Function(lambda left, right: _order(left, right) >= 0, 2, 2),
    "not": Function(lambda value: not truth(value), 1, 1),
}
