"""OpenTelemetry's metrics API on page cells: any library's meters, exact over workers, at the cost of a cell.

:func:`install` puts :class:`PageMeterProvider` behind the API unless the user has a provider of their own; an SDK's
gets a reader instead (``sdkreader.py``). Instruments are named and labelled by OpenTelemetry's own Prometheus rules. A
counter and a histogram count over all workers, dead ones included; an up-down counter is the sum over live workers; a
gauge is the value set last in any worker (what should add up is an up-down counter).

A metric that anvil-monitor measures itself (requests, processes, the host) is not taken from a meter as well: it would
be counted twice. Databases (``db.client.*``) are taken.
https://opentelemetry.io/docs/specs/otel/metrics/api/
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.metrics import Meter, MeterProvider

from . import layout, names
from .conventions import NameKind, metric_name, prometheus_unit
from .instruments import (
    Observed,
    PageCounter,
    PageGauge,
    PageHistogram,
    PageObservableCounter,
    PageObservableGauge,
    PageObservableUpDownCounter,
    PageUpDownCounter,
)
from .layout import SeriesKind
from .names import SECONDS_EDGES
from .publisher import Publisher, publisher
from .recorder import Recorder
from .streams import Stream

logger = logging.getLogger("anvil_monitor.exporter")

BYTES_EDGES: Final = tuple(float(4**power) for power in range(4, 15))  # 256 bytes to 256 MiB
# https://opentelemetry.io/docs/specs/otel/metrics/sdk/#explicit-bucket-histogram-aggregation
SDK_EDGES: Final = (0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1e3, 2.5e3, 5e3, 7.5e3, 1e4)
INSTRUMENT_NAME: Final = re.compile(r"[a-zA-Z][-_./a-zA-Z0-9]{0,254}")
MAX_METRICS: Final = 2000
_making = threading.RLock()  # of instruments; one for all, so that a forked child can have it anew

# The page kind of each instrument, and the kind its Prometheus name is made by.
KINDS: Final[Mapping[type, tuple[SeriesKind, NameKind]]] = {
    PageCounter: ("counter", "counter"),
    PageObservableCounter: ("counter", "counter"),
    PageUpDownCounter: ("gauge", "updown"),
    PageObservableUpDownCounter: ("gauge", "updown"),
    PageHistogram: ("histogram", "histogram"),
    PageGauge: ("gauge_recent", "gauge"),
    PageObservableGauge: ("gauge_recent", "gauge"),
}


def taken(name: str) -> bool:
    """Whether the Prometheus metric ``name`` of somebody else's instrument goes into the pages."""
    return name not in names.BY_NAME or name.startswith("db_client_")


def fit(edges: Iterable[float], unit: str) -> tuple[float, ...]:
    """``edges`` in order, each once; without a usable one, what suits ``unit`` (UCUM)."""
    try:
        usable = tuple(sorted({float(edge) for edge in edges if -inf < edge < inf}))
    except (TypeError, ValueError):
        usable = ()
    return usable or {"s": SECONDS_EDGES, "By": BYTES_EDGES}.get(unit, SDK_EDGES)


class Streams:
    """Every metric that meters have made, by its Prometheus name. ``edges``: of the histograms in names.py."""

    def __init__(self, recorder: Recorder, edges: Mapping[str, tuple[float, ...]]) -> None:
        self.recorder, self.edges = recorder, edges
        self._found: dict[str, Stream] = {}
        self._refused: set[str] = set()

    def get(
        self, kind: SeriesKind, named: NameKind, name: str, unit: str, description: str,
        advised: Sequence[float] | None = None,
    ) -> Stream | None:  # fmt: skip
        """The stream of an OpenTelemetry metric; ``None``, and a word in the log, where it is not to be had."""
        made = metric_name(name, unit, named)
        if not taken(made):
            self._refuse(made, "is measured by anvil-monitor itself; a meter's is left out")
            return None
        with _making:
            stream = self._found.get(made)
            if stream is None and len(self._found) < MAX_METRICS:
                metric = names.BY_NAME.get(made) or names.foreign(
                    made, layout.TYPES[kind], description, prometheus_unit(unit)
                )
                if metric.kind == layout.TYPES[kind]:
                    edges = self.edges.get(made) or fit(advised or (), unit)
                    stream = Stream(self.recorder, kind, metric, edges if kind == "histogram" else ())
                    self._found[made] = stream
        if stream is None:
            self._refuse(made, "is one metric too many, or of another type than its name says")
            return None
        if stream.kind != kind:
            self._refuse(made, f"is already a {stream.kind}; the later {kind} of this name is left out")
            return None
        if advised and made not in self.edges and fit(advised, unit) != stream.edges:
            self._refuse(made, "was made before with other bucket boundaries, and keeps them")
        return stream

    def _refuse(self, name: str, why: str) -> None:
        with _making:
            if name in self._refused or len(self._refused) >= MAX_METRICS:
                return
            self._refused.add(name)
        logger.warning("%s %s", name, why)


