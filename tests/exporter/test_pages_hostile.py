"""Bytes that somebody else wrote: a page or a refusal, in bounded time and memory; and a model of the whole."""

from __future__ import annotations

import fcntl
import logging
import math
import os
import random
import shutil
import struct
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from anvil_monitor.exporter import layout
from anvil_monitor.exporter.cells import Cell
from anvil_monitor.exporter.exposer import Exposer
from anvil_monitor.exporter.layout import HEADER_SIZE, Key, PageError, decode_key, key, read_records
from anvil_monitor.exporter.names import BEACONS, HTTP_ACTIVE, HTTP_OLDEST, HTTP_USERS
from anvil_monitor.exporter.page import Page
from anvil_monitor.exporter.reader import Reader
from anvil_monitor.exporter.recorder import Recorder

NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,10}", fullmatch=True)
TEXT = st.text(max_size=20) | st.text(st.characters(categories=["Cs", "Cc", "Zl"]), max_size=5)
PAIRS = st.dictionaries(NAMES.filter(lambda name: name != "le"), TEXT, max_size=5).map(lambda each: tuple(each.items()))
EDGES = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=8, unique=True).map(sorted).map(tuple)


@given(name=NAMES, pairs=PAIRS, edges=EDGES)
def test_any_key_comes_back(name: str, pairs: layout.Pairs, edges: tuple[float, ...]) -> None:
    """Whatever text is in labels: what is written is read, equal, and as text that UTF-8 can hold."""
    made = key("histogram", name, pairs, edges)
    assert decode_key(made.encode()) == made
    assert dict(made.labels).keys() == {label for label, value in pairs if value}
    assert all(value.encode() for _, value in made.labels)


KINDS = st.sampled_from(["histogram", "counter", "gauge", "gauge_max", "gauge_recent", "oldest", "users"])


@settings(deadline=None, max_examples=50)
@given(
    series=st.lists(
        st.tuples(KINDS, NAMES, PAIRS, EDGES), max_size=4, unique_by=lambda each: (each[1], tuple(sorted(each[2])))
    ),
    numbers=st.randoms(use_true_random=False),
)
def test_any_values_come_back(
    series: list[tuple[Any, str, layout.Pairs, tuple[float, ...]]], numbers: random.Random
) -> None:
    """Any doubles, bit by bit, in any records."""
    page = Page.private()
    written = []
    for kind, name, pairs, edges in series:
        made = key(kind, name, pairs, edges if kind == "histogram" else ())
        cells = page.add(made)
        cells.cast("B")[:] = numbers.randbytes(8 * len(cells))
        written.append((made, cells.tobytes()))
    data = page.bytes()
    found = [
        (made, data[8 * first : 8 * (first + count)])
        for made, first, count in read_records(data)
    ]  # fmt: skip
    assert found == written


@given(data=st.binary(max_size=200))
@example(b'["counter","a",[],[1' + b"0" * 400 + b"]]")
@example(b'["counter","a",[],[' + b"1" * 5000 + b"]]")
@example(b"[" * 10_000)
@example(b'[[],"a",[],[]]')
@example(b'["counter","a",[["x",1]],[]]')
@example(b'["counter","a",[["x","\\ud800"]],[]]')
@example(b'["counter","a",[["y","1"],["x","1"]],[]]')
@example(b'["histogram","a",[],[NaN]]')
@example(b'["histogram","a",[],[Infinity]]')
@example(b'["metric","a",[["help","x"],["type","summary"],["unit",""]],[]]')
@example(b'["counter","a b",[],[]]')
def test_a_key_is_a_key_or_a_refusal(data: bytes) -> None:
    """Of any bytes; a key that is read can be written and shown."""
    try:
        found = decode_key(data)
    except PageError:
        return
    assert decode_key(found.encode()) == found


