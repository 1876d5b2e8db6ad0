"""Worker pages: what is written is read; what is no page is refused."""

from __future__ import annotations

import logging
import sys
import sysconfig
import threading
from pathlib import Path

import pytest

from anvil_monitor.exporter import layout
from anvil_monitor.exporter.cells import (
    CELL,
    FREE_THREADED,
    Cell,
    Histogram,
    LockedCell,
    LockedExtremeCell,
    LockedHistogram,
    LockedRecentCell,
)
from anvil_monitor.exporter.layout import Key, key
from anvil_monitor.exporter.merge import families
from anvil_monitor.exporter.names import DB_DURATION, HTTP_ACTIVE, HTTP_DURATION, OVERFLOW, SERIES_OVERFLOW, foreign
from anvil_monitor.exporter.page import FIRST_SIZE, Page
from anvil_monitor.exporter.reader import Reader
from anvil_monitor.exporter.recorder import Recorder

EDGES = (0.1, 0.2)


LABELS = (("http_request_method", "GET"), ("http_response_status_code", "200"), ("http_route", "/"))


KEY = key("histogram", HTTP_DURATION.name, LABELS, EDGES)


def histogram(recorder: Recorder, route: str = "/") -> Histogram:
    return recorder.histogram(HTTP_DURATION, ("GET", route, "200", ""), EDGES)


def test_what_is_recorded_is_read(tmp_path: Path) -> None:
    """Values at an edge are in its bucket; counts, sum and levels come back as they were written."""
    recorder = Recorder(tmp_path)
    for value in (0.05, 0.1, 0.15, 0.2, 7.0):
        histogram(recorder).record(value)
    recorder.gauge(HTTP_ACTIVE, ("GET",)).add(2)
    totals = Reader(tmp_path).totals()
    assert totals.lasting[KEY] == [pytest.approx(7.5), 2, 2, 1]
    assert totals.levels == {Key("gauge", HTTP_ACTIVE.name, (("http_request_method", "GET"),)): 2}
    assert totals.workers == 1


def test_a_page_grows(tmp_path: Path) -> None:
    """Series beyond the first size move nothing: those opened before go on counting."""
    recorder = Recorder(tmp_path)
    first = histogram(recorder)
    first.record(0.05)
    for number in range(1000):
        histogram(recorder, f"/{number}").record(0.05)
    first.record(0.05)
    assert recorder.page is not None
    assert recorder.page.path is not None
    assert recorder.page.path.stat().st_size > FIRST_SIZE
    totals = Reader(tmp_path).totals()
    assert totals.lasting[KEY][1] == 2
    assert len(totals.lasting) == 1001


def test_beyond_the_cap_series_share_one(tmp_path: Path) -> None:
    """New label sets land in the overflow series, are counted there, and a self-metric says how often."""
    recorder = Recorder(tmp_path, max_series=2)
    for number in range(5):
        histogram(recorder, f"/{number}").record(0.05)
    histogram(recorder, "/0").record(0.05)
    totals = Reader(tmp_path).totals()
    overflow = tuple((label, OVERFLOW) for label in HTTP_DURATION.labels)
    assert totals.lasting[key("histogram", HTTP_DURATION.name, overflow, EDGES)][1] == 3
    assert totals.lasting[Key("counter", SERIES_OVERFLOW.name)] == [3]
    assert len(totals.lasting) == 4
    assert sum(values[1] for each, values in totals.lasting.items() if each.kind == "histogram") == 6


