"""How long somebody silences an alert for, as a link of a message lets them choose."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

MORNING: Final = 8  # o'clock, by the monitor's own clock
LEAST: Final = 3600.0  # seconds to a morning that is worth waiting for
LENGTHS: Final = {"30m": ("30 min", 1800.0), "1h": ("1 h", 3600.0), "4h": ("4 h", 14_400.0)}
USUAL: Final = "1h"
TO_MORNING: Final = "morning"


@dataclass(frozen=True, slots=True)
class Span:
    """A choice: ``name`` is what a form sends, ``label`` what a person reads, ``ends`` Unix seconds."""

    name: str
    label: str
    ends: float


def spans(now: float) -> tuple[Span, ...]:
    """The choices at ``now``, the shortest first but for the morning, which is the last."""
    found = [Span(name, f"for {label}", now + seconds) for name, (label, seconds) in LENGTHS.items()]
    ends = morning(now)
    return (*found, Span(TO_MORNING, time.strftime(f"until %A, {MORNING}:00 %Z", time.localtime(ends)).strip(), ends))


def chosen(name: str, now: float) -> Span | None:
    """The choice of that name; an hour where none is given, ``None`` where there is no such."""
    return next((span for span in spans(now) if span.name == (name or USUAL)), None)


def morning(now: float) -> float:
    """The next morning that is at least an hour away, over a change to or from daylight saving, too."""
    today = time.localtime(now)
    for day in range(3):
        ends = time.mktime((today.tm_year, today.tm_mon, today.tm_mday + day, MORNING, 0, 0, 0, 0, -1))
        if ends - now >= LEAST:
            return ends
    raise AssertionError("a day has 24 hours or so")
