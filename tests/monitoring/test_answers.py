"""Numbers of whole arrays read as those of one: the text of each is that of number_text, to the last digit."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from anvil_monitor.monitoring.answers import Pairs, encode, number_texts, time_texts
from anvil_monitor.monitoring.promql import number_text
from anvil_monitor.monitoring.samples import STALE_NAN, Series

EDGES = [0.0, -0.0, 1e-5, 9.999999e-6, 1e-6, 9.99e-7, 1e15, 1e16, 1e17, 1e20, 1e21, 5e-324, 1.7976931348623157e308,
         float("nan"), float("inf"), float("-inf"), STALE_NAN, 0.1 + 0.2, 100.0, 10.05, 0.0001, -312.0]  # fmt: skip


@given(
    st.lists(
        st.one_of(st.floats(), st.integers(-(10**18), 10**18).map(float), st.decimals(-1000, 1000, places=3).map(float))
    )
)
@example(EDGES)
@example([])
def test_every_number_reads_as_it_does_alone(numbers: list[float]) -> None:
    """Exponents, NaN, infinities, signed zeros and whole numbers included."""
    texts = [text.decode() for text in number_texts(np.array(numbers, dtype=np.float64))]
    assert texts == [number_text(number) for number in numbers]


@given(st.lists(st.integers(-(10**13), 10**13), min_size=1))
def test_times_are_seconds_with_the_milliseconds_that_there_are(times: list[int]) -> None:
    """As JSON numbers, whole ones without a fraction."""
    for at, text in zip(times, time_texts(np.array(times, dtype=np.int64)), strict=True):
        assert round(float(text) * 1000) == at
        assert (b"." in text) == bool(at % 1000)


def test_pairs_are_json_and_series_share_the_times_only_where_they_are_the_same() -> None:
    """The second series has the same array of times, the third has other ones, the last none."""
    first, other = np.array([1000, 2500]), np.array([7000])
    pairs = Pairs()
    made = [
        json.loads(encode(pairs.of(Series((), times, np.array(values)))))
        for times, values in ((first, [1.0, 0.5]), (first, [2.0, float("nan")]), (other, [3.0]), (other[:0], []))
    ]
    assert made == [[[1, "1"], [2.5, "0.5"]], [[1, "2"], [2.5, "NaN"]], [[7, "3"]], []]
