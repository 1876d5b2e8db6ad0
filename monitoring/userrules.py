"""Rule files of the user's own, named in ``[monitor] rules``: evaluated beside ours, their alerts told like ours."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from anvil_monitor.alerts.rulefile import Alerting, Group
from anvil_monitor.targets import Configuration, ConfigurationError, Problem
from anvil_monitor.targets.settings import INFO, SEVERITIES

from .rulecommands import duplicates, read

# What our own rules record: the page and the messages read these.
RESERVED: Final = "target:"
# Said on purpose by who wants nobody told (Prometheus's own Watchdog has it).
UNTOLD: Final = ("none", INFO)


def load(configuration: Configuration) -> tuple[Group, ...]:
    """The groups of all the files. Raises :class:`ConfigurationError` with every problem in any of them."""
    groups, found = _read(configuration)
    if found:
        raise ConfigurationError(found)
    return groups


def readable(configuration: Configuration) -> tuple[Group, ...]:
    """The groups of those files that can be read."""
    return _read(configuration)[0]


def problems(configuration: Configuration) -> list[Problem]:
    """What ``check`` says: errors that keep ``up`` from starting, warnings about alerts that nobody would hear of."""
    groups, found = _read(configuration)
    for name, labels in duplicates(groups):
        what = f"{name} is there more than once with the labels {labels}"
        found.append(Problem(what, todo="take one out, or tell them apart by a label", severity="warning"))
    for group in groups:
        for rule in group.rules:
            severity = rule.labels.get("severity", SEVERITIES[-1])
            if isinstance(rule, Alerting) and "{{" not in severity and severity not in (*SEVERITIES, *UNTOLD):
                what = (
                    f"alert {rule.alert} of group {group.name} has the severity {severity!r}, which reaches no channel"
                )
                todo = f"say {' or '.join(SEVERITIES)}, or none if nobody is to be told"
                found.append(Problem(what, Path(group.file), todo=todo, severity="warning"))
    return found


def holds(groups: Iterable[Group]) -> dict[str, float]:
    """By alert name how long one may need to fire again after a restart, in seconds.

    Its ``for``, and three evaluations: after the second one it is known since when an alert holds.
    """
    found: dict[str, float] = {}
    for group in groups:
        for rule in group.rules:
            if isinstance(rule, Alerting):
                found[rule.alert] = max(rule.hold + 3 * group.interval, found.get(rule.alert, 0.0))
    return found


def _read(configuration: Configuration) -> tuple[tuple[Group, ...], list[Problem]]:
    groups: list[Group] = []
    found: list[Problem] = []
    paths: dict[Path, None] = {}
    for pattern in configuration.monitor.rules:
        matched = sorted(glob.glob(pattern))  # noqa: PTH207  an absolute pattern is no pattern to pathlib
        if not matched:
            found.append(Problem(f"rules: no file matches {pattern}", configuration.path, todo="mend [monitor] rules"))
        paths |= dict.fromkeys(map(Path, matched))
    for path in paths:
        try:
            read_here = read(path, configuration.monitor.evaluation_interval)
        except ConfigurationError as error:
            found += error.problems
            continue
        groups += read_here
        for group in read_here:
            for rule in group.rules:
                if not isinstance(rule, Alerting) and rule.record.startswith(RESERVED):
                    todo = "give it another name"
                    found.append(
                        Problem(f"record {rule.record}: {RESERVED}… is what our own rules record", path, todo=todo)
                    )
    return tuple(groups), found
