"""Series of metrics that are not ours: a page says what they are, and any reader shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from anvil_monitor.exporter import layout
from anvil_monitor.exporter.cells import Cell, Histogram
from anvil_monitor.exporter.exposition import render
from anvil_monitor.exporter.layout import SeriesKind
from anvil_monitor.exporter.merge import families
from anvil_monitor.exporter.names import HTTP_ACTIVE, foreign
from anvil_monitor.exporter.page import Page
from anvil_monitor.exporter.reader import Reader
from anvil_monitor.exporter.recorder import MAX_OVERFLOW, Recorder
from anvil_monitor.exporter.retired import FOREIGN_OVERFLOW, RETIRED

JOBS = foreign("jobs_total", "counter", "Jobs that\nwere \\ done.")
WAIT = foreign("queue_wait_seconds", "histogram", "Wait.", "seconds")
DEPTH = foreign("queue_depth", "gauge", "Depth.")


def cell(recorder: Recorder, kind: SeriesKind, *pairs: tuple[str, str]) -> Cell:
    found = recorder.series(kind, DEPTH if kind.startswith("gauge") else JOBS, pairs)
    assert isinstance(found, Cell)
    return found


def shown(folder: Path) -> dict[str, dict[str, float]]:
    """Family → sample with labels → value, of the users' own metrics, as Prometheus's own client reads them."""
    text = render(families(Reader(folder).totals(), {}))
    return {
        family.name: {
            f"{sample.name}{sample.labels or ''}": sample.value for sample in family.samples
        }
        for family in text_string_to_metric_families(text)
        if not family.name.startswith("anvil_monitor") and family.name != "http_server_active_users"
    }  # fmt: skip


def test_a_metric_of_the_users_own_is_shown_by_any_process(tmp_path: Path) -> None:
    """Type, help and labels come from the page; a reader needs to know nothing before."""
    recorder = Recorder(tmp_path)
    cell(recorder, "counter", ("queue", 'a"b\\'), ("tenant", "x")).add(2)
    waits = recorder.series("histogram", WAIT, (("queue", "a"),), (0.1, 1.0))
    assert isinstance(waits, Histogram)
    waits.record(0.5)
    text = render(families(Reader(tmp_path).totals(), {}))
    assert "# HELP jobs_total Jobs that\\nwere \\\\ done.\n# TYPE jobs_total counter\n" in text
    assert 'jobs_total{queue="a\\"b\\\\",tenant="x"} 2\n' in text
    assert 'queue_wait_seconds_bucket{queue="a",le="1.0"} 1\n' in text
    assert Reader(tmp_path).totals().metrics["queue_wait_seconds"] == WAIT


def test_the_order_of_labels_makes_no_series(tmp_path: Path) -> None:
    """Pairs in any order are one series; a pair with an empty value is absent."""
    recorder = Recorder(tmp_path)
    one = cell(recorder, "counter", ("a", "1"), ("b", "2"))
    assert cell(recorder, "counter", ("b", "2"), ("a", "1")) is one
    assert cell(recorder, "counter", ("b", "2"), ("c", ""), ("a", "1")) is one
    assert recorder.counter(HTTP_ACTIVE_LIKE, ("GET",)) is recorder.series(
        "counter", HTTP_ACTIVE_LIKE, (("http_request_method", "GET"),)
    )


HTTP_ACTIVE_LIKE = foreign("requests_total", "counter", "")
object.__setattr__(HTTP_ACTIVE_LIKE, "labels", HTTP_ACTIVE.labels)


def test_the_metric_is_described_once_a_page(tmp_path: Path) -> None:
    """However many series it has, and in a forked child's page again."""
    recorder = Recorder(tmp_path)
    for number in range(10):
        cell(recorder, "counter", ("n", str(number)))
    assert recorder.page is not None
    assert recorder.page.bytes().count(b'["metric","jobs_total"') == 1
    recorder.renew()
    assert recorder.page.bytes().count(b'["metric","jobs_total"') == 1


@pytest.mark.parametrize(
    ("kind", "expected"), [("gauge", 12.0), ("gauge_max", 7.0), ("gauge_min", 2.0), ("gauge_recent", 2.0)]
)
def test_levels_over_workers(tmp_path: Path, kind: SeriesKind, expected: float) -> None:
    """The sum, the greatest, the least or the one set last of the workers that have set it and live."""
    one, two, three, never = (Recorder(tmp_path) for _ in range(4))
    cell(two, kind)
    cell(one, kind).set(3)
    cell(three, kind).set(7)
    cell(two, kind).add(2)
    cell(never, kind)
    assert shown(tmp_path) == {"queue_depth": {"queue_depth": expected}}
    for recorder in (one, two, three):
        recorder.close()
    assert shown(tmp_path) == ({"queue_depth": {"queue_depth": 0.0}} if kind == "gauge" else {})


