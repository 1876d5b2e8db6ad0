"""History: what was appended comes back, over the seam between memory and disk, after restarts and with damage."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from anvil_monitor.monitoring.history import blocks
from anvil_monitor.monitoring.history.block import write
from anvil_monitor.monitoring.history.blocks import HOUR
from anvil_monitor.monitoring.history.history import History, HistoryError
from anvil_monitor.monitoring.history.joined import HistoryStore
from anvil_monitor.monitoring.samples import (
    STALE_NAN,
    Labels,
    Matcher,
    Panel,
    Series,
    TooManyError,
    is_stale,
    labels_of,
    series_of,
)
from anvil_monitor.monitoring.store import Store

START = 1_700_000_000_000 // HOUR * HOUR
UP = [Matcher("__name__", "=", "up")]
DAY = 86400.0


class Clock:
    """Unix seconds, set by the test."""

    def __init__(self) -> None:
        self.now = START / 1000

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


Opened = Callable[..., HistoryStore]


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Opened]:
    """Opens the folder's store; each call ends the one before, as a restart does."""
    live: list[HistoryStore] = []

    def open_(retention: float = 15 * DAY, size: float = 1e9, **options: float) -> HistoryStore:
        if live:
            live.pop().history.close()
        store = HistoryStore(History(tmp_path, retention, size, clock), clock=clock, **options)  # type: ignore[arg-type]
        live.append(store)
        return store

    yield open_
    for store in live:
        store.history.close()


def up(number: int) -> Labels:
    return labels_of(__name__="up", instance=f"host-{number}")


