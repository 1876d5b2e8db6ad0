"""``TargetMissed`` and ``CapacityShort``: a promise is broken now.

Exactly when, and not before it is believed:

- With a histogram edge at the limit, ``p95 > 200 ms`` is true if and only if more than one request in twenty took
  longer, whatever the interpolation inside a bucket says (``target:ratio`` over 1).
- Fewer samples than the target's floor are not judged over its window, but over an hour (``target:looked_back``): one
  slow request at night pages nobody, an outage at night does.
- Once it fires it goes on until the promise is kept by a margin, and then for ``keep_firing_for``: what hovers at the
  limit is one alert. For a percentile the margin is of the share of slow requests, which is exact at the edge; its
  value between two edges is not.

A capacity says ``CapacityShort`` instead of ``TargetMissed``: one broken promise is one alert, under one name.
"""

from __future__ import annotations

from typing import Final

from anvil_monitor.exporter import names
from anvil_monitor.targets import Capacity, Direction, Mean, Percentile, Target, Unit, format_duration

from .rulefile import Alerting
from .ruleparts import (
    CAPACITY,
    ESTIMATE,
    LOOKED_BACK,
    MISSED,
    OVER,
    RATIO,
    SAMPLES,
    VALUE,
    Links,
    about,
    costliest,
    human,
    number,
    quoted,
    recorded,
    target_labels,
)
from .rules_values import estimate_of, over, patience

# Of the share of samples that may be over the limit. A share of 5 % of 600 samples a minute wanders by its standard
# error, 0.9 %, which is a fifth of it.
ENDS_SHARE: Final = 0.8
# Of the limit, for what is no share.
ENDS_VALUE: Final = 0.95

# A floor below this is no floor: the next sample or two are judged at once.
LOOKS_BACK_FROM: Final = 3

# By which labels of a histogram a message says where to look; the last of them must be there.
DETAIL: Final = {
    names.HTTP_DURATION.name: ("http_request_method", "http_route"),
    names.DB_DURATION.name: ("db_collection_name", "db_operation_name"),
    names.PAGE_LOAD.name: ("url_template",),
}


def name_of(target: Target) -> str:
    """The name of the alert that says that ``target`` is missed."""
    return CAPACITY if isinstance(target.indicator, Capacity) else MISSED


def missed(target: Target, counted: Target, links: Links) -> Alerting:
    """The alert; ``counted`` is the target whose samples ``target`` rests on."""
    alert, value, promise = name_of(target), human(target.unit), target.promise
    measure = _measure(target)
    because = guess = ""
    if isinstance(target.indicator, Capacity):
        because = f" {counted.title} broke its own promise ({counted.promise}) while fewer users than that were served."
    elif counted.floor:
        stand = "samples stand" if counted.floor > 1 else "sample stands"
        because = f" At least {counted.floor} {stand} behind it."
    if estimate_of(target):
        reason = "nobody counts its users, so they are estimated from the time that its requests take"
        if not isinstance(target.indicator, Capacity):
            reason = f"its histogram has no bucket edge at {target.text(target.limit)}"
        guess = f"{{{{ with query `{recorded(ESTIMATE, target)}` }}}} This is an estimate: {reason}.{{{{ end }}}}"
    lasted = f" for {format_duration(target.hold)}" if target.hold else ""
    annotations = {
        "summary": f"{target.title} of {target.service} is {value}, target {promise}",
        "description": f"{target.title} ({measure}) has missed its target {promise}{lasted}: "
        f"it is {value}.{because}{guess}",
        "value": "{{ $value }}",
        "limit": number(target.limit),
        "promise": promise,
        "measure": measure,
        **_detail(target),
        **about(target),
        **links.of(target.service, target.name, alert),
    }
    labels = {**target_labels(target), "severity": "critical"}
    return Alerting(alert, _expr(target, counted), target.hold, target.keep, labels, annotations)


def ends_at(target: Target) -> float:
    """The value at which ``target`` is kept by the margin. Not of a percentile, whose margin is of a share, nor of a
    capacity, which has none."""
    if target.direction is Direction.BELOW:
        return ENDS_VALUE * target.limit
    by_value = target.limit / ENDS_VALUE
    if target.unit is not Unit.PERCENT:
        return by_value
    # Of a share near the whole, by what may be missing: 99.5 % is kept by the margin at 99.6 %, not at 104 %.
    return min(by_value, 1 - ENDS_SHARE * (1 - target.limit))


def looks_back(target: Target) -> bool:
    """Whether ``target`` is judged over an hour while it has fewer samples than its floor."""
    return target.floor >= LOOKS_BACK_FROM and isinstance(target.indicator, Percentile | Mean)


def _expr(target: Target, counted: Target) -> str:
    enough = f"{recorded(SAMPLES, target)} >= {counted.floor}"
    now = f"{recorded(VALUE, target)}\nand on (service, target)\n({_broken(target)})"
    if counted.floor:
        now += f"\nand on (service, target)\n({enough})"
    if not looks_back(target):
        return now
    before = f"{recorded(LOOKED_BACK, target)} > {number(target.limit)}"
    return f"{now}\nor\n({before} unless on (service, target) {enough})"


def _broken(target: Target) -> str:
    """The promise is broken, or it was told to be and is not yet kept by the margin."""
    broken = f"{recorded(RATIO, target)} > 1"
    match target.indicator:
        case Capacity():
            return broken  # a product of two conditions has no margin; keep_firing_for bridges what hovers
        case Percentile(_, quantile):
            share = number(float(f"{ENDS_SHARE * (1 - quantile):.6g}"))
            margin = f"{recorded(OVER, target)} / on (service, target) {recorded(SAMPLES, target)} > {share}"
        case _ if target.direction is Direction.ABOVE and ends_at(target) < target.limit / ENDS_VALUE:
            missing = number(float(f"{ENDS_SHARE * (1 - target.limit):.6g}"))
            margin = f"1 - {recorded(VALUE, target)} > {missing}"
        case _:
            margin = f"{recorded(RATIO, target)} > {number(ENDS_VALUE)}"
    labels = {"alertname": MISSED, "alertstate": "firing", "service": target.service, "target": target.name}
    told = "ALERTS{" + ",".join(f"{name}={quoted(text)}" for name, text in labels.items()) + "}"
    return f"\n  {broken}\n  or on (service, target)\n  ({margin} and on (service, target) {told})\n"


def _measure(target: Target) -> str:
    """How the value that is told was read, as a template: over the window, or over the longer look back."""
    if not looks_back(target):
        return target.measure
    long = f"{target.indicator.label} over {format_duration(patience(target))}"
    return f"{_if_enough(target)}{target.measure}{{{{ else }}}}{long}{{{{ end }}}}"


def _detail(target: Target) -> dict[str, str]:
    """The routes (queries, pages) of which most samples were over the limit."""
    if not isinstance(target.indicator, Percentile | Mean) or target.indicator.metric not in DETAIL:
        return {}
    metric = target.indicator.metric
    what = f"over {target.text(target.limit)}"

    def worst(seconds: float) -> str:
        return costliest(over(target, seconds, DETAIL[metric]), what, DETAIL[metric])

    text = worst(target.window)
    if looks_back(target):
        text = f"{_if_enough(target)}{text}{{{{ else }}}}{worst(patience(target))}{{{{ end }}}}"
    return {"routes" if metric == names.HTTP_DURATION.name else "detail": text}


def _if_enough(target: Target) -> str:
    return f"{{{{ with query `{recorded(SAMPLES, target)} >= {target.floor}` }}}}"
