"""What a query answers with, and how it fails."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from ..samples import Labels, Series

Kind = Literal["bad_data", "execution", "timeout", "canceled"]


class QueryError(Exception):
    """A query that cannot be answered. ``kind`` is the error type of Prometheus' HTTP API (400, 422, 503, 499)."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = message


@dataclass(frozen=True, slots=True)
class Scalar:
    """One number. ``time`` in seconds, as in every answer to an instant query.

    ``warnings`` and ``infos``, as of every value, are what Prometheus' API answers under these names.
    """

    time: float
    value: float
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """One string."""

    time: float
    value: str
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One element of a vector: ``time`` in seconds is that of the evaluation, not of the scrape."""

    labels: Labels
    time: float
    value: float


@dataclass(frozen=True, slots=True)
class Vector:
    """Elements in series order, or in the order that ``sort`` and ``topk`` ask for."""

    samples: list[Sample] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Matrix:
    """Series sorted by their labels; times in milliseconds."""

    series: list[Series] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()


Value = Scalar | Text | Vector | Matrix


def number_text(value: float) -> str:
    """A value as Prometheus' HTTP API writes it: shortest digits, ``NaN``, ``+Inf``, ``1e+21``, ``1e-07``."""
    return _shortest(value, lambda size: size < 1e-6 or size >= 1e21)


def plain_text(value: float) -> str:
    """A value without exponent, as ``count_values`` makes it a label."""
    return _shortest(value, lambda size: False)


def _shortest(value: float, exponent: Callable[[float], bool]) -> str:
    text = repr(value)
    if "." in text and "e" not in text:  # nearly every number; the rest takes ten times as long
        if text[-2:] != ".0":
            return text
        if value:
            return text[:-2]
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    if not exponent(abs(value)):
        text = format(Decimal(text), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    sign, digits, power = Decimal(text).as_tuple()
    if not isinstance(power, int):  # only for NaN and infinity, which are gone by now
        return text
    text = "".join(map(str, digits)).rstrip("0")
    power += len(digits) - 1
    mantissa = text[0] + ("." + text[1:] if len(text) > 1 else "")
    return f"{'-' if sign else ''}{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"
