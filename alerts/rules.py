"""Targets in, rules out: a pure function from what is promised to recorded series and alerts.

Every target becomes four recorded series, told apart by their labels ``service, target, unit`` only, so that boards,
page and messages are generic: ``target:value`` (base units; NaN: no traffic), ``target:limit``, ``target:ratio``
(over 1 = missed, whichever way the target points) and ``target:samples`` (how many requests, queries, page loads or
scrapes stand behind the value). A fifth, ``target:estimate``, is there (and 1) only where the value is an estimate: the
histogram of a server that is not ours has no edge at the limit, or nobody counts its users.

The expressions stay within what Prometheus 2.42 and 3.x both read, and read alike.
"""

from __future__ import annotations

from anvil_monitor.targets import Configuration

from .drift import drift_groups
from .rulefile import Group
from .ruleparts import (
    DOWN,
    ESTIMATE,
    LIMIT,
    MISSED,
    NO_DATA,
    RATIO,
    SAMPLES,
    VALUE,
    WATCHDOG,
    Links,
    human,
    literal,
    number,
    quoted,
)
from .rules_host import host_group
from .rules_self import self_group
from .rules_service import down_hold, service_group
from .rules_targets import own, own_groups, target_groups
from .rules_values import believed

__all__ = [
    "DOWN", "ESTIMATE", "LIMIT", "MISSED", "NO_DATA", "RATIO", "SAMPLES", "VALUE", "WATCHDOG", "Links", "believed",
    "down_hold", "human", "literal", "number", "own", "own_groups", "quoted", "rule_groups", "shared_groups",
]  # fmt: skip


def rule_groups(configuration: Configuration, links: Links | None = None) -> tuple[Group, ...]:
    """Every group: what all have, targets of the user's own, drift.

    ``links``: where messages lead; by default the monitor's own page.
    """
    where = links or Links.to_page(configuration.monitor)
    targets = (target for service in configuration.services for target in own(configuration, service))
    return (
        *shared_groups(configuration, where),
        *(group for target in targets for group in own_groups(configuration, target, where)),
        *drift_groups(configuration, where),
    )


def shared_groups(configuration: Configuration, links: Links) -> tuple[Group, ...]:
    """What is recorded and told of each service's shipped targets, then of itself; of the host and of the monitor."""
    groups: list[Group] = []
    for service in configuration.services:
        groups += target_groups(configuration, service, links)
        groups.append(service_group(configuration, service, links))
    groups += [host_group(configuration, links), self_group(configuration, links)]
    return tuple(groups)
