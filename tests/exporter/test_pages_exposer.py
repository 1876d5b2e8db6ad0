"""The fast way from pages to text says what the plain way says, and a name is one family in the answer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from anvil_monitor.exporter.cells import Cell, Histogram
from anvil_monitor.exporter.exposer import Exposer
from anvil_monitor.exporter.exposition import Family, Sample, render
from anvil_monitor.exporter.layout import key
from anvil_monitor.exporter.merge import families
from anvil_monitor.exporter.names import (
    BEACONS,
    DB_DURATION,
    HTTP_ACTIVE,
    HTTP_DURATION,
    HTTP_OLDEST,
    PROCESS_COUNT,
    foreign,
)
from anvil_monitor.exporter.page import Page
from anvil_monitor.exporter.reader import Reader
from anvil_monitor.exporter.recorder import Recorder

EDGES = {HTTP_DURATION.name: (0.1, 0.2, 2.0)}
Read = dict[str, tuple[str, str, dict[tuple[str, tuple[tuple[str, str], ...]], float]]]


def read(text: str) -> Read:
    """Family → type, help, and each sample by name and labels, as Prometheus's own client reads it."""
    found: Read = {}
    for family in text_string_to_metric_families(text):
        assert family.name not in found, f"{family.name} is there twice"
        samples = [((each.name, tuple(sorted(each.labels.items()))), each.value) for each in family.samples]
        assert len(dict(samples)) == len(samples), f"a series of {family.name} is there twice"
        found[family.name] = family.type, family.documentation, dict(samples)
    return found


def plainly(folder: Path, edges: dict[str, tuple[float, ...]] = EDGES) -> Read:
    return read(render(families(Reader(folder).totals(), edges)))


def duration(recorder: Recorder, route: str, edges: tuple[float, ...] = EDGES[HTTP_DURATION.name]) -> Histogram:
    return recorder.histogram(HTTP_DURATION, ("GET", route, "200", ""), edges)


def gauge(recorder: Recorder, kind: str, value: float) -> None:
    found = recorder.series(kind, foreign(f"my_{kind}", "gauge", "Mine."), (("a", "b"),))  # type: ignore[arg-type]
    assert isinstance(found, Cell)
    found.set(value)


