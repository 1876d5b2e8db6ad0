"""OpenTelemetry names to Prometheus names, by OpenTelemetry's own rules.

One place for every way in (the OTLP receiver, the meters of a Python server), so that a series has the name that a
Collector or Prometheus's own OTLP receiver gives it. The rules:
https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
Where the specification leaves room, Prometheus's receiver (github.com/prometheus/otlptranslator, strategy
``UnderscoreEscapingWithSuffixes``) is followed; ``tests/exporter/test_conventions.py`` lists where the Python exporter
of OpenTelemetry differs from it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, Literal

# What a metric is, as far as its name goes. "updown" is a sum that may fall: a gauge for Prometheus, but never a ratio.
NameKind = Literal["counter", "gauge", "histogram", "updown"]

UNITS: Final[Mapping[str, str]] = {
    # time
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds",
    "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds",
    # bytes
    "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes", "TiBy": "tibibytes",
    "KBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "TBy": "terabytes",
    # SI and the rest
    "m": "meters", "V": "volts", "A": "amperes", "J": "joules", "W": "watts", "g": "grams",
    "Cel": "celsius", "Hz": "hertz", "1": "", "%": "percent",
}  # fmt: skip
PER_UNITS: Final[Mapping[str, str]] = {
    "s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year",
}  # fmt: skip

_FOREIGN: Final = re.compile(r"[^a-zA-Z0-9:]+")
_FOREIGN_IN_LABELS: Final = re.compile(r"[^a-zA-Z0-9]+")


@lru_cache(maxsize=4096)
def metric_name(name: str, unit: str, kind: NameKind) -> str:
    """The Prometheus name of the OTel metric ``name`` with ``unit`` (UCUM), a counter's with its ``_total``.

    Illegal characters become one underscore, the unit and the suffix of the kind come last and never twice.
    Raises ``ValueError`` if nothing of the name can be kept.
    """
    words = [word for word in _FOREIGN.sub("_", name).split("_") if word]
    if not words:
        raise ValueError(f"the metric name {name[:80]!r} has no letter or digit")
    for part in _unit_parts(unit):
        if part and part not in words:
            words.append(part)
    if kind == "counter":
        words = [*(word for word in words if word != "total"), "total"]
    elif kind == "gauge" and unit == "1":
        words = [*(word for word in words if word != "ratio"), "ratio"]
    made = "_".join(words)
    return f"_{made}" if made[0].isdigit() else made


@lru_cache(maxsize=1024)
def prometheus_unit(unit: str) -> str:
    """The unit in Prometheus's words: ``s`` is ``seconds``, ``m/s`` ``meters_per_second``; empty without one."""
    return "_".join(part for part in _unit_parts(unit) if part)


def _unit_parts(unit: str) -> tuple[str, str]:
    """The unit and its ``per_…``. A part with an annotation (``{request}``) is no unit."""
    main, _, per = (part.strip() for part in unit.partition("/"))
    main = "" if "{" in main or "}" in main else UNITS.get(main, main)
    per = "" if "{" in per or "}" in per else PER_UNITS.get(per, per)
    main, per = (_FOREIGN.sub("_", part).strip("_") for part in (main, per))
    return main, f"per_{per}" if per else ""


@lru_cache(maxsize=4096)
def label_name(attribute: str) -> str:
    """The label of the attribute. Raises ``ValueError`` if nothing of its name can be kept.

    ``__name__`` and whatever else Prometheus keeps for itself cannot come out of it: a first digit or underscore gets
    ``key`` before it, as in Prometheus's own receiver.
    """
    made = _FOREIGN_IN_LABELS.sub("_", attribute)
    if not made.strip("_"):
        raise ValueError(f"the attribute name {attribute[:80]!r} has no letter or digit")
    if made[0].isdigit():
        return f"key_{made}"
    return f"key{made}" if made[0] == "_" else made


def label_pairs(attributes: Iterable[tuple[str, object]], reserved: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """Label names and values of ``attributes``, sorted by name; an empty value is an absent label.

    Two attributes with one label name share it, their values joined with ``;`` in the order of the attributes' names
    (the specification's rule). A name in ``reserved`` (``le`` of a histogram) gets ``exported_`` before it.
    """
    found: dict[str, str] = {}
    for attribute, value in sorted(attributes, key=lambda pair: pair[0]):
        text = label_value(value)
        if not text:
            continue
        name = label_name(attribute)
        if name in reserved:
            name = f"exported_{name}"
        found[name] = f"{found[name]};{text}" if name in found else text
    return tuple(sorted(found.items()))


def label_value(value: object) -> str:
    """An attribute's value as the text of a label: JSON for everything but text, bytes in base64 (OTel's rule)."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=label_value)
