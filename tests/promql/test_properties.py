"""Properties of functions that Prometheus' own files say little of, on whatever values hypothesis finds."""

from __future__ import annotations

import calendar
import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from anvil_monitor.monitoring.promql import Engine, Vector, number_text
from anvil_monitor.monitoring.promql.values import plain_text
from anvil_monitor.monitoring.samples import labels_of
from anvil_monitor.monitoring.store import Store

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
ODD = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 5e-324, 1.7976931348623157e308])
VALUES = st.lists(FLOATS | ODD, min_size=1, max_size=12)
SECONDS = st.floats(min_value=-62_000_000_000, max_value=250_000_000_000)  # the years 6 to 9892


def applied(query: str, values: list[float]) -> list[float]:
    """What a query makes of the metric m with these values, in the order in which it comes."""
    store = Store()
    store.append(1000, [(labels_of(__name__="m", n=f"{n:03}"), value) for n, value in enumerate(values)])
    found = Engine(store).instant(query, 1)
    assert isinstance(found, Vector)
    return [sample.value for sample in found.samples]


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))


@given(SECONDS)
@example(-1.0)
@example(-0.5)
@example(951_782_400.0)  # 29 February 2000
@example(-2_203_891_200.0)  # 1 March 1900, not a leap year
@example(4_107_542_399.0)
@settings(deadline=None, max_examples=300)
def test_date_functions_are_those_of_the_calendar(seconds: float) -> None:
    """UTC, fractions cut off towards zero, Sunday is 0; also before 1970 and in leap years."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=math.trunc(seconds))
    expected = {
        "minute": at.minute,
        "hour": at.hour,
        "day_of_week": at.isoweekday() % 7,
        "day_of_month": at.day,
        "day_of_year": at.timetuple().tm_yday,
        "days_in_month": calendar.monthrange(at.year, at.month)[1],
        "month": at.month,
        "year": at.year,
    }
    assert {name: applied(f"{name}(m)", [seconds])[0] for name in expected} == expected


@given(FLOATS | ODD)
@settings(deadline=None, max_examples=1000)
def test_a_number_is_written_with_the_fewest_digits_that_give_it_back(value: float) -> None:
    """Exactly the same number, sign of zero included; an exponent of two digits or more outside of 1e-6 to 1e21."""
    for text in (number_text(value), plain_text(value)):
        assert same(float(text), value)
    text = number_text(value)
    if not math.isfinite(value):
        assert text in ("NaN", "+Inf", "-Inf")
        return
    mantissa, _, exponent = text.partition("e")
    assert bool(exponent) == (value != 0 and not 1e-6 <= abs(value) < 1e21)
    if exponent:
        assert exponent[0] in "+-"
        assert len(exponent) >= 3
        assert 1 <= abs(float(mantissa)) < 10
    digits = mantissa.lstrip("-").replace(".", "").strip("0")
    assert len(digits) <= len(repr(abs(value)).partition("e")[0].replace(".", "").strip("0"))
    assert "e" not in plain_text(value)


@given(VALUES)
@settings(deadline=None, max_examples=200)
def test_the_sign_keeps_zeros_and_nan(values: list[float]) -> None:
    """-1, 1, or the value itself where it has no sign."""
    wanted = [-1.0 if value < 0 else 1.0 if value > 0 else value for value in values]
    assert all(map(same, applied("sgn(m)", values), wanted))


@given(VALUES, FLOATS | ODD, FLOATS | ODD)
@settings(deadline=None, max_examples=200)
def test_clamping_holds_values_between_bounds(values: list[float], low: float, high: float) -> None:
    """Nothing where the bounds are the wrong way round; NaN as a value or a bound gives NaN."""
    found = applied(f"clamp(m, {number_text(low)}, {number_text(high)})", values)
    if low > high:
        assert found == []
        return
    for value, clamped in zip(values, found, strict=True):
        if any(map(math.isnan, (value, low, high))):
            assert math.isnan(clamped)
        else:
            assert clamped == max(low, min(high, value))
    assert all(map(same, found, applied(f"clamp_max(clamp_min(m, {number_text(low)}), {number_text(high)})", values)))


@given(VALUES)
@settings(deadline=None, max_examples=200)
def test_sorting_puts_nan_last_in_both_directions(values: list[float]) -> None:
    """All values come, in order; which way round does not matter to NaN."""
    numbers = sorted(value for value in values if not math.isnan(value))
    nothing = len(values) - len(numbers)
    up, down = applied("sort(m)", values), applied("sort_desc(m)", values)
    assert up[: len(numbers)] == numbers
    assert down[: len(numbers)] == numbers[::-1]
    assert np.isnan(up[len(numbers) :]).tolist() == np.isnan(down[len(numbers) :]).tolist() == [True] * nothing


@given(VALUES, st.integers(min_value=0, max_value=15))
@settings(deadline=None, max_examples=200)
def test_the_best_k_are_the_first_of_the_sorted(values: list[float], size: int) -> None:
    """topk and bottomk give what sorting gives, NaN only when there is nothing else."""
    for name, ordered in (("topk", "sort_desc"), ("bottomk", "sort")):
        best, wanted = applied(f"{name}({size}, m)", values), applied(f"{ordered}(m)", values)[:size]
        assert all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(best, wanted, strict=True))


@given(st.lists(st.floats(min_value=-1e150, max_value=1e150), min_size=1, max_size=40), st.integers(0, 3))
@settings(deadline=None, max_examples=200)
def test_windows_side_by_side_give_what_each_gives_alone(values: list[float], gap: int) -> None:
    """Functions over ranges do not see a neighbour's samples, whether series share their times or not."""
    store, alone = Store(), Store()
    mine, other = labels_of(__name__="m", n="a"), labels_of(__name__="m", n="b")
    for at, value in enumerate(values):
        batch = [(mine, value)]
        alone.append(at * 1000, batch)
        store.append(at * 1000, batch if gap and at % (gap + 1) == 0 else [*batch, (other, -3.0 * at)])
    for name in ("sum", "avg", "min", "max", "stddev", "last", "first", "count", "mad"):
        query = f'{name}_over_time(m{{n="a"}}[7s])'
        both = f"{name}_over_time(m[7s])"
        (one,) = Engine(alone).range(query, 0, 45, 2).series
        found = {series.labels[-1]: series for series in Engine(store).range(both, 0, 45, 2).series}[("n", "a")]
        assert found.timestamps.tolist() == one.timestamps.tolist()
        assert found.values == pytest.approx(one.values, rel=1e-12, abs=0, nan_ok=True)