def test_every_kind_from_live_and_dead_workers(tmp_path: Path) -> None:
    """Two live workers with their series in another order, and two dead ones: the same as the plain way, to the bit."""
    shown = Exposer(Reader(tmp_path), EDGES)
    recorders = [Recorder(tmp_path) for _ in range(4)]
    for number, recorder in enumerate(recorders):
        for route in ("/a", "/b", "/c")[:: 1 if number % 2 else -1]:
            duration(recorder, route).record(0.05 * number)
        duration(recorder, f"/{number}").record(number)
        recorder.counter(BEACONS, ("taken",)).add(number + 0.5)
        recorder.gauge(HTTP_ACTIVE, ("GET",)).add(1)
        recorder.oldest(HTTP_OLDEST)
        for kind in ("gauge", "gauge_max", "gauge_min", "gauge_recent"):
            gauge(recorder, kind, number + 1)
        assert read(shown.text()) == plainly(tmp_path)
    recorders[0].close()
    recorders[1].close()
    assert read(shown.text()) == plainly(tmp_path)
    duration(recorders[2], "/a").record(0.15)
    found = read(shown.text())
    assert found == plainly(tmp_path)
    samples = found[HTTP_DURATION.name][2]
    labels = (("http_request_method", "GET"), ("http_response_status_code", "200"), ("http_route", "/a"))
    assert samples[f"{HTTP_DURATION.name}_count", labels] == 5
    assert samples[f"{HTTP_DURATION.name}_bucket", tuple(sorted((*labels, ("le", "0.1"))))] == 3
    assert found["my_gauge"][2]["my_gauge", (("a", "b"),)] == 7


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(("histogram", "other edges", "counter", "gauge", "gauge_max", "gauge_recent", "close", "zero")),
        st.integers(0, 2), st.integers(0, 3), st.floats(0, 10),
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_whatever_workers_do_it_equals_the_plain_way(
    actions: list[tuple[str, int, int, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After each of any series of actions of three workers, one exposer that is kept equals a plain reading."""
    folder = tmp_path_factory.mktemp("pages")
    shown = Exposer(Reader(folder), EDGES)
    workers = [Recorder(folder) for _ in range(3)]
    for action, worker, series, value in actions:
        recorder, route = workers[worker], f"/{series}"
        if action == "histogram":
            duration(recorder, route).record(value)
        elif action == "other edges":
            duration(recorder, route, (0.15, 5.0)).record(value)
        elif action == "zero":
            duration(recorder, route)
        elif action == "counter":
            recorder.counter(BEACONS, (route,)).add(value)
        elif action == "close":
            recorder.close()
            workers[worker] = Recorder(folder)
        else:
            gauge(recorder, action, value)
        got, expected = read(shown.text()), plainly(folder)
        assert {name: (kind, list(values)) for name, (kind, _, values) in got.items()}.keys() == expected.keys()
        for name, (kind, told, values) in expected.items():
            assert got[name][:2] == (kind, told)
            assert got[name][2] == pytest.approx(values)


def test_a_series_appears_with_its_first_value(tmp_path: Path) -> None:
    """A histogram that was opened and has counted nothing is not shown; then it is, without a new plan."""
    recorder = Recorder(tmp_path)
    shown = Exposer(Reader(tmp_path), EDGES)
    one, two = duration(recorder, "/a"), duration(recorder, "/b")
    assert HTTP_DURATION.name not in read(shown.text())
    two.record(1)
    assert {labels for _, labels in read(shown.text())[HTTP_DURATION.name][2]} == {
        labels for _, labels in plainly(tmp_path)[HTTP_DURATION.name][2]
    }
    one.record(1)
    assert read(shown.text()) == plainly(tmp_path)
    assert read(shown.text())[HTTP_DURATION.name][2] != {}


def test_a_plan_is_kept_until_the_layout_changes(tmp_path: Path) -> None:
    """Values change nothing, nor does the format; a new series, worker or dead worker does."""
    recorder = Recorder(tmp_path)
    shown = Exposer(Reader(tmp_path), EDGES)
    plans = []

    def scrape() -> object:
        shown.text()
        shown.text(openmetrics=True)
        assert shown._plan is not None
        plans.append(shown._plan[1])  # kept, so that no other gets its address
        return plans[-1]

    duration(recorder, "/a").record(1)
    first = scrape()
    duration(recorder, "/a").record(1)
    assert scrape() is first
    duration(recorder, "/b")
    second = scrape()
    assert second is not first
    Page.in_folder(tmp_path).close()
    third = scrape()
    assert third is not second
    assert scrape() is third


@pytest.mark.parametrize("openmetrics", [False, True])
def test_other_families_of_the_same_name_are_merged(tmp_path: Path, openmetrics: bool) -> None:
    """A collector's or a process's family that pages have too is there once; of one series the page's value stands."""
    recorder = Recorder(tmp_path)
    mine = foreign("mine", "gauge", "Mine.")
    recorder.series("gauge", mine, (("a", "1"),)).set(1)  # type: ignore[union-attr]
    shown = Exposer(Reader(tmp_path), EDGES)
    pids: list[tuple[int, ...]] = []

    def others(found: tuple[int, ...]) -> list[Family]:
        pids.append(found)
        return [
            Family(mine, [Sample("", (("a", "1"),), 8), Sample("", (("a", "2"),), 2)]),
            Family(foreign("mine", "counter", "No."), [Sample("", (("a", "3"),), 3)]),
            Family(PROCESS_COUNT, [Sample("", (), 4)]),
        ]

    extra: Callable[[tuple[int, ...]], list[Family]]
    for extra in (others, others):
        text = shown.text(openmetrics, extra=extra)
        assert text.count("# TYPE mine gauge\n") == 1
        assert 'mine{a="1"} 1\nmine{a="2"} 2\n' in text
        assert 'a="3"' not in text
        assert "process_count 4\n" in text
    assert pids == [(os.getpid(),)] * 2
    assert 'mine{a="1"} 1\n' in shown.text()


def test_a_page_in_no_file_is_shown_too(tmp_path: Path) -> None:
    """The worker that could make no page file shows its own numbers and says so."""
    (tmp_path / "file").write_text("in the way")
    recorder = Recorder(tmp_path / "file" / "pages")
    duration(recorder, "/a").record(1)
    assert recorder.page is not None
    text = Exposer(Reader(recorder.folder), EDGES).text(private=recorder.page.bytes())
    assert 'http_route="/a"} 1\n' in text
    assert "anvil_monitor_private_page 1\n" in text


def test_numbers_that_are_none(tmp_path: Path) -> None:
    """Somebody wrote nonsense into a page's values: a text comes out that parsers read."""
    recorder = Recorder(tmp_path)
    series = duration(recorder, "/a")
    series.record(1)
    shown = Exposer(Reader(tmp_path), EDGES)
    for value in (float("nan"), float("inf"), 1e300, 5e-324):
        series.cells[0] = series.cells[1] = value
        assert read(shown.text()).keys() == plainly(tmp_path).keys()


def test_nothing_recorded(tmp_path: Path) -> None:
    """Without any page the answer is the instrument's own state."""
    assert read(Exposer(Reader(tmp_path / "none"), {}).text()).keys() == {
        "anvil_monitor_workers", "anvil_monitor_pages_refused", "anvil_monitor_private_page",
    }  # fmt: skip


def test_more_workers_than_maps_can_nest(tmp_path: Path) -> None:
    """A hundred live workers add up."""
    recorders = [Recorder(tmp_path) for _ in range(100)]
    for recorder in recorders:
        recorder.histogram(DB_DURATION, ("sqlite", "SELECT", "t"), (1.0,)).record(0.5)
    text = Exposer(Reader(tmp_path), {}).text()
    assert 'le="+Inf"} 100\n' in text
    assert "anvil_monitor_workers 100\n" in text


def test_a_record_twice_in_a_page_counts_twice(tmp_path: Path) -> None:
    """No writer of ours does that; still both ways say the same."""
    page = Page.in_folder(tmp_path)
    for _ in range(2):
        page.add(key("counter", BEACONS.name, (("result", "taken"),)))[0] = 2
    assert 'anvil_monitor_beacons_total{result="taken"} 4\n' in Exposer(Reader(tmp_path), {}).text()
