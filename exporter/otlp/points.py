"""Decoded metrics, the same from protobuf and from JSON: whose they are, what they are called, what was measured."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Final, Literal, NamedTuple, TypeAlias

from .. import names
from ..conventions import label_pairs, label_value, metric_name, prometheus_unit
from ..names import Metric, foreign
from ..versions import ATTRIBUTE, LONGEST
from .limits import Limits

Form = Literal["gauge", "sum", "histogram", "exponential_histogram", "summary"]
Kind = Literal["counter", "gauge", "updown", "histogram"]
Attributes: TypeAlias = tuple[tuple[str, str], ...]
Pairs: TypeAlias = tuple[tuple[str, str], ...]

DELTA: Final = 1
CUMULATIVE: Final = 2
NO_VALUE: Final = 1  # the flag of a point that says "no longer measured"

# What the instrumentations of Node and Python send without the unit that the conventions ask for.
MISSING_UNITS: Final[Mapping[str, str]] = {"process.memory.usage": "By", "process.cpu.time": "s"}
# Prometheus's own labels and those that the exporter sets.
RESERVED: Final = ("service", "job", "instance", "le", "quantile")
# The host and the monitor are measured by the monitor; what it knows of them cannot be sent to it.
OURS: Final = ("anvil_monitor_", "probe_", "scrape_")
HOST: Final = "system_"
# OTel's mark of the series that takes what found no room.
OVERFLOW: Final[Pairs] = (("otel_metric_overflow", "true"),)


class RefusedError(Exception):
    """A request is not taken, and nothing of it. ``status`` is the HTTP status, the message says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class RejectedError(ValueError):
    """A point is not taken; the others of its request may be. The message says why."""


class IgnoredError(Exception):
    """A point is left out on purpose: nobody asked for it, nobody is told."""


class Explicit(NamedTuple):
    """A histogram's point: ``counts`` has one more entry than ``bounds``."""

    counts: list[int]
    sum: float
    bounds: tuple[float, ...]


class Exponential(NamedTuple):
    """An exponential histogram's point: bucket ``i`` holds values in ``(b**i, b**(i+1)]`` with ``b = 2**2**-scale``."""

    scale: int
    zero: int
    positive: dict[int, int]
    negative: dict[int, int]
    sum: float


Value: TypeAlias = float | Explicit | Exponential


@dataclass(frozen=True, slots=True)
class Stream:
    """A metric as one scope of a resource sends it. ``key`` tells it from others of the same instance."""

    metric: Metric
    kind: Kind
    delta: bool
    key: tuple[str, str, str]
    known: bool


class Point(NamedTuple):
    """One measurement. ``start`` and ``time`` in nanoseconds, by the sender's clock. No value: no longer measured."""

    stream: Stream
    attributes: Attributes
    start: int
    time: int
    value: Value | None


class Identity(NamedTuple):
    """Who sends: ``service`` is the label, the whole the instance (a new version of it is another)."""

    namespace: str
    service: str
    instance: str
    version: str = ""


@dataclass(slots=True)
class Request:
    """A decoded request: the points of each instance, and how many points were rejected why."""

    resources: list[tuple[Identity, list[Point]]] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    ignored: int = 0
    size: int = 0
    parts: int = 0

    def entered(self, amount: int, limits: Limits) -> None:
        """``amount`` more resources, scopes or metrics. Raises :class:`RefusedError` once there are too many."""
        self.parts += amount
        if self.parts > limits.parts:
            raise RefusedError(413, f"a request has at most {limits.parts} resources, scopes and metrics")

    def seen(self, amount: int, limits: Limits) -> None:
        """``amount`` more points. Raises :class:`RefusedError` once there are too many."""
        self.size += amount
        if self.size > limits.points:
            raise RefusedError(413, f"a request has at most {limits.points} points")


def identity_of(attributes: Mapping[str, object]) -> Identity:
    """Whose metrics these are, from a resource's attributes."""

    def text(name: str) -> str:
        return cut(label_value(attributes.get(name)), 128)

    instance = text("service.instance.id")
    if not instance:
        instance = "/".join(part for part in (text("host.name"), text("process.pid")) if part)
    version = cut(text(ATTRIBUTE), LONGEST)
    return Identity(text("service.namespace"), text("service.name") or "unknown_service", instance, version)


def cut(text: str, most: int) -> str:
    """``text``, or its beginning and a digest of all of it: two long texts stay two."""
    if len(text) <= most:
        return text
    digest = hashlib.blake2s(text.encode(errors="replace"), digest_size=4).hexdigest()
    return f"{text[: most - 9]}…{digest}"


def canonical(attributes: Iterable[tuple[str, object]], limits: Limits) -> Attributes:
    """Attributes in one order, their values as text. Raises :class:`RejectedError` if there are too many."""
    found: dict[str, str] = {}
    for name, value in attributes:
        if len(name) > limits.attribute_name:
            raise RejectedError(f"an attribute's name has at most {limits.attribute_name} characters")
        found[name] = cut(label_value(value), limits.attribute_value)
    if len(found) > limits.attributes:
        raise RejectedError(f"a point has at most {limits.attributes} attributes")
    return tuple(sorted(found.items()))


