"""An ``ExportMetricsServiceRequest`` in OTLP's JSON to points.

Read by hand: protobuf's own JSON reader is Python, takes ids in base64 (OTLP's are hex) and costs fifteen times as
much. Unknown fields are ignored, as OTLP asks; 64-bit whole numbers may be texts.
https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

from .limits import Limits
from .points import (
    NO_VALUE,
    Attributes,
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

FORMS: Final[dict[str, Form]] = {
    "gauge": "gauge", "sum": "sum", "histogram": "histogram", "exponentialHistogram": "exponential_histogram",
    "summary": "summary",
}  # fmt: skip
TEMPORALITIES: Final = {"AGGREGATION_TEMPORALITY_DELTA": 1, "AGGREGATION_TEMPORALITY_CUMULATIVE": 2}
MOST: Final = (1 << 64) - 1
DEEPEST: Final = 32


def decode(body: bytes, limits: Limits, own: frozenset[tuple[str, str]] = frozenset()) -> Request:
    """The request's points. Raises :class:`RefusedError` (400, 413) with what is wrong and where."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(400, "the body is not JSON") from None
    found = Request()
    resources = _list(_object(message, "the body"), "resourceMetrics")
    found.entered(len(resources), limits)
    for resource_metrics in resources:
        part = _object(resource_metrics, "resourceMetrics")
        about = _object(part.get("resource") or {}, "resource")
        if len(_list(about, "attributes")) > limits.resource_attributes:
            raise RefusedError(413, f"a resource has at most {limits.resource_attributes} attributes")
        resource = _attributes(about)
        found.entered(len(_list(part, "scopeMetrics")), limits)
        points: list[Point] = []
        for scope_metrics in _list(part, "scopeMetrics"):
            metrics = _object(scope_metrics, "scopeMetrics")
            found.entered(len(_list(metrics, "metrics")), limits)
            scope = _object(metrics.get("scope") or {}, "scope")
            named = f"{_text(scope, 'name')}@{_text(scope, 'version')}"
            for metric in _list(metrics, "metrics"):
                _metric(_object(metric, "metrics"), named, limits, own, points, found)
        if points:
            found.resources.append((identity_of(dict(resource)), points))
    return found


def _metric(
    metric: dict[str, Any], scope: str, limits: Limits, own: frozenset[tuple[str, str]], points: list[Point],
    found: Request,
) -> None:  # fmt: skip
    form = next((name for name in FORMS if metric.get(name) is not None), None)
    if form is None:
        return
    data = _object(metric[form], form)
    sent = _list(data, "dataPoints")
    found.seen(len(sent), limits)
    name = _text(metric, "name")
    monotonic = data.get("isMonotonic", False)
    if not isinstance(monotonic, bool):
        raise RefusedError(400, "isMonotonic must be true or false")
    try:
        stream = stream_of(
            name,
            _text(metric, "unit"),
            _text(metric, "description"),
            FORMS[form],
            _temporality(data),
            monotonic,
            scope,
            limits.name,
        )
    except RejectedError as rejected:
        found.rejected[str(rejected)] += len(sent)
        return
    except IgnoredError:
        found.ignored += len(sent)
        return
    for each in sent:
        point = _object(each, "dataPoints")
        start, time = _whole(point, "startTimeUnixNano"), _whole(point, "timeUnixNano")
        try:
            value = None if _whole(point, "flags") & NO_VALUE else _value(point, form, stream, limits)
            attributes = _canonical(point, limits)
        except RejectedError as rejected:
            found.rejected[str(rejected)] += 1
            continue
        if own_request(name, attributes, own):
            found.ignored += 1
        else:
            points.append(Point(stream, attributes, start, time, value))


def _temporality(data: dict[str, Any]) -> int:
    sent = data.get("aggregationTemporality")
    return (
        TEMPORALITIES[sent]
        if isinstance(sent, str) and sent in TEMPORALITIES
        else _whole(data, "aggregationTemporality")
    )


