"""A reader on the user's own OpenTelemetry SDK provider: its sums go into the pages as well.

The SDK keeps its sums in the worker's memory; they reach the page every few seconds, before this worker answers a
scrape, before a fork and when the process ends. What was measured before the reader came, and what a SIGKILL cuts off
since the last round, is not there. https://opentelemetry.io/docs/specs/otel/metrics/sdk/#metricreader
"""

from __future__ import annotations

import logging
from typing import Any

from .meters import Streams, edges_rise
from .publisher import Publisher, publisher
from .streams import Absolute, Stream

logger = logging.getLogger("anvil_monitor.exporter")


def attach(provider: Any, streams: Streams, publisher: Publisher = publisher) -> bool:
    """Add a reader to the SDK's ``provider``, once; whether there is one."""
    add = getattr(provider, "add_metric_reader", None)
    if add is None:
        logger.warning(
            "this OpenTelemetry SDK cannot be given a reader once its MeterProvider is made: what your meters measure "
            "is missing from /metrics. Call instrument() before the provider is set, or use opentelemetry-sdk >= 1.45"
        )
        return False
    if getattr(provider, "_anvil_monitor", None) is not None:
        return True
    from opentelemetry.sdk.metrics.export import MetricReader

    class PageReader(MetricReader):
        """Cumulative sums of everything, into page cells."""

        def _receive_metrics(self, metrics_data: Any, timeout_millis: float = 10_000, **_: Any) -> None:
            target.receive(metrics_data)

        def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
            pass

    target = Received(streams)
    reader = PageReader()
    add(reader)
    provider._anvil_monitor = reader
    publisher.add(streams.recorder, reader.collect)
    return True


class Received:
    """Writes the SDK's sums to the page of ``streams``."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._absolute: dict[str, Absolute] = {}

    def receive(self, data: Any) -> None:
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self._metric(metric, scope.scope.name)

    def _metric(self, metric: Any, scope: str) -> None:
        data = metric.data
        kind = type(data).__name__
        if kind == "Histogram":
            for edges in dict.fromkeys(tuple(point.explicit_bounds) for point in data.data_points):
                points = [
                    (point.attributes, (point.sum, *point.bucket_counts))
                    for point in data.data_points
                    if tuple(point.explicit_bounds) == edges
                ]
                stream = self._streams.get("histogram", "histogram", metric.name, metric.unit or "", metric.description)
                if stream is not None and edges_rise(edges):
                    self._of(stream, scope).publish(points, tuple(map(float, edges)))
            return
        values = [(point.attributes, (point.value,)) for point in data.data_points] if kind in ("Sum", "Gauge") else []
        stream = None
        if kind == "Sum" and data.is_monotonic:
            stream = self._streams.get("counter", "counter", metric.name, metric.unit or "", metric.description)
        elif kind == "Sum":
            stream = self._streams.get("gauge", "updown", metric.name, metric.unit or "", metric.description)
        elif kind == "Gauge":
            stream = self._streams.get("gauge_recent", "gauge", metric.name, metric.unit or "", metric.description)
        else:
            logger.debug("%s is a %s, which /metrics does not show", metric.name, kind)
        if stream is not None:
            self._of(stream, scope).publish(values)

    def _of(self, stream: Stream, scope: str) -> Absolute:
        key = f"{stream.metric.name} {scope}"
        if key not in self._absolute:
            self._absolute[key] = Absolute(stream)
        return self._absolute[key]
