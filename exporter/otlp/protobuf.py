"""An ``ExportMetricsServiceRequest`` in protobuf to points, through protobuf's C decoder."""

from __future__ import annotations

from typing import Any, Final, cast

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from .limits import Limits
from .points import (
    NO_VALUE,
    Attributes,
    Explicit,
    Exponential,
    Form,
    IgnoredError,
    Point,
    RefusedError,
    RejectedError,
    Request,
    Stream,
    Value,
    canonical,
    explicit,
    exponential,
    identity_of,
    number,
    own_request,
    stream_of,
)

# Everything of a point but its attributes: what is then left is the attributes, at the speed of C.
_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "number": ("start_time_unix_nano", "time_unix_nano", "as_double", "as_int", "exemplars", "flags"),
    "histogram": (
        "start_time_unix_nano", "time_unix_nano", "count", "sum", "bucket_counts", "explicit_bounds", "exemplars",
        "flags", "min", "max",
    ),
    "exponential_histogram": (
        "start_time_unix_nano", "time_unix_nano", "count", "sum", "scale", "zero_count", "positive", "negative",
        "flags", "exemplars", "min", "max", "zero_threshold",
    ),
}  # fmt: skip


class Decoder:
    """Decodes requests, and remembers the attribute sets that it has seen: a sender repeats them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._seen: dict[bytes, Attributes] = {}

    def decode(self, body: bytes, own: frozenset[tuple[str, str]] = frozenset()) -> Request:
        """The request's points. Raises :class:`RefusedError` (400, 413)."""
        try:
            message = ExportMetricsServiceRequest.FromString(body)
        except DecodeError:
            raise RefusedError(400, "the body is no ExportMetricsServiceRequest in protobuf") from None
        found = Request()
        found.entered(len(message.resource_metrics), self._limits)
        for resource_metrics in message.resource_metrics:
            if len(resource_metrics.resource.attributes) > self._limits.resource_attributes:
                raise RefusedError(413, f"a resource has at most {self._limits.resource_attributes} attributes")
            found.entered(len(resource_metrics.scope_metrics), self._limits)
            points: list[Point] = []
            for scope_metrics in resource_metrics.scope_metrics:
                found.entered(len(scope_metrics.metrics), self._limits)
                scope = f"{scope_metrics.scope.name}@{scope_metrics.scope.version}"
                for metric in scope_metrics.metrics:
                    self._metric(metric, scope, own, points, found)
            if points:
                resource = {pair.key: _plain(pair.value) for pair in resource_metrics.resource.attributes}
                found.resources.append((identity_of(resource), points))
        return found

    def _metric(
        self, metric: Any, scope: str, own: frozenset[tuple[str, str]], points: list[Point], found: Request
    ) -> None:
        form = metric.WhichOneof("data")
        if form is None:
            return
        data = getattr(metric, form)
        amount = len(data.data_points)
        found.seen(amount, self._limits)
        try:
            stream = stream_of(
                metric.name,
                metric.unit,
                metric.description,
                cast("Form", form),
                getattr(data, "aggregation_temporality", 0),
                getattr(data, "is_monotonic", False),
                scope,
                self._limits.name,
            )
        except RejectedError as rejected:
            found.rejected[str(rejected)] += amount
            return
        except IgnoredError:
            found.ignored += amount
            return
        fields = _FIELDS.get(form, _FIELDS["number"])
        for each in data.data_points:
            try:
                start, time = each.start_time_unix_nano, each.time_unix_nano
                value = None if each.flags & NO_VALUE else self._value(each, form, stream)
                for name in fields:
                    each.ClearField(name)
                attributes = self._attributes(each)
                if own_request(metric.name, attributes, own):
                    found.ignored += 1
                else:
                    points.append(Point(stream, attributes, start, time, value))
            except RejectedError as rejected:
                found.rejected[str(rejected)] += 1

    def _value(self, point: Any, form: str, stream: Stream) -> Value:
        if form == "histogram":
            return self._explicit(point)
        if form == "exponential_histogram":
            return self._exponential(point)
        which = point.WhichOneof("value")
        if which is None:
            raise RejectedError("a point without a value")
        return number(getattr(point, which), stream)

    def _explicit(self, point: Any) -> Explicit:
        bounds = tuple(point.explicit_bounds[: self._limits.bounds + 1])
        counts = point.bucket_counts[: self._limits.bounds + 2]
        return explicit(counts, point.count, point.sum, bounds, self._limits)

    def _exponential(self, point: Any) -> Exponential:
        most = 4 * self._limits.bounds + 1
        positive, negative = ((side.offset, side.bucket_counts[:most]) for side in (point.positive, point.negative))
        return exponential(point.scale, point.zero_count, positive, negative, point.count, point.sum, self._limits)

    def _attributes(self, point: Any) -> Attributes:
        key = point.SerializeToString()
        known = self._seen.get(key)
        if known is not None:
            return known
        if len(key) > self._limits.attributes_size:
            raise RejectedError(f"a point's attributes have at most {self._limits.attributes_size} bytes")
        made = canonical(((pair.key, _plain(pair.value)) for pair in point.attributes), self._limits)
        if len(self._seen) >= 16_384:
            self._seen.clear()
        if len(key) < 1024:
            self._seen[key] = made
        return made


def _plain(value: Any) -> object:
    """An ``AnyValue`` as a Python value."""
    which = value.WhichOneof("value")
    if which is None:
        return None
    found = getattr(value, which)
    if which == "array_value":
        return [_plain(each) for each in found.values]
    if which == "kvlist_value":
        return {pair.key: _plain(pair.value) for pair in found.values}
    return cast("object", found)
