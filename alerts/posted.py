"""What Alertmanager said last of each alert: what the notifier takes for the alerts of the moment.

It is in the outbox file before a post is answered, so a restart forgets nothing that was accepted. Alertmanager posts a
group when it changes, and again and again while something in it fires (``repeat_interval`` of the generated
``alertmanager.yml``, :func:`repeats`). That is the sign of life of each alert. One that its group's post leaves out is
held back there (silenced); an end meanwhile is never posted. So what has no sign of life for long is doubted: whether
it fires is asked of Prometheus, and where nobody knows, people are told just that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from anvil_monitor.targets import Monitor, format_duration

from .model import LOST, Alert
from .outbox import Outbox, OutboxError
from .wording import plain

logger = logging.getLogger(__name__)

# Signs of life that may be missed, in seconds at least: Prometheus tells Alertmanager of each alert once a minute, and
# gives it four until it counts as over. Before that an Alertmanager that has started anew may not know of it.
PATIENCE: Final = 240.0
MISSED: Final = 4
# An alert is over, or lost, when it was not found to fire so many times in a row: a Prometheus that has just been
# started finds nothing.
DOUBTS: Final = 2
# Seconds that one round may count for: while the machine slept, nobody could say anything.
LONGEST_STEP: Final = 5.0
# Alerts that are kept at most: whoever can post may not fill the memory.
MOST: Final = 20_000
# Why it is not known whether an alert is over.
UNMENTIONED: Final = "Alertmanager has not mentioned it for {}, it may have ended while it was silenced there"
SILENT: Final = "Alertmanager says that it is over, but Prometheus does not answer"


def repeats(monitor: Monitor) -> float:
    """Seconds: Alertmanager's ``repeat_interval``. It looks every ``group_interval``, so one may pass without."""
    return 2 * monitor.group_interval


@dataclass(slots=True)
class Entry:
    """One alert. ``held``: a post of its group (``origin``) left it out. ``quiet``: seconds without a sign of life.

    ``unsure``: Prometheus is to be asked where its end is posted.
    """

    alert: Alert
    origin: str
    held: bool = False
    quiet: float = 0.0
    asked: float = 0.0  # how quiet it was when it was asked for last
    doubts: int = 0
    unsure: bool = False


