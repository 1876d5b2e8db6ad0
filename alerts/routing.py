"""Which channels an alert is for: those that ask for it, and round a channel that nothing reaches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from anvil_monitor.targets import Channel

from .model import Alert
from .ruleparts import NOTIFICATIONS

FAILING: Final = "channel"  # the label of NotificationsFailing that names the channel


def wants(channel: Channel, alert: Alert) -> bool:
    """Whether ``alert`` is among what ``channel`` is for."""
    return (not channel.severities or alert.severity in channel.severities) and _concerns(channel, alert)


def around(channels: Sequence[Channel], alert: Alert, failing: Iterable[str]) -> list[Channel]:
    """The channels that are told of ``alert``; ``failing`` are the names of those that nothing reaches.

    That a channel fails is told to the others that take it; where none does, to those that leave it out for its
    severity alone; and to the channel itself only where there is no other.
    """
    asked = [channel for channel in channels if wants(channel, alert)]
    broken = alert.labels.get(FAILING, "")
    if alert.name != NOTIFICATIONS or not any(channel.name == broken for channel in channels):
        return asked
    lost = {*failing, broken}
    concerned = [channel for channel in channels if _concerns(channel, alert)]
    for among, without in ((asked, lost), (concerned, lost), (asked, {broken}), (concerned, {broken})):
        if found := [channel for channel in among if channel.name not in without]:
            return found
    return asked


def failing(alerts: Iterable[Alert]) -> set[str]:
    """The channels of which ``alerts`` say that nothing reaches them."""
    return {alert.labels.get(FAILING, "") for alert in alerts if alert.name == NOTIFICATIONS and alert.firing}


def _concerns(channel: Channel, alert: Alert) -> bool:
    chosen = ((channel.services, alert.service), (channel.targets, alert.labels.get("target", "")))
    if any(among and given not in among for among, given in chosen):
        return False
    return all(alert.labels.get(name, "") in values for name, values in channel.labels)
