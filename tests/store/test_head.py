"""The head: samples side by side, whatever order they come in, and views that nobody writes into."""

from __future__ import annotations

import random
import threading
from collections import defaultdict

import numpy as np
import pytest

from anvil_monitor.monitoring import head
from anvil_monitor.monitoring.samples import ABSENT, STALE_NAN, Labels, Matcher, is_absent, labels_of, series_of
from anvil_monitor.monitoring.store import Store

ALL = [Matcher("__name__", "=~", ".+")]


def name(number: int) -> Labels:
    return labels_of(__name__="m", n=f"{number:04}")


def content(store: Store, first: int = 0, last: int = 10**9) -> dict[Labels, dict[int, float]]:
    found = series_of(store.select(ALL, first, last))
    assert len({one.labels for one in found}) == len(found)  # each series is in one panel
    assert all((np.diff(one.timestamps) > 0).all() for one in found)
    return {one.labels: dict(zip(one.timestamps.tolist(), one.values.tolist(), strict=True)) for one in found}


def test_series_that_come_together_share_a_panel() -> None:
    """Two targets are two panels, however many rows they have; a target's columns are sorted by labels."""
    store = Store()
    for at in range(2000):
        store.append(at * 10, [(name(3), 3.0), (name(1), 1.0), (name(2), 2.0)])
        store.append(at * 10 + 3, [(name(8), 8.0), (name(9), 9.0)])
    first, second = store.select(ALL, 5000, 9999)
    assert first.labels == (name(1), name(2), name(3))
    assert first.times.tolist() == list(range(5000, 10000, 10))
    assert first.values.flags.c_contiguous
    assert first.values[0].tolist() == [1.0, 2.0, 3.0]
    assert second.labels == (name(8), name(9))
    assert second.times[0] == 5003


def test_the_same_labels_come_as_the_same_tuple() -> None:
    """What a query has made of them can be found again; a new series makes a new tuple."""
    store = Store()
    for at in range(100):
        store.append(at, [(name(1), 1.0), (name(2), 2.0)])
    before = store.select(ALL, 0, 1000)[0].labels
    store.append(200, [(name(1), 1.0), (name(2), 2.0)])
    assert store.select(ALL, 0, 1000)[0].labels is before
    store.append(300, [(name(1), 1.0), (name(2), 2.0), (name(3), 3.0)])
    assert store.select(ALL, 0, 1000)[0].labels == (*before, name(3))


