"""The flap limit: an alert that comes and goes is told once as flapping, and again when it has settled.

Without it each of its firings and ends would be news. While it flaps it counts as firing, so that nobody is told of an
end that does not last. What was told is in the outbox, so a restart neither repeats it nor forgets it; only the count
of firings begins anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from anvil_monitor.targets import format_duration

from .model import Alert

MARK: Final = "flapping"  # the annotation by which it is known, in the outbox, too
# What the message of a flapping alert keeps of its own: the value of this moment says nothing.
KEPT: Final = ("title", "unit", "dashboard", "runbook_url")


class Flaps:
    """Which alerts flap: those that fire more than ``limit`` times (0: none ever does) within ``window`` seconds.

    One has settled when it neither fired nor ended for half of ``window``.
    """

    def __init__(self, limit: int, window: float) -> None:
        self._limit, self._window = limit, window
        self._firings: dict[str, list[float]] = {}
        self._flapping: dict[str, tuple[dict[str, str], float]] = {}  # annotations, and the last change

    def restore(self, alert: Alert, now: float) -> None:
        """``alert`` was told before a restart."""
        if MARK in alert.annotations and self._limit:
            self._flapping[alert.fingerprint] = (dict(alert.annotations), now)

    def saw(self, fingerprint: str, before: Alert | None, alert: Alert, now: float) -> None:
        """``alert`` is as it is now; ``before`` as it was, ``None`` where it did not fire."""
        fired = before is not None and before.firing
        if fired == alert.firing or not self._limit:
            return
        if fingerprint in self._flapping:
            self._flapping[fingerprint] = (self._flapping[fingerprint][0], now)
        if not alert.firing:
            return
        firings = [at for at in self._firings.get(fingerprint, ()) if at > now - self._window]
        self._firings[fingerprint] = [*firings, now]
        if len(firings) >= self._limit and fingerprint not in self._flapping:
            self._flapping[fingerprint] = (self._told(alert, len(firings) + 1), now)

    def settle(self, now: float) -> None:
        """Forget what has settled, and firings of long ago."""
        for fingerprint, (_, changed) in list(self._flapping.items()):
            if changed <= now - self._window / 2:
                del self._flapping[fingerprint]
                self._firings.pop(fingerprint, None)
        for fingerprint, firings in list(self._firings.items()):
            if firings[-1] <= now - self._window:
                del self._firings[fingerprint]

    def shown(self, fingerprint: str, alert: Alert) -> Alert:
        """``alert`` as people are told of it: while it flaps, as firing."""
        if fingerprint not in self._flapping:
            return alert
        return replace(alert, ends_at=None, annotations=self._flapping[fingerprint][0])

    def _told(self, alert: Alert, count: int) -> dict[str, str]:
        title = alert.annotations.get("title") or alert.name or "an alert"
        of = f" of {alert.service}" if alert.service and alert.service != title else ""
        window, quiet = format_duration(self._window), format_duration(self._window / 2)
        return {
            **{name: alert.annotations[name] for name in KEPT if name in alert.annotations},
            "summary": f"{title}{of} comes and goes: {alert.name} has fired {count} times within {window}",
            "description": f"It is told again when it has neither fired nor ended for {quiet}.",
            MARK: str(count),
        }


def changed(alert: Alert, known: Alert) -> bool:
    """Whether a channel that heard of ``known`` has not heard that it flaps, or that it does so no longer."""
    return (MARK in alert.annotations) != (MARK in known.annotations)
