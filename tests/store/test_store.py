"""The store: what goes in, what comes out, what it forgets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from anvil_monitor.monitoring.samples import (
    STALE_NAN,
    Labels,
    Matcher,
    PatternError,
    Series,
    is_stale,
    labels_of,
    matches,
    series_of,
)
from anvil_monitor.monitoring.store import Store

UP: Labels = labels_of(__name__="up", job="server", service="shop")


def select(store: Store, matchers: Sequence[Matcher], start: int, end: int) -> list[Series]:
    return series_of(store.select(matchers, start, end))


def names(store: Store, *matchers: Matcher) -> list[str]:
    return [dict(one.labels)["service"] for one in select(store, matchers, 0, 10_000)]


@pytest.fixture
def store() -> Store:
    """Three services; "idle" has no zone."""
    store = Store()
    for service, zone in (("shop", "a"), ("bank", "b"), ("idle", "")):
        store.append(1000, [(labels_of(__name__="up", service=service, zone=zone), 1.0)])
    return store


def test_samples_come_back_inside_closed_bounds() -> None:
    """start <= t <= end, in order, as arrays of ms and values."""
    store = Store()
    for at in range(10):
        assert store.append(at * 100, [(UP, float(at))]) == 1
    (series,) = select(store, [Matcher("__name__", "=", "up")], 200, 400)
    assert series.labels == UP
    assert series.timestamps.tolist() == [200, 300, 400]
    assert series.values.tolist() == [2.0, 3.0, 4.0]
    assert select(store, [Matcher("__name__", "=", "up")], 901, 2000) == []


def test_a_sample_that_is_not_newer_is_dropped() -> None:
    """The same time again, or an earlier one, changes nothing and is counted."""
    store = Store()
    store.append(1000, [(UP, 1.0)])
    assert store.append(1000, [(UP, 2.0)]) == 0
    assert store.append(500, [(UP, 3.0)]) == 0
    assert store.late == 2
    assert select(store, [Matcher("job", "=", "server")], 0, 2000)[0].values.tolist() == [1.0]


def test_matchers_take_and_leave(store: Store) -> None:
    """All four operators; a missing label counts as the empty text; the answer is sorted by labels."""
    assert names(store, Matcher("__name__", "=", "up")) == ["bank", "idle", "shop"]
    assert names(store, Matcher("zone", "=", "a")) == ["shop"]
    assert names(store, Matcher("zone", "=", ""), Matcher("__name__", "=", "up")) == ["idle"]
    assert names(store, Matcher("zone", "!=", "a")) == ["bank", "idle"]
    assert names(store, Matcher("zone", "!=", "")) == ["bank", "shop"]
    assert names(store, Matcher("service", "=~", "s.*|b")) == ["shop"]
    assert names(store, Matcher("service", "!~", "s.*|bank")) == ["idle"]
    assert names(store, Matcher("zone", "=~", "|b")) == ["bank", "idle"]
    assert names(store, Matcher("zone", "!~", "|b")) == ["shop"]
    assert names(store, Matcher("none", "=~", ".*")) == ["bank", "idle", "shop"]
    assert names(store, Matcher("none", "=~", ".+")) == []
    assert names(store) == ["bank", "idle", "shop"]


def test_a_matcher_tells_what_it_cannot_be() -> None:
    """A pattern that does not compile, and an operator that does not exist, are errors that name them."""
    with pytest.raises(PatternError, match=r"\("):
        Matcher("a", "=~", "(")
    with pytest.raises(ValueError, match="~="):
        Matcher("a", "~=", "b")
    assert str(Matcher("a", "!=", 'x"y')) == 'a!="x\\"y"'
    assert matches(UP, [Matcher("job", "=", "server"), Matcher("zone", "=", "")])


def test_a_pattern_matches_the_whole_value_and_newlines() -> None:
    """Anchored at both ends; a dot takes a newline."""
    assert not matches((("a", "xyz"),), [Matcher("a", "=~", "y")])
    assert matches((("a", "x\ny"),), [Matcher("a", "=~", "x.y")])
    assert not matches((("a", "ab"),), [Matcher("a", "=~", "a|c")])


def test_stale_markers_keep_their_bits() -> None:
    """A marker is told from an ordinary NaN after a journey through the store."""
    store = Store()
    store.append(1, [(UP, math.nan)])
    store.append(2, [(UP, STALE_NAN)])
    (series,) = select(store, [Matcher("__name__", "=", "up")], 0, 10)
    assert is_stale(series.values).tolist() == [False, True]


def test_trim_forgets_samples_and_empty_series() -> None:
    """Older than the bound is gone; a series without samples leaves index and count; room is given back."""
    store = Store()
    old, new = labels_of(__name__="old", a="1"), labels_of(__name__="new")
    for at in range(1000):
        store.append(at, [(old, 1.0)] if at < 500 else [(new, 1.0)])
    assert (store.series_count, store.sample_count) == (2, 1000)
    assert store.trim(700) == 700
    assert (store.series_count, store.sample_count) == (1, 300)
    assert store.label_names() == ["__name__"]
    assert store.label_values("__name__") == ["new"]
    (series,) = select(store, [Matcher("__name__", "=", "new")], 0, 2000)
    assert series.timestamps[0] == 700


def test_views_stay_what_they_were() -> None:
    """What a query holds is not changed by appending, growing or trimming."""
    store = Store()
    for at in range(100):
        store.append(at, [(UP, float(at))])
    (series,) = select(store, [Matcher("__name__", "=", "up")], 0, 1000)
    for at in range(100, 5000):
        store.append(at, [(UP, -1.0)])
        if at % 500 == 0:
            store.trim(at - 10)
    assert series.values.tolist() == [float(at) for at in range(100)]


def test_new_series_are_refused_beyond_the_bound() -> None:
    """Those that are in go on; the others are counted, and get in after room was made."""
    store = Store(max_series=2)
    three = [(labels_of(__name__="m", n=str(one)), 1.0) for one in range(3)]
    assert store.append(1, three) == 2
    assert store.refused == 1
    assert store.append(2, three) == 2
    store.trim(10)
    assert store.append(11, three[2:]) == 1


def test_label_names_and_values_can_be_narrowed(store: Store) -> None:
    """By matchers, as Grafana asks for them."""
    assert store.label_names() == ["__name__", "service", "zone"]
    assert store.label_names([Matcher("service", "=", "idle")]) == ["__name__", "service"]
    assert store.label_values("zone", [Matcher("service", "!=", "bank")]) == ["a"]