@lru_cache(maxsize=2048)
def stream_of(
    name: str, unit: str, description: str, form: Form, temporality: int, monotonic: bool, scope: str, most: int
) -> Stream:
    """What the metric is here. ``most``: the longest name. Raises :class:`RejectedError`, :class:`IgnoredError`."""
    if form == "summary":
        raise RejectedError("summaries are not taken: their quantiles cannot be added up; send histograms")
    if not 0 < len(name) <= most:
        raise RejectedError(f"a metric's name has 1 to {most} characters")
    if form != "gauge" and temporality not in (DELTA, CUMULATIVE):
        raise RejectedError("the aggregation temporality must be delta or cumulative")
    kind: Kind
    if form == "gauge":
        kind = "gauge"
    elif form == "sum":
        kind = "counter" if monotonic else "updown"
    else:
        kind = "histogram"
    try:
        made = metric_name(name, unit or MISSING_UNITS.get(name, ""), kind)
    except ValueError as error:
        raise RejectedError(str(error)) from None
    if len(made) > most:
        raise RejectedError(f"a metric's name has 1 to {most} characters")
    if ":" in made:
        raise RejectedError("a name with a colon is a recording rule's")
    if made.startswith(HOST):
        raise IgnoredError
    if made.startswith(OURS) or made in ("up", "ALERTS"):
        raise RejectedError(f"{made[:80]} is measured by the monitor itself")
    exposed: names.Kind = "gauge" if kind == "updown" else kind
    known = names.BY_NAME.get(made)
    if known is not None and known.kind != exposed:
        raise RejectedError(f"{made} is a {known.kind}, not a {exposed}")
    metric = known or foreign(made, exposed, description[:400], prometheus_unit(unit))
    return Stream(metric, kind, temporality == DELTA, (made, form, scope), known is not None)


@lru_cache(maxsize=16_384)
def pairs_of(metric: Metric, known: bool, attributes: Attributes) -> Pairs:
    """The labels (without ``service``). Of a metric of ours only the contract's; without a route it is no raw path."""
    try:
        pairs = label_pairs(attributes, RESERVED)
    except ValueError as error:
        raise RejectedError(str(error)) from None
    if not known:
        return pairs
    found = dict(pairs)
    if "http_route" in metric.labels:
        found.setdefault("http_route", names.UNMATCHED)
    return tuple((label, found[label]) for label in metric.labels if label in found)


def overflow_pairs(stream: Stream) -> Pairs:
    """The labels of the series that takes what found no room."""
    if not stream.known:
        return OVERFLOW
    return tuple((label, names.OVERFLOW) for label in stream.metric.labels if label != "service")


def own_request(name: str, attributes: Attributes, own: frozenset[tuple[str, str]]) -> bool:
    """Whether a client's metric is about its requests to this receiver (``own``: hosts and ports)."""
    if not name.startswith("http.client."):
        return False
    found = dict(attributes)
    host = found.get("server.address") or found.get("net.peer.name", "")
    return (host, found.get("server.port") or found.get("net.peer.port", "")) in own


def number(value: float, stream: Stream) -> float:
    """``value`` if it can be counted. Raises :class:`RejectedError`."""
    if not math.isfinite(value):
        raise RejectedError("a value must be finite")
    if value < 0 and stream.kind == "counter":
        raise RejectedError("a monotonic sum is never negative")
    return float(value)


def explicit(counts: list[int], total: int, sum_: float, bounds: tuple[float, ...], limits: Limits) -> Explicit:
    """A histogram's point, checked. Raises :class:`RejectedError`."""
    if not counts and not bounds:
        counts = [total]
    if len(counts) != len(bounds) + 1:
        raise RejectedError("a histogram has one count more than bounds")
    if sum(counts) != total:
        raise RejectedError("a histogram's counts must add up to its count")
    if not math.isfinite(sum_):
        raise RejectedError("a value must be finite")
    kept = _good_bounds(bounds, limits.bounds)
    if kept is None:
        raise RejectedError(f"bounds are finite and ascending, at most {limits.bounds}")
    return Explicit(counts, sum_, kept)


@lru_cache(maxsize=256)
def _good_bounds(bounds: tuple[float, ...], most: int) -> tuple[float, ...] | None:
    """Bounds that are good, for all that are equal the same ones; None for bad ones."""
    ascending = all(one < two for one, two in pairwise(bounds))
    return bounds if ascending and len(bounds) <= most and all(map(math.isfinite, bounds)) else None


def exponential(
    scale: int, zero: int, positive: tuple[int, list[int]], negative: tuple[int, list[int]], total: int, sum_: float,
    limits: Limits,
) -> Exponential:  # fmt: skip
    """An exponential histogram's point, checked. ``positive`` and ``negative``: offset and counts."""
    if not -10 <= scale <= 20:
        raise RejectedError("an exponential histogram's scale is from -10 to 20")
    if len(positive[1]) + len(negative[1]) > 4 * limits.bounds:
        raise RejectedError(f"an exponential histogram has at most {4 * limits.bounds} buckets")
    sides = [{offset + i: count for i, count in enumerate(counts) if count} for offset, counts in (positive, negative)]
    if zero + sum(sides[0].values()) + sum(sides[1].values()) != total:
        raise RejectedError("a histogram's counts must add up to its count")
    if not math.isfinite(sum_):
        raise RejectedError("a value must be finite")
    return Exponential(scale, zero, sides[0], sides[1], sum_)
