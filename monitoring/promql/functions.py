"""Functions over instant vectors: mathematics, dates, labels, order.

Formulas: Prometheus 3, promql/functions.go.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anvil_monitor.alerts.patterns import PatternError, compile_pattern

from ..samples import NAME, Floats, Labels
from .frame import Frame, Scalars, merge, with_labels
from .labelsets import marked, without_names
from .values import QueryError


def _sign(values: Floats) -> Floats:
    """Keeps the sign of zero, and NaN."""
    return np.where(values < 0, -1.0, np.where(values > 0, 1.0, values))


ELEMENTWISE: dict[str, Callable[[Floats], Floats]] = {
    "abs": np.abs,
    "acos": np.arccos,
    "acosh": np.arccosh,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "deg": lambda values: values * 180 / math.pi,
    "exp": np.exp,
    "floor": np.floor,
    "ln": np.log,
    "log10": np.log10,
    "log2": np.log2,
    "rad": lambda values: values * math.pi / 180,
    "sgn": _sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "tan": np.tan,
    "tanh": np.tanh,
}


Dates = NDArray[np.datetime64]


def _date(part: Callable[[Dates], NDArray[Any]]) -> Callable[[Floats], Floats]:
    """A function of the UTC date at so many seconds since 1970; NaN where there is no such date."""

    def function(values: Floats) -> Floats:
        sane = np.abs(values) < 1e14
        seconds = np.where(sane, values, 0).astype(np.int64)
        found = part(seconds.astype("datetime64[s]")).astype(np.int64)
        return np.where(sane, found.astype(np.float64), np.nan)

    return function


def _since(unit: str, period: str, first: int) -> Callable[[Floats], Floats]:
    """Whole ``unit`` since the ``period`` of a date began; the first one has the number ``first``."""

    def part(dates: Dates) -> NDArray[Any]:
        begin = dates.astype(f"M8[{period}]").astype(f"M8[{unit}]")
        since: NDArray[Any] = (dates.astype(f"M8[{unit}]") - begin).astype(np.int64) + first
        return since

    return _date(part)


DATES: dict[str, Callable[[Floats], Floats]] = {
    "minute": _since("m", "h", 0),
    "hour": _since("h", "D", 0),
    "day_of_week": _date(lambda dates: (dates.astype("M8[D]").astype(np.int64) + 4) % 7),  # 1 January 1970: Thursday
    "day_of_month": _since("D", "M", 1),
    "day_of_year": _since("D", "Y", 1),
    "days_in_month": _date(
        lambda dates: (
            (dates.astype("M8[M]") + np.timedelta64(1, "M")).astype("M8[D]") - dates.astype("M8[M]").astype("M8[D]")
        )
    ),
    "month": _since("M", "Y", 1),
    "year": _date(lambda dates: dates.astype("M8[Y]").astype(np.int64) + 1970),
}


def mapped(frame: Frame, values: Floats) -> Frame:
    """New values under the same labels, less the name."""
    return merge(Frame(without_names(frame.labels), values, frame.present))


def clamp(frame: Frame, low: Scalars, high: Scalars) -> Frame:
    """Values held between two bounds; nothing where these are the wrong way round."""
    values = np.minimum(np.maximum(frame.values, low), high)
    present = frame.present & ~(low > high)
    return mapped(Frame(frame.labels, frame.values, present), values).compact()


def nearest(frame: Frame, to: Scalars) -> Frame:
    """Rounded to multiples of ``to``, halves upwards."""
    inverse = 1.0 / to
    return mapped(frame, np.floor(frame.values * inverse + 0.5) / inverse)


def scalar(frame: Frame) -> Scalars:
    """The value of a vector of one element; NaN for any other."""
    single = frame.present.sum(axis=0) == 1
    total = np.where(frame.present, frame.values, 0).sum(axis=0)
    return np.where(single, total, np.nan)


def absent(there: Frame, labels: Labels) -> Frame:
    """1 with these labels at every step at which the vector is empty."""
    nothing = ~there.present.any(axis=0, keepdims=True)
    return Frame((labels,), np.ones((1, there.steps)), np.asarray(nothing)).compact()


def ordered(frame: Frame, *, descending: bool) -> Frame:
    """An instant vector by value, NaN last."""
    values = frame.values[:, 0]
    return frame.rows(np.lexsort((-values if descending else values, np.isnan(values))))


def ordered_by(frame: Frame, names: tuple[str, ...], *, descending: bool) -> Frame:
    """An instant vector by the values of labels, numbers inside them by size; then by all labels."""

    def key(row: int) -> list[Any]:
        pairs = dict(frame.labels[row])
        return [[_natural(pairs.get(name, "")) for name in names], frame.labels[row]]

    return frame.rows(sorted(range(len(frame.labels)), key=key, reverse=descending))


def _natural(text: str) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", text, re.ASCII)
    return [(0, int(part), part) if part[0] in "0123456789" else (1, 0, part) for part in parts]


_GROUP = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})", re.ASCII)


def label_replace(frame: Frame, target: str, replacement: str, source: str, pattern: str) -> Frame:
    """Sets the label ``target`` where ``source`` matches the whole pattern. Raises QueryError."""
    try:
        match = compile_pattern(pattern).fullmatch
    except PatternError:
        raise QueryError("execution", f"invalid regular expression in label_replace(): {pattern}") from None
    _check_name("label_replace", target)

    def changed(labels: Labels) -> Labels:
        found = match(dict(labels).get(source, ""))
        if found is None:
            return labels
        names = found.groupdict()

        def group(reference: re.Match[str]) -> str:
            if reference[1]:
                return "$"
            name = reference[2] or reference[3]
            if not name.isdigit():
                return names.get(name) or ""
            return (found.group(int(name)) or "") if int(name) <= len(found.groups()) else ""

        return _named(with_labels(labels, [(target, _GROUP.sub(group, replacement))]), target)

    return merge(Frame(tuple([changed(labels) for labels in frame.labels]), frame.values, frame.present).compact())


def label_join(frame: Frame, target: str, separator: str, sources: tuple[str, ...]) -> Frame:
    """Sets the label ``target`` to the values of others, joined. Raises QueryError."""
    for name in sources:
        _check_name("label_join", name)
    _check_name("label_join", target)

    def changed(labels: Labels) -> Labels:
        pairs = dict(labels)
        return _named(with_labels(labels, [(target, separator.join(pairs.get(name, "") for name in sources))]), target)

    return merge(Frame(tuple([changed(labels) for labels in frame.labels]), frame.values, frame.present).compact())


def _named(labels: Labels, target: str) -> Labels:
    """A name that was set by hand is no longer to be dropped."""
    return labels[1:] if target == NAME and marked(labels) else labels


def _check_name(function: str, name: str) -> None:
    if not name or any(0xD800 <= ord(character) <= 0xDFFF for character in name):
        raise QueryError("execution", f"invalid label name in {function}(): {name!r}")
