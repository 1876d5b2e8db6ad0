"""Families of samples to text: the Prometheus text format 0.0.4 and OpenMetrics 1.0, by what the scraper asks for.

https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md

A series is the same in both, so that no scraper's choice makes a second one: bucket edges are written as OpenMetrics
wants them (``le="2.0"``, which Prometheus 3 makes of ``"2"`` by itself, and Prometheus 2 leaves as it is), and a
counter whose name does not end in ``_total``, which OpenMetrics cannot have, is of unknown type there.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from .names import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
GZIP_LEVEL: Final = 1  # a sixth of the time of the usual level for a third more bytes
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


def render(families: Iterable[Family], openmetrics: bool = False) -> str:
    """A whole answer; families without a sample are left out."""
    return body(families, openmetrics) + end(openmetrics)


def body(families: Iterable[Family], openmetrics: bool) -> str:
    """The families without what ends an answer. Each name may be there once: see :func:`merged`."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        name = family.metric.name
        lines.append(head(family.metric, openmetrics))
        lines += [f"{name}{s.suffix}{label_text(s.labels)} {number_text(s.value)}" for s in family.samples]
    return "\n".join(lines) + "\n" if lines else ""


def end(openmetrics: bool) -> str:
    """What ends an answer."""
    return "# EOF\n" if openmetrics else ""


def head(metric: Metric, openmetrics: bool) -> str:
    """The lines before a family's samples."""
    told = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    name, kind = metric.name, str(metric.kind)
    if not openmetrics:
        return f"# HELP {name} {told}\n# TYPE {name} {kind}"
    if kind == "counter":
        kind = "counter" if name.endswith("_total") else "unknown"
        name = name.removesuffix("_total")
    unit = f"\n# UNIT {name} {metric.unit}" if metric.unit and name.endswith(f"_{metric.unit}") else ""
    quoted = told.replace('"', r"\"")
    return f"# HELP {name} {quoted}\n# TYPE {name} {kind}{unit}"


def merged(families: Iterable[Family]) -> list[Family]:
    """One family a name, as both formats want it. The first says what it is, and of a series the first value stands."""
    found: dict[str, Family] = {}
    for family in families:
        known = found.setdefault(family.metric.name, family)
        if known is not family and known.metric.kind == family.metric.kind:
            there = {(sample.suffix, sample.labels) for sample in known.samples}
            more = [sample for sample in family.samples if (sample.suffix, sample.labels) not in there]
            found[family.metric.name] = Family(known.metric, [*known.samples, *more])
    return list(found.values())


# The same label sets are written at every scrape.
@lru_cache(maxsize=32_768)
def label_text(labels: LabelPairs) -> str:
    """``{name="value",…}`` with the three escapes of the format; empty without labels."""
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in labels) + "}"


def escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


SPECIAL: Final = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}


def number_text(value: float) -> str:
    """A value: whole numbers without a fraction, others in the shortest form that reads back the same."""
    return numbers((value,))[0]


def numbers(values: Iterable[float]) -> list[str]:
    """:func:`number_text` of each."""
    return [text[:-2] if text[-2:] == ".0" else SPECIAL.get(text, text) for text in map(repr, values)]


def edge_text(edge: float) -> str:
    """The value of ``le``: as Go's ``FormatOpenMetricsFloat``, so ``2.0`` and ``1e+06``, which is one text a number."""
    text = repr(float(edge))
    whole, _, fraction = text.partition(".")
    if abs(edge) < 1e6 or "e" in text or not whole.lstrip("-").isdigit():
        return SPECIAL.get(text, text)
    digits = (whole.lstrip("-") + fraction).rstrip("0")
    point = "." if len(digits) > 1 else ""
    return f"{'-' if edge < 0 else ''}{digits[0]}{point}{digits[1:]}e+{len(whole.lstrip('-')) - 1:02d}"


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What a scraper gets: the format, and whether it is compressed."""

    openmetrics: bool
    gzip: bool
    content_type: str


def negotiate(accept: str, accept_encoding: str) -> Negotiated:
    """From a request's headers ``Accept`` and ``Accept-Encoding`` (empty: there is none)."""
    wanted = {"openmetrics": 0.0, "text": 0.0}
    for kind, parameters, quality in _preferences(accept):
        if kind == "application/openmetrics-text" and parameters.get("version", "1.0.0") == "1.0.0":
            wanted["openmetrics"] = max(wanted["openmetrics"], quality)
        elif kind == "text/plain":
            wanted["text"] = max(wanted["text"], quality)
    openmetrics = wanted["openmetrics"] > 0 and wanted["openmetrics"] >= wanted["text"]
    packed = any(kind in ("gzip", "x-gzip") and quality > 0 for kind, _, quality in _preferences(accept_encoding))
    return Negotiated(openmetrics, packed, OPENMETRICS_TYPE if openmetrics else CONTENT_TYPE)


def encode(text: str, negotiated: Negotiated) -> tuple[bytes, list[tuple[str, str]]]:
    """The answer's body and its headers."""
    content = text.encode()
    headers = [("content-type", negotiated.content_type), ("vary", "Accept, Accept-Encoding")]
    if negotiated.gzip:
        packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)  # 31: in gzip's own wrapping
        content = packer.compress(content) + packer.flush()
        headers.append(("content-encoding", "gzip"))
    return content, headers


@lru_cache(maxsize=64)  # a scraper always sends the same
def _preferences(header: str) -> tuple[tuple[str, dict[str, str], float], ...]:
    """Each element of an ``Accept`` header: its name, its parameters, its quality (0: not wanted)."""
    found = []
    for element in header.lower().split(","):
        name, *rest = (part.strip() for part in element.split(";"))
        parameters = {key.strip(): value.strip(' "') for key, _, value in (part.partition("=") for part in rest)}
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 0.0
        found.append((name, parameters, quality if 0 <= quality <= 1 else 0.0))
    return tuple(found)
