"""Families of samples to the Prometheus text format, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from .names import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LabelPairs: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: ``suffix`` is ``_bucket``, ``_sum`` or ``_count`` of a histogram, else empty."""

    suffix: str
    labels: LabelPairs
    value: float


@dataclass(frozen=True, slots=True)
class Family:
    """A metric and its samples."""

    metric: Metric
    samples: Sequence[Sample]


def render(families: Iterable[Family]) -> str:
    """The text; families without a sample are left out."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        name = family.metric.name
        lines.append(f"# HELP {name} {escape_help(family.metric.help)}")
        lines.append(f"# TYPE {name} {family.metric.kind}")
        lines += [f"{name}{s.suffix}{label_text(s.labels)} {number_text(s.value)}" for s in family.samples]
    return "\n".join(lines) + "\n" if lines else ""


# The same label sets are written at every scrape.
@lru_cache(maxsize=32_768)
def label_text(labels: LabelPairs) -> str:
    """``{name="value",…}`` with the three escapes of the format; empty without labels."""
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in labels) + "}"


def escape_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def number_text(value: float) -> str:
    """Whole numbers without a fraction (``le="2"`` and ``"2.0"`` are two series), others in the shortest form."""
    if -1e15 < value < 1e15 and value == int(value):
        return str(int(value))
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text := repr(float(value)), text)
