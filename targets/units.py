"""Units: text such as ``"200ms"`` to base units and back to what a person would write."""

from __future__ import annotations

import enum
import math
import re
from fractions import Fraction


class Unit(enum.StrEnum):
    """What a target's number counts. The value is the ``unit`` label of every ``target:*`` series."""

    SECONDS = "seconds"
    BYTES = "bytes"
    USERS = "users"
    PERCENT = "percent"  # of a whole: its base unit is the fraction, 0 to 1
    NUMBER = "number"

    @property
    def is_count(self) -> bool:
        return self is Unit.USERS


# Decimal multiples for memory (500 MB = 500,000,000 bytes, SI) and binary ones under their IEC names.
TIME = {"ns": Fraction(1, 10**9), "us": Fraction(1, 10**6), "µs": Fraction(1, 10**6), "ms": Fraction(1, 1000),
        "s": Fraction(1), "m": Fraction(60), "min": Fraction(60), "h": Fraction(3600), "d": Fraction(86400),
        "w": Fraction(7 * 86400)}  # fmt: skip
SIZE = {"B": Fraction(1), "kB": Fraction(10**3), "KB": Fraction(10**3), "MB": Fraction(10**6), "GB": Fraction(10**9),
        "TB": Fraction(10**12), "KiB": Fraction(2**10), "MiB": Fraction(2**20), "GiB": Fraction(2**30),
        "TiB": Fraction(2**40)}  # fmt: skip
MANY = 1e6  # from here on six digits would need an exponent
NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-zµ]*)\s*\Z")


def parse_quantity(text: str, units: dict[str, Fraction]) -> float:
    """``"200ms"`` to ``0.2``. Raises ``ValueError`` whose text says what is missing and what is allowed."""
    match = NUMBER.match(text)
    allowed = ", ".join(units)
    if match is None:
        raise ValueError(f"is no number with a unit; allowed units: {allowed}")
    number, unit = match.groups()
    if not unit:
        raise ValueError(f"a {'time' if 's' in units else 'size'} needs a unit ({allowed})")
    if unit not in units:
        raise ValueError(f"unit {unit!r} is not known; allowed: {allowed}")
    try:
        return float(Fraction(number) * units[unit])
    except OverflowError:
        raise ValueError("is too large") from None


def format_duration(seconds: float) -> str:
    """A length of time: ``250 ms``, ``5 s``, ``1 min``, ``2 h 5 min``."""
    if seconds != seconds or math.isinf(seconds):
        return "unknown"
    if seconds < 1:
        return f"{_short(seconds * 1000)} ms"
    if seconds < 60:
        return f"{_short(seconds)} s"
    parts: list[str] = []
    rest = round(seconds)
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, rest = divmod(rest, size)
        if amount:
            parts.append(f"{amount} {name}")
    return " ".join(parts[:2])


def format_value(value: float, unit: Unit) -> str:
    """``value`` (base units) as a person would write it: ``312 ms``, ``1.84 s``, ``512 MB``, ``37 users``, ``99 %``."""
    if math.isnan(value):
        return "no traffic"
    if math.isinf(value):
        return "unbounded" if value > 0 else "-unbounded"
    if unit is Unit.SECONDS:
        size = abs(value)
        if size and size < 0.001:
            return f"{_short(value * 1e6)} µs"
        return f"{_short(value * 1000)} ms" if size < 1 else f"{_short(value)} s"
    if unit is Unit.BYTES:
        for name, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
            if abs(value) >= factor:
                return f"{_short(value / factor)} {name}"
        return f"{value:.0f} B"
    if unit is Unit.PERCENT:
        return f"{float(f'{value * 100:.4g}'):g} %"
    if unit is Unit.NUMBER:
        return f"{value:.6g}" if abs(value) < MANY else f"{value:,.0f}"
    count = f"{value:.0f}"
    return f"{count} {unit.value if count != '1' else unit.value.removesuffix('s')}"


def format_promql_duration(seconds: float) -> str:
    """A PromQL and Prometheus rule-file duration that is exact to the millisecond: ``1m``, ``90s``, ``1500ms``."""
    milliseconds = round(seconds * 1000)
    for name, size in (("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{name}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def _short(value: float) -> str:
    """Three significant digits, without an exponent or trailing zeros: 312, 31.2, 3.12, 0.31."""
    size = abs(value)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
