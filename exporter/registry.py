"""prometheus_client's metrics on page cells: exact over workers, with no environment variable and no files of its own.

:func:`adopt` makes the counters, gauges, histograms and summaries of a registry, those there are and those to come,
write into the worker's page; nothing that they count is lost when a worker is killed. The library has no public way to
do this: ``tests/exporter/test_registry.py`` holds the private names used here against the installed version, and where
one is missing at run time the registry is exposed as the library itself would, from the worker that answers.

How a gauge is one number over workers is its ``multiprocess_mode``, as in the library's own multiprocess mode, of live
workers only: ``all`` (the default) gives each worker's value with the label ``pid``.
https://prometheus.github.io/client_python/multiprocess/
"""

from __future__ import annotations

import gc
import logging
import os
import platform
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from . import layout, names
from .exposition import Family
from .layout import Pairs, SeriesKind
from .meters import taken
from .names import Metric
from .pagevalues import Buckets, BucketValue, CellValue, LevelValue, Place, States, complain
from .publisher import Publisher, publisher
from .recorder import Recorder
from .streams import Absolute, Stream

logger = logging.getLogger("anvil_monitor.exporter")

MODES: Final[Mapping[str, SeriesKind]] = {
    "all": "gauge_max", "sum": "gauge", "max": "gauge_max", "min": "gauge_min", "mostrecent": "gauge_recent"
}  # fmt: skip
TYPES: Final[Mapping[str, tuple[SeriesKind, str]]] = {
    "counter": ("counter", "_total"), "histogram": ("histogram", ""), "summary": ("histogram", ""),
    "info": ("gauge_max", "_info"), "stateset": ("gauge_recent", ""),
}  # fmt: skip
MULTIPROCESS: Final = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
MAX_WAITING: Final = 10_000
_adopting = threading.Lock()


def adopt(recorder: Recorder, registry: Any = None, publisher: Publisher = publisher) -> None:
    """Make the metrics of ``registry`` (by default ``prometheus_client.REGISTRY``) cells of ``recorder``'s pages.

    A registry is adopted once: of several services instrumented in one process, the first has its metrics. A registry
    in prometheus_client's own multiprocess mode is left alone. Raises ``TypeError`` for what is no registry.
    """
    import prometheus_client

    registry = prometheus_client.REGISTRY if registry is None else registry
    fits = isinstance(registry, prometheus_client.CollectorRegistry)
    if not fits:
        raise TypeError(f"registry takes a prometheus_client.CollectorRegistry, True or False, not {registry!r:.80}")
    with _adopting:
        if getattr(registry, "_anvil_monitor", None) is not None:
            return
        if any(name in os.environ for name in MULTIPROCESS):
            complain("prometheus_client", "is in its own multiprocess mode (%s): it is left alone", MULTIPROCESS[0])
            return
        registry._anvil_monitor = Adoption(recorder, registry, publisher)


def others(recorder: Recorder) -> list[Family]:
    """What custom collectors of the adopted registries say, in this worker only; and their target info."""
    from .collectors import collect

    found: dict[str, Family] = {}
    for adoption in _adoptions:
        if adoption.recorder is recorder:
            for family in collect(adoption.registry, adoption.own, adoption.ours):
                found.setdefault(family.metric.name, family)
    return list(found.values())


