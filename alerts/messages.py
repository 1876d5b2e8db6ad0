"""What a notification says, once: :func:`story` of it, which every form of a message is written from.

``forms.py`` writes the forms; the plain text is made when the notification is, and is what the ledger shows.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from anvil_monitor.targets import format_duration

from . import wording
from .model import LOST, SEEN, Alert, Notification
from .wording import TITLE_LENGTH as TITLE_LENGTH
from .wording import plain as plain

# An outage of everything must stay readable, and below the length at which chat services cut a message.
ALERTS_SHOWN: Final = 10
NOBODY_KNOWS: Final = "Whether it is over is not known."


class State(enum.StrEnum):
    """What an alert is to the channel that is told: news, known and going on, or over."""

    FIRING = "firing"
    STILL = "still"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Part:
    """What is told of one alert. All texts are single harmless lines; ``since`` and ``lasted`` are in words.

    ``details`` say where to look, by heading; ``links`` are addresses by name. ``value`` and ``limit`` are empty
    unless they are the measure of a target.
    """

    state: State
    alert: Alert
    headline: str
    sentences: tuple[str, ...] = ()
    details: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    value: str = ""
    limit: str = ""
    since: str = ""
    lasted: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    """A notification in words. ``more``: alerts that are only counted; ``links`` belong to the whole of it."""

    title: str
    kind: str
    service: str
    parts: tuple[Part, ...]
    more: int = 0
    links: tuple[tuple[str, str], ...] = ()


def story(told: Notification) -> Story:
    """The words of ``told``."""
    groups: tuple[tuple[tuple[Alert, ...], Callable[[Alert, Notification], Part]], ...]
    groups, total = ((told.firing, _fires), (told.still, _still), (told.resolved, _recovered)), told.more
    if told.acknowledged:
        groups, total = ((told.acknowledged, _acknowledged),), 0
    parts: list[Part] = []
    for alerts, tell in groups:
        total += len(alerts)
        parts += [tell(alert, told) for alert in alerts[: max(0, ALERTS_SHOWN - len(parts))]]
    links = tuple((plain(name, 60), plain(url)) for name, url in told.links if wording.LINK.fullmatch(plain(url)))
    service = plain(told.service, 60)
    return Story(_title(told), told.kind, service, tuple(parts), total - len(parts), links)


def message(told: Notification) -> tuple[str, str]:
    """Title and body of ``told`` as plain text."""
    words = story(told)
    return words.title, text(words)


def text(words: Story) -> str:
    """The body as plain text: a paragraph an alert."""
    paragraphs = [
        "\n".join([part.headline, *part.sentences, *_lines(part.details), *_lines(part.links)]) for part in words.parts
    ]
    if words.more:
        paragraphs.append(f"… and {words.more} more")
    if words.links:
        paragraphs.append("\n".join(_lines(words.links)))
    return "\n\n".join(paragraphs)


def _lines(pairs: tuple[tuple[str, str], ...]) -> list[str]:
    return [f"{name}: {text_}" for name, text_ in pairs]


def _title(told: Notification) -> str:
    firing = told.acknowledged or told.firing or told.still
    again = "still: " if firing and not told.firing else ""
    if told.acknowledged:
        again = f"acknowledged by {', '.join(dict.fromkeys(_who(alert, told)[0] for alert in firing))}: "
    words = ""
    if len(firing) == 1:
        words = again + wording.headline(firing[0])
    elif firing:
        words = f"{again}{len(firing)} alerts: {wording.names(firing)}"
    ended = ", ".join(dict.fromkeys(wording.over(alert) for alert in told.resolved))
    if ended and not told.firing:  # what has ended is the news; what goes on is not
        words = f"{ended}; {words}" if words else ended
    service = plain(told.service, 60)
    if service and not re.search(rf"(?<!\w){re.escape(service)}(?!\w)", words):
        words = f"{service}: {words}"
    return plain(words, TITLE_LENGTH)


def _fires(alert: Alert, told: Notification, again: str = "") -> Part:
    since = wording.clock(alert.starts_at, told.at)
    head = wording.headline(alert)
    first, value, limit = head, "", ""
    if wording.measured(alert):
        value, limit = f"{wording.value(alert)} ({wording.measure(alert)})", wording.promise(alert)
        first = f"{wording.name(alert)} {value}, target {limit}"
    first = f"{first}, since {since}"
    description = plain(alert.annotations.get("description", ""))
    return Part(
        State.STILL if again else State.FIRING,
        alert,
        f"Still, for {again}: {first}" if again else first,
        (description,) if description and description not in (first, head) else (),
        (*_seen(alert, told), *wording.details(alert, told.at)),
        wording.links(alert),
        value,
        limit,
        since,
        again or format_duration(max(0.0, told.at - alert.starts_at)),
    )


def _still(alert: Alert, told: Notification) -> Part:
    lasted = format_duration(max(0.0, told.at - alert.starts_at))
    if told.firing or told.resolved:
        since = wording.clock(alert.starts_at, told.at)
        head = f"Still: {wording.headline(alert)}, for {lasted}"
        return Part(State.STILL, alert, head, details=_seen(alert, told), since=since, lasted=lasted)
    return _fires(alert, told, again=lasted)


def _acknowledged(alert: Alert, told: Notification) -> Part:
    who, why = _who(alert, told)
    since = wording.clock(alert.starts_at, told.at)
    lasted = format_duration(max(0.0, told.at - alert.starts_at))
    head = f"Acknowledged by {who}: {wording.headline(alert)}, for {lasted}"
    links = wording.links(alert, runbook=False)
    return Part(State.STILL, alert, head, (why,) if why else (), links=links, since=since, lasted=lasted)


def _who(alert: Alert, told: Notification) -> tuple[str, str]:
    """Who looks after ``alert``, and what they say of it, if anything."""
    who, why = told.seen.get(alert.fingerprint, ("", ""))
    return plain(who, 60) or "somebody", plain(why, 200) if why != SEEN else ""


def _seen(alert: Alert, told: Notification) -> tuple[tuple[str, str], ...]:
    if alert.fingerprint not in told.seen:
        return ()
    who, why = _who(alert, told)
    return (("Acknowledged by", f"{who}, {why}" if why else who),)


def _recovered(alert: Alert, told: Notification) -> Part:
    end = alert.ends_at if alert.ends_at is not None else told.at
    since = wording.clock(alert.starts_at, told.at)
    lasted = format_duration(max(0.0, end - alert.starts_at))
    period = f"{lasted}, {since} to {wording.clock(end, told.at)}"
    links = wording.links(alert, runbook=False)
    if why := plain(alert.annotations.get(LOST, ""), 200):
        head = f"{wording.over(alert)}: {why}; it fired since {since}"
        sentences = (NOBODY_KNOWS, f"It was: {wording.headline(alert)}")
        return Part(State.OVER, alert, head, sentences, links=links, since=since, lasted=lasted)
    if not wording.measured(alert):
        head = f"{wording.over(alert)}, after {period}"
        was = f"It was: {wording.headline(alert)}"
        return Part(State.OVER, alert, head, (was,), links=links, since=since, lasted=lasted)
    now, limit, measure = told.current.get(alert.fingerprint), wording.promise(alert), wording.measure(alert)
    value = ""
    if now is not None and not math.isnan(now):
        value = f"{wording.in_unit(now, alert)} ({measure})"
        words = f"recovered: {value}, target {limit}, was missed for {period}"
    elif now is not None:
        words = f"no longer missed: no traffic now, target {limit}, was missed for {period}"
    else:
        words = f"recovered, target {limit}, was missed for {period}, last {wording.value(alert)} ({measure})"
    head = f"{wording.name(alert)} {words}"
    return Part(State.OVER, alert, head, links=links, value=value, limit=limit, since=since, lasted=lasted)
