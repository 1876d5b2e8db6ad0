"""``TargetDrifting`` and ``TargetTrending``: what :mod:`.drift` records, told to people. Both are warnings.

Either goes on for hours after its condition (``keep_firing_for``), so that a deploy is one message and not five.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from anvil_monitor.targets import Target

from .driftkinds import DOWN, MEMORY, SHARE, UP, kind, side
from .rulefile import Alerting
from .ruleparts import Links, about, human, number, quoted, recorded, target_labels

DRIFTING: Final = "TargetDrifting"
TRENDING: Final = "TargetTrending"

HOLD: Final = 300.0
KEEP: Final = 6 * 3600.0
"""Seconds. With less, a deploy that shifts the level is told three to five times instead of once."""
CREEP: Final = 1.2
"""Times the daily mean of a week ago; 1.15 brings six times as many false alarms."""
CREEP_HOLD: Final = 3600.0
CREEP_KEEP: Final = 86_400.0


def alerts(targets: Iterable[Target], links: Links) -> Iterable[Alerting]:
    for target in targets:
        if kind(target) == MEMORY:
            yield leaking(target, links)
        else:
            yield drifting(target, links)
            yield creeping(target, links)


def drifting(target: Target, links: Links) -> Alerting:
    """Its level has left what is usual. Not for memory, whose drift is a trend."""
    most = "max" if side(target) == UP else "min"
    expr = (
        f"{most} by (service, target) (\n  {recorded('drift:level', target)}\n"
        f"  and\n  ({recorded('drift:score', target)} > 1)\n)"
    )
    baseline = _with(recorded("target:baseline", target), _shown(target))
    annotations = {
        "summary": f"{target.title} of {target.service} is drifting: {human(target.unit)}, "
        f"usually {baseline}, target {target.promise}",
        "description": f"{target.title} is {human(target.unit)} over the last 30 min or 2 h, at this hour usually "
        f"{baseline}: the most tolerant of yesterday, last week and the habit of the hour.{_bounds(target)} "
        f"Its target is {target.promise}.",
        "measure": "mean over 30 min or 2 h",
        **_told(target, DRIFTING, links),
    }
    return Alerting(DRIFTING, expr, HOLD, KEEP, _labels(target), annotations)


def creeping(target: Target, links: Links) -> Alerting:
    """Its daily mean moves on from week to week, too slowly to be a drift on any day."""
    day, creep = (f"last_over_time({recorded(each, target)}[15m])" for each in ("drift:day", "drift:creep"))
    drifted = ",".join(
        f"{name}={quoted(text)}"
        for name, text in (("alertname", DRIFTING), ("alertstate", "firing"),
                           ("service", target.service), ("target", target.name))
    )  # fmt: skip
    expr = (
        f"max by (service, target) (\n  {day}\n  and\n  ({creep} > {number(CREEP)})\n)\n"
        f"unless on (service, target)\nmax_over_time(ALERTS{{{drifted}}}[7d:1h])"
    )
    times = _with(recorded("drift:creep", target), '{{ . | first | value | printf "%.2f" }}')
    moved = f"a week ago it was {times} times that" if side(target) == DOWN else f"{times} times that of a week ago"
    if kind(target) == SHARE:
        moved = f"what is missing {times} times that of a week ago"
    annotations = {
        "summary": f"{target.title} of {target.service} is creeping: {human(target.unit)} over a day, {moved}, "
        f"target {target.promise}",
        "description": f"The daily mean of {target.title} is {human(target.unit)}, {moved}: no single day stands out, "
        f"but it goes on. Its target is {target.promise}.",
        "measure": "mean over 1 d",
        **_told(target, TRENDING, links),
    }
    return Alerting(TRENDING, expr, CREEP_HOLD, CREEP_KEEP, _labels(target), annotations)


def leaking(target: Target, links: Links) -> Alerting:
    """The trough between collections is over its own past maximum, or its slope meets the limit within a day."""
    # Ten minutes over the limit, and `for`, are the quarter of an hour for which a forecast must hold.
    ahead = f"min_over_time({recorded('drift:ahead', target)}[10m:1m])"
    limit = number(target.limit)
    expr = (
        f"max by (service, target) (\n  {recorded('drift:level', target)}\n"
        f"  and\n  ({recorded('drift:score', target)} > 1)\n"
        f"  or\n  {recorded('drift:signal', target)}\n"
        f"  and on (service, target)\n  ({ahead} > {limit})\n)"
    )
    baseline = _with(recorded("target:baseline", target), f"; its highest of 12 h to 3 d ago is {_shown(target)}")
    forecast = _with(
        f"{recorded('drift:ahead', target)} > {limit}",
        f" On the slope of the last 6 h it is {_shown(target)} in a day.",
    )
    annotations = {
        "summary": f"{target.title} of {target.service} is growing: {human(target.unit)}, target {target.promise}",
        "description": f"The trough of {target.title} between collections is {human(target.unit)}{baseline}."
        f"{_bounds(target)}{forecast} Its target is {target.promise}.",
        "measure": "trough over 20 min",
        **_told(target, TRENDING, links),
    }
    return Alerting(TRENDING, expr, HOLD, KEEP, _labels(target), annotations)


def _labels(target: Target) -> dict[str, str]:
    return {**target_labels(target), "severity": "warning"}


def _told(target: Target, alert: str, links: Links) -> dict[str, str]:
    return {
        "value": "{{ $value }}",
        "limit": number(target.limit),
        "baseline": _with(recorded("target:baseline", target), "{{ . | first | value }}"),
        "promise": target.promise,
        **about(target),
        **links.of(target.service, target.name, alert),
    }


def _bounds(target: Target) -> str:
    """Where the warning begins, as far as it is known."""
    way = side(target)
    ways = [] if way == DOWN else [("target:upper", "over")]
    ways += [] if way == UP else [("target:lower", "under")]
    return "".join(
        _with(recorded(series, target), f" The warning begins {word} {_shown(target)}.") for series, word in ways
    )


def _with(query: str, text: str) -> str:
    """A template that prints ``text`` where ``query`` gives anything, which is then ``.``."""
    return f"{{{{ with query `{query}` }}}}{text}{{{{ end }}}}"


def _shown(target: Target) -> str:
    """The template that prints the first element of a query's result in human units."""
    return human(target.unit).replace("$value", ". | first | value")