def test_series_come_and_go() -> None:
    """A column is absent before its series came and after it went; one that returns goes on."""
    store = Store()
    wanted: dict[Labels, dict[int, float]] = defaultdict(dict)
    for at in range(3000):
        alive = [one for one in range(40) if (at // 700 + one) % 3]
        batch = [(name(one), float(at + one)) for one in alive]
        assert store.append(at, batch) == len(batch)
        for labels, value in batch:
            wanted[labels][at] = value
    assert content(store) == wanted
    assert store.sample_count == sum(map(len, wanted.values()))
    (panel,) = store.select(ALL, 0, 100)
    assert is_absent(panel.values[:, [0]]).all()


@pytest.mark.parametrize("seed", range(8))
def test_any_order_of_batches_gives_what_a_dictionary_gives(seed: int) -> None:
    """Random batches: parts of a target, late ones, repeated times, markers, reads and trims in between."""
    choice = random.Random(seed)
    store = Store()
    wanted: dict[Labels, dict[int, float]] = defaultdict(dict)
    late = 0
    now = 1000
    for _ in range(600):
        now += choice.choice([0, 0, 1, 5, 30])
        at = now - choice.choice([0, 0, 0, 0, 3, 50])
        width = choice.choice([1, 2, 10, 40])
        start = choice.randrange(0, 60)
        batch = []
        for one in range(start, start + width):
            value = STALE_NAN if choice.random() < 0.02 else float(choice.randrange(1000))
            batch.append((name(one), value))
            if at > max(wanted[name(one)], default=-1):
                wanted[name(one)][at] = value
            else:
                late += 1
        store.append(at, batch)
        if choice.random() < 0.05:
            assert str(content(store)) == str({one: wanted[one] for one in sorted(wanted) if wanted[one]})
        if choice.random() < 0.03:
            before = now - choice.randrange(100, 2000)
            gone = 0
            for labels in list(wanted):
                kept = {key: value for key, value in wanted[labels].items() if key >= before}
                gone += len(wanted[labels]) - len(kept)
                wanted[labels] = kept
            assert store.trim(before) == gone
            for labels in [one for one in wanted if not wanted[one]]:
                del wanted[labels]
    assert str(content(store)) == str({one: wanted[one] for one in sorted(wanted)})
    assert store.sample_count == sum(map(len, wanted.values()))
    assert store.series_count == len(wanted)
    assert store.late == late


def test_what_was_read_is_never_written() -> None:
    """Neither a late sample in a row that was handed out, nor new columns, nor trimming change a view."""
    store = Store()
    for at in range(100):
        store.append(at, [(name(one), float(at)) for one in range(10)])
    store.append(100, [(name(one), 100.0) for one in range(5)])
    (panel,) = store.select(ALL, 0, 1000)
    copy = panel.values.copy()
    store.append(100, [(name(one), -1.0) for one in range(5, 10)])
    store.append(101, [(name(one), -2.0) for one in range(20)])
    store.trim(50)
    for at in range(102, 900):
        store.append(at, [(name(one), -3.0) for one in range(20)])
    assert np.array_equal(panel.values.view(np.uint64), copy.view(np.uint64))
    assert content(store)[name(7)][100] == -1.0


def test_a_full_segment_is_followed_by_one_of_the_series_that_live() -> None:
    """Series that ended long ago take no room in new rows."""
    store = Store()
    for at in range(head.FIRST):
        store.append(at, [(name(one), 1.0) for one in range(200)])
    for at in range(head.FIRST, 4 * head.ROWS):
        store.append(at, [(name(one), 1.0) for one in range(30)])
    (sheet,) = store._sheets
    assert [len(one.layout.entries) for one in sheet.segments][-2:] == [30, 30]
    store.trim(2 * head.ROWS)
    assert store.series_count == 30
    assert sum(one.values.nbytes for one in sheet.segments) < 8 * 30 * 4 * head.ROWS


def test_a_value_that_looks_like_an_absent_one_is_an_ordinary_nan() -> None:
    """Nobody can write a hole into a series."""
    store = Store()
    store.append(1, [(name(1), ABSENT)])
    (series,) = series_of(store.select(ALL, 0, 10))
    assert np.isnan(series.values).tolist() == [True]
    assert store.series(ALL, 0, 10) == [name(1)]
    assert store.series(ALL, 2, 10) == []


def test_readers_in_other_threads_see_whole_rows() -> None:
    """While one thread appends, trims and adds series, each row that a reader gets is complete and stays."""
    store = Store()
    stop = threading.Event()
    faults: list[str] = []

    def read() -> None:
        while not stop.is_set():
            for panel in store.select([Matcher("__name__", "=", "pair")], 0, 10**9):
                total = panel.values.sum(axis=1)
                if not (total == 0).all():
                    faults.append(f"a row sums up to {total[total != 0]}")
                if (np.diff(panel.times) <= 0).any():
                    faults.append("times do not rise")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        pair = labels_of(__name__="pair", n="a"), labels_of(__name__="pair", n="b")
        for at in range(4000):
            more = [(name(at // 500), 1.0)] if at % 500 else []
            store.append(at, [(pair[0], float(at)), (pair[1], float(-at)), *more])
            if at % 100 == 0:
                store.trim(at - 1500)
    finally:
        stop.set()
        for reader in readers:
            reader.join(10)
    assert not faults