def test_a_dead_worker_leaves_its_own_metrics_behind(tmp_path: Path) -> None:
    """Counters and histograms of the users' own, and what they are, go into the retired page."""
    recorder = Recorder(tmp_path)
    cell(recorder, "counter", ("a", "b")).add(3)
    cell(recorder, "gauge").set(3)
    recorder.close()
    for _ in range(2):
        assert shown(tmp_path) == {"jobs": {"jobs_total{'a': 'b'}": 3}}
    assert b"queue_depth" not in (tmp_path / RETIRED).read_bytes()


def test_workers_that_disagree(tmp_path: Path) -> None:
    """A metric whose type and edges a new release changed: the youngest worker is right, nothing is shown twice."""
    old = Recorder(tmp_path)
    old.series("counter", foreign("thing", "counter", "Old."), ()).add(1)  # type: ignore[union-attr]
    waits = old.series("histogram", WAIT, (), (0.1, 1.0))
    waits.record(0.5)  # type: ignore[union-attr]
    new = Recorder(tmp_path)
    new.series("gauge", foreign("thing", "gauge", "New."), ()).set(5)  # type: ignore[union-attr]
    new.series("histogram", WAIT, (), (0.2, 2.0)).record(0.1)  # type: ignore[union-attr]
    found = shown(tmp_path)
    assert found["thing"] == {"thing": 5}
    assert found["queue_wait_seconds"]["queue_wait_seconds_bucket{'le': '0.2'}"] == 1
    assert found["queue_wait_seconds"]["queue_wait_seconds_bucket{'le': '2.0'}"] == 2


@pytest.mark.parametrize(
    ("kind", "metric", "pairs", "edges"),
    [
        ("counter", foreign("bad name", "counter", ""), (), ()),
        ("counter", foreign('x{a="b"} 1\ny', "counter", ""), (), ()),
        ("counter", JOBS, (("a-b", "1"),), ()),
        ("counter", JOBS, (("a", "1"), ("a", "2")), ()),
        ("counter", JOBS, (), (1.0,)),
        ("gauge", JOBS, (), ()),
        ("histogram", WAIT, (("le", "1"),), (1.0,)),
        ("histogram", WAIT, (), (2.0, 1.0)),
        ("histogram", WAIT, (), (1.0, float("inf"))),
        ("folded", JOBS, (), ()),
    ],
)
def test_what_prometheus_does_not_have_is_no_series(
    tmp_path: Path, kind: SeriesKind, metric: object, pairs: layout.Pairs, edges: tuple[float, ...]
) -> None:
    """Names, labels, edges and types that would spoil the whole answer are the caller's error, and leave no trace."""
    recorder = Recorder(tmp_path)
    with pytest.raises(ValueError, match=r"name|label|edges|is a"):
        recorder.series(kind, metric, pairs, edges)  # type: ignore[arg-type]
    assert recorder.page is None


def test_one_type_a_name(tmp_path: Path) -> None:
    """Who registers a metric first in a process says what it is."""
    recorder = Recorder(tmp_path)
    cell(recorder, "counter")
    with pytest.raises(ValueError, match="jobs_total is a counter, no gauge"):
        recorder.series("gauge", foreign("jobs_total", "gauge", ""), ())


def test_labels_of_any_text(tmp_path: Path) -> None:
    """Lone surrogates are replaced and a label longer than a page's keys goes to the overflow; the rest is shown."""
    recorder = Recorder(tmp_path)
    cell(recorder, "counter", ("a", "\ud800é\x00")).add(1)
    cell(recorder, "counter", ("a", "x" * layout.MAX_KEY)).add(1)
    assert shown(tmp_path)["jobs"] == {
        "jobs_total{'a': '?é\\x00'}": 1,
        "jobs_total{'otel_metric_overflow': 'true'}": 1,
    }


def test_overflow_is_bounded_too(tmp_path: Path) -> None:
    """Neither label sets, label names nor metric names by the thousand make a page grow without end."""
    recorder = Recorder(tmp_path, max_series=5)
    for number in range(2000):
        series = recorder.series("counter", foreign(f"m{number}_total", "counter", ""), ((f"l{number}", "x"),))
        assert isinstance(series, Cell)
        series.add(1)
        assert recorder.remembers(series) is (number < 3)
        waits = recorder.series("histogram", foreign(f"m{number}_seconds", "histogram", ""), (), (1.0, 2.0))
        assert isinstance(waits, Histogram)
        waits.record(1.5)
    found = Reader(tmp_path).totals().lasting
    assert len(found) < MAX_OVERFLOW + 10
    assert sum(key.labels == FOREIGN_OVERFLOW for key in found) > 100
    recorder.renew()
    recorder.series("counter", foreign("m9_total", "counter", ""), ()).add(1)  # type: ignore[union-attr]


def test_the_pids_of_live_workers(tmp_path: Path) -> None:
    """A reader knows which processes to look at; a dead one is none."""
    recorder = Recorder(tmp_path)
    cell(recorder, "counter")
    Page.in_folder(tmp_path).close()
    assert Reader(tmp_path).totals().pids == (os.getpid(),)
    recorder.close()
    assert Reader(tmp_path).totals().pids == ()
