"""An alert, what one channel is told about a group of them, and the message that the outbox keeps of it.

An :class:`Alert` is the same thing whether our own rule manager raised it or Alertmanager posted it. Times are seconds
since the epoch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

# Alerts of each kind that a message carries: more than any form of it shows.
CARRIED: Final = 20
# Why a message is written that only tells who looks after an alert.
ACKNOWLEDGED: Final = "acknowledged"
SEEN: Final = "seen"  # the reason of an acknowledgement that gives none
# The annotation of an alert of which nobody can say whether it is over: why.
LOST: Final = "lost"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. ``starts_at`` is when its condition began; ``ends_at`` when it ended, ``None`` while it fires."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: float
    ends_at: float | None = None
    generator_url: str = ""
    _fingerprint: str = field(default="", init=False, repr=False, compare=False)  # once it was asked for

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits of the labels: the same alert keeps it for ever, over restarts too."""
        if not self._fingerprint:
            text = json.dumps(sorted(self.labels.items()), ensure_ascii=False, separators=(",", ":"))
            digest = hashlib.blake2s(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
            object.__setattr__(self, "_fingerprint", digest)
        return self._fingerprint

    @property
    def firing(self) -> bool:
        return self.ends_at is None

    @property
    def name(self) -> str:
        return self.labels.get("alertname", "")

    @property
    def service(self) -> str:
        """What alerts are grouped by; empty for a foreign alert that names no service."""
        return self.labels.get("service", "")

    @property
    def severity(self) -> str:
        """A foreign alert that states none counts as a warning: it is better told than lost."""
        return self.labels.get("severity") or "warning"

    def to_dict(self) -> dict[str, Any]:
        return {
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
            "starts_at": self.starts_at,
            "ends_at": self.ends_at,
            "generator_url": self.generator_url,
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Alert:
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Notification:
    """What one channel is told at once about one service.

    ``firing`` is news to the channel, ``still`` it has heard of and goes on, ``resolved`` it has heard of and is over.
    ``reason`` says why it is told now ("new alerts", "repeat interval elapsed", …). ``current`` holds, by fingerprint,
    what a recovered target measures now, where that is known. ``more``: alerts that it stands for besides these.
    ``links``: addresses, by name, of what can be done about the whole of it. ``seen``: by fingerprint, who looks after
    an alert and what they say of it. ``news``: of those, what the channel has not heard; where nothing else is news,
    that is what the message is about.
    """

    service: str
    at: float
    reason: str
    firing: tuple[Alert, ...] = ()
    still: tuple[Alert, ...] = ()
    resolved: tuple[Alert, ...] = ()
    current: Mapping[str, float] = field(default_factory=dict)
    more: int = 0
    links: tuple[tuple[str, str], ...] = ()
    seen: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    news: tuple[str, ...] = ()

    @property
    def acknowledged(self) -> tuple[Alert, ...]:
        """The alerts whose acknowledgement is all that it tells; empty where it tells anything else."""
        if self.reason != ACKNOWLEDGED:
            return ()
        return tuple(alert for alert in self.still if alert.fingerprint in self.news)

    def to_json(self) -> str:
        """The notification with at most :data:`CARRIED` alerts of each kind; the rest is counted in ``more``."""
        kept = {name: getattr(self, name)[:CARRIED] for name in ("firing", "still", "resolved")}
        left = sum(len(getattr(self, name)) - len(alerts) for name, alerts in kept.items())
        known = {alert.fingerprint for alert in kept["resolved"]}
        open_ = {alert.fingerprint for name in ("firing", "still") for alert in kept[name]}
        seen = {key: value for key, value in self.seen.items() if key in open_}
        document = {name: [alert.to_dict() for alert in alerts] for name, alerts in kept.items()}
        current = {key: value for key, value in self.current.items() if key in known}
        rest = {"service": self.service, "at": self.at, "reason": self.reason, "more": self.more + left}
        acks = {"seen": seen, "news": [key for key in self.news if key in open_]}
        return json.dumps({**document, **rest, **acks, "current": current, "links": self.links})

    @classmethod
    def from_json(cls, text: str) -> Notification:
        """Raises ``ValueError``, ``TypeError`` or ``KeyError`` for a text that :meth:`to_json` has not written."""
        document = json.loads(text)

        def alerts(name: str) -> tuple[Alert, ...]:
            return tuple(Alert(**one) for one in document[name])

        return cls(
            str(document["service"]),
            float(document["at"]),
            str(document["reason"]),
            alerts("firing"),
            alerts("still"),
            alerts("resolved"),
            dict(document["current"]),
            int(document["more"]),
            tuple((str(name), str(url)) for name, url in document.get("links", ())),
            {str(key): (str(who), str(why)) for key, (who, why) in document.get("seen", {}).items()},
            tuple(map(str, document.get("news", ()))),
        )

    @property
    def kind(self) -> str:
        """Apprise's word for it: ``failure``, ``warning`` or, once nothing fires, ``success``; ``info`` for an
        acknowledgement."""
        if self.acknowledged:
            return "info"
        open_alerts = self.firing + self.still
        if not open_alerts:
            return "warning" if any(LOST in alert.annotations for alert in self.resolved) else "success"
        return "failure" if any(alert.severity == "critical" for alert in open_alerts) else "warning"


@dataclass(frozen=True, slots=True)
class Draft:
    """A message to be written. ``topic`` is the service: messages of one topic reach a channel in order."""

    channel: str
    topic: str
    kind: str
    title: str
    body: str
    cause: str = ""
    payload: str = ""  # the notification as JSON, for the forms that a channel may want
    aside: bool = False  # the channel's next message does not wait for the time that is kept between two


@dataclass(frozen=True, slots=True)
class Message:
    """A message in the outbox. ``state``: queued, sent or dead. ``reason``: why the last attempt failed."""

    id: int
    channel: str
    topic: str
    kind: str
    title: str
    body: str
    cause: str
    created: float
    due: float
    attempts: int
    state: str
    reason: str
    finished: float | None
    payload: str = ""

    def ledger_entry(self) -> dict[str, Any]:
        """The message as the HTTP APIs show it: what was sent, to whom, when, and did it arrive."""
        return {
            "id": self.id,
            "channel": self.channel,
            "service": self.topic,
            "kind": self.kind,
            "title": self.title,
            "body": self.body,
            "cause": self.cause,
            "created": self.created,
            "finished": self.finished,
            "state": self.state,
            "attempts": self.attempts,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Told:
    """What changes in the memory of what ``channel`` was told of ``topic``: with one message, or by silence."""

    topic: str
    channel: str
    firing: tuple[Alert, ...]
    resolved: tuple[str, ...]  # fingerprints
    seen: tuple[tuple[str, str], ...] = ()  # by fingerprint, of whom it was told that they look after an alert
