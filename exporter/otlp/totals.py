"""Points of many instances added up to each service's series, bounded in every direction.

Lasting totals (counters, histograms) only grow while this process lives. Levels are of instances that still report:
sums (OTel's up-down counters) are added over instances, of gauges, which cannot be added, the greatest is given.
Nothing is kept over a restart: cumulative senders go on from where they are, and their totals begin at 0 again, which
Prometheus takes for a reset.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from operator import add
from time import monotonic

from anvil_monitor.targets import Target, histogram_limits

from .. import names
from ..exposition import Family, Sample, number_text
from ..names import Metric
from .buckets import explicit_of, rebucket
from .limits import Limits
from .points import (
    Explicit,
    Exponential,
    Identity,
    Pairs,
    Point,
    RejectedError,
    Request,
    Stream,
    overflow_pairs,
    pairs_of,
)
from .sources import Increment, Instance, Series, Source, step

DERIVED = ("_bucket", "_sum", "_count")


@dataclass(slots=True)
class _Service:
    """What a service has sent: its series by metric name and labels."""

    name: str
    series: dict[str, dict[Pairs, Series]] = field(default_factory=dict)
    overflow: dict[str, Series] = field(default_factory=dict)
    size: int = 0


class Totals:
    """Everything received. ``edges``: by service and metric, the buckets that the configuration asks for.

    ``targets``: whose limits should be edges of what is sent. ``clock``: seconds that never go back.
    """

    def __init__(
        self,
        edges: Callable[[str], Mapping[str, tuple[float, ...]]] = lambda _: {},
        targets: tuple[Target, ...] = (),
        limits: Limits | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.limits = limits or Limits()
        self._configured = edges
        self._targets = targets
        self._clock = clock
        self._lock = threading.Lock()
        self._services: dict[str, _Service] = {}
        self._instances: dict[Identity, Instance] = {}
        self._families: dict[str, Metric] = {}
        self._taken_names: set[str] = set()
        self._edges: dict[tuple[str, str], tuple[float, ...]] = {}
        self._lacking: dict[tuple[str, str], dict[float, bool]] = {}
        self._sources = 0
        self._horizon = clock()
        self._swept = self._horizon
        self.requests: Counter[str] = Counter()
        self.points: Counter[str] = Counter()

    def apply(self, request: Request) -> Counter[str]:
        """Count a decoded request. Returns how many of its points were rejected, by reason."""
        rejected = Counter(request.rejected)
        with self._lock:
            now = self._clock()
            self._sweep(now)
            for identity, points in request.resources:
                try:
                    instance = self._instance(identity, now)
                    service = self._service(identity.service)
                except RejectedError as reason:
                    rejected[str(reason)] += len(points)
                    continue
                instance.reported(now)
                for point in points:
                    try:
                        self.points[self._count(service, instance, point, now)] += 1
                    except RejectedError as reason:
                        rejected[str(reason)] += 1
            self.points["rejected"] += sum(rejected.values())
            self.points["ignored"] += request.ignored
            self.requests["partial" if rejected else "taken"] += 1
        return rejected

    def refuse(self) -> None:
        """Count a request that was not taken."""
        with self._lock:
            self.requests["refused"] += 1

    def _count(self, service: _Service, instance: Instance, point: Point, now: float) -> str:
        stream = point.stream
        sources = instance.sources.get(stream.key)
        source = sources.get(point.attributes) if sources is not None else None
        if point.value is None:
            if sources is not None and source is not None and stream.kind in ("gauge", "updown"):
                del sources[point.attributes]
                instance.size -= 1
                self._sources -= 1
            return "ignored"
        bounds = point.value.bounds if isinstance(point.value, Explicit) else None
        if source is None:
            source, more = self._begin(service, instance, point, now)
        elif stream.kind == "gauge" or (stream.kind == "updown" and not stream.delta):
            if point.time < source.time:
                return "late"
            source.time, source.value, more = point.time, point.value, None
        else:
            more = step(source, point)
            if more is None:
                return "late"
            if stream.kind == "updown":
                assert isinstance(source.value, float)
                assert isinstance(more, float)
                source.value += more
        source.seen = now
        if stream.kind == "histogram":
            instance.bounds[stream.metric.name] = bounds
        if more is not None and source.target.values:
            self._add(service, source, more)
        return "overflow" if source.target is service.overflow.get(stream.metric.name) else "taken"

    def _begin(
        self, service: _Service, instance: Instance, point: Point, now: float
    ) -> tuple[Source, Increment | None]:
        """A series that this instance sends for the first time, and how much of its value is to be counted."""
        assert point.value is not None
        if instance.size >= self.limits.instance_series or self._sources >= self.limits.source_series:
            raise RejectedError(f"an instance has at most {self.limits.instance_series} series")
        stream = point.stream
        self._family(stream)
        target = self._target(service, stream, pairs_of(stream.metric, stream.known, point.attributes), point.value)
        source = Source(stream, target, point.start, point.time, now, point.value)
        instance.sources.setdefault(stream.key, {})[point.attributes] = source
        instance.size += 1
        self._sources += 1
        counts = stream.delta or instance.is_new(point, self._horizon, now)
        return source, point.value if counts and stream.kind in ("counter", "histogram") else None

    def _add(self, service: _Service, source: Source, more: Increment) -> None:
        values = source.target.values
        if isinstance(more, float):
            values[0] += more
            return
        edges = self._edges[service.name, source.stream.metric.name]
        counts, bounds = explicit_of(more) if isinstance(more, Exponential) else (more.counts, more.bounds)
        values[0] += more.sum
        values[1:] = map(add, values[1:], rebucket(counts, bounds, edges))

    def _family(self, stream: Stream) -> None:
        """The metric's name is taken, unless it is another metric's already."""
        metric = stream.metric
        known = self._families.get(metric.name)
        if known is not None:
            if known.kind != metric.kind:
                raise RejectedError(f"{metric.name} is a {known.kind} already, not a {metric.kind}")
            return
        derived = [metric.name + suffix for suffix in DERIVED] if metric.kind == "histogram" else []
        if metric.name in self._taken_names or not self._taken_names.isdisjoint(derived):
            raise RejectedError(f"{metric.name} would be taken for a part of another histogram")
        if len(self._families) >= self.limits.families:
            raise RejectedError(f"there are at most {self.limits.families} metrics")
        self._families[metric.name] = metric
        self._taken_names |= {metric.name, *derived}

    def _target(self, service: _Service, stream: Stream, pairs: Pairs, value: Increment) -> Series:
        """The exposed series for these labels; the metric's overflow series where there is no room for another."""
        name = stream.metric.name
        known = service.series.setdefault(name, {})
        found = known.get(pairs)
        if found is not None:
            return found
        values = [0.0] if stream.kind == "counter" else []
        if stream.kind == "histogram":
            values = [0.0] * (len(self._edges_of(service.name, name, value)) + 2)
        if service.size < self.limits.series:
            service.size += 1
            found = known[pairs] = Series((("service", service.name), *pairs), values)
            return found
        return service.overflow.setdefault(name, Series((("service", service.name), *overflow_pairs(stream)), values))

    def _edges_of(self, service: str, name: str, value: Increment) -> tuple[float, ...]:
        edges = self._edges.get((service, name))
        if edges is None:
            edges = self._configured(service).get(name)
            if edges is None:
                edges = value.bounds if isinstance(value, Explicit) else names.SECONDS_EDGES
            self._edges[service, name] = edges
        return edges

    def _service(self, name: str) -> _Service:
        if name not in self._services and len(self._services) >= self.limits.services:
            name = names.OVERFLOW
        return self._services.setdefault(name, _Service(name))

    def _instance(self, identity: Identity, now: float) -> Instance:
        instance = self._instances.get(identity)
        if instance is None:
            if len(self._instances) >= self.limits.instances:
                oldest = min(self._instances.values(), key=lambda each: each.last)
                if now - oldest.last <= oldest.patience(self.limits.patience):
                    raise RejectedError(f"there are at most {self.limits.instances} instances")
                self._forget(oldest)
            instance = self._instances[identity] = Instance(identity, now, now)
        return instance

    def _forget(self, instance: Instance) -> None:
        """What it counted stays in its service's totals. Should it come back, it is counted from there on."""
        del self._instances[instance.identity]
        self._sources -= instance.size
        self._horizon = max(self._horizon, instance.last)

    def _sweep(self, now: float) -> None:
        if now - self._swept < 10:
            return
        self._swept = now
        for instance in [each for each in self._instances.values() if now - each.last > self.limits.forget]:
            self._forget(instance)
        for instance in self._instances.values():
            patience = instance.patience(self.limits.patience)
            for sources in instance.sources.values():
                for attributes, source in list(sources.items()):
                    if source.stream.kind == "gauge" and now - source.seen > patience:
                        del sources[attributes]
                        instance.size -= 1
                        self._sources -= 1

    # What is exposed.

    def collect(self) -> list[Family]:
        """Every family, those about the receiver included."""
        with self._lock:
            now = self._clock()
            self._sweep(now)
            found: dict[str, list[Sample]] = {}
            live = [each for each in self._instances.values() if now - each.last <= each.patience(self.limits.patience)]
            lacking = self._without_edges(live)
            self._lacking |= lacking
            for service in self._services.values():
                self._lasting(service, found)
            self._levels(live, now, found)
            families = [Family(self._families[name], samples) for name, samples in found.items()]
            return [*families, *self._about(live, lacking)]

    def _lasting(self, service: _Service, found: dict[str, list[Sample]]) -> None:
        for name in service.series.keys() | service.overflow.keys():
            series = [*service.series.get(name, {}).values()]
            if name in service.overflow:
                series.append(service.overflow[name])
            edges = self._edges.get((service.name, name), ())
            # An edge at a limit that was made up is not shown: whoever sees one may take it for exact.
            hidden = [limit for limit, lacks in self._lacking.get((service.name, name), {}).items() if lacks]
            for each in series:
                if len(each.values) == 1:
                    found.setdefault(name, []).append(Sample("", each.labels, each.values[0]))
                elif each.values:
                    found.setdefault(name, []).extend(_histogram(each, edges, hidden))

    def _levels(self, live: Iterable[Instance], now: float, found: dict[str, list[Sample]]) -> None:
        levels: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        largest: dict[tuple[tuple[str, str], ...], float] = {}
        for instance in live:
            patience = instance.patience(self.limits.patience)
            own: dict[tuple[str, tuple[tuple[str, str], ...], bool], float] = {}
            for sources in instance.sources.values():
                for source in sources.values():
                    if source.target.values or not isinstance(source.value, float) or now - source.seen > patience:
                        continue
                    stream = source.stream
                    key = stream.metric.name, source.target.labels, stream.known or stream.kind == "updown"
                    own[key] = (
                        own[key] + source.value
                        if key in own and key[2]
                        else max(source.value, own.get(key, source.value))
                    )
            for (name, labels, adds), value in own.items():
                known = levels.get((name, labels))
                levels[name, labels] = value if known is None else known + value if adds else max(known, value)
                if name == names.PROCESS_MEMORY.name:
                    largest[labels] = max(value, largest.get(labels, value))
        for (name, labels), value in levels.items():
            found.setdefault(name, []).append(Sample("", labels, value))
        if largest and names.PROCESS_MEMORY_MAX.name not in self._families:
            self._families[names.PROCESS_MEMORY_MAX.name] = names.PROCESS_MEMORY_MAX
        if largest and names.PROCESS_MEMORY_MAX.name not in found:
            found[names.PROCESS_MEMORY_MAX.name] = [Sample("", labels, value) for labels, value in largest.items()]

    def _without_edges(self, live: Iterable[Instance]) -> dict[tuple[str, str], dict[float, bool]]:
        """By service and metric: at which limits of targets some instance has no edge."""
        found: dict[tuple[str, str], dict[float, bool]] = {}
        for instance in live:
            service = instance.identity.service
            targets = tuple(each for each in self._targets if each.service == service)
            for metric, bounds in instance.bounds.items():
                for limit in histogram_limits(targets, metric):
                    lacks = found.setdefault((service, metric), {})
                    lacks[limit] = lacks.get(limit, False) or bounds is None or limit not in bounds
        return found

    def _about(self, live: Iterable[Instance], lacking: Mapping[tuple[str, str], Mapping[float, bool]]) -> list[Family]:
        def counter(metric: Metric, counts: Mapping[str, int]) -> Family:
            return Family(metric, [Sample("", (("result", key),), float(n)) for key, n in sorted(counts.items())])

        instances = Counter(self._service(each.identity.service).name for each in live)
        versions = {(self._service(each.identity.service).name, each.identity.version) for each in live}
        running = [
            Sample("", (("service", service), ("service_version", version)), 1.0)
            for service, version in sorted(versions)
            if version
        ]
        return [
            Family(names.SERVICE_VERSION, running),
            counter(names.OTLP_REQUESTS, self.requests),
            counter(names.OTLP_POINTS, self.points),
            Family(names.OTLP_INSTANCES, [Sample("", (("service", key),), float(n)) for key, n in instances.items()]),
            Family(
                names.OTLP_SERIES,
                [Sample("", (("service", each.name),), float(each.size)) for each in self._services.values()],
            ),
            Family(
                names.HISTOGRAM_EDGE_MISSING,
                [
                    Sample("", (("service", service), ("metric", metric), ("limit", number_text(limit))), float(lacks))
                    for (service, metric), limits in lacking.items()
                    for limit, lacks in limits.items()
                ],
            ),
        ]


def _histogram(series: Series, edges: tuple[float, ...], hidden: Sequence[float]) -> list[Sample]:
    counts = list(accumulate(series.values[1:]))
    found = [
        Sample("_bucket", labels, count)
        for edge, labels, count in zip((*edges, None), _bucket_labels(series.labels, edges), counts, strict=True)
        if edge not in hidden
    ]
    return [*found, Sample("_sum", series.labels, series.values[0]), Sample("_count", series.labels, counts[-1])]


@lru_cache(maxsize=16_384)
def _bucket_labels(labels: Pairs, edges: tuple[float, ...]) -> tuple[Pairs, ...]:
    return tuple((*labels, ("le", text)) for text in (*map(number_text, edges), "+Inf"))
