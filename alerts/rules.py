"""Targets in, rules out: a pure function from what is promised to recorded series and alerts.

Every target becomes four recorded series, told apart by their labels ``service, target, unit`` only, so that boards,
page and messages are generic: ``target:value`` (base units; NaN: no traffic), ``target:limit``, ``target:ratio``
(over 1 = missed, whichever way the target points) and ``target:samples`` (how many requests, queries, page loads or
scrapes stand behind the value). A fifth, ``target:estimate``, is there (and 1) only where the value is an estimate: the
histogram of a server that is not ours has no edge at the limit, or nobody counts its users. Three alerts rest on them:
``TargetMissed``, ``TargetNoData`` and ``ServiceDown``.

The expressions stay within what Prometheus 2.42 and 3.x both read, and read alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from anvil_monitor.exporter import names
from anvil_monitor.targets import (
    Capacity,
    Configuration,
    Direction,
    Level,
    Mean,
    Percentile,
    Service,
    Target,
    Unit,
    format_duration,
)
from anvil_monitor.targets import format_promql_duration as duration

from .rulefile import Alerting, Group, Recording, Rule

MISSED: Final = "TargetMissed"
NO_DATA: Final = "TargetNoData"
DOWN: Final = "ServiceDown"

VALUE: Final = "target:value"
LIMIT: Final = "target:limit"
RATIO: Final = "target:ratio"
SAMPLES: Final = "target:samples"
ESTIMATE: Final = "target:estimate"

# A scrape that fails once is a hiccup, three in a row are a fact; below 15 s a plain restart would page.
DOWN_SCRAPES: Final = 3
DOWN_LEAST: Final = 15.0


@dataclass(frozen=True, slots=True)
class Links:
    """Where an alert sends its reader. ``dashboard`` may hold ``{service}`` and ``{target}``."""

    dashboard: str
    runbooks: str = "docs/runbooks"  # in the project's tree, as long as it has no address of its own

    def of(self, service: str, target: str, alert: str) -> dict[str, str]:
        link = literal(self.dashboard).replace("{service}", service).replace("{target}", target)
        return {"dashboard": link, "runbook_url": f"{self.runbooks}/{alert}.md"}


def rule_groups(configuration: Configuration, links: Links | None = None) -> tuple[Group, ...]:
    """One group a service: first what is recorded, then what may be told. ``links``: the monitor's own page."""
    where = links or Links(f"{configuration.monitor.address}/")
    return tuple(_group(configuration, service, where) for service in configuration.services)


def down_hold(configuration: Configuration) -> float:
    """Seconds of failed scrapes before ``ServiceDown``."""
    return max(DOWN_LEAST, DOWN_SCRAPES * configuration.monitor.scrape_interval)


def believed(target: Target, targets: tuple[Target, ...]) -> Target:
    """The target whose samples ``target`` rests on: itself, or the one that a capacity is counted against."""
    if isinstance(target.indicator, Capacity):
        return next(each for each in targets if each.name == target.indicator.while_holds)
    return target


def _group(configuration: Configuration, service: Service, links: Links) -> Group:
    targets = configuration.targets_of(service.name)
    # A capacity reads the recorded series of another target, which must be written before it.
    ordered = sorted(targets, key=lambda target: isinstance(target.indicator, Capacity))
    rules: list[Rule] = [rule for target in ordered for rule in _recorded(target)]
    for target in targets:
        rules += [_missed(target, believed(target, targets), links), _no_data(target, links)]
    rules.append(_down(configuration, service, links))
    return Group(f"targets of {service.name}", configuration.monitor.evaluation_interval, tuple(rules))


def _recorded(target: Target) -> list[Rule]:
    labels = _labels(target)
    return [
        Recording(VALUE, _value(target), labels),
        Recording(LIMIT, f"vector({number(target.limit)})", labels),
        Recording(RATIO, _ratio(target), labels),
        Recording(SAMPLES, _samples(target), labels),
        *(Recording(ESTIMATE, expr, labels) for expr in _estimate(target)),
    ]


