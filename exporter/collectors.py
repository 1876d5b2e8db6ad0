"""Custom collectors of a prometheus_client registry as families: what they say in this worker, at this moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from . import names
from .exposition import Family, Sample
from .layout import LABEL_NAME, METRIC_NAME
from .names import Kind
from .pagevalues import complain

SUFFIXES: Final = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}
MAX_SAMPLES: Final = 10_000


def collect(registry: Any, own: Callable[[Any], bool], ours: set[str]) -> Iterator[Family]:
    """The families of every collector that is not ``own``. One that fails is left out, which is said once.

    A metric that anvil-monitor measures itself, or that the pages have (``ours``), is not shown a second time.
    """
    info = registry.get_target_info()
    if info:
        try:
            yield _gauge("target_info", "Target metadata", [Sample("", _labels(info), 1.0)])
        except ValueError as error:
            complain("target_info", "is left out: %s", error)
    left = MAX_SAMPLES
    for collector in list(registry._collector_to_names):
        if own(collector) or _sdk(collector):
            continue
        try:
            told = list(collector.collect())
            for family in (family for metric in told for family in _families(metric)):
                name = family.metric.name
                if name in names.BY_NAME or name in ours:
                    complain(name, "of a custom collector is left out: the pages have one of this name")
                elif len(family.samples) > left:
                    complain(name, "of a custom collector is left out: over %d samples", MAX_SAMPLES)
                elif family.samples:
                    left -= len(family.samples)
                    yield family
        except Exception as error:  # noqa: BLE001  whatever the user's collector raises or returns
            complain(f"{type(collector).__module__}.{type(collector).__qualname__}", "cannot be collected: %r", error)


def _sdk(collector: Any) -> bool:
    """Whether this is the OpenTelemetry SDK's, whose numbers of all workers are in the pages."""
    from opentelemetry import metrics

    reads = getattr(metrics.get_meter_provider(), "_anvil_monitor", None) is not None
    return reads and type(collector).__module__.startswith("opentelemetry.exporter.prometheus")


def _families(metric: Any) -> Iterator[Family]:
    name, kind, text = metric.name, metric.type, metric.documentation
    if not METRIC_NAME.fullmatch(name):
        complain(name, "of a custom collector is left out: not a name that every Prometheus can read")
        return
    if kind in SUFFIXES:
        samples = [
            Sample(each.name[len(name) :], _labels(each.labels), float(each.value))
            for each in metric.samples
            if each.name.startswith(name) and each.name[len(name) :] in SUFFIXES[kind]
        ]
        yield Family(names.foreign(name, cast(Kind, kind), text, metric.unit), samples)
    elif kind == "gaugehistogram":
        for suffix in ("_bucket", "_gcount", "_gsum"):
            yield _gauge(name + suffix, text, _named(metric, name + suffix))
    elif kind == "counter":
        total = f"{name}_total"
        yield Family(names.foreign(total, "counter", text, metric.unit), _named(metric, total))
    elif kind == "info":
        yield _gauge(f"{name}_info", text, _named(metric, f"{name}_info"))
    else:
        yield _gauge(name, text, _named(metric, name), metric.unit)


def _gauge(name: str, text: str, samples: list[Sample], unit: str = "") -> Family:
    return Family(names.foreign(name, "gauge", text, unit), samples)


def _named(metric: Any, name: str) -> list[Sample]:
    return [Sample("", _labels(each.labels), float(each.value)) for each in metric.samples if each.name == name]


def _labels(labels: dict[str, object]) -> tuple[tuple[str, str], ...]:
    found = tuple((str(name), str(value)) for name, value in labels.items() if value not in ("", None))
    if not all(LABEL_NAME.fullmatch(name) for name, _ in found):
        raise ValueError("a label's name is not one that every Prometheus can read")
    return found