def dead_page(folder: Path, count: int) -> Path:
    page = Page.in_folder(folder)
    page.add(KEY)[1] = count
    page.close()
    assert page.path is not None
    return page.path


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("short", b"ANVLPAGE", "cut short: 8 bytes"),
        ("foreign", b"\x7fELF" + bytes(200), "not a page of anvil-monitor"),
        ("newer", layout.HEADER.pack(layout.MAGIC, 99, 64, 64, 0.0, 1), "a page of format 99, this version reads 2"),
        ("truncated", layout.pack_header(4096, 0.0, 1), "cut short: 4096 bytes are said to be used, the file has 64"),
        ("record", layout.pack_header(80, 0.0, 1) + layout.RECORD.pack(9999, 4) + bytes(8), "a record is damaged"),
        ("loop", layout.pack_header(80, 0.0, 1) + bytes(16), "a record is damaged"),
        ("tail", layout.pack_header(72, 0.0, 1) + bytes(8), "a record is damaged"),
        ("key", layout.pack_header(88, 0.0, 1) + layout.record(b"{}", [1.0]), "a record's key is damaged"),
        ("kind", layout.pack_header(96, 0.0, 1) + layout.record(b'["x","a",[],[]]', [1.0]), "key is damaged"),
        ("few", layout.pack_header(112, 0.0, 1) + layout.record(b'["histogram","a",[],[1]]', [1.0, 2.0]), "damaged"),
    ],
)  # fmt: skip
def test_what_is_no_page_is_refused(
    tmp_path: Path, name: str, content: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A short, foreign, newer or damaged file is said once with its reason, counted, left alone; the rest is read."""
    bad = tmp_path / f"worker-{name}.page"
    bad.write_bytes(content)
    recorder = Recorder(tmp_path)
    histogram(recorder).record(0.05)
    mine = Reader(tmp_path)
    for _ in range(2):
        totals = mine.totals()
        assert totals.lasting[KEY][1] == 1
        assert totals.refused == 1
    assert bad.read_bytes() == content
    assert len(caplog.records) == 1
    assert reason in caplog.text


def test_damage_anywhere_is_survived(tmp_path: Path) -> None:
    """Every single byte of a page changed, and every shorter length: read or refused, never an error."""
    path = dead_page(tmp_path, 7)
    content = path.read_bytes()[:300]
    path.unlink()
    logging.disable(logging.WARNING)
    try:
        for at in range(len(content)):
            for damaged in (content[:at], content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]):
                path.write_bytes(damaged)
                Reader(tmp_path).fold()
    finally:
        logging.disable(logging.NOTSET)


def test_threads_lose_nothing(tmp_path: Path) -> None:
    """Without a lock, and with the interpreter changing threads as often as it can: every record counts."""
    recorder = Recorder(tmp_path)
    greatest = recorder.series("gauge_max", foreign("greatest", "gauge", ""), ())
    latest = recorder.series("gauge_recent", foreign("latest", "gauge", ""), ())
    hammer(histogram(recorder), recorder.gauge(HTTP_ACTIVE, ("GET",)), greatest, latest)
    totals = Reader(tmp_path).totals()
    assert totals.lasting[KEY][1] == 160_000
    assert totals.lasting[KEY][0] == pytest.approx(8000)
    assert list(totals.levels.values()) == [0, 0, 0]


def test_series_for_an_interpreter_without_the_global_lock() -> None:
    """They do the same under a lock; this interpreter uses them only if it has no global lock."""
    cells = [memoryview(bytearray(8 * 5)).cast("d") for _ in range(4)]
    levels = (LockedCell(cells[1]), LockedExtremeCell(cells[2]), LockedRecentCell(cells[3]))
    hammer(LockedHistogram(cells[0], EDGES), *levels)
    assert list(cells[0])[1:] == [160_000, 0, 0, 0]
    assert [each[0] for each in cells[1:]] == [0, 0, 0]
    assert cells[3][1] > 0
    assert FREE_THREADED is (CELL is LockedCell) is (sysconfig.get_config_var("Py_GIL_DISABLED") == 1)


def hammer(counts: Cell | Histogram, *levels: Cell | Histogram) -> None:
    """Eight threads that record into all of them."""
    assert isinstance(counts, Histogram)

    def work() -> None:
        for _ in range(20_000):
            counts.record(0.05)
            for level in levels:
                assert isinstance(level, Cell)
                level.add(1)
                level.add(-1)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)


def test_other_edges_are_put_into_the_present_ones(tmp_path: Path) -> None:
    """After a change of a limit old counts stay, and never seem faster than they were."""
    old = Recorder(tmp_path).histogram(DB_DURATION, ("sqlite", "SELECT", "a"), (0.1, 0.3))
    for value in (0.05, 0.25, 5.0):
        old.record(value)
    found = families(Reader(tmp_path).totals(), {DB_DURATION.name: (0.1, 0.2, 0.4)})
    samples = next(family.samples for family in found if family.metric is DB_DURATION)
    assert [sample.value for sample in samples] == [1, 1, 2, 3, pytest.approx(5.3), 3]
