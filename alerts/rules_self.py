"""The rules by which the monitor watches itself: does it see, does it reach anybody, does it live."""

from __future__ import annotations

from typing import Final

from anvil_monitor.exporter import names
from anvil_monitor.targets import Configuration, format_duration

from .rulefile import Alerting, Group
from .ruleparts import COLLECTOR, NOTIFICATIONS, WATCHDOG, Links, duration, number

# Seconds. The longest pause between two tries is 5 min (delivery.Patience): three fit, one of which may be late.
TRIES: Final = 900.0
# A failure that the next try makes up for is nobody's concern; the first pauses are seconds.
TRIES_HOLD: Final = 60.0
COLLECTOR_LEAST: Final = 60.0
COLLECTOR_SCRAPES: Final = 3
# What in the bundle collects and tells; the embedded monitor is its own exporter.
COLLECTORS: Final = ("exporter", "notifier")


def self_group(configuration: Configuration, links: Links) -> Group:
    """What the monitor tells of itself."""
    rules = [_collector(configuration, links), _watchdog(links)]
    if configuration.channels:
        rules.insert(0, _notifications(links))
    return Group("monitor", configuration.monitor.evaluation_interval, tuple(rules))


def _notifications(links: Links) -> Alerting:
    window = duration(TRIES)
    failed, delivered = (
        f'sum by (channel) (increase({names.SENDS.name}{{outcome="{outcome}"}}[{window}])) > 0'
        for outcome in ("failed", "delivered")
    )
    annotations = {
        "summary": "Nothing reaches the channel {{ $labels.channel }}",
        "description": f"In the last {format_duration(TRIES)} sends to it have failed and none has arrived. What is "
        "to be said waits in the outbox and is tried for a day, unless the channel has refused it for good.",
        "title": "Notifications",
        **links.of(names.MONITOR, "", NOTIFICATIONS),
    }
    return Alerting(NOTIFICATIONS, f"{failed}\nunless on (channel)\n{delivered}", TRIES_HOLD, 0.0, _labels("warning"),
                    annotations)  # fmt: skip


def _collector(configuration: Configuration, links: Links) -> Alerting:
    hold = max(COLLECTOR_LEAST, COLLECTOR_SCRAPES * configuration.monitor.scrape_interval)
    jobs = "|".join(COLLECTORS)
    # Rules are evaluated a moment before the first scrape; that they were a minute ago, the watchdog's alert says.
    awake = f'ALERTS{{alertname="{WATCHDOG}"}} offset {duration(COLLECTOR_LEAST)}'
    expr = f'max by (job) (up{{job=~"{jobs}"}}) == 0\nor\n(absent(up{{job="{COLLECTORS[0]}"}}) and on () {awake})'
    annotations = {
        "summary": "The {{ $labels.job }} of the monitor does not answer",
        "description": f"It has not been scraped for {format_duration(hold)}. Without the exporter nobody sees host, "
        "processes, page loads and what servers push; without the notifier nobody is told.",
        "title": "Collector",
        **links.of(names.MONITOR, "", COLLECTOR),
    }
    return Alerting(COLLECTOR, expr, hold, hold, _labels("warning"), annotations)


def _watchdog(links: Links) -> Alerting:
    annotations = {
        "summary": "The monitor evaluates its rules",
        "description": "This alert always fires and is told to no channel that does not ask for it. Where it is "
        "expected and does not come, the monitor or the way from it is broken.",
        "title": "Watchdog",
        **links.of(names.MONITOR, "", WATCHDOG),
    }
    return Alerting(WATCHDOG, f"vector({number(1)})", 0.0, 0.0, _labels("none"), annotations)


def _labels(severity: str) -> dict[str, str]:
    return {"service": names.MONITOR, "severity": severity}
