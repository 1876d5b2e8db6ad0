"""One example of each alert that a configuration can raise, for previews and for trying out templates.

The words are those of the real rules: their annotations, filled in with a value that breaks the promise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from anvil_monitor.targets import Configuration, Target

from . import templates
from .messages import message
from .model import Alert, Message, Notification
from .rulefile import Alerting
from .ruleparts import CRASHING, VERSION_SINCE
from .rules import MISSED, rule_groups
from .templates import Element

LASTED: Final = 80.0  # seconds since the example began
# The release that it began with, and how many seconds before.
VERSION: Final = "1.4.2"
DEPLOYED: Final = 540.0
# Of an alert whose value is neither a target's nor a share nor a time.
VALUES: Final = {CRASHING: 5.0}
# What an example's labels are, where its words speak of them.
LABELS: Final = {
    "instance": "server-1",
    "job": "host",
    "system_filesystem_mountpoint": "/",
    "channel": "team",
    "url": "http://app/health",
}
LABEL: Final = re.compile(r"[lL]abels\.(\w+)")
# What the queries in annotations find, by a piece of the query: labels, and a value in parts of the limit.
FOUND: Final[tuple[tuple[str, tuple[tuple[Mapping[str, str], float], ...]], ...]] = (
    ("estimate", ()),
    ("topk", (({"http_request_method": "GET", "http_route": "/orders", "db_operation_name": "SELECT",
                "db_collection_name": "orders", "url_template": "/orders"}, 0.0),)),
    ("baseline", (({}, 0.7),)),
    ("upper", (({}, 0.9),)),
    ("lower", (({}, 0.5),)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Example:
    """An example: what it shows, and the message as the outbox would hold it."""

    name: str
    message: Message


def examples(configuration: Configuration, now: float) -> Iterator[Example]:
    """An example of each alert by name; of a missed target its end, too, and several alerts at once."""
    seen: dict[str, Alert] = {}
    for group in rule_groups(configuration):
        for rule in group.rules:
            if isinstance(rule, Alerting) and rule.alert not in seen:
                seen[rule.alert] = alert_of(rule, configuration.targets, now)
    for name, alert in seen.items():
        yield _example(name, alert, now, firing=(alert,))
    if MISSED in seen:
        missed = seen[MISSED]
        yield _example(f"{MISSED}, still", missed, now, still=(missed,), reason="repeat interval elapsed")
        over = replace(missed, ends_at=now)
        yield _example(f"{MISSED}, over", missed, now, resolved=(over,), reason="alerts resolved")
    if len(seen) > 1:
        yield _example("several at once", next(iter(seen.values())), now, firing=tuple(seen.values()))


def alert_of(rule: Alerting, targets: Sequence[Target], now: float) -> Alert:
    """The alert that ``rule`` would raise on a value half as much again as its limit allows."""
    target = next((one for one in targets if (one.service, one.name) ==
                   (rule.labels.get("service"), rule.labels.get("target"))), None)  # fmt: skip
    words = " ".join(rule.annotations.values())
    value = VALUES.get(rule.alert, 0.12 if "humanizePercentage" in words else 90.0)
    if target is not None:
        value = target.limit * (1.56 if target.direction == "below" else 0.37)
    spoken = {name: LABELS.get(name, name) for name in LABEL.findall(words) if name not in rule.labels}
    labels = {"alertname": rule.alert, **spoken, **rule.labels}
    given = {
        name: templates.expand(text, labels, value, query=partial(_found, target, now - LASTED))
        for name, text in rule.annotations.items()
    }
    kept = {name: text for name, text in given.items() if not text.startswith("<error")}
    return Alert(labels, kept, now - LASTED)


def _found(target: Target | None, began: float, query: str) -> Sequence[Element]:
    if VERSION_SINCE in query:
        return [Element({"service_version": VERSION}, began - DEPLOYED)]
    for piece, found in FOUND:
        if piece in query:
            limit = target.limit if target is not None else 1.0
            return [Element(labels, limit * part if part else 41.0) for labels, part in found]
    return [Element({}, 1.4)]


def history(alert: Alert, start: float, end: float) -> Sequence[tuple[float, float]]:
    """An hour that ends in a breach, for the picture."""
    try:
        limit = float(alert.annotations.get("limit", "1"))
    except ValueError:
        limit = 1.0
    count = 120
    return [
        (start + (end - start) * number / count,
         limit * (0.7 + 0.05 * math.sin(number / 5) + (0.85 if number > count - 6 else 0.0)))
        for number in range(count + 1)
    ]  # fmt: skip


def _example(
    name: str,
    alert: Alert,
    now: float,
    *,
    firing: tuple[Alert, ...] = (),
    still: tuple[Alert, ...] = (),
    resolved: tuple[Alert, ...] = (),
    reason: str = "new alerts",
) -> Example:
    told = Notification(alert.service, now, reason, firing, still, resolved)
    title, body = message(told)
    return Example(name, Message(0, "", alert.service, told.kind, title, body, reason, now, now, 0, "queued", "", None,
                                 told.to_json()))  # fmt: skip