def _value(target: Target) -> str:
    """The measured number. A histogram without traffic gives NaN (0/0), one that is not there gives nothing."""
    service, window = f"{{service={quoted(target.service)}}}", f"[{duration(target.window)}]"
    match target.indicator:
        case Percentile(metric, quantile):
            rate = f"sum by (le) (rate({metric}_bucket{service}{window}))"
            return f"histogram_quantile(\n  {number(quantile)},\n  {rate}\n)"
        case Mean(metric):
            return f"sum(rate({metric}_sum{service}{window}))\n/\nsum(rate({metric}_count{service}{window}))"
        case Level(metric):
            # A server may tell its memory itself, and the exporter tells it, too: two sources, not two parts.
            return f"max(sum by (job) (avg_over_time({metric}{service}{window})))"
        case Capacity(metric):
            # Little's law: the seconds that requests took in a second are the mean number of requests in flight.
            # J. D. C. Little, "A proof for the queuing formula L = λW", Operations Research 9, 1961.
            little = f"sum(rate({names.HTTP_DURATION.sum}{service}{window}))"
            return f"sum(max_over_time({metric}{service}{window}))\nor\n{little}"
        case other:
            assert_never(other)


def _estimate(target: Target) -> list[str]:
    """What gives 1 where the value of ``target`` is an estimate, and nothing where it is exact."""
    service = f"service={quoted(target.service)}"
    match target.indicator:
        case Percentile(metric):
            there, exact = f"{metric}_bucket{{{service}}}", f"{metric}_bucket{{{service},le=~{_edge(target.limit)}}}"
        case Capacity(metric):
            there, exact = f"{names.HTTP_DURATION.sum}{{{service}}}", f"{metric}{{{service}}}"
        case _:
            return []
    return [f"clamp_max(count({there}), 1)\nunless on ()\ncount({exact})"]


def _edge(limit: float) -> str:
    """A pattern for the label ``le`` of an edge at ``limit``, as a PromQL string: ``2`` or ``2.0``."""
    texts = dict.fromkeys((number(limit), repr(float(limit))))
    return quoted("|".join(text.replace(".", "\\.") for text in texts))


def _ratio(target: Target) -> str:
    if isinstance(target.indicator, Capacity):
        other = _recorded_as(RATIO, target, target.indicator.while_holds)
        return f"{other}\n* on (service)\n({_recorded_as(VALUE, target)} < bool {number(target.limit)})"
    if target.direction is Direction.ABOVE:
        return f"{number(target.limit)} / {_recorded_as(VALUE, target)}"
    return f"{_recorded_as(VALUE, target)} / {number(target.limit)}"


def _samples(target: Target) -> str:
    service, window = f"{{service={quoted(target.service)}}}", f"[{duration(target.window)}]"
    match target.indicator:
        case Percentile(metric) | Mean(metric):
            return f"sum(increase({metric}_count{service}{window}))"
        case Level(metric):
            return f"sum(count_over_time({metric}{service}{window}))"
        case Capacity(_, while_holds):
            return _recorded_as(SAMPLES, target, while_holds)
        case other:
            assert_never(other)


