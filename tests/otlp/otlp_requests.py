"""OTLP requests, a clock to turn, and what came out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from anvil_monitor.exporter import names
from anvil_monitor.exporter.otlp import Limits, Totals
from anvil_monitor.exporter.otlp.protobuf import Decoder

SECOND = 1_000_000_000
T0 = 1_800_000_000  # when senders begin, by their clock
BOUNDS = names.SECONDS_EDGES


class Clock:
    """Seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def attributes(found: Mapping[str, Any]) -> list[KeyValue]:
    made = []
    for key, value in found.items():
        pair = KeyValue(key=key)
        kind = {bool: "bool_value", int: "int_value", float: "double_value", bytes: "bytes_value"}.get(
            type(value), "string_value"
        )
        setattr(pair.value, kind, value)
        made.append(pair)
    return made


def request(
    *metrics: pb.Metric, service: str = "api", instance: str = "a", scope: str = "", **more: Any
) -> ExportMetricsServiceRequest:
    made = ExportMetricsServiceRequest()
    resource = made.resource_metrics.add()
    named = {
        "service.name": service,
        "service.instance.id": instance,
        **{k.replace("_", "."): v for k, v in more.items()},
    }
    resource.resource.attributes.extend(attributes({key: value for key, value in named.items() if value}))
    scoped = resource.scope_metrics.add()
    scoped.scope.name = scope
    scoped.metrics.extend(metrics)
    return made


def times(start: float, time: float) -> dict[str, int]:
    return {
        "start_time_unix_nano": int((T0 + start) * SECOND) if start >= 0 else 0,
        "time_unix_nano": int((T0 + time) * SECOND),
    }


def counter(
    name: str, value: float, time: float = 10, *, start: float = 0, unit: str = "", delta: bool = False,
    monotonic: bool = True, **labels: Any,
) -> pb.Metric:  # fmt: skip
    """One point of a sum. A negative ``start``: none is said."""
    point = pb.NumberDataPoint(as_double=value, attributes=attributes(_dotted(labels)), **times(start, time))
    data = pb.Sum(data_points=[point], aggregation_temporality=1 if delta else 2, is_monotonic=monotonic)
    return pb.Metric(name=name, unit=unit, sum=data)


def gauge(name: str, value: float, time: float = 10, *, unit: str = "", **labels: Any) -> pb.Metric:
    point = pb.NumberDataPoint(
        as_double=value, attributes=attributes(_dotted(labels)), time_unix_nano=times(0, time)["time_unix_nano"]
    )
    return pb.Metric(name=name, unit=unit, gauge=pb.Gauge(data_points=[point]))


def histogram(
    values: Sequence[float], time: float = 10, *, name: str = "http.server.request.duration", start: float = 0,
    unit: str = "s", bounds: Sequence[float] = BOUNDS, delta: bool = False, **labels: Any,
) -> pb.Metric:  # fmt: skip
    """One point of an explicit histogram that has counted ``values``."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[sum(value > bound for bound in bounds)] += 1
    point = pb.HistogramDataPoint(
        count=len(values), sum=sum(values), bucket_counts=counts, explicit_bounds=bounds,
        attributes=attributes(_dotted(labels)), **times(start, time),
    )  # fmt: skip
    return pb.Metric(
        name=name, unit=unit, histogram=pb.Histogram(data_points=[point], aggregation_temporality=1 if delta else 2)
    )


def _dotted(labels: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in labels.items()}


class Sink:
    """Totals with a clock, as one receiver has them."""

    def __init__(self, limits: Limits | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.totals = Totals(limits=limits, clock=self.clock, **settings)
        self.decoder = Decoder(self.totals.limits)
        self.clock.now += 100  # the senders of most tests began after the receiver

    def send(self, made: ExportMetricsServiceRequest, after: float = 0.0) -> dict[str, int]:
        """Apply a request ``after`` seconds. Returns what was rejected."""
        self.clock.now += after
        return dict(self.totals.apply(self.decoder.decode(made.SerializeToString())))

    def series(self) -> dict[str, float]:
        """Every exposed sample by its text, those about the receiver left out."""
        return {key: value for key, value in self.all().items() if not key.startswith("anvil_monitor_")}

    def all(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for family in self.totals.collect():
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels))
                key = f"{family.metric.name}{sample.suffix}{{{labels}}}"
                assert key not in found
                found[key] = sample.value
        return found

    def value(self, name: str, **labels: str) -> float | None:
        """The value of the one series with this name and these labels (others may be there, too)."""
        want = [f"{key}={value}" for key, value in labels.items()]
        found = [
            v
            for key, v in self.all().items()
            if key.split("{")[0] == name and all(each in key[:-1].replace("{", ",").split(",") for each in want)
        ]
        assert len(found) <= 1, found
        return found[0] if found else None
