"""The rules of the targets: their recorded series, ``TargetMissed`` and ``TargetNoData``."""

from __future__ import annotations

from typing import assert_never

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
    format_duration,
)

from .rulefile import Alerting, Group, Recording, Rule
from .ruleparts import (
    ESTIMATE,
    LIMIT,
    MISSED,
    NO_DATA,
    RATIO,
    SAMPLES,
    VALUE,
    Links,
    about,
    duration,
    human,
    number,
    quoted,
    recorded,
    target_labels,
)


def believed(target: Target, targets: tuple[Target, ...]) -> Target:
    """The target whose samples ``target`` rests on: itself, or the one that a capacity is counted against."""
    if isinstance(target.indicator, Capacity):
        return next(each for each in targets if each.name == target.indicator.while_holds)
    return target


def target_group(configuration: Configuration, service: Service, links: Links) -> Group:
    targets = configuration.targets_of(service.name)
    # A capacity reads the recorded series of another target, which must be written before it.
    ordered = sorted(targets, key=lambda target: isinstance(target.indicator, Capacity))
    rules: list[Rule] = [rule for target in ordered for rule in _recorded(target)]
    for target in targets:
        rules += [_missed(target, believed(target, targets), links), _no_data(target, links)]
    return Group(f"targets of {service.name}", configuration.monitor.evaluation_interval, tuple(rules))


def _recorded(target: Target) -> list[Rule]:
    labels = target_labels(target)
    return [
        Recording(VALUE, value_of(target), labels),
        Recording(LIMIT, f"vector({number(target.limit)})", labels),
        Recording(RATIO, _ratio(target), labels),
        Recording(SAMPLES, _samples(target), labels),
        *(Recording(ESTIMATE, expr, labels) for expr in _estimate(target)),
    ]


def value_of(target: Target) -> str:
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
        other = recorded(RATIO, target, target.indicator.while_holds)
        return f"{other}\n* on (service)\n({recorded(VALUE, target)} < bool {number(target.limit)})"
    if target.direction is Direction.ABOVE:
        return f"{number(target.limit)} / {recorded(VALUE, target)}"
    return f"{recorded(VALUE, target)} / {number(target.limit)}"


def _samples(target: Target) -> str:
    service, window = f"{{service={quoted(target.service)}}}", f"[{duration(target.window)}]"
    match target.indicator:
        case Percentile(metric) | Mean(metric):
            return f"sum(increase({metric}_count{service}{window}))"
        case Level(metric):
            return f"sum(count_over_time({metric}{service}{window}))"
        case Capacity(_, while_holds):
            return recorded(SAMPLES, target, while_holds)
        case other:
            assert_never(other)


def _missed(target: Target, counted: Target, links: Links) -> Alerting:
    expr = f"{recorded(VALUE, target)}\nand on (service, target)\n({recorded(RATIO, target)} > 1)"
    if counted.floor:
        expr += f"\nand on (service, target)\n({recorded(SAMPLES, target)} >= {counted.floor})"
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
        guess = f"{{{{ with query `{recorded(ESTIMATE, target)}` }}}} This is an estimate: {reason}.{{{{ end }}}}"
    lasted = f" for {format_duration(target.hold)}" if target.hold else ""
    annotations = {
        "summary": f"{target.title} of {target.service} is {value}, target {promise}",
        "description": f"{target.title} ({target.measure}) has missed its target {promise}{lasted}: "
        f"it is {value}.{because}{guess}",
        "value": "{{ $value }}",
        "limit": number(target.limit),
        "promise": promise,
        "measure": target.measure,
        **about(target),
        **links.of(target.service, target.name, MISSED),
    }
    return Alerting(
        MISSED, expr, target.hold, target.keep, {**target_labels(target), "severity": "critical"}, annotations
    )


def _no_data(target: Target, links: Links) -> Alerting:
    expr = f"{recorded(LIMIT, target)}\nunless on (service, target)\n{recorded(VALUE, target)}"
    silence = format_duration(target.silence)
    annotations = {
        "summary": f"{target.title} of {target.service} is not measured: nothing came for {silence}",
        "description": f"{target.indicator.metric} of {target.service} has been silent for {silence}, so nobody can "
        f"say whether {target.title} is {target.promise}.",
        **about(target),
        **links.of(target.service, target.name, NO_DATA),
    }
    return Alerting(NO_DATA, expr, target.silence, 0.0, {**target_labels(target), "severity": "warning"}, annotations)
