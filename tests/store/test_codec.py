"""Blocks and their parts: what comes back is what went in, bit by bit; anything else is told as damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anvil_monitor.monitoring.history import codec, wal
from anvil_monitor.monitoring.history.block import Block, Reader, encode
from anvil_monitor.monitoring.history.codec import DamagedError
from anvil_monitor.monitoring.history.index import Table, pack_labels
from anvil_monitor.monitoring.samples import ABSENT_BITS, STALE_BITS, Floats, Labels, Matcher, Panel, labels_of, matches

BITS = st.one_of(
    st.integers(0, 2**64 - 1),
    st.sampled_from([ABSENT_BITS, STALE_BITS, 1 << 63, 0, 0x7FF << 52, 0xFFF << 52, 0x7FF8 << 48, 1]),
    st.integers(-(2**53), 2**53).map(lambda number: int(np.float64(number).view(np.uint64))),
    st.integers(-(10**6), 10**6).map(lambda number: int(np.float64(number / 1000).view(np.uint64))),
    st.integers(0, 1000).map(lambda number: int(np.float64(4096 * number).view(np.uint64))),
)
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
VALUES = hnp.arrays(np.uint64, SHAPES, elements=BITS).map(lambda bits: bits.view(np.float64))
TEXTS = st.text(max_size=6)
SETS = st.dictionaries(TEXTS, TEXTS, max_size=4).map(lambda pairs: tuple(sorted(pairs.items())))


def unpacked(values: Floats) -> Floats:
    found = np.zeros(values.shape)
    for columns, data in codec.pack(values):
        found[:, columns] = codec.unpack(data)
    return found


def same(one: Floats, other: Floats) -> bool:
    return bool((np.ascontiguousarray(one).view(np.uint64) == np.ascontiguousarray(other).view(np.uint64)).all())


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_any_float_comes_back_bit_by_bit(values: Floats) -> None:
    """Every bit pattern: NaN with any payload, infinities, minus zero, whole numbers of any size, fractions."""
    assert same(unpacked(values), values)


@pytest.mark.parametrize("seed", range(6))
def test_columns_as_they_occur_come_back(seed: int) -> None:
    """Counters with resets and gaps, gauges in pages, seconds in hundredths, full floats, ended series."""
    chance = np.random.default_rng(seed)
    rows = int(chance.integers(1, 800))
    counters = chance.poisson(3, (rows, 100)).cumsum(axis=0).astype(float)
    counters[rows // 2 :, ::5] -= counters[rows // 2, ::5]
    counters[rows // 3 :, ::7] = np.uint64(ABSENT_BITS).view(np.float64)
    counters[: rows // 4, ::11] = np.uint64(ABSENT_BITS).view(np.float64)
    counters[rows // 5, ::3] = np.uint64(STALE_BITS).view(np.float64)
    pages = 4096.0 * chance.integers(0, 10**6, (rows, 20))
    seconds = np.round(chance.exponential(1, (rows, 20)).cumsum(axis=0) * 100) / 100
    floats = chance.normal(size=(rows, 20)).cumsum(axis=0)
    values = np.hstack((counters, pages, seconds, floats))[:, chance.permutation(160)]
    assert same(unpacked(values), values)


@given(st.lists(st.integers(-(2**60), 2**60), min_size=1, max_size=50, unique=True))
@settings(deadline=None)
def test_times_come_back(times: list[int]) -> None:
    """Any rising times."""
    rising = np.array(sorted(times), dtype=np.int64)
    assert codec.unpack_times(codec.pack_times(rising), len(rising)).tolist() == rising.tolist()


@given(st.lists(SETS, unique=True, max_size=8))
@settings(deadline=None)
def test_label_sets_come_back(series: list[Labels]) -> None:
    """Any text is a label, empty and unpaired surrogates included."""
    table = Table(pack_labels(series))
    assert [table.labels(number) for number in range(len(table))] == series


@pytest.mark.parametrize("op", ["=", "!=", "=~", "!~"])
@pytest.mark.parametrize("value", ["", "a", "a|b", ".*", ".+", "|a"])
def test_the_index_matches_as_the_head_does(op: str, value: str) -> None:
    """Every operator, also where a missing label counts as the empty text."""
    series = [labels_of(__name__="m", **pairs) for pairs in ({}, {"x": "a"}, {"x": "b", "y": "a"}, {"y": "c"})]
    table = Table(pack_labels(series))
    for name in ("x", "y", "none"):
        wanted = [Matcher("__name__", "=", "m"), Matcher(name, op, value)]
        found = [series[number] for number in table.matching(wanted).tolist()]
        assert found == [one for one in series if matches(one, wanted)]


def panels() -> list[Panel]:
    chance = np.random.default_rng(1)
    found = []
    for source in range(3):
        labels = tuple(labels_of(__name__=f"m{number}", source=str(source)) for number in range(70 * source + 1))
        times = 1_700_000_000_000 + np.arange(20) * 5000 + source
        values = chance.poisson(2, (20, len(labels))).cumsum(axis=0).astype(float)
        values[:, ::4] += chance.random((20, 1))
        found.append(Panel(labels, times, values))
    return found


def read_all(path: Path) -> None:
    block = Block(path)
    directory = block.directory()
    Table(block.labels())
    with Reader(block) as reader:
        group = 0
        for panel, end in enumerate(directory.group_ends.tolist()):
            reader.times(directory, panel)
            for each in range(group, end):
                reader.columns(directory, panel, each)
            group = end


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_bytes_are_damage(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever happens to a block's bytes, reading all of it says "damaged": no other error, no other samples."""
    whole = encode(panels())
    path = tmp_path / "a.block"
    path.write_bytes(whole)
    read_all(path)
    kind = data.draw(st.sampled_from(["flip", "cut", "grow", "move", "zero"]))
    at = data.draw(st.integers(len(b"anvilblk"), len(whole) - 1))
    changed = bytearray(whole)
    if kind == "flip":
        changed[at] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del changed[at : at + data.draw(st.integers(1, 400))]
    elif kind == "grow":
        changed[at:at] = data.draw(st.binary(min_size=1, max_size=50))
    elif kind == "move":
        changed = changed[at:] + changed[:at]
    else:
        changed[at : at + 64] = bytes(len(changed[at : at + 64]))
    if changed == whole:
        return
    path.write_bytes(changed)
    with pytest.raises(DamagedError):
        read_all(path)


