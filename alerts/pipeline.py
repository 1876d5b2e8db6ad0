"""What happens between an alert and a person: the stages below, in this order.

Each stage takes the batches of one round and hands on what is still to be told; the last one writes it into the outbox.
Nothing is remembered by having been dropped: what is held back now is looked at again in the next round, so a full disk
or a restart costs time, never a notification.

The embedded monitor calls :meth:`Pipeline.update` with every alert after every rule evaluation, the notifier with what
Alertmanager said last (:mod:`.posted`), every second: the same stages decide in both.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from anvil_monitor.targets import Configuration

from . import acks
from .flapping import Flaps
from .inhibition import LINGERING, SOURCES
from .model import Alert, Told
from .outbox import Outbox, OutboxError
from .stages import (
    Batch,
    Decision,
    LinksOf,
    Measure,
    Round,
    Stage,
    deduplicate,
    enqueue,
    group,
    inhibit,
    route,
    silence,
)
from .waiting import escalate, hours

logger = logging.getLogger(__name__)

# Routing stands before deduplication because what is news differs from channel to channel.
STAGES: Final[tuple[Stage, ...]] = (silence, inhibit, group, route, escalate, hours, deduplicate, enqueue)


class Pipeline:
    """The alerts of the moment, and the stages run over them.

    ``measure`` gives what a target measures now, for "recovered: 142 ms"; ``None`` where that is not known.
    ``holds``: how long alerts may need until they fire again after a restart (seconds, by name). ``links``
    gives what a message offers to do about it.
    :attr:`problem` is what kept the last round from being written, or ``None``.
    """

    def __init__(
        self,
        configuration: Configuration,
        outbox: Outbox,
        clock: Callable[[], float] = time.time,
        measure: Measure | None = None,
        holds: Mapping[str, float] | None = None,
        links: LinksOf | None = None,
    ) -> None:
        self._configuration = configuration
        self._holds = dict(holds or {})
        self._outbox = outbox
        self._clock = clock
        self._measure = measure
        self._links = links
        self._alerts: dict[str, Alert] = {}
        self._expires: dict[str, float] = {}
        self._unmentioned: dict[str, int] = {}
        self._lingering: dict[str, tuple[Alert, float]] = {}
        self._seen: dict[str, float] = {}
        self._held: Collection[str] = ()
        self._flaps = Flaps(configuration.monitor.flap_limit, configuration.monitor.flap_window)
        self.problem: str | None = None
        self.decisions: tuple[Decision, ...] = ()
        self._grouped: tuple[tuple[float, tuple[Alert, ...]], ...] = ()
        monitor = configuration.monitor
        self._beat = monitor.scrape_interval + monitor.evaluation_interval
        now = clock()
        self._channels = {channel.name for channel in configuration.channels}
        for (topic, channel), known in outbox.told().items():
            if channel not in self._channels:
                outbox.record([], [Told(topic, channel, (), tuple(known))], now)
                continue
            for fingerprint, alert in known.items():
                # Told before a restart: it goes on until it had the time to fire again and did not.
                self._alerts[fingerprint] = dataclasses.replace(alert, ends_at=None)
                self._expires[fingerprint] = now + self._patience(alert)
                self._flaps.restore(alert, now)
        acks.forget(outbox, acks.current(outbox).keys() - self._alerts.keys())

    def update(self, alerts: Sequence[Alert], held: Collection[str] = ()) -> float | None:
        """Take every alert that fires, and those that have just ended; then :meth:`tick`.

        ``held``: the fingerprints of those that somebody else holds back.
        """
        now, self._held = self._clock(), held
        self._unmentioned = {fingerprint: self._unmentioned.get(fingerprint, 0) + 1 for fingerprint in self._alerts}
        for alert in alerts:
            fingerprint = alert.fingerprint
            before = self._alerts.get(fingerprint)
            if not alert.firing and before is None:
                continue
            self._flaps.saw(fingerprint, before, alert, now)
            self._alerts[fingerprint] = alert
            self._expires[fingerprint] = now + 4 * self._beat
            self._unmentioned[fingerprint] = 0
        return self.tick(now)

    def tick(self, now: float | None = None) -> float | None:
        """Run the stages. Returns when there is something to look at again (seconds since the epoch), if known."""
        now = self._clock() if now is None else now
        self._age(now)
        self._flaps.settle(now)
        round_ = Round(
            now,
            self._configuration,
            self._outbox,
            self._inhibitors(),
            self._held,
            measure=self._measure,
            links=self._links,
            seen=self._seen,
        )
        try:
            shown = tuple(self._flaps.shown(fingerprint, alert) for fingerprint, alert in self._alerts.items())
            self._run(round_, [Batch("", shown)])
            of_acks = round_.acks.keys() | {fingerprint for fingerprint, *_ in round_.acks_told}
            acks.forget(self._outbox, of_acks - {alert.fingerprint for alert in shown if alert.firing})
            open_alerts = {fingerprint for known in self._outbox.told().values() for fingerprint in known}
        except OutboxError as error:
            self._failed(str(error))
            return now + 1.0
        self.problem = None
        for fingerprint, alert in list(self._alerts.items()):
            if not alert.firing and fingerprint not in open_alerts:
                del self._alerts[fingerprint], self._expires[fingerprint]
        for fingerprint in self._seen.keys() - self._alerts.keys():
            del self._seen[fingerprint]
        return min(round_.next_look, default=None)

    def soon(self, seconds: float) -> list[Alert]:
        """The alerts that wait for their group and are told within ``seconds``."""
        now = self._clock()
        return [alert for ready, alerts in self._grouped if ready <= now + seconds for alert in alerts]

    def knows(self, fingerprint: str) -> bool:
        """Whether there is still something to be told of an alert, or it fires."""
        return fingerprint in self._alerts

    def firing(self) -> list[Alert]:
        """The alerts that fire, told or not; one that flaps is among them."""
        shown = [self._flaps.shown(fingerprint, alert) for fingerprint, alert in list(self._alerts.items())]
        return [alert for alert in shown if alert.firing]

    def _run(self, round_: Round, batches: list[Batch]) -> None:
        round_.told, round_.told_at = self._outbox.told(), self._outbox.told_at()
        round_.acks, round_.acks_told = acks.current(self._outbox), acks.told(self._outbox)
        if any(channel.escalate_after for channel in self._configuration.channels):
            round_.first_told = self._outbox.first_told()
        for stage in STAGES:
            batches = stage(round_, batches)
        self.decisions, self._grouped = tuple(round_.decisions), tuple(round_.grouped)

    def _age(self, now: float) -> None:
        for fingerprint, alert in list(self._alerts.items()):
            # One that is no longer mentioned ends too. Evaluations are counted as well as seconds: a monitor that was
            # suspended for an hour has not seen anything recover.
            if alert.firing and self._expires[fingerprint] <= now and self._unmentioned.get(fingerprint, 0) >= 4:
                alert = self._alerts[fingerprint] = dataclasses.replace(alert, ends_at=now)
            if alert.name in LINGERING and not alert.firing:
                # Back up, its instruments still have to be scraped twice before they say anything.
                self._lingering[fingerprint] = (alert, (alert.ends_at or now) + 2 * self._beat)
            elif fingerprint in self._lingering:
                del self._lingering[fingerprint]
        self._lingering = {key: held for key, held in self._lingering.items() if held[1] > now}

    def _inhibitors(self) -> list[Alert]:
        firing = [alert for alert in self._alerts.values() if alert.firing and alert.name in SOURCES]
        return firing + [alert for alert, _ in self._lingering.values()]

    def _patience(self, alert: Alert) -> float:
        """Seconds that an alert told before a restart may need to fire again."""
        window, hold = 60.0, self._holds.get(alert.name, 0.0)
        for target in self._configuration.targets:
            if (target.service, target.name) == (alert.service, alert.labels.get("target")):
                window, hold = target.window, max(hold, target.hold)
                if alert.name == "TargetNoData":
                    hold = max(hold, target.silence)
        return window + hold + 4 * self._beat

    def _failed(self, problem: str) -> None:
        if problem != self.problem:
            logger.error("notifications wait: %s", problem)
        self.problem = problem