def _value(point: dict[str, Any], form: str, stream: Stream, limits: Limits) -> Value:
    if form == "histogram":
        if len(_list(point, "explicitBounds")) > limits.bounds:
            raise RejectedError(f"bounds are finite and ascending, at most {limits.bounds}")
        bounds = tuple(_number(each, "explicitBounds") for each in _list(point, "explicitBounds"))
        return explicit(_counts(point, limits), _whole(point, "count"), _sum(point), bounds, limits)
    if form == "exponentialHistogram":
        sides = [_object(point.get(name) or {}, name) for name in ("positive", "negative")]
        positive, negative = ((_signed(side, "offset"), _counts(side, limits)) for side in sides)
        scale, zero = _signed(point, "scale"), _whole(point, "zeroCount")
        return exponential(scale, zero, positive, negative, _whole(point, "count"), _sum(point), limits)
    if point.get("asInt") is not None:
        return number(_signed(point, "asInt"), stream)
    if point.get("asDouble") is not None:
        return number(_number(point["asDouble"], "asDouble"), stream)
    raise RejectedError("a point without a value")


def _canonical(point: dict[str, Any], limits: Limits) -> Attributes:
    if len(_list(point, "attributes")) > limits.attributes:
        raise RejectedError(f"a point has at most {limits.attributes} attributes")
    pairs = _attributes(point)
    # Four characters of JSON surround a value at the least: the limit of the other form, near enough.
    if sum(len(name) + len(value) if isinstance(value, str) else len(name) for name, value in pairs) > (
        limits.attributes_size
    ):
        raise RejectedError(f"a point's attributes have at most {limits.attributes_size} bytes")
    return canonical(pairs, limits)


def _attributes(owner: dict[str, Any]) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for each in _list(owner, "attributes"):
        pair = _object(each, "attributes")
        found.append((_text(pair, "key"), _plain(_object(pair.get("value") or {}, "value"))))
    return found


def _plain(value: dict[str, Any], depth: int = 0) -> object:
    """An ``AnyValue`` as a Python value."""
    if depth > DEEPEST:
        raise RefusedError(400, f"a value is nested more than {DEEPEST} deep")
    for name in ("stringValue", "bytesValue"):
        if value.get(name) is not None:
            return _text(value, name)
    if value.get("boolValue") is not None:
        if not isinstance(value["boolValue"], bool):
            raise RefusedError(400, "boolValue must be true or false")
        return value["boolValue"]
    if value.get("intValue") is not None:
        return _signed(value, "intValue")
    if value.get("doubleValue") is not None:
        return _number(value["doubleValue"], "doubleValue")
    if value.get("arrayValue") is not None:
        values = _list(_object(value["arrayValue"], "arrayValue"), "values")
        return [_plain(_object(each, "values"), depth + 1) for each in values]
    if value.get("kvlistValue") is not None:
        pairs = [_object(each, "values") for each in _list(_object(value["kvlistValue"], "kvlistValue"), "values")]
        return {_text(pair, "key"): _plain(_object(pair.get("value") or {}, "value"), depth + 1) for pair in pairs}
    return None


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RefusedError(400, f"{name} must be made of objects")
    return value


def _list(owner: dict[str, Any], name: str) -> list[Any]:
    value = owner.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise RefusedError(400, f"{name} must be a list")
    return value


def _text(owner: dict[str, Any], name: str) -> str:
    value = owner.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RefusedError(400, f"{name} must be a text")
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair: nobody could read it on
        raise RefusedError(400, f"{name} is no valid text") from None
    return value


def _counts(owner: dict[str, Any], limits: Limits) -> list[int]:
    if len(_list(owner, "bucketCounts")) > 4 * limits.bounds:
        raise RejectedError(f"a histogram has at most {4 * limits.bounds} buckets")
    return [_integer(each, "bucketCounts", 0) for each in _list(owner, "bucketCounts")]


def _sum(point: dict[str, Any]) -> float:
    return 0.0 if point.get("sum") is None else _number(point["sum"], "sum")


def _whole(owner: dict[str, Any], name: str) -> int:
    value = owner.get(name)
    return 0 if value is None else _integer(value, name, 0)


def _signed(owner: dict[str, Any], name: str) -> int:
    value = owner.get(name)
    return 0 if value is None else _integer(value, name, -MOST)


def _integer(value: Any, name: str, least: int) -> int:
    if isinstance(value, str) and len(value) <= 20:
        try:
            value = int(value)
        except ValueError:
            value = None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST:
        raise RefusedError(400, f"{name} must be a whole number")
    return value


def _number(value: Any, name: str) -> float:
    if isinstance(value, str) and len(value) <= 40:
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedError(400, f"{name} must be a number")
    try:
        return float(value)
    except OverflowError:
        return math.inf
