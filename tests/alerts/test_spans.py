"""How long a link of a message silences for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anvil_monitor.alerts.spans import LEAST, MORNING, chosen, morning, spans

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture(autouse=True, scope="module")
def berlin() -> Iterator[None]:
    """The monitor's clock is Berlin's, which has daylight saving."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def at(*moment: int) -> float:
    return datetime(*moment, tzinfo=BERLIN).timestamp()  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("what", "now", "ends"),
    [
        ("at three at night it is this morning", (2026, 12, 1, 3, 0), (2026, 12, 1, 8, 0)),
        ("in the evening the next one", (2026, 12, 1, 22, 0), (2026, 12, 2, 8, 0)),
        ("minutes before eight, too", (2026, 12, 1, 7, 30), (2026, 12, 2, 8, 0)),
        ("over the end of a year", (2026, 12, 31, 9, 0), (2027, 1, 1, 8, 0)),
        ("over the night that is an hour shorter", (2026, 3, 28, 22, 0), (2026, 3, 29, 8, 0)),
        ("over the night that is an hour longer", (2026, 10, 24, 22, 0), (2026, 10, 25, 8, 0)),
    ],
)
def test_the_morning(what: str, now: tuple[int, ...], ends: tuple[int, ...]) -> None:
    """The next 8 o'clock of the monitor's clock that is at least an hour away."""
    assert morning(at(*now)) == at(*ends), what


@given(st.floats(min_value=1.7e9, max_value=2.0e9))
def test_a_morning_is_always_near_and_at_eight(now: float) -> None:
    """Between an hour and a day and two hours from now, and the clock shows 8:00."""
    ends = morning(now)
    assert LEAST <= ends - now <= 26 * 3600
    shown = datetime.fromtimestamp(ends, BERLIN)
    assert (shown.hour, shown.minute, shown.second) == (MORNING, 0, 0)


def test_the_choices() -> None:
    """Each says how long it is; an hour where nothing is chosen; what is not offered is none."""
    now = at(2026, 12, 1, 22, 0)
    labels = ["for 30 min", "for 1 h", "for 4 h", "until Wednesday, 8:00 CET"]
    assert [span.label for span in spans(now)] == labels
    assert [(chosen(name, now) or spans(0)[0]).ends - now for name in ("", "30m", "4h")] == [3600, 1800, 14400]
    assert chosen("9y", now) is None