def good_page(folder: Path, bitmaps: bool) -> bytes:
    """A page with a record of every kind; the bitmaps of users, which are most of a page, on demand."""
    page = Page.in_folder(folder)
    for made in (
        key("histogram", "http_seconds", (("route", "/"),), (0.1, 0.5)), key("counter", BEACONS.name),
        key("gauge", HTTP_ACTIVE.name), key("gauge_recent", "mine"), Key("users", HTTP_USERS.name),
        Key("oldest", HTTP_OLDEST.name), Key("folded", "", (("page", "worker-1-x.page"),)),
        Key("metric", "mine", (("help", "Mine."), ("type", "gauge"), ("unit", ""))),
    ):  # fmt: skip
        if made.kind == "users" and not bitmaps:
            continue
        cells = page.add(made)
        if len(cells):
            cells[0] = 1
    assert page.path is not None
    page.path.unlink()
    return page.bytes()


def mutated(content: bytes, rng: random.Random) -> bytes:
    """``content`` with some bytes changed, cut, inserted, or a length made huge."""
    data = bytearray(content)
    # The bitmaps of users are most of a page and their bytes mean nothing to a parser: seldom there.
    interesting = 900 if rng.random() < 0.9 else len(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        at = rng.randrange(min(interesting, len(data)) or 1)
        choice = rng.randrange(7)
        if choice == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif choice == 1:
            del data[at:]
        elif choice == 2:
            del data[at : at + rng.randrange(1, 64)]
        elif choice == 3:
            data[at:at] = rng.randbytes(rng.choice((1, 4, 8, 16)))
        elif choice == 4:
            at -= at % 4
            data[at : at + 4] = struct.pack("<I", rng.choice((0, 1, 8, 2**16, 2**31, 2**32 - 1, 2**32 - 8)))
        elif choice == 5:
            at -= at % 8
            data[at : at + 8] = struct.pack("<Q", rng.choice((0, 64, 72, len(data), 2**24, 2**40, 2**64 - 8)))
        else:
            data[at : at + 8] = data[rng.randrange(len(data) or 1) :][:8]
        if rng.random() < 0.5 and len(data) >= HEADER_SIZE:  # a header that fits, so that the records are read
            data = data[: len(data) - len(data) % 8]
            data[:HEADER_SIZE] = layout.pack_header(len(data), time.time(), 1)
    return bytes(data)


@pytest.fixture
def silence() -> Iterator[None]:
    """Refusals are said; not ten thousand times into a test's output."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("silence")
def test_ten_thousand_mutated_pages(tmp_path: Path) -> None:
    """Each is read or refused, shown or not, and left where it is; a reader's memory does not grow with them."""
    rng = random.Random(7)
    contents = [good_page(tmp_path, bitmaps) for bitmaps in (True, False, False, False, False)]
    shown = Exposer(Reader(tmp_path), {})
    sizes, refused = [], 0
    for batch in range(200):
        paths = [tmp_path / f"worker-{batch}-{number}.page" for number in range(50)]
        pages = []
        for number, path in enumerate(paths):
            path.write_bytes(mutated(contents[number % 5], rng))
            pages.append(path.open())
            if number % 2:  # it seems to live
                fcntl.flock(pages[-1], fcntl.LOCK_EX)
        text = shown.text(openmetrics=bool(batch % 2))
        refused += int(text.partition("\nanvil_monitor_pages_refused ")[2].split()[0])
        for page, path in zip(pages, paths, strict=True):
            page.close()
            path.unlink(missing_ok=True)
        for name in ("retired", "retired.damaged"):
            (tmp_path / name).unlink(missing_ok=True)
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert 1000 < refused < 9000
    assert sizes[-1] < sizes[20] + 30_000_000


@pytest.mark.usefixtures("silence")
@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_no_harm(content: bytes, header: bool) -> None:
    """A file of any bytes, with a header that fits or not, as a worker's page and as the retired page."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if header:
            content = content[: len(content) - len(content) % 8]
            content = layout.pack_header(HEADER_SIZE + len(content), 0.0, 1) + content
        for file in ("worker-a.page", "retired"):
            (folder / file).write_bytes(content)
        assert "anvil_monitor_workers 0\n" in Exposer(Reader(folder), {}).text()


@pytest.mark.usefixtures("silence")
def test_a_page_of_the_largest_size_takes_bounded_time_and_memory(tmp_path: Path) -> None:
    """Sixteen megabytes of the smallest records, or of one length that is a lie: refused at once."""
    smallest = layout.record(b'["folded","",[],[]]', [])
    body = smallest * ((layout.HEADER_SIZE + (15 << 20)) // len(smallest))
    sparse = tmp_path / "worker-sparse.page"
    sparse.write_bytes(layout.pack_header(1 << 40, 0.0, 1))
    os.truncate(sparse, 1 << 40)
    (tmp_path / "worker-many.page").write_bytes(layout.pack_header(HEADER_SIZE + len(body), 0.0, 1) + body)
    tracemalloc.start()
    try:
        totals = Reader(tmp_path).totals()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert totals.refused == 2
    assert peak < 80_000_000


def test_a_page_of_another_boot_has_no_ages(tmp_path: Path) -> None:
    """The monotonic clock began again: of what the last boot's workers left, only lasting values count."""
    page = Page.in_folder(tmp_path)
    page.add(Key("oldest", HTTP_OLDEST.name))[0] = 1e7
    page.add(key("gauge_recent", "mine"))[:] = memoryview(struct.pack("2d", 5, 1e7)).cast("d")
    page.add(Key("users", HTTP_USERS.name)).cast("B")[:] = bytes([255]) * (8 * len(Key("users", "x").empty))
    page.add(key("counter", BEACONS.name, (("result", "taken"),)))[0] = 3
    page.close()
    for scrape in range(2):
        now = 12.0 + scrape
        totals = Reader(tmp_path, clock=lambda now=now: now).totals()
        assert (totals.oldest, totals.levels, totals.clients, totals.workers) == ({}, {}, 0, 0)
        assert list(totals.lasting.values()) == [[3]]


def test_a_time_in_the_future_is_no_age(tmp_path: Path) -> None:
    """An age is never below zero, whatever a live page says."""
    recorder = Recorder(tmp_path)
    recorder.oldest(HTTP_OLDEST).set(1e9)
    assert Reader(tmp_path, clock=lambda: 5.0).totals().oldest == {HTTP_OLDEST.name: 0.0}


class Workers(RuleBasedStateMachine):
    """Workers that record, die and are succeeded, and readers that look at any time, against a plain dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.workers = [Recorder(self.folder) for _ in range(3)]
        self.levels = [0.0] * 3
        self.counts: dict[str, float] = {}
        self.seen: dict[Key, list[float]] = {}
        self.reader = Reader(self.folder)
        self.shown = Exposer(Reader(self.folder), {})

    @rule(worker=st.integers(0, 2), name=st.sampled_from("abc"), amount=st.integers(0, 100))
    def count(self, worker: int, name: str, amount: int) -> None:
        self.workers[worker].counter(BEACONS, (name,)).add(amount)
        self.counts[name] = self.counts.get(name, 0) + amount

    @rule(worker=st.integers(0, 2), level=st.integers(-5, 5))
    def rise(self, worker: int, level: int) -> None:
        found = self.workers[worker].gauge(HTTP_ACTIVE, ("GET",))
        assert isinstance(found, Cell)
        found.add(level)
        self.levels[worker] += level

    @rule(worker=st.integers(0, 2), succeeded=st.booleans())
    def die(self, worker: int, succeeded: bool) -> None:
        self.workers[worker].close()
        self.workers[worker] = Recorder(self.folder)
        self.levels[worker] = 0
        if succeeded:
            self.workers[worker].counter(BEACONS, ("a",))
            self.counts.setdefault("a", 0)

    @rule()
    def fold(self) -> None:
        Reader(self.folder).fold()

    @rule()
    def look(self) -> None:
        lasting = self.reader.totals().lasting
        assert {each.labels[0][1]: values[0] for each, values in lasting.items()} == self.counts
        for each, values in self.seen.items():
            assert lasting[each][0] >= values[0]
        self.seen = lasting

    @invariant()
    def show(self) -> None:
        text = self.shown.text()
        for name, amount in self.counts.items():
            assert f'anvil_monitor_beacons_total{{result="{name}"}} {amount:g}\n' in text
        if "http_server_active_requests{" in text:
            assert f'http_server_active_requests{{http_request_method="GET"}} {sum(self.levels):g}\n' in text
        else:
            assert sum(map(math.fabs, self.levels)) == 0

    def teardown(self) -> None:
        for recorder in self.workers:
            recorder.close()
        shutil.rmtree(self.folder)


Workers.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestWorkers = Workers.TestCase
