"""Which alert explains which other: one table.

While an alert of ``source`` fires, nothing is told of the alerts in ``explains`` that share the labels in ``equal``
with it. A label that an alert lacks is shared with nobody. An alert that is itself held back still explains others, as
in Alertmanager.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from .model import Alert

# The early warnings of a target: by name, so that a table of the rules' own is not needed here.
EARLY: Final = ("TargetDrifting", "TargetTrending")


@dataclass(frozen=True, slots=True)
class Inhibition:
    """``explains``: names of alerts; empty for all but ``source`` itself. ``why`` is for the reader.

    ``lingers``: after the end of ``source``, too, until its instruments have been scraped twice: they say nothing
    before.
    """

    source: str
    explains: tuple[str, ...]
    equal: tuple[str, ...]
    why: str
    lingers: bool = False

    def key(self, alert: Alert) -> tuple[str, ...] | None:
        """What both sides have to share, or ``None`` where ``alert`` lacks one of the labels."""
        values = tuple(alert.labels.get(label, "") for label in self.equal)
        return values if all(values) else None

    def concerns(self, alert: Alert) -> bool:
        return alert.name in self.explains if self.explains else alert.name != self.source


TABLE: Final = (
    Inhibition("ServiceDown", (), ("service",), "a server that is down misses everything and measures nothing", True),
    Inhibition("TargetMissed", EARLY, ("service", "target"), "what is missed needs no warning that it may be"),
    Inhibition("CapacityShort", EARLY, ("service", "target"), "what is short needs no warning that it may be"),
)
SOURCES: Final = frozenset(rule.source for rule in TABLE)
LINGERING: Final = frozenset(rule.source for rule in TABLE if rule.lingers)


def explained(greater: Iterable[Alert]) -> Callable[[Alert], bool]:
    """Tells of an alert whether one of ``greater`` explains it. Costs the same for one or for thousands of them."""
    held: dict[Inhibition, set[tuple[str, ...]]] = defaultdict(set)
    for alert in greater:
        for rule in TABLE:
            if alert.name == rule.source and (key := rule.key(alert)) is not None:
                held[rule].add(key)
    return lambda alert: any(rule.concerns(alert) and rule.key(alert) in keys for rule, keys in held.items())
