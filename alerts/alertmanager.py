"""``alertmanager.yml`` for the bundle: group as the pipeline groups, and post each group to the notifier.

What is told to whom is decided in the notifier, by the same stages as in the embedded monitor. So there are no
``inhibit_rules``: Alertmanager says nothing of what it inhibits, of its end neither. ``repeat_interval`` is no
repetition for people but the sign of life of what goes on (:mod:`.posted`). Within what Alertmanager 0.25 accepts.
"""

from __future__ import annotations

import re
from typing import Any, Final

from anvil_monitor.targets import Configuration, Secret, format_promql_duration

from . import yamltext
from .posted import repeats
from .rulefile import COMMENT
from .ruleparts import WATCHDOG
from .webhook import MAX_ALERTS

NOTIFIER: Final = "http://notifier:9095/api/v1/alerts"  # where docker-compose.yml has it
SECRETS: Final = "/run/secrets"


def dump(configuration: Configuration, *, notifier: str = NOTIFIER) -> str:
    """The file. The notifier's token is named by the file it lies in, never written out."""
    monitor = configuration.monitor
    webhook: dict[str, Any] = {"url": notifier, "send_resolved": True, "max_alerts": MAX_ALERTS}
    if monitor.token is not None:
        credentials = {"type": "Bearer", "credentials_file": secret_file(monitor.token)}
        webhook["http_config"] = {"authorization": credentials}
    route: dict[str, Any] = {
        "receiver": "anvil-monitor",
        "group_by": ["service"],
        "group_wait": format_promql_duration(monitor.group_wait),
        "group_interval": format_promql_duration(monitor.group_interval),
        "repeat_interval": format_promql_duration(repeats(monitor)),
    }
    if monitor.heartbeat is not None:
        route["routes"] = [_watchdog(monitor.heartbeat_interval)]
    document = {
        "route": route,
        "receivers": [{"name": "anvil-monitor", "webhook_configs": [webhook]}],
    }
    return yamltext.dump(document, COMMENT)


def _watchdog(interval: float) -> dict[str, Any]:
    """The Watchdog comes as often as the heartbeat beats.

    A group looks twice in that time: once, and it would miss every other beat by a moment.
    """
    return {
        "receiver": "anvil-monitor",
        "matchers": [f'alertname="{WATCHDOG}"'],
        "group_by": ["alertname"],
        "group_wait": "0s",
        "group_interval": format_promql_duration(interval / 2),
        "repeat_interval": format_promql_duration(interval),
    }


def secret_file(secret: Secret) -> str:
    """The file that holds ``secret`` in a container: its own, or for ``env:NAME`` the compose secret ``name``."""
    kind, _, where = secret.origin.partition(":")
    return where if kind == "file" else f"{SECRETS}/{re.sub(r'[^a-z0-9_]', '_', where.lower())}"
