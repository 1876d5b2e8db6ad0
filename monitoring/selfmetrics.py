"""What the monitor says about itself on ``/metrics``: ``anvil_monitor_*``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Final

from anvil_monitor.alerts.outbox import Outbox, OutboxError
from anvil_monitor.exporter.exposition import Family, Sample
from anvil_monitor.exporter.names import Metric

from .rulemanager import RuleManager
from .scrape import Scraper
from .store import Store

SERIES: Final = Metric("anvil_monitor_series", "gauge", "Series in the store.")
SAMPLES: Final = Metric("anvil_monitor_samples", "gauge", "Samples in the store.")
REFUSED: Final = Metric("anvil_monitor_refused_samples_total", "counter", "Samples of new series that found no room.")
TARGETS_DOWN: Final = Metric("anvil_monitor_targets_down", "gauge", "Scrape targets whose last scrape failed.")
EVALUATION: Final = Metric(
    "anvil_monitor_rule_evaluation_seconds", "gauge", "Duration of the last evaluation of a group.", ("group",)
)
MISSED: Final = Metric(
    "anvil_monitor_rule_evaluations_missed_total", "counter", "Slots that a group's evaluation skipped.", ("group",)
)
FAILING: Final = Metric("anvil_monitor_rules_failing", "gauge", "Rules whose last evaluation failed.", ("group",))
NOTIFICATIONS: Final = Metric("anvil_monitor_notifications", "gauge", "Messages in the ledger.", ("channel", "state"))
QUEUE_AGE: Final = Metric(
    "anvil_monitor_queue_age_seconds", "gauge", "Age of the oldest message not yet sent; 0: none waits."
)


def families(store: Store, rules: RuleManager, scrapers: Sequence[Scraper], outbox: Outbox) -> list[Family]:
    """The families. What cannot be read (a locked disk) is left out."""
    down = sum(scraper.health.up is False for scraper in scrapers)
    found = [
        _one(SERIES, store.series_count),
        _one(SAMPLES, store.sample_count),
        _one(REFUSED, store.refused),
        _one(TARGETS_DOWN, down),
    ]
    groups = [((("group", group.name),), state) for group, state in rules.groups]
    found += [
        Family(EVALUATION, [Sample("", labels, state.duration) for labels, state in groups]),
        Family(MISSED, [Sample("", labels, state.missed) for labels, state in groups]),
        Family(
            FAILING,
            [Sample("", labels, sum(rule.health == "err" for rule in state.rules)) for labels, state in groups],
        ),
    ]
    with contextlib.suppress(OutboxError):
        counts = outbox.counts()
        oldest = outbox.oldest_queued()
        found.append(
            Family(
                NOTIFICATIONS, [Sample("", (("channel", c), ("state", s)), n) for (c, s), n in sorted(counts.items())]
            )
        )
        found.append(_one(QUEUE_AGE, max(0.0, time.time() - oldest) if oldest is not None else 0.0))
    return found


def _one(metric: Metric, value: float) -> Family:
    return Family(metric, [Sample("", (), float(value))])
