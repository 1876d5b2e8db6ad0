"""The rules of the targets: their recorded series, and that nothing can be said of one (``TargetNoData``).

What says that a promise is broken is in :mod:`.rules_missed`. The shipped targets of a service are one group; each
target of the user's own has groups of its own, so that its tests play with its rules alone: it may be read from the
same series as others, which would be told as well.
"""

from __future__ import annotations

from typing import Final

from anvil_monitor.targets import Capacity, Configuration, Percentile, Service, Target, format_duration
from anvil_monitor.targets.settings import KINDS

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


def is_own(target: Target) -> bool:
    """Whether the user has written ``target``, instead of it being one of the shipped ones."""
    return target.name not in KINDS


def shipped(configuration: Configuration, service: Service) -> tuple[Target, ...]:
    return tuple(target for target in configuration.targets_of(service.name) if not is_own(target))


def own(configuration: Configuration, service: Service) -> tuple[Target, ...]:
    return tuple(target for target in configuration.targets_of(service.name) if is_own(target))


def target_groups(configuration: Configuration, service: Service, links: Links) -> tuple[Group, ...]:
    """What is recorded and told of the shipped targets of ``service``."""
    return _groups(shipped(configuration, service), service.name, configuration, links)


def own_groups(configuration: Configuration, target: Target, links: Links) -> tuple[Group, ...]:
    """What is recorded and told of ``target``, one of the user's own."""
    groups = _groups((target,), f"{target.service}, {target.name}", configuration, links)
    return tuple(group for group in groups if group.rules)


def _groups(targets: tuple[Target, ...], name: str, configuration: Configuration, links: Links) -> tuple[Group, ...]:
    # A capacity reads the recorded series of another target, which must be written before it.
    ordered = sorted(targets, key=lambda target: isinstance(target.indicator, Capacity))
    rules: list[Rule] = [rule for target in ordered for rule in _recorded(target)]
    for target in targets:
        rules += [missed(target, believed(target, targets), links), _no_data(target, links)]
    interval = configuration.monitor.evaluation_interval
    patient = [
        Recording(LOOKED_BACK, looked_back(target), target_labels(target)) for target in targets if looks_back(target)
    ]
    # What is recorded of targets that have too little traffic to be judged over their own window.
    return (
        Group(f"little traffic of {name}", max(PATIENT_INTERVAL, interval), tuple(patient)),
        Group(f"targets of {name}", interval, tuple(rules)),
    )


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


def _no_data(target: Target, links: Links) -> Alerting:
    expr = f"{recorded(LIMIT, target)}\nunless on (service, target)\n{recorded(VALUE, target)}"
    silence = format_duration(target.silence)
    what = target.indicator.metric
    if " " in what:  # words, not a name
        what = what[0].upper() + what[1:]
    annotations = {
        "summary": f"{target.title} of {target.service} is not measured: nothing came for {silence}",
        "description": f"{what} of {target.service} has been silent for {silence}, so nobody can "
        f"say whether {target.title} is {target.promise}.",
        **about(target),
        **links.of(target.service, target.name, NO_DATA),
    }
    return Alerting(NO_DATA, expr, target.silence, 0.0, {**target_labels(target), "severity": "warning"}, annotations)
