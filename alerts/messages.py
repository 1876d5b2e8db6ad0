"""The words that people read: a notification in, a plain-text title and body out.

Wording comes from the annotations of our own rules (``title``, ``measure``, ``value``, ``limit``, ``unit``,
``promise``, ``dashboard``, ``runbook_url``); an alert without them is told by its ``summary``. What stands in an
annotation or a label may come from anybody who can post an alert, so no text leaves here that could break a line,
mention a whole channel or turn the reading direction round.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable

from anvil_monitor.targets import Unit, format_duration, format_value

from .model import Alert, Notification

TITLE_LENGTH = 160
TEXT_LENGTH = 600
# An outage of everything must stay readable, and below the length at which chat services cut a message.
ALERTS_SHOWN = 10

UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
# Slack's <!channel> and <@U123>, Discord's <@&42>, and the words that wake up everybody.
MENTION = re.compile(r"<(?=[!@#])|@(?=(?:everyone|here|channel|all|room|team)\b)", re.IGNORECASE)
ZERO_WIDTH_SPACE = "\u200b"

# The alert whose value is the measure of its target. Others carry a value that reads otherwise: told by their summary.
MEASURED = "TargetMissed"
# How the end of an alert is told; {0} is its title.
OVER = {"ServiceDown": "{0} answers again", "TargetNoData": "{0} is measured again", MEASURED: "{0} recovered"}
# Our own runbooks are pages of the project's tree as long as they have no address.
LINK = re.compile(r"https?://\S+|\w[\w./-]*\.md")


def plain(text: str, length: int = TEXT_LENGTH) -> str:
    """``text`` as one harmless line of at most ``length`` characters."""
    line = " ".join(UNSAFE.sub(" ", text).split())
    line = MENTION.sub(lambda match: match.group() + ZERO_WIDTH_SPACE, line)
    return line if len(line) <= length else line[: length - 1] + "…"


def message(notification: Notification) -> tuple[str, str]:
    """Title and body of ``notification``."""
    groups = (
        (notification.firing, _fires),
        (notification.still, _still),
        (notification.resolved, _recovered),
    )
    paragraphs: list[str] = []
    total = 0
    for alerts, tell in groups:
        total += len(alerts)
        shown = alerts[: max(0, ALERTS_SHOWN - len(paragraphs))]
        paragraphs += ["\n".join(tell(alert, notification)) for alert in shown]
    if total > len(paragraphs):
        paragraphs.append(f"… and {total - len(paragraphs)} more")
    return _title(notification), "\n\n".join(paragraphs)


def _title(notification: Notification) -> str:
    firing = notification.firing or notification.still
    again = "still: " if firing and not notification.firing else ""
    if len(firing) == 1:
        text = again + _headline(firing[0])
    elif firing:
        text = f"{again}{len(firing)} alerts: {_names(firing)}"
    else:
        text = ", ".join(dict.fromkeys(_over(alert) for alert in notification.resolved))
    service = plain(notification.service, 60)
    if service and not re.search(rf"(?<!\w){re.escape(service)}(?!\w)", text):
        text = f"{service}: {text}"
    return plain(text, TITLE_LENGTH)


def _headline(alert: Alert) -> str:
    if _measured(alert):
        return f"{_name(alert)} {_value(alert)}, target {_promise(alert)}"
    return plain(alert.annotations.get("summary") or alert.name or "alert", TITLE_LENGTH)


def _fires(alert: Alert, told: Notification) -> list[str]:
    since = _clock(alert.starts_at, told.at)
    if _measured(alert):
        first = f"{_name(alert)} {_value(alert)} ({_measure(alert)}), target {_promise(alert)}, since {since}"
    else:
        first = f"{_headline(alert)}, since {since}"
    lines = [first]
    description = plain(alert.annotations.get("description", ""))
    if description and description not in (first, _headline(alert)):
        lines.append(description)
    lines += _links(alert)
    return lines


def _still(alert: Alert, told: Notification) -> list[str]:
    lasted = format_duration(max(0.0, told.at - alert.starts_at))
    if told.firing or told.resolved:
        return [f"Still: {_headline(alert)}, for {lasted}"]
    first, *rest = _fires(alert, told)
    return [f"Still, for {lasted}: {first}", *rest]


def _recovered(alert: Alert, told: Notification) -> list[str]:
    end = alert.ends_at if alert.ends_at is not None else told.at
    lasted = format_duration(max(0.0, end - alert.starts_at))
    period = f"{lasted}, {_clock(alert.starts_at, told.at)} to {_clock(end, told.at)}"
    if not _measured(alert):
        return [f"{_over(alert)}, after {period}", f"It was: {_headline(alert)}", *_links(alert, False)]
    now = told.current.get(alert.fingerprint)
    if now is not None and not math.isnan(now):
        text = (
            f"recovered: {_format(now, alert)} ({_measure(alert)}), target {_promise(alert)}, was missed for {period}"
        )
    elif now is not None:
        text = f"no longer missed: no traffic now, target {_promise(alert)}, was missed for {period}"
    else:
        text = f"recovered, target {_promise(alert)}, was missed for {period}, last {_value(alert)} ({_measure(alert)})"
    return [f"{_name(alert)} {text}", *_links(alert, False)]


def _links(alert: Alert, runbook: bool = True) -> list[str]:
    wanted = [("Dashboard", alert.annotations.get("dashboard", ""))]
    if runbook:
        wanted.append(("Runbook", alert.annotations.get("runbook_url", "")))
    return [f"{name}: {plain(url)}" for name, url in wanted if LINK.fullmatch(plain(url))]


def _names(alerts: Iterable[Alert]) -> str:
    return ", ".join(dict.fromkeys(_name(alert) for alert in alerts))


def _over(alert: Alert) -> str:
    title = plain(alert.annotations.get("title", ""), 120)
    if title and alert.name in OVER:
        return OVER[alert.name].format(title)
    of = f" of {plain(alert.service, 60)}" if alert.service else ""
    return f"{plain(alert.name or 'alert', 120)}{of} is over"


def _measured(alert: Alert) -> bool:
    given = alert.annotations
    return alert.name == MEASURED and bool(given.get("value") and given.get("measure") and given.get("limit"))


def _name(alert: Alert) -> str:
    """What the alert is about in a few words: the target's title, or the alert's own name."""
    title = alert.annotations.get("title", "")
    if alert.name != MEASURED and title:
        return plain(f"{title} ({alert.name})", 120)
    return plain(title or alert.name or "alert", 120)


def _measure(alert: Alert) -> str:
    return plain(alert.annotations["measure"], 80)


def _value(alert: Alert) -> str:
    return _number(alert.annotations["value"], alert)


def _promise(alert: Alert) -> str:
    """``< 200 ms`` or ``100+ users``, as :attr:`Target.promise` says it."""
    if promise := alert.annotations.get("promise"):
        return plain(promise, 60)
    limit = alert.annotations["limit"]
    try:
        number = float(limit)
    except ValueError:
        return plain(limit, 60)  # already in words
    if _unit(alert) is Unit.USERS:
        return f"{number:g}+ {Unit.USERS.value}"
    return f"< {_format(number, alert)}"


def _number(text: str, alert: Alert) -> str:
    try:
        return _format(float(text), alert)
    except ValueError:
        return plain(text, 60)


def _format(value: float, alert: Alert) -> str:
    unit = _unit(alert)
    return format_value(value, unit) if unit else f"{value:g}"


def _unit(alert: Alert) -> Unit | None:
    try:
        return Unit(alert.annotations.get("unit") or alert.labels.get("unit", ""))
    except ValueError:
        return None


def _clock(at: float, now: float) -> str:
    """The local time with its zone; with the date where it is not today's."""
    try:
        local, today = time.localtime(at), time.localtime(now)
    except (OverflowError, ValueError, OSError):
        return "an unknown time"
    same_day = local[:3] == today[:3]
    return time.strftime("%H:%M:%S %Z" if same_day else "%Y-%m-%d %H:%M:%S %Z", local).strip()
