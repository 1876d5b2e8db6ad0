"""When: hours of the week on a clock on the wall, and spans of time that come once. For maintenance and quiet hours.

A clock on the wall jumps where daylight saving begins or ends. A time that it skips is taken for the moment of the
jump. A time that it shows twice is the first of both where something begins and the last where it ends: so a window
holds whenever the clock shows a time within it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY: Final = 86400


@dataclass(frozen=True, slots=True)
class Once:
    """From ``starts`` to ``ends``, in seconds since the epoch."""

    starts: float
    ends: float

    def span(self, now: float) -> tuple[float, float] | None:
        """Start and end of the window that holds at ``now``, if one does."""
        return (self.starts, self.ends) if self.starts <= now < self.ends else None

    def __str__(self) -> str:
        starts, ends = (datetime.fromtimestamp(at).astimezone() for at in (self.starts, self.ends))
        return f"{starts:%Y-%m-%d %H:%M %Z} to {ends:%Y-%m-%d %H:%M %Z}"


@dataclass(frozen=True, slots=True)
class Weekly:
    """On ``days`` (0 is Monday) from ``start`` to ``end``, seconds after midnight by the clock of ``zone``.

    ``end`` at or before ``start`` is on the next day; the day is the one on which it begins.
    """

    days: tuple[int, ...]
    start: int
    end: int
    zone: str

    def span(self, now: float) -> tuple[float, float] | None:
        """Start and end of the window that holds at ``now``, if one does."""
        today = datetime.fromtimestamp(now, ZoneInfo(self.zone)).date()
        # Tomorrow, too: where the clock goes back over midnight, tomorrow has begun once already.
        for shift in (-1, 0, 1):
            day = today + timedelta(shift)
            if day.weekday() in self.days:
                starts, ends = _instant(day, self.start, self.zone, False), _instant(day, self._end, self.zone, True)
                if starts <= now < ends:
                    return starts, ends
        return None

    def __str__(self) -> str:
        days = "every day" if len(self.days) == len(DAYS) else ", ".join(DAYS[day] for day in self.days)
        start, end = (f"{at // 3600:02}:{at // 60 % 60:02}" for at in (self.start, self.end))
        return f"{days} {start} to {end} {self.zone}"

    @property
    def _end(self) -> int:
        return self.end if self.end > self.start else self.end + DAY


When: TypeAlias = Once | Weekly


@dataclass(frozen=True, slots=True)
class Maintenance:
    """While it lasts nothing new is told of these services and targets (empty: of all)."""

    name: str
    when: When
    services: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()

    def concerns(self, service: str, target: str) -> bool:
        return (not self.services or service in self.services) and (not self.targets or target in self.targets)


@dataclass(frozen=True, slots=True)
class Hours:
    """When a channel is told; outside of that only of alerts whose severity is in ``outside``. The rest waits."""

    when: Weekly
    outside: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.when}" + (f", {', '.join(self.outside)} at any hour" if self.outside else "")


@lru_cache(maxsize=4096)
def _instant(day: date, seconds: int, zone: str, last: bool) -> float:
    """When the clock of ``zone`` shows that time, for the first or the last time; the jump where it never does."""
    clock = ZoneInfo(zone)
    shown = datetime.combine(day, time()) + timedelta(seconds=seconds)
    found = [shown.replace(tzinfo=clock, fold=fold).timestamp() for fold in (0, 1)]
    real = [at for at in found if _shown(at, clock) == shown]
    if real:
        return max(real) if last else min(real)
    before, after = min(found), max(found)
    while after - before > 1:
        middle = float((before + after) // 2)
        before, after = (middle, after) if _shown(middle, clock) < shown else (before, middle)
    return after


def _shown(at: float, clock: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(at, clock).replace(tzinfo=None, fold=0)