def _missed(target: Target, counted: Target, links: Links) -> Alerting:
    expr = f"{_recorded_as(VALUE, target)}\nand on (service, target)\n({_recorded_as(RATIO, target)} > 1)"
    if counted.floor:
        expr += f"\nand on (service, target)\n({_recorded_as(SAMPLES, target)} >= {counted.floor})"
    value, promise = human(target.unit), target.promise
    because = guess = ""
    if isinstance(target.indicator, Capacity):
        because = f" {counted.title} broke its own promise ({counted.promise}) while fewer users than that were served."
    elif counted.floor:
        because = f" At least {counted.floor} samples stand behind it."
    if _estimate(target):
        reason = "nobody counts its users, so they are estimated from the time that its requests take"
        if not isinstance(target.indicator, Capacity):
            reason = f"its histogram has no bucket edge at {target.text(target.limit)}"
        guess = f"{{{{ with query `{_recorded_as(ESTIMATE, target)}` }}}} This is an estimate: {reason}.{{{{ end }}}}"
    lasted = f" for {format_duration(target.hold)}" if target.hold else ""
    annotations = {
        "summary": f"{target.title} of {target.service} is {value}, target {promise}",
        "description": f"{target.title} ({target.measure}) has missed its target {promise}{lasted}: "
        f"it is {value}.{because}{guess}",
        "value": "{{ $value }}",
        "limit": number(target.limit),
        "promise": promise,
        "measure": target.measure,
        **_about(target),
        **links.of(target.service, target.name, MISSED),
    }
    return Alerting(MISSED, expr, target.hold, target.keep, {**_labels(target), "severity": "critical"}, annotations)


def _no_data(target: Target, links: Links) -> Alerting:
    expr = f"{_recorded_as(LIMIT, target)}\nunless on (service, target)\n{_recorded_as(VALUE, target)}"
    silence = format_duration(target.silence)
    annotations = {
        "summary": f"{target.title} of {target.service} is not measured: nothing came for {silence}",
        "description": f"{target.indicator.metric} of {target.service} has been silent for {silence}, so nobody can "
        f"say whether {target.title} is {target.promise}.",
        **_about(target),
        **links.of(target.service, target.name, NO_DATA),
    }
    return Alerting(NO_DATA, expr, target.silence, 0.0, {**_labels(target), "severity": "warning"}, annotations)


def _down(configuration: Configuration, service: Service, links: Links) -> Alerting:
    # Of several instances one that answers keeps the service up; the label `instance` would page once for each.
    expr = f'max by (service) (up{{job="server",service={quoted(service.name)}}}) == 0'
    hold = down_hold(configuration)
    what = f"{literal(service.metrics_url.partition('?')[0])} has not answered a scrape"
    if service.pushes:
        # What pushes has no scrape that fails: the probes see whether it answers.
        expr = f"max by (service) ({names.PROBE_SUCCESS.name}{{service={quoted(service.name)}}}) == 0"
        what = "None of its probes has been answered"
    annotations = {
        "summary": f"{service.name} does not answer",
        "description": f"{what} for {format_duration(hold)}: {service.name} is stopped, hangs, or cannot be reached.",
        "title": service.name,
        **links.of(service.name, "", DOWN),
    }
    # Kept as long as it was waited for: a server that dies again after one good scrape is still one outage.
    return Alerting(DOWN, expr, hold, hold, {"service": service.name, "severity": "critical"}, annotations)


def _labels(target: Target) -> dict[str, str]:
    return {"service": target.service, "target": target.name, "unit": target.unit.value}


def _about(target: Target) -> dict[str, str]:
    return {"title": target.title, "unit": target.unit.value}


def _recorded_as(series: str, target: Target, name: str = "") -> str:
    return f"{series}{{service={quoted(target.service)},target={quoted(name or target.name)}}}"


def human(unit: Unit) -> str:
    """The template that prints ``$value`` in human units: ``312ms``, ``512.3MB``, ``37 users``."""
    match unit:
        case Unit.SECONDS:
            return "{{ $value | humanizeDuration }}"
        case Unit.BYTES:
            return "{{ $value | humanize }}B"
        case Unit.USERS:
            return '{{ $value | printf "%.0f" }} users'


def literal(text: str) -> str:
    """``text`` from outside as a template that prints just that."""
    return text.replace("{{", '{{ "{{" }}')


def quoted(text: str) -> str:
    """``text`` as a PromQL string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def number(value: float) -> str:
    """A constant as a person would write it: ``0.2``, ``500000000``, ``100``."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