class Posted:
    """Used by one thread at a time. Writing may raise :class:`OutboxError`; then nothing has changed."""

    def __init__(self, outbox: Outbox, monitor: Monitor, now: float) -> None:
        self._outbox = outbox
        self.patience = max(PATIENCE, MISSED * repeats(monitor))
        self._again = self.patience / 4
        self._asks = bool(monitor.prometheus)
        self._looked = now
        self._silence = 0.0  # seconds without any post
        self._entries: dict[str, Entry] = {}
        for row in outbox.rows("SELECT * FROM posted"):
            alert = Alert.from_json(row["alert"])
            self._entries[row["fingerprint"]] = Entry(
                alert, row["origin"], bool(row["held"]), unsure=self._asks and LOST not in alert.annotations
            )
        for known in outbox.told().values():  # by a version that kept nothing else
            for fingerprint, alert in known.items():
                self._entries.setdefault(fingerprint, Entry(replace(alert, ends_at=None), ""))

    def take(self, alerts: Sequence[Alert], origin: str, whole: bool = True) -> bool:
        """Write what a post of the group ``origin`` says; ``whole``: it names every alert. False if it is known."""
        mentioned = {alert.fingerprint: alert for alert in alerts}
        changed: dict[str, Entry] = {}
        for fingerprint, alert in mentioned.items():
            entry = self._entries.get(fingerprint)
            if entry is None and not alert.firing:
                continue  # the end of what nobody has heard of, or whose end was told
            if entry is None or entry.held or entry.alert != alert or entry.origin != origin:
                changed[fingerprint] = Entry(alert, origin, unsure=self._asks)
        for fingerprint, entry in self._entries.items():
            there = entry.alert.firing and not entry.held and entry.origin == origin
            if whole and there and fingerprint not in mentioned:
                changed[fingerprint] = replace(entry, held=True)
        if len(self._entries.keys() | changed.keys()) > MOST:
            raise OutboxError(f"{MOST} alerts are kept already: more are not taken")
        self._write(changed)
        self._silence = 0.0
        for fingerprint, entry in self._entries.items():
            if fingerprint in mentioned or (not whole and entry.origin == origin):
                entry.quiet, entry.asked, entry.doubts = 0.0, 0.0, 0
        return bool(changed)

    def alerts(self) -> list[Alert]:
        """Every alert that fires as far as is known, and those that have ended and are not settled."""
        return [entry.alert for entry in self._entries.values()]

    def held(self) -> frozenset[str]:
        """What Alertmanager holds back: left out of a post of its group, or its group is quiet while others are not."""
        late = self.patience / 2
        lives = self._silence < late
        return frozenset(key for key, entry in self._entries.items() if entry.held or (lives and entry.quiet >= late))

    def doubtful(self, now: float) -> list[Alert]:
        """The alerts of which it has to be asked whether they fire: those without a sign of life, and those just ended.

        Alertmanager posts an end as well when Prometheus tells it nothing more. Counts the time since the last call.
        """
        step = min(max(0.0, now - self._looked), LONGEST_STEP)
        self._looked = now
        self._silence += step
        found = []
        for entry in self._entries.values():
            if entry.alert.firing:
                entry.quiet += step
                if entry.quiet >= self.patience and (not entry.asked or entry.quiet >= entry.asked + self._again):
                    entry.asked = entry.quiet
                    found.append(entry.alert)
            elif entry.unsure:
                found.append(entry.alert)
        return found

    def judge(self, answers: Mapping[str, bool | None], now: float) -> None:
        """What is known of the doubtful by fingerprint: whether they fire, ``None`` where nobody can say."""
        changed: dict[str, Entry] = {}
        for fingerprint, fires in answers.items():
            entry = self._entries.get(fingerprint)
            if entry is not None and entry.unsure and not entry.alert.firing:
                entry.unsure = False
                if fires is None:
                    changed[fingerprint] = Entry(_lost(entry.alert, SILENT), entry.origin)
                continue
            if entry is None or not entry.asked:  # Alertmanager has spoken meanwhile
                continue
            entry.doubts = 0 if fires else entry.doubts + 1
            if entry.doubts < DOUBTS:
                continue
            quiet = format_duration(entry.quiet)
            alert = replace(entry.alert, ends_at=now)
            if fires is None:
                alert = _lost(alert, UNMENTIONED.format(quiet))
            logger.warning(
                "Alertmanager has not mentioned %s of %s for %s: %s",
                plain(alert.name, 120), plain(alert.service, 60) or "no service", quiet,
                "whether it is over is not known" if fires is None else "Prometheus says that it is over",
            )  # fmt: skip
            changed[fingerprint] = Entry(alert, entry.origin)
        self._write(changed)

    def settle(self, wanted: Callable[[str], bool]) -> None:
        """Forget what has ended and is not ``wanted`` any more: its end was told to whoever heard of it."""
        over = [key for key, entry in self._entries.items() if not entry.alert.firing and not wanted(key)]
        self._write({}, over)

    def _write(self, changed: Mapping[str, Entry], over: Collection[str] = ()) -> None:
        statements: list[tuple[str, tuple[Any, ...]]] = [
            ("INSERT OR REPLACE INTO posted VALUES (?, ?, ?, ?)",
             (key, entry.origin, entry.alert.to_json(), int(entry.held)))
            for key, entry in changed.items()
        ]  # fmt: skip
        statements += [("DELETE FROM posted WHERE fingerprint = ?", (key,)) for key in over]
        if statements:
            self._outbox.execute_all(statements)
        self._entries.update(changed)
        for key in over:
            del self._entries[key]


def _lost(alert: Alert, why: str) -> Alert:
    return replace(alert, annotations={**alert.annotations, LOST: why})