class Adoption:
    """A registry whose metrics are page cells."""

    def __init__(self, recorder: Recorder, registry: Any, publisher: Publisher) -> None:
        self.recorder, self.registry = recorder, registry
        self._classes: dict[type, type] = {}
        self._waiting: list[Callable[[], object]] = []
        self._functions: dict[int, tuple[Any, LevelValue]] = {}
        self.ours: set[str] = set()  # what the pages show: nobody else's metric of such a name is shown
        _adoptions.append(self)
        problem = misfit()
        if problem:
            complain("prometheus_client", "has no %s: its metrics are those of the worker that answers", problem)
            return
        register = registry.register

        def registered(collector: Any) -> None:
            register(collector)
            self.take(collector)

        registry.register = registered
        for collector in list(registry._collector_to_names):
            self.take(collector)
        self._garbage = [
            (index, Absolute(Stream(recorder, "counter", names.foreign(name, "counter", text))))
            for index, (name, text) in enumerate(GARBAGE)
        ]
        self._python = _python()
        publisher.add(recorder, self.publish)

    def own(self, collector: Any) -> bool:
        """Whether ``collector`` is one whose numbers are in the pages."""
        return type(collector) in self._classes.values() or type(collector).__name__ in STANDARD

    def take(self, collector: Any) -> None:
        """Adopt ``collector``, if it is one of the library's own metrics. Never raises."""
        if not self._library(collector):
            return
        try:
            name = self.metric(collector).name
            if not taken(name):
                complain(name, "is measured by anvil-monitor itself; the one of the registry is left out")
                return
            for child in list(collector._metrics.values()) if collector._is_parent() else [collector]:
                child.__class__ = self._class(type(child))
                self.back(child)
            collector.__class__ = self._class(type(collector))
            self.ours.add(name)
        except Exception as error:  # noqa: BLE001  the library's inside, which may be another's tomorrow
            complain(str(collector), "cannot be adopted (%r): it is that of the worker that answers", error)

    @staticmethod
    def _library(collector: Any) -> bool:
        from prometheus_client.metrics import MetricWrapperBase

        return isinstance(collector, MetricWrapperBase) and collector._type in (*TYPES, "gauge")

    def metric(self, collector: Any) -> Metric:
        """What ``collector`` is to Prometheus."""
        kind, suffix = TYPES.get(collector._type, ("gauge", ""))
        name = _legal(collector._name, ":") + suffix
        known = names.BY_NAME.get(name)
        return known or names.foreign(name, layout.TYPES[kind], collector._documentation, collector._unit)

    def place(self, collector: Any) -> Place:
        """Where the series of ``collector``, a child or a metric without labels, goes."""
        labels = [_legal(name) for name in collector._labelnames]
        pairs = tuple(zip(labels, collector._labelvalues, strict=True))
        edges: tuple[float, ...] = ()
        kind = TYPES.get(collector._type, ("gauge", ""))[0]
        if collector._type == "gauge":
            kind = MODES[collector._multiprocess_mode.removeprefix("live")]
        elif collector._type == "histogram":
            edges = tuple(collector._upper_bounds[:-1])
        metric = self.metric(collector)
        layout.key(kind, metric.name, pairs, edges)
        return Place(self.recorder, kind, metric, pairs, edges)

    def back(self, collector: Any) -> None:
        """Put cells behind the values of ``collector``, with what it has counted so far."""
        place = self.place(collector)
        if collector._type == "counter":
            counter = CellValue(place)
            before, collector._value = collector._value, counter
            if before.get():
                counter.inc(before.get())
            self._wait(counter.bind)
        elif collector._type == "gauge":
            mode = collector._multiprocess_mode.removeprefix("live")
            level = LevelValue(place, mode == "all" and "pid" not in collector._labelnames, self._wait)
            before, collector._value = collector._value, level
            if before.get():
                level.set(before.get())
            if mode != "mostrecent":
                self._wait(level.bind)
            if "_child_samples" in vars(collector):
                self._functions[id(collector)] = collector, level
        elif collector._type == "summary":
            buckets = Buckets(place)
            numbers = collector._sum.get(), collector._count.get()
            collector._sum, collector._count = BucketValue(buckets, 0), BucketValue(buckets, 1)
            buckets.put(numbers)
        elif collector._type == "histogram":
            buckets = Buckets(place)
            numbers = collector._sum.get(), *(each.get() for each in collector._buckets)
            collector._anvil_monitor = buckets
            collector._sum = BucketValue(buckets, 0)
            collector._buckets = [BucketValue(buckets, 1 + index) for index in range(len(collector._upper_bounds))]
            buckets.put(numbers)
        else:
            collector._anvil_monitor = States(place)
            self._wait(lambda: self._state(collector, False))

    def publish(self) -> None:
        """What only the worker itself can say: gauges with a function, what was never counted, garbage collection."""
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()
        for collector, level in list(self._functions.values()):
            try:
                level.set(float(collector._child_samples()[0].value))
            except Exception as error:  # noqa: BLE001  whatever the user's function raises
                level.forget()
                complain(str(collector), "has a function that fails: %r", error)
        standing = {type(collector).__name__ for collector in list(self.registry._collector_to_names)}
        if "GCCollector" in standing:
            stats = gc.get_stats()
            for index, absolute in self._garbage:
                key = ("collected", "uncollectable", "collections")[index]
                absolute.publish([({"generation": str(n)}, (float(each[key]),)) for n, each in enumerate(stats)])
        if "PlatformCollector" in standing:
            self.recorder.series("gauge_max", PYTHON_INFO, self._python).cells[0] = 1.0

    def _wait(self, call: Callable[[], object]) -> None:
        """Have ``call`` done in the next round, that is once the process has a page."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(call)

    def _state(self, collector: Any, set_by: bool) -> None:
        states: States = collector._anvil_monitor
        if collector._type == "stateset":
            among = [((_legal(collector._name), state),) for state in collector._states]
            states.choose(among[collector._value], among, set_by or collector._value != 0)
        elif collector._value:
            states.only(tuple((_legal(name), value) for name, value in sorted(collector._value.items())))

    def _class(self, kind: type) -> type:
        """``kind`` with cells behind its values: what it is called and does stays."""
        if kind in self._classes.values():
            return kind
        made = self._classes.get(kind)
        if made is None:
            body = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
            made = self._classes[kind] = type(kind)(kind.__name__, (kind,), {**body, **self._methods(kind)})
        return made

    def _methods(self, kind: Any) -> dict[str, Callable[..., Any]]:
        from prometheus_client import Histogram

        def _metric_init(collector: Any) -> None:
            kind._metric_init(collector)
            try:
                self.back(collector)
            except Exception as error:  # noqa: BLE001  a label set that no page can have must not break the caller
                complain(collector._name, "has a series that /metrics cannot have: %r", error)

        def observe(collector: Any, amount: float, exemplar: Any = None) -> None:
            collector._raise_if_not_observable()
            if exemplar:
                kind.observe(collector, amount, exemplar)
            else:
                collector._anvil_monitor.observe(amount)

        def set_function(collector: Any, function: Callable[[], float]) -> None:
            kind.set_function(collector, function)
            if isinstance(collector._value, LevelValue):
                self._functions[id(collector)] = collector, collector._value

        def without(method: str) -> Callable[..., None]:
            def removing(collector: Any, *given: Any) -> None:
                before = dict(collector._metrics) if collector._is_parent() else {}
                getattr(kind, method)(collector, *given)
                for values, child in before.items():
                    if values not in collector._metrics:
                        self._functions.pop(id(child), None)
                        if isinstance(child._value, LevelValue):
                            child._value.forget()

            return removing

        def chosen(method: str) -> Callable[..., None]:
            def choosing(collector: Any, *given: Any, **named: Any) -> None:
                getattr(kind, method)(collector, *given, **named)
                if self.recorder.page is None:
                    self._wait(lambda: self._state(collector, True))
                else:
                    self._state(collector, True)

            return choosing

        methods: dict[str, Callable[..., Any]] = {"_metric_init": _metric_init}
        # A class of the user's own that observes in its own way keeps it.
        if kind._type == "histogram" and kind.observe is Histogram.observe:
            methods["observe"] = observe
        if kind._type == "gauge":
            removals = {name: without(name) for name in ("remove", "remove_by_labels", "clear") if hasattr(kind, name)}
            methods |= {"set_function": set_function, **removals}
        if kind._type in ("info", "stateset"):
            name = "info" if kind._type == "info" else "state"
            methods[name] = chosen(name)
        return methods


_adoptions: Final[list[Adoption]] = []
STANDARD: Final = ("GCCollector", "PlatformCollector", "ProcessCollector")
GARBAGE: Final = (
    ("python_gc_objects_collected_total", "Objects collected during gc"),
    ("python_gc_objects_uncollectable_total", "Uncollectable objects found during GC"),
    ("python_gc_collections_total", "Number of times this generation was collected"),
)
PYTHON_INFO: Final = names.foreign("python_info", "gauge", "Python platform information")


def _python() -> Pairs:
    major, minor, patch = platform.python_version_tuple()
    implementation, version = platform.python_implementation(), platform.python_version()
    told = ("implementation", implementation), ("major", major), ("minor", minor), ("patchlevel", patch)
    return *told, ("version", version)


def _legal(name: str, also: str = "") -> str:
    """A name as Prometheus has always had it; the library writes others (UTF-8) the same way where it must."""
    legal = "".join(c if (c.isascii() and c.isalnum()) or c in f"_{also}" else "_" for c in name)
    return f"_{legal}" if legal[:1].isdigit() else legal


def misfit() -> str:
    """The private name that this module needs and the installed prometheus_client does not have; empty: all there."""
    from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary

    parent = Counter("a", "a", ["b"], registry=None)
    gauge, histogram = Gauge("a", "a", registry=None), Histogram("a", "a", registry=None)
    counter, summary = Counter("a", "a", registry=None), Summary("a", "a", registry=None)
    enum, info = Enum("a", "a", registry=None, states=["b"]), Info("a", "a", registry=None)
    needed: list[tuple[object, str]] = [
        (CollectorRegistry(), "_collector_to_names"), (parent, "_metrics"), (gauge, "_multiprocess_mode"),
        (histogram, "_upper_bounds"), (histogram, "_buckets"), (histogram, "_sum"), (summary, "_count"),
        (summary, "_sum"), (enum, "_states"), (enum, "_value"), (info, "_value"), (counter, "_value"),
        (gauge, "_value"), (gauge, "_child_samples"),
    ]  # fmt: skip
    common = (
        "_name _documentation _unit _type _labelnames _labelvalues _metric_init _is_parent _raise_if_not_observable"
    )
    needed += [(each, name) for each in (parent, parent.labels("c"), gauge, histogram) for name in common.split()]
    return next((f"{type(each).__name__}.{name}" for each, name in needed if not hasattr(each, name)), "")
