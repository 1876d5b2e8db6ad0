"""The rules of the targets: their recorded series, and that nothing can be said of one (``TargetNoData``).

What says that a promise is broken is in :mod:`.rules_missed`.
"""

from __future__ import annotations

from typing import Final

from anvil_monitor.targets import Capacity, Configuration, Percentile, Service, Target, format_duration

from .rulefile import Alerting, Group, Recording, Rule
from .ruleparts import (
    ESTIMATE,
    LIMIT,
    LOOKED_BACK,
    NO_DATA,
    OVER,
    RATIO,
    SAMPLES,
    VALUE,
    Links,
    about,
    number,
    recorded,
    target_labels,
)
from .rules_missed import looks_back, missed
from .rules_values import believed, estimate_of, looked_back, over, ratio_of, samples_of, value_of

# Seconds between evaluations: an hour of a histogram costs more to read than a minute of it, and there is time.
PATIENT_INTERVAL: Final = 60.0


def target_group(configuration: Configuration, service: Service, links: Links) -> Group:
    targets = configuration.targets_of(service.name)
    # A capacity reads the recorded series of another target, which must be written before it.
    ordered = sorted(targets, key=lambda target: isinstance(target.indicator, Capacity))
    rules: list[Rule] = [rule for target in ordered for rule in _recorded(target)]
    for target in targets:
        rules += [missed(target, believed(target, targets), links), _no_data(target, links)]
    return Group(f"targets of {service.name}", configuration.monitor.evaluation_interval, tuple(rules))


def _recorded(target: Target) -> list[Rule]:
    labels = target_labels(target)
    return [
        Recording(VALUE, value_of(target), labels),
        Recording(LIMIT, f"vector({number(target.limit)})", labels),
        Recording(RATIO, ratio_of(target), labels),
        Recording(SAMPLES, samples_of(target), labels),
        *([Recording(OVER, over(target, target.window), labels)] if isinstance(target.indicator, Percentile) else []),
        *(Recording(ESTIMATE, expr, labels) for expr in estimate_of(target)),
    ]


def patient_group(configuration: Configuration, service: Service) -> Group:
    """What is recorded of targets that have too little traffic to be judged over their own window."""
    rules = [
        Recording(LOOKED_BACK, looked_back(target), target_labels(target))
        for target in configuration.targets_of(service.name)
        if looks_back(target)
    ]
    interval = max(PATIENT_INTERVAL, configuration.monitor.evaluation_interval)
    return Group(f"little traffic of {service.name}", interval, tuple(rules))


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
