"""``[[maintenance]]``, and when a channel is told: what ``monitor.toml`` says of time."""

from __future__ import annotations

import difflib
import re
import zoneinfo
from dataclasses import replace
from datetime import date, datetime, time
from typing import Any, Final

from .model import Channel
from .reader import Table
from .settings import SEVERITIES
from .windows import DAY, DAYS, Hours, Maintenance, Once, Weekly

CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
CLOCK_RULE: Final = 'must be a time of day, as in "22:00"'
MOMENT_RULE: Final = 'must be a date and a time, as in "2026-12-01T22:00"'
CHANNEL_KEYS: Final = ("targets", "labels", "hours", "escalate_after", "repeat_interval", "tell_acks")
LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
MONITOR_KEYS: Final = ("flap_limit", "external_url", "prometheus", "runbooks")
RUNBOOK_WORDS: Final = ("alert", "service", "target")
FLAP_LIMIT: Final = 5
WEEKLY_KEYS: Final = ("days", "from", "to", "timezone")


def maintenance(root: Table, services: tuple[str, ...], targets: tuple[str, ...]) -> tuple[Maintenance, ...]:
    """Every ``[[maintenance]]``; what is wrong with one is noted, and it is left out."""
    if "maintenance" in root.values and not isinstance(root.values["maintenance"], list):
        root.problem("maintenance", "maintenance is a list", "write [[maintenance]], once for each window")
    found: list[Maintenance] = []
    for table in root.tables("maintenance"):
        table.allow(("name", "services", "targets", *WEEKLY_KEYS))
        name = table.name_of("name", default="maintenance")
        chosen = table.names("services", among=services, kind="service")
        of = table.names("targets", among=targets, kind="target")
        when = _weekly(table) if "days" in table.values else _once(table)
        if when is not None:
            found.append(Maintenance(name, when, chosen, of))
    return tuple(found)


def channels(tables: Table, given: tuple[Channel, ...], targets: tuple[str, ...]) -> tuple[Channel, ...]:
    """The channels, each with what :data:`CHANNEL_KEYS` says of it."""
    found: list[Channel] = []
    for channel in given:
        if not isinstance(tables.values.get(channel.name), dict):
            found.append(channel)  # told already
            continue
        table = tables.table(channel.name)
        after = table.duration("escalate_after") if "escalate_after" in table.values else 0.0
        repeat, by_severity = _repeats(table)
        about = table.names("targets", among=targets, kind="target") if "targets" in table.values else ()
        tells = table.boolean("tell_acks", default=True)
        channel = replace(channel, targets=about, labels=_labels(table), tell_acks=tells)
        channel = replace(channel, repeat_interval=repeat, repeat_by_severity=by_severity)
        found.append(replace(channel, hours=_hours(table), escalate_after=after))
    if found and all(channel.escalate_after for channel in found):
        todo = "take it out of the one that is to be told first"
        place = f"{found[0].name}.escalate_after"
        tables.problem(place, "every channel has escalate_after: nobody is told at first", todo)
    return tuple(found)


def _repeats(table: Table) -> tuple[float | None, tuple[tuple[str, float], ...]]:
    """``repeat_interval``: one duration, or a table of one for each severity that is not as in ``[monitor]``."""
    if not isinstance(table.values.get("repeat_interval"), dict):
        return (table.duration("repeat_interval") if "repeat_interval" in table.values else None), ()
    each = table.table("repeat_interval")
    each.allow(SEVERITIES, kind="severity")
    return None, tuple((name, each.duration(name)) for name in SEVERITIES if name in each.values)


def flap_limit(monitor: Table) -> int:
    """Firings within ``flap_window`` that are still told one by one; 0: any number."""
    return monitor.integer("flap_limit", default=FLAP_LIMIT, least=0, most=1000)


def base_url(monitor: Table, key: str) -> str:
    """A URL that paths are put behind, without a slash at its end; empty where nobody has said."""
    url = monitor.url(key, default="") if key in monitor.values else ""
    if "?" in url or "#" in url:
        monitor.problem(key, f"{key} = {monitor.shown(key)} has a query", "end it with its path")
    return url.rstrip("/")


def runbooks(monitor: Table) -> str:
    """Where the user's own runbooks are; empty where ours will do."""
    if "runbooks" not in monitor.values:
        return ""
    url = monitor.url("runbooks", default="")
    said = f"runbooks = {monitor.shown('runbooks')}"
    example = 'as in "https://wiki.example.com/runbooks/{alert}"'
    words = re.findall(r"\{([^{}]*)\}", url)
    if unknown := [word for word in words if word not in RUNBOOK_WORDS]:
        allowed = ", ".join(f"{{{word}}}" for word in RUNBOOK_WORDS)
        monitor.problem("runbooks", f"{said} has an unknown {{{unknown[0]}}}", f"allowed: {allowed}; {example}")
    elif url and "alert" not in words:
        monitor.problem("runbooks", f"{said} leads to one page for every alert", f"put {{alert}} into it, {example}")
    return url


