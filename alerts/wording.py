"""The words for one alert: its headline, its values in human units, its times, all as single harmless lines.

Wording comes from the annotations of our own rules (``title``, ``measure``, ``value``, ``limit``, ``unit``,
``promise``, ``baseline``, ``routes``, ``dashboard``, ``runbook_url`` …); an alert without them is told by its
``summary``. What stands in an annotation or a label may come from anybody who can post an alert, so no text leaves
here that could break a line, mention a whole channel or turn the reading direction round.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Final

from anvil_monitor.targets import Unit, format_value

from .model import LOST, Alert
from .ruleparts import MISSES
from .versions import since_deploy

TITLE_LENGTH: Final = 160
TEXT_LENGTH: Final = 600
# Routes or processes that are worth looking at: more than a few are no help at three in the morning.
LINES_SHOWN: Final = 5

UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")
# Slack's <!channel> and <@U123>, Discord's <@&42>, Lark's <at id=all>, and the words that wake up everybody.
MENTION: Final = re.compile(r"<(?=[!@#]|/?at\b)|@(?=(?:everyone|here|channel|all|room|team)(?![^\W_]))", re.IGNORECASE)
ZERO_WIDTH_SPACE: Final = "\u200b"

# The alerts whose value is the measure of their target. Others carry another value: told by their summary.
MEASURED: Final = MISSES
# How the end of an alert is told; {0} is its title.
OVER: Final = {
    "ServiceDown": "{0} answers again",
    "TargetNoData": "{0} is measured again",
    **dict.fromkeys(MEASURED, "{0} recovered"),
}
# Our own runbooks are pages of the project's tree as long as they have no address.
LINK: Final = re.compile(r"https?://\S+|\w[\w./-]*\.md")
# Annotations that say where to look, where an alert has them, and how each is headed.
DETAILS: Final = (
    ("baseline", "Usually"),
    ("deploy", "Since deploy"),
    ("version", "Version"),
    ("routes", "Routes"),
    ("processes", "Processes"),
    ("detail", "Detail"),
)


def plain(text: str, length: int = TEXT_LENGTH) -> str:
    """``text`` as one harmless line of at most ``length`` characters."""
    line = " ".join(UNSAFE.sub(" ", text).split())
    line = MENTION.sub(lambda match: match.group() + ZERO_WIDTH_SPACE, line)
    return line if len(line) <= length else line[: length - 1] + "…"


def headline(alert: Alert) -> str:
    if measured(alert):
        return f"{name(alert)} {value(alert)}, target {promise(alert)}"
    return plain(alert.annotations.get("summary") or alert.name or "alert", TITLE_LENGTH)


def over(alert: Alert) -> str:
    if LOST in alert.annotations:
        return f"{name(alert)} is no longer reported"
    title = plain(alert.annotations.get("title", ""), 120)
    if title and alert.name in OVER:
        return OVER[alert.name].format(title)
    of = f" of {plain(alert.service, 60)}" if alert.service else ""
    return f"{plain(alert.name or 'alert', 120)}{of} is over"


def measured(alert: Alert) -> bool:
    given = alert.annotations
    return alert.name in MEASURED and bool(given.get("value") and given.get("measure") and given.get("limit"))


def names(alerts: Iterable[Alert]) -> str:
    return ", ".join(dict.fromkeys(name(alert) for alert in alerts))


def name(alert: Alert) -> str:
    """What the alert is about in a few words: the target's title, or the alert's own name."""
    title = alert.annotations.get("title", "")
    if alert.name not in MEASURED and title:
        return plain(f"{title} ({alert.name})", 120)
    return plain(title or alert.name or "alert", 120)


def measure(alert: Alert) -> str:
    return plain(alert.annotations["measure"], 80)


def value(alert: Alert) -> str:
    return number(alert.annotations["value"], alert)


def promise(alert: Alert) -> str:
    """``< 200 ms`` or ``100+ users``, as :attr:`Target.promise` says it."""
    if text := alert.annotations.get("promise"):
        return plain(text, 60)
    limit = alert.annotations["limit"]
    try:
        bound = float(limit)
    except ValueError:
        return plain(limit, 60)  # already in words
    if unit_of(alert) is Unit.USERS:
        return f"{bound:g}+ {Unit.USERS.value}"
    return f"< {in_unit(bound, alert)}"


def details(alert: Alert, now: float | None = None) -> tuple[tuple[str, str], ...]:
    """What the rules know beyond value and limit: the usual value, the deploy, the routes or processes to look at.

    ``now``: when it is told, by default when the alert began.
    """
    deployed = since_deploy(alert, lambda at: clock(at, alert.starts_at if now is None else now))
    found: list[tuple[str, str]] = []
    for key, head in DETAILS:
        lines = [plain(line, 200) for line in alert.annotations.get(key, "").splitlines()]
        lines = [line for line in lines if line]
        if key == "version" and deployed:
            lines = [plain(deployed, 200)]
        if key == "deploy" and deployed:
            continue
        if key == "baseline" and lines:
            lines = [number(lines[0], alert)]
        more = [f"and {len(lines) - LINES_SHOWN} more"] if len(lines) > LINES_SHOWN else []
        if lines:
            found.append((head, plain("; ".join(lines[:LINES_SHOWN] + more))))
    return tuple(found)


def links(alert: Alert, runbook: bool = True) -> tuple[tuple[str, str], ...]:
    wanted = [("Dashboard", alert.annotations.get("dashboard", ""))]
    if runbook:
        wanted.append(("Runbook", alert.annotations.get("runbook_url", "")))
    return tuple((head, plain(url)) for head, url in wanted if LINK.fullmatch(plain(url)))


def number(text: str, alert: Alert) -> str:
    try:
        return in_unit(float(text), alert)
    except ValueError:
        return plain(text, 60)


def in_unit(amount: float, alert: Alert) -> str:
    unit = unit_of(alert)
    return format_value(amount, unit) if unit else f"{amount:g}"


def unit_of(alert: Alert) -> Unit | None:
    try:
        return Unit(alert.annotations.get("unit") or alert.labels.get("unit", ""))
    except ValueError:
        return None


def clock(at: float, now: float) -> str:
    """The local time with its zone; with the date where it is not today's."""
    try:
        local, today = time.localtime(at), time.localtime(now)
    except (OverflowError, ValueError, OSError):
        return "an unknown time"
    same_day = local[:3] == today[:3]
    return time.strftime("%H:%M:%S %Z" if same_day else "%Y-%m-%d %H:%M:%S %Z", local).strip()