class PageMeter(Meter):
    """The instruments of one library. See :class:`opentelemetry.metrics.Meter` for what each method makes."""

    def __init__(self, provider: PageMeterProvider, name: str, version: str | None, schema_url: str | None) -> None:
        super().__init__(name, version, schema_url)
        self._provider = provider
        self._made: dict[tuple[object, ...], Any] = {}

    def create_counter(self, name: str, unit: str = "", description: str = "") -> metrics.Counter:
        return self._make(PageCounter, metrics.NoOpCounter, name, unit, description)  # type: ignore[no-any-return]

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "") -> metrics.UpDownCounter:
        return self._make(PageUpDownCounter, metrics.NoOpUpDownCounter, name, unit, description)  # type: ignore[no-any-return]

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> metrics._Gauge:
        return self._make(PageGauge, metrics._NoOpGauge, name, unit, description)  # type: ignore[no-any-return]

    def create_histogram(
        self, name: str, unit: str = "", description: str = "", *,
        explicit_bucket_boundaries_advisory: Sequence[float] | None = None,
    ) -> metrics.Histogram:  # fmt: skip
        advised = explicit_bucket_boundaries_advisory
        return self._make(PageHistogram, metrics.NoOpHistogram, name, unit, description, advised=advised)  # type: ignore[no-any-return]

    def create_observable_counter(
        self, name: str, callbacks: Sequence[metrics.CallbackT] | None = None, unit: str = "", description: str = ""
    ) -> metrics.ObservableCounter:
        return self._make(PageObservableCounter, metrics.NoOpObservableCounter, name, unit, description, callbacks)  # type: ignore[no-any-return]

    def create_observable_gauge(
        self, name: str, callbacks: Sequence[metrics.CallbackT] | None = None, unit: str = "", description: str = ""
    ) -> metrics.ObservableGauge:
        return self._make(PageObservableGauge, metrics.NoOpObservableGauge, name, unit, description, callbacks)  # type: ignore[no-any-return]

    def create_observable_up_down_counter(
        self, name: str, callbacks: Sequence[metrics.CallbackT] | None = None, unit: str = "", description: str = ""
    ) -> metrics.ObservableUpDownCounter:
        kind, none = PageObservableUpDownCounter, metrics.NoOpObservableUpDownCounter
        return self._make(kind, none, name, unit, description, callbacks)  # type: ignore[no-any-return]

    def _make(
        self, kind: Any, none: Callable[..., Any], name: str, unit: str | None, description: str | None,
        callbacks: Sequence[metrics.CallbackT] | None = None, advised: Sequence[float] | None = None,
    ) -> Any:  # fmt: skip
        """An instrument of ``kind``, the same one for the same question; one of ``none`` where it cannot be."""
        unit, description = unit or "", description or ""
        identity = kind, name.lower(), unit, description
        with _making:
            found = self._made.get(identity)
            if found is None:
                found = self._new(kind, name, unit, description, callbacks, advised) or none(name)
                self._made[identity] = found
        return found

    def _new(
        self, kind: Any, name: str, unit: str, description: str,
        callbacks: Sequence[metrics.CallbackT] | None, advised: Sequence[float] | None,
    ) -> Any:  # fmt: skip
        if not INSTRUMENT_NAME.fullmatch(name):
            logger.warning("%.80r is no name of an OpenTelemetry instrument (meter %s)", name, self.name)
            return None
        if len(self._made) >= MAX_METRICS:
            return None
        page, named = KINDS[kind]
        stream = self._provider.streams.get(page, named, name, unit, description, advised)
        if stream is None:
            return None
        if not issubclass(kind, Observed):
            return kind(stream)
        observed = kind(stream, callbacks)
        self._provider.observe(observed)
        return observed


class PageMeterProvider(MeterProvider):
    """Meters whose instruments are cells of ``recorder``'s page.

    ``edges``: the bucket edges of the histograms in names.py, by Prometheus name; any other has those its instrument
    advises, else those of its unit.
    """

    def __init__(
        self, recorder: Recorder, edges: Mapping[str, tuple[float, ...]], publisher: Publisher = publisher
    ) -> None:
        self.recorder = recorder
        self.streams = Streams(recorder, edges)
        self._publisher = publisher
        self._meters: dict[tuple[str, str, str], PageMeter] = {}
        self._observed: list[Observed] = []

    def get_meter(
        self, name: str, version: str | None = None, schema_url: str | None = None, attributes: Any = None
    ) -> PageMeter:
        identity = str(name), str(version or ""), str(schema_url or "")
        with _making:
            meter = self._meters.get(identity)
            if meter is None:
                meter = PageMeter(self, identity[0], version, schema_url)
                if len(self._meters) < MAX_METRICS:
                    self._meters[identity] = meter
            return meter

    def observe(self, instrument: Observed) -> None:
        """Have ``instrument`` asked by the publisher from now on."""
        with _making:
            self._observed.append(instrument)
            first = len(self._observed) == 1
        if first:
            self._publisher.add(self.recorder, self._ask)

    def _ask(self) -> None:
        for instrument in list(self._observed):
            instrument.ask()

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Ask all observable instruments now. What is recorded needs no flush."""
        return self._publisher.flush()

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """As the SDK's, for libraries that call it. The page lives as long as its worker."""


def install(recorder: Recorder, edges: Mapping[str, tuple[float, ...]]) -> None:
    """Put a :class:`PageMeterProvider` behind the OpenTelemetry API, unless the user has a provider there.

    A process has one such provider: of several services instrumented in it, the first has the meters. A provider of
    OpenTelemetry's SDK is left alone and gets a reader whose numbers go into the pages as well.
    """
    there = metrics.get_meter_provider()
    if isinstance(there, PageMeterProvider):
        return
    kind = type(there)
    if (kind.__module__, kind.__name__) == ("opentelemetry.metrics._internal", "_ProxyMeterProvider"):
        metrics.set_meter_provider(PageMeterProvider(recorder, edges))
    elif kind.__module__.startswith("opentelemetry.sdk."):
        from .sdkreader import attach

        attach(there, Streams(recorder, edges))
    else:
        logger.info("meters are left to the MeterProvider that is set (%s); /metrics does not have them", kind.__name__)


def edges_rise(edges: Sequence[float]) -> bool:
    """Whether Prometheus can have these bucket edges."""
    return all(-inf < edge < inf for edge in edges) and all(a < b for a, b in pairwise(edges))


def _after_fork() -> None:
    global _making
    _making = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
