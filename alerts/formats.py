"""The functions of a rule's template: numbers and text printed exactly as Prometheus (Go's fmt) prints them.

Meaning and wording after Prometheus's template/template.go; the oracle is promtool
(tests/alerts/test_rules_templates.py).
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

GoValue: TypeAlias = float | int | str | Mapping[str, str]

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
    if isinstance(value, int | float):
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
    return "string" if isinstance(value, str) else "int" if isinstance(value, int) else "float64"


def _index(labels: GoValue, name: GoValue) -> str:
    if not isinstance(labels, Mapping) or not isinstance(name, str):
        raise ValueError("index: only labels by name can be looked up here")
    return labels.get(name, "")


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


FUNCTIONS: Final = {
    "humanize": Function(humanize, 1, 1),
    "humanize1024": Function(humanize1024, 1, 1),
    "humanizeDuration": Function(humanize_duration, 1, 1),
    "humanizePercentage": Function(humanize_percentage, 1, 1),
    "humanizeTimestamp": Function(humanize_timestamp, 1, 1),
    "printf": Function(printf, 1, MOST),
    "index": Function(_index, 2, 2),
    "title": Function(_title, 1, 1),
    "toUpper": Function(lambda value: _text(value).upper(), 1, 1),
    "toLower": Function(lambda value: _text(value).lower(), 1, 1),
}
