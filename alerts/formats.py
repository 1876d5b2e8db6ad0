"""Numbers and text printed exactly as Prometheus prints them in a template: ``humanize`` and its kin, Go's ``printf``.

Meaning and wording after Prometheus's template/template.go and Go's fmt; the oracle is promtool
(tests/alerts/test_rules_templates.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

from .templatevalues import (
    Data,
    Element,
    GoValue,
    Html,
    Instant,
    Span,
    inner,
    kind,
    number,
    plain,
    quoted,
    shortest,
    special,
)

VERB: Final = re.compile(
    r"%(?:(?P<flags>[-+0 ](?=[0-9.]*[fegd])|-(?=[0-9.]*[svqt]))?(?P<width>[1-9]\d?)?(?:\.(?P<precision>\d{0,2})(?!d))?"
    r"(?P<verb>[vsqdfegt])|(?P<percent>%))"
)


def _g4(value: float) -> str:
    return special(value) or f"{value:.4g}"


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
    return str(instant(v)) if math.isfinite(v) else _g4(v)


LAYOUT: Final = re.compile(
    r"January|Jan(?![a-z])|Monday|Mon(?![a-z])|MST|002|0[1-6]|15|1|2006|_?2(?!006)|3|4|5|PM|pm|-07:00:00|-070000|-07:00"
    r"|-0700|-07|Z07:00:00|Z070000|Z07:00|Z0700|Z07|[.,](?:0+|9+)(?![0-9])"
)
# Go's layouts in those of strftime. What is not among them has no zeros before it.
CODES: Final = {"2006": "%Y", "06": "%y", "January": "%B", "Jan": "%b", "01": "%m", "Monday": "%A", "Mon": "%a"} | {
    "002": "%j", "02": "%d", "15": "%H", "03": "%I", "04": "%M", "05": "%S", "PM": "%p", "MST": "UTC",
}  # fmt: skip
BARE: Final = {"1": "%m", "2": "%d", "_2": "%d", "3": "%I", "4": "%M", "5": "%S"}


def formatted(value: GoValue, layout: GoValue) -> str:
    """Go's ``Time.Format``: ``2006-01-02 15:04:05`` stands for what a layout can hold. Raises ``ValueError``."""
    if not isinstance(value, Instant) or not isinstance(layout, str):
        raise ValueError(f"can't evaluate field Format in type {kind(value)}")
    at = value.time

    def one(match: re.Match[str]) -> str:
        text = match.group()
        if text[0] in "Z-":
            return "Z" if text[0] == "Z" else text.replace("7", "0").replace("-", "+")
        if text[0] in ".,":
            digits = f"{at.microsecond:06d}".ljust(len(text) - 1, "0")[: len(text) - 1]
            digits = digits.rstrip("0") if text[1] == "9" else digits
            return text[0] + digits if digits else ""
        if text in BARE:
            return (at.strftime(BARE[text]).lstrip("0") or "0").rjust(len(text))
        return at.strftime(CODES[text]) if text in CODES else at.strftime("%p").lower()

    return LAYOUT.sub(one, layout)


def instant(value: GoValue) -> Instant:
    """Unix seconds as a time. Raises ``ValueError``."""
    nanoseconds = _nanoseconds(number(value), "a nanoseconds timestamp since it")
    return Instant(int(math.copysign(abs(nanoseconds) // 10**6, nanoseconds)))  # towards zero, as Go divides


def span(value: GoValue) -> Span:
    """Seconds as a length of time. Raises ``ValueError``."""
    return Span(_nanoseconds(number(value), "a duration in nanoseconds since it"))


def _nanoseconds(seconds: float, what: str) -> int:
    if not math.isfinite(seconds):
        raise ValueError("value is NaN or Inf")
    if abs(seconds * 1e9) >= 2**63:
        raise ValueError(f"{shortest(seconds)} cannot be represented as {what} overflows int64")
    return int(seconds * 1e9)


def printf(form: GoValue, *arguments: GoValue) -> str:
    """Go's ``Sprintf`` for the verbs that :data:`VERB` knows. Raises ``ValueError`` for any other."""
    if not isinstance(form, str) or isinstance(form, Html):
        raise ValueError(f"wrong type for value; expected string; got {kind(form)}")
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
        text += "%!(EXTRA " + ", ".join(f"{kind(value)}={inner(value)}" for value in rest) + ")"
    return text


def printf_problem(form: str) -> str:
    """What of ``form`` is not known here; ``""`` where nothing is."""
    rest = VERB.sub("", form)
    if "%" not in rest:
        return ""
    return (
        f"printf {rest[rest.index('%') :]!r} is not supported; %v %s %q %d %e %f %g %t %% are, with width and precision"
    )


def _verb(verb: str, value: GoValue, how: re.Match[str]) -> str:
    if isinstance(value, Mapping):
        items = (f"{_verb(verb, name, how)}:{_verb(verb, value[name], how)}" for name in sorted(value))
        return f"map[{' '.join(items)}]"
    if isinstance(value, Data):
        fields = (value.labels, value.external_labels, value.external_url, value.value)
        return "{" + " ".join(_verb(verb, each, how) for each in fields) + "}"
    if isinstance(value, Element):
        return f"&{{{_verb(verb, value.labels, how)} {_verb(verb, value.value, how)}}}"
    if value is None:
        return "<nil>" if verb == "v" else f"%!{verb}(<nil>)"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return plain(value)
    if isinstance(value, Instant | Span) and verb not in "sv":
        raise ValueError(f"printf %{verb} of {kind(value)} is not supported")
    if verb not in FITTING.get(type(value), "svq"):
        return f"%!{verb}({kind(value)}={_verb('v', value, how)})"
    precision = None if how["precision"] is None else int(how["precision"] or 0)
    if isinstance(value, float):
        text = _signed(special(value) or _float(verb, value, precision), how)
    elif verb == "q" and type(value) is int:
        character = quoted(chr(value) if 0 <= value <= 0x10FFFF and not 0xD800 <= value < 0xE000 else "\ufffd")[1:-1]
        text = "'" + character.replace("'", "\\'").replace('\\"', '"') + "'"
    elif isinstance(value, int) and not isinstance(value, bool):
        text = _signed(f"{'-' if value < 0 else ''}{abs(value):0{precision or 0}d}", how)
    else:
        text = plain(value)
        text = text if precision is None or not isinstance(value, str) else text[:precision]
        text = quoted(text) if verb == "q" else text
    return _padded(text, how, value)


# The verbs for each type; what is not among these is text.
FITTING: Final[Mapping[type, str]] = {float: "fegv", int: "dqv", bool: "tv"}


def _float(verb: str, value: float, precision: int | None) -> str:
    if precision is None and verb in "gv":
        return shortest(value)
    return f"{value:.{6 if precision is None else precision}{'g' if verb == 'v' else verb}}"


def _signed(text: str, how: re.Match[str]) -> str:
    if how["flags"] not in ("+", " ") or text[0] == "-":
        return text
    return how["flags"] + text.removeprefix("+")


def _padded(text: str, how: re.Match[str], value: GoValue) -> str:
    width = int(how["width"] or 0)
    if how["flags"] == "-":
        return text.ljust(width)
    if how["flags"] != "0" or (isinstance(value, float) and not math.isfinite(value)):
        return text.rjust(width)
    if isinstance(value, int) and how["precision"] is not None:
        return text.rjust(width)
    sign = "-" if text.startswith("-") and not isinstance(value, str) else ""
    return sign + text.removeprefix(sign).rjust(width - len(sign), "0")
