"""Text to base units and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anvil_monitor.targets import Unit, format_duration, format_promql_duration, format_value
from anvil_monitor.targets.units import SIZE, TIME, parse_quantity


@pytest.mark.parametrize(
    ("text", "value"), [("200ms", 0.2), ("2s", 2.0), ("1.5 h", 5400.0), ("50µs", 5e-05), (".5m", 30.0)]
)
def test_times(text: str, value: float) -> None:
    """A time is a number with a unit; 200 ms is the double 0.2, not its neighbour."""
    assert parse_quantity(text, TIME) == value


def test_sizes_are_decimal_unless_iec() -> None:
    """500 MB is 500,000,000 bytes; 500 MiB says so."""
    assert parse_quantity("500MB", SIZE) == 500e6
    assert parse_quantity("500MiB", SIZE) == 500 * 2**20


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.3123, Unit.SECONDS, "312 ms"),
        (0.0312, Unit.SECONDS, "31.2 ms"),
        (0.00005, Unit.SECONDS, "50 µs"),
        (1.84, Unit.SECONDS, "1.84 s"),
        (0.0, Unit.SECONDS, "0 ms"),
        (512.4e6, Unit.BYTES, "512 MB"),
        (1.25e9, Unit.BYTES, "1.25 GB"),
        (37.0, Unit.USERS, "37 users"),
        (1.2, Unit.USERS, "1 user"),
        (0.75, Unit.NUMBER, "0.75"),
        (1234567.0, Unit.NUMBER, "1,234,567"),
        (float("nan"), Unit.SECONDS, "no traffic"),
    ],
)
def test_values_as_a_person_writes_them(value: float, unit: Unit, text: str) -> None:
    """Three digits and the unit that keeps the number short."""
    assert format_value(value, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "250 ms"), (5, "5 s"), (60, "1 min"), (80, "1 min 20 s"), (90061, "1 d 1 h")]
)
def test_durations(seconds: float, text: str) -> None:
    """The two largest parts of a length of time."""
    assert format_duration(seconds) == text


@given(st.integers(min_value=1, max_value=10**10))
def test_promql_durations_are_exact(milliseconds: int) -> None:
    """What is written into a rule file is the same length of time, to the millisecond."""
    text = format_promql_duration(milliseconds / 1000)
    assert round(parse_quantity(text, TIME) * 1000) == milliseconds


@given(st.text(max_size=20))
def test_any_text_is_a_number_or_a_clear_error(text: str) -> None:
    """No text makes the parser fail in another way than by saying what is allowed."""
    try:
        assert parse_quantity(text, TIME) >= 0
    except ValueError as error:
        assert "ms" in str(error)