@given(st.binary(max_size=300), st.integers(0, 1), st.sampled_from([1, 2, 4, 8]), st.integers(0, 300))
@settings(max_examples=300, deadline=None)
def test_a_group_without_its_checksum_is_still_no_danger(body: bytes, kind: int, width: int, odd: int) -> None:
    """Any bytes as a group of columns, also compressed ones, are columns or damage, and never more than they say."""
    for rows, columns in ((1, 1), (3, 2), (2**31, 2**31), (0, 5), (2**20, 2**4)):
        head = codec.HEADER.pack(kind, width, odd, rows, columns)
        for data in (body, head + body, head + codec.zlib.compress(body)):
            try:
                values = codec.unpack(data)
            except DamagedError:
                continue
            assert values.shape == (rows, columns)


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_log_gives_a_beginning_of_what_was_written(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever happens to a segment's bytes, the batches before that place come back, and none that never was."""
    path = tmp_path / "1.wal"
    path.unlink(missing_ok=True)
    segment = wal.Segment(path)
    batches = []
    for number in range(6):
        labels = tuple(labels_of(__name__=f"m{each}") for each in range(number // 2 + 1))
        batches.append((number, labels, [float(number)] * len(labels)))
        segment.add(number, labels, np.array(batches[-1][2]))
    segment.close()
    changed = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(changed) - 1))
    if data.draw(st.booleans()):
        changed[at] ^= data.draw(st.integers(1, 255))
    else:
        del changed[at:]
    path.write_bytes(changed)
    found: list[tuple[int, tuple[Labels, ...], list[float]]] = []
    wal.replay(path, lambda time, labels, values: found.append((time, labels, values.tolist())))
    assert found == batches[: len(found)]
    again: list[object] = []
    wal.replay(path, lambda time, labels, values: again.append(time))
    assert len(again) == len(found)