def feed(store: Store, clock: Clock, hours: float, step: int = 30, series: int = 3) -> None:
    """Samples every ``step`` seconds, with the house kept once a minute."""
    for _ in range(round(hours * 3600 / step)):
        clock.now += step
        at = round(clock.now * 1000)
        store.append(at, [(up(number), float(at // 1000 * number)) for number in range(series)])
        if isinstance(store, HistoryStore) and round(clock.now) % 60 == 0:
            store.maintain()


def same(found: list[Series], wanted: list[Series]) -> None:
    assert [one.labels for one in found] == [one.labels for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.timestamps.tolist() == other.timestamps.tolist()
        assert one.values.view(np.uint64).tolist() == other.values.view(np.uint64).tolist()


def test_memory_and_blocks_answer_as_one(opened: Opened, clock: Clock) -> None:
    """Over any span the answer is that of a store that keeps all in memory; each series is in one panel."""
    store, whole = opened(), Store()
    chance = random.Random(4)
    gone: set[int] = set()
    for step in range(7 * 120):
        clock.now += 30
        at = round(clock.now * 1000) + chance.randrange(3)
        for source in range(3):
            batch = []
            for number in range(4):
                key = source * 100 + number + step // 200 * (source == 1) * 10
                if chance.random() < 0.01:
                    gone ^= {key}
                    batch.append((up(key), STALE_NAN))
                elif key not in gone:
                    batch.append((up(key), chance.choice([float(step * key), chance.random(), float("nan"), -0.0])))
            assert store.append(at + source, batch) == whole.append(at + source, batch)
        if step % 2:
            store.maintain()
    assert len(store.history.blocks) >= 5
    assert store.sample_count < whole.sample_count / 2
    end = round(clock.now * 1000)
    for _ in range(60):
        first = chance.randrange(START, end)
        last = chance.randrange(first, end + HOUR)
        found = store.select(UP, first, last)
        places = [labels for panel in found for labels in panel.labels]
        assert len(places) == len(set(places))
        assert all((np.diff(panel.times) > 0).all() for panel in found)
        same(series_of(found), series_of(whole.select(UP, first, last)))
    one = [Matcher("instance", "=~", "host-(1|10.|201)"), *UP]
    same(series_of(store.select(one, START, end)), series_of(whole.select(one, START, end)))
    assert store.label_names() == whole.label_names()
    assert store.label_values("instance") == whole.label_values("instance")
    assert store.label_values("instance", one) == whole.label_values("instance", one)
    assert store.series(UP, START, end) == whole.series(UP, START, end)


def test_a_restart_loses_nothing(opened: Opened, clock: Clock) -> None:
    """Every sample is there again after any restart, before and after hours were sealed."""
    store, whole = opened(), Store()
    start = clock.now
    for hours in (0.2, 0.9, 1.5, 0.1, 2.2):
        feed(store, clock, hours)
        store = opened()
        later = Clock()
        later.now = start
        feed(whole, later, hours)
        start = later.now
        same(
            series_of(store.select(UP, START, START + 100 * HOUR)),
            series_of(whole.select(UP, START, START + 100 * HOUR)),
        )
    assert store.late == 0


def test_the_log_goes_when_its_hour_is_in_a_block(opened: Opened, clock: Clock, tmp_path: Path) -> None:
    """The log holds two hours at most; what is in a block is not in memory twice after a restart."""
    store = opened()
    feed(store, clock, 4.2)
    assert len(list((tmp_path / "wal").iterdir())) <= 2
    assert len(list((tmp_path / "blocks").iterdir())) == 4
    store = opened()
    assert store.sample_count == 3 * (1 + round(0.2 * 120))
    assert len(series_of(store.select(UP, START, START + 9 * HOUR))[0].values) == round(4.2 * 120)


def test_stale_markers_are_kept(opened: Opened, clock: Clock) -> None:
    """A series that ended is ended in a block, too."""
    store = opened()
    store.append(START, [(up(1), 1.0)])
    store.append(START + 5000, [(up(1), STALE_NAN)])
    clock.now += 2 * 3600
    store.maintain()
    store = opened()
    assert store.sample_count == 0
    (series,) = series_of(store.select(UP, START, START + HOUR))
    assert is_stale(series.values).tolist() == [False, True]


def test_old_blocks_go_by_age_and_by_size(opened: Opened, clock: Clock, tmp_path: Path) -> None:
    """Nothing older than the retention by more than an hour; not more bytes than may be."""
    store = opened(retention=3 * 3600.0)
    feed(store, clock, 6.5)
    assert len(store.history.blocks) == 3
    oldest = series_of(store.select(UP, START, START + 9 * HOUR))[0].timestamps[0]
    assert oldest >= START + 2.4 * HOUR
    store = opened(size=store.history.size - 1)
    store.maintain()
    assert len(store.history.blocks) == 2
    assert len(list((tmp_path / "blocks").iterdir())) == 2


def test_a_damaged_block_is_set_aside(
    opened: Opened, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, kept under another name, and all the rest is served; at the start and while it is read."""
    store = opened()
    feed(store, clock, 5.5)
    files = sorted((tmp_path / "blocks").iterdir())
    middle = bytearray(files[1].read_bytes())
    middle[20] ^= 1
    files[1].write_bytes(middle)
    files[3].write_bytes(files[3].read_bytes()[:-1])
    store = opened()
    times = series_of(store.select(UP, START, START + 9 * HOUR))[0].timestamps
    assert sorted(set((times // HOUR - START // HOUR).tolist())) == [0, 2, 4, 5]
    assert store.history.blocks.damaged == 2
    names = sorted(path.name for path in (tmp_path / "blocks").iterdir() if path.name.endswith(".damaged"))
    assert names == [files[1].name + ".damaged", files[3].name + ".damaged"]
    told = [record.message for record in caplog.records if "set aside" in record.message]
    assert len(told) == 2
    assert opened().history.blocks.damaged == 2


def test_one_process_at_a_time(opened: Opened, tmp_path: Path) -> None:
    """The second one is told so; when the first has ended it may."""
    first = opened()
    with pytest.raises(HistoryError, match="in use by another process"):
        History(tmp_path, DAY, 1e9)
    first.history.close()
    History(tmp_path, DAY, 1e9).close()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    """A file in its place is told with its path."""
    (tmp_path / "history").write_text("")
    with pytest.raises(HistoryError, match="history cannot be kept in"):
        History(tmp_path / "history", DAY, 1e9)


def test_a_sample_for_a_sealed_hour_is_late(opened: Opened, clock: Clock) -> None:
    """It is refused and counted, before and after a restart; so is one from far in the future."""
    store = opened()
    feed(store, clock, 2.5)
    assert store.append(START + HOUR, [(up(9), 1.0)]) == 0
    assert store.append(START + 9 * HOUR, [(up(9), 1.0)]) == 0
    assert store.late == 2
    store = opened()
    assert store.append(START + HOUR, [(up(9), 1.0)]) == 0
    assert store.append(round(clock.now * 1000), [(up(9), 1.0)]) == 1


def test_a_torn_log_is_cut(opened: Opened, clock: Clock, tmp_path: Path) -> None:
    """A record that was not finished is cut off; what is appended afterwards survives the next restart."""
    store = opened()
    feed(store, clock, 0.1)
    store.history.close()
    (segment,) = (tmp_path / "wal").iterdir()
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-3])
    store = opened()
    assert store.sample_count == 3 * 11
    assert segment.stat().st_size < len(whole) - 3
    feed(store, clock, 0.1)
    assert opened().sample_count == 3 * 23


def test_blocks_from_the_future_do_not_stop_the_present(opened: Opened, clock: Clock) -> None:
    """After a wrong clock was put right, samples are taken in again."""
    now = clock.now
    clock.now += 300 * DAY
    store = opened()
    feed(store, clock, 2.5)
    assert len(store.history.blocks) == 2
    clock.now = now
    store = opened()
    feed(store, clock, 0.1)
    assert store.late == 0
    assert store.sample_count == 3 * 12


def test_what_there_is_no_room_for_is_not_logged(opened: Opened, clock: Clock) -> None:
    """Beyond the most series the log does not grow either."""
    store = opened(max_series=5)
    feed(store, clock, 0.05, series=5)
    size = store.history.size
    for number in range(1000):
        assert store.append(round(clock.now * 1000) + 1 + number, [(up(100 + number), 1.0)]) == 0
    assert store.history.size == size


def test_memory_is_bounded_while_history_is_read(
    opened: Opened, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """17 million samples on disk, read column by column, hold no more than the caches and one answer; asking for more
    than may be read is refused before it is read."""
    (tmp_path / "blocks").mkdir()
    chance = np.random.default_rng(1)
    values = chance.poisson(3.0, (720, 400)).cumsum(axis=0).astype(float)
    labels = tuple(up(number) for number in range(400))
    for hour in range(60):
        times = START + hour * HOUR + np.arange(720) * 5000
        write(tmp_path / "blocks" / f"{hour:012d}.block", [Panel(labels, times, values)])
    clock.now += 60 * 3600
    store = opened()
    tracemalloc.start()
    try:
        for number in range(0, 400, 50):
            wanted = [Matcher("instance", "=", f"host-{number}")]
            (panel,) = store.select(wanted, START, START + 99 * HOUR)
            assert panel.values.shape == (60 * 720, 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < blocks.CACHE_BYTES + blocks.TABLE_BYTES + 4_000_000
    monkeypatch.setattr(blocks, "MOST_SAMPLES", 1_000_000)
    with pytest.raises(TooManyError, match="at most 1000000"):
        store.select(UP, START, START + 99 * HOUR)