def _labels(channel: Table) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """``labels = { team = "shop", tier = ["gold", "silver"] }``: what an alert has to bear, each with its values."""
    if "labels" not in channel.values:
        return ()
    table = channel.table("labels")
    found = []
    for name, value in table.values.items():
        values = value if isinstance(value, list) else [value]
        if not LABEL.fullmatch(name) or not values or not all(isinstance(each, str) and each for each in values):
            what = f"labels.{name} = {table.shown(name)} names no label and its values"
            table.problem(name, what, 'write labels = { team = "shop" }, or a list of values')
        else:
            found.append((name, tuple(values)))
    return tuple(found)


def _hours(channel: Table) -> Hours | None:
    """The hours of a channel; ``None`` where it has none, or where they are wrong."""
    if "hours" not in channel.values:
        return None
    table = channel.table("hours")
    table.allow((*WEEKLY_KEYS, "outside"))
    when = _weekly(table)
    outside = table.names("outside", among=SEVERITIES, kind="severity")
    return None if when is None else Hours(when, outside)


def _weekly(table: Table) -> Weekly | None:
    days = table.names("days", among=DAYS, kind="day") if "days" in table.values else DAYS
    if not days:
        table.problem("days", "days names no day", f"leave it out, or name some of {', '.join(DAYS)}")
    start, end, zone = _clock(table, "from"), _clock(table, "to"), _zone(table)
    if start == DAY:
        table.problem("from", 'from = "24:00" is the end of a day', 'begin before "24:00"')
        return None
    if start is not None and start == end:
        todo = 'for whole days write from = "00:00" and to = "24:00"'
        table.problem("to", f"to = {table.shown('to')} is the same time as from", todo)
        return None
    if start is None or end is None or zone is None:
        return None
    return Weekly(tuple(DAYS.index(day) for day in days if day in DAYS), start, end, zone)


def _once(table: Table) -> Once | None:
    starts, ends = _moment(table, "from"), _moment(table, "to")
    if starts is None or ends is None:
        return None
    if ends <= starts:
        table.problem("to", f"to = {table.shown('to')} is not after from", "it is when the maintenance ends")
        return None
    return Once(starts, ends)


def _clock(table: Table, key: str) -> int | None:
    """Seconds after midnight."""
    value = table.values.get(key)
    if isinstance(value, time):
        return value.hour * 3600 + value.minute * 60 + value.second
    if value == "24:00":
        return DAY
    match = CLOCK.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        _missing(table, key, CLOCK_RULE)
        return None
    return int(match[1]) * 3600 + int(match[2]) * 60


def _moment(table: Table, key: str) -> float | None:
    """Seconds since the epoch."""
    value: Any = table.values.get(key)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = CLOCK.fullmatch(value)
    if isinstance(value, time | re.Match):
        todo = f"for a weekly window add days, as in days = [{DAYS[5]!r}]; for one that comes once write the date, too"
        table.problem(key, f"{key} = {table.shown(key)} has no date", todo.replace("'", '"'))
        return None
    if not isinstance(value, date) or not 1970 <= value.year < 9999:
        _missing(table, key, MOMENT_RULE)
        return None
    if not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if value.tzinfo is None:
        zone = _zone(table)
        if zone is None:
            return None
        value = value.replace(tzinfo=zoneinfo.ZoneInfo(zone))
    return float(value.timestamp())


def _zone(table: Table) -> str | None:
    """The time zone, which has to be there: whose 22:00 it is decides who is woken up."""
    name = table.text("timezone", default="")
    if not name:
        todo = 'say whose clock it is: timezone = "Europe/Berlin"'
        table.problem("timezone", f"[{table.place}] has no timezone", todo)
        return None
    try:
        zoneinfo.ZoneInfo(name)
        return name
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = sorted(zoneinfo.available_timezones())
        near = difflib.get_close_matches(name, known, 1)
        todo = f"did you mean {near[0]!r}?" if near else "as in Europe/Berlin, America/New_York or UTC"
        if not known:
            todo = "this system has no time zone data: pip install tzdata"
        table.problem("timezone", f"unknown time zone {name!r}", todo)
        return None


def _missing(table: Table, key: str, rule: str) -> None:
    given = f"{key} = {table.shown(key)} in [{table.place}]" if key in table.values else f"[{table.place}] has no {key}"
    table.problem(key, given, f"{key} {rule}")
