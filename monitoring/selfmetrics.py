"""What the monitor says about itself on ``/metrics``: ``anvil_monitor_*``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from anvil_monitor.alerts import notifier
from anvil_monitor.alerts.delivery import Delivery
from anvil_monitor.alerts.outbox import Outbox, OutboxError
from anvil_monitor.exporter import names
from anvil_monitor.exporter.exposition import Family, Sample
from anvil_monitor.exporter.names import Metric

from .history.joined import HistoryStore
from .rulemanager import RuleManager
from .scrape import Scraper
from .store import Store


def families(
    store: Store, rules: RuleManager, scrapers: Sequence[Scraper], outbox: Outbox, delivery: Delivery
) -> list[Family]:
    """The families. What cannot be read (a locked disk) is left out."""
    down = sum(scraper.health.up is False for scraper in scrapers)
    found = [
        _one(names.STORE_SERIES, store.series_count),
        _one(names.STORE_SAMPLES, store.sample_count),
        _one(names.STORE_REFUSED, store.refused),
        _one(names.SCRAPES_DOWN, down),
    ]
    if isinstance(store, HistoryStore):
        found += [
            _one(names.HISTORY_SIZE, store.history.size),
            _one(names.HISTORY_DAMAGED, store.history.blocks.damaged),
            _one(names.HISTORY_WRITABLE, not store.history.problem),
        ]
    groups = [((("group", group.name),), state) for group, state in rules.groups]
    found += [
        Family(names.RULE_EVALUATION, [Sample("", labels, state.duration) for labels, state in groups]),
        Family(names.RULE_MISSED, [Sample("", labels, state.missed) for labels, state in groups]),
        Family(
            names.RULES_FAILING,
            [Sample("", labels, sum(rule.health == "err" for rule in state.rules)) for labels, state in groups],
        ),
    ]
    with contextlib.suppress(OutboxError):
        found += notifier.families(outbox, delivery, time.time())
    return found


def _one(metric: Metric, value: float) -> Family:
    return Family(metric, [Sample("", (), float(value))])
