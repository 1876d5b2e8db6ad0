"""The engine's edges: types of answers, limits, bad queries, threads."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest

from anvil_monitor.monitoring.promql import (
    Engine,
    Matrix,
    QueryError,
    Sample,
    Scalar,
    Text,
    Vector,
    check,
    number_text,
)
from anvil_monitor.monitoring.samples import labels_of
from anvil_monitor.monitoring.store import Store


def engine_with(samples: int = 120, series: int = 3) -> Engine:
    store = Store()
    for at in range(samples):
        store.append(at * 5000, [(labels_of(__name__="m", n=str(one)), float(at + one)) for one in range(series)])
    return Engine(store)


def test_an_instant_query_answers_by_type() -> None:
    """Number, text, vector and matrix come as their own types, with times in seconds (a matrix: milliseconds)."""
    engine = engine_with()
    assert engine.instant("1 + 1", 7.5) == Scalar(7.5, 2.0)
    assert engine.instant("'a'", 7.5) == Text(7.5, "a")
    assert engine.instant('m{n="1"} * 2', 10) == Vector([Sample((("n", "1"),), 10.0, 6.0)])
    matrix = engine.instant('m{n="1"}[10s]', 10)
    assert isinstance(matrix, Matrix)
    assert matrix.series[0].timestamps.tolist() == [5000, 10000]
    assert matrix.series[0].values.tolist() == [2.0, 3.0]


def test_a_range_query_answers_sorted_series_with_gaps_left_out() -> None:
    """Steps without a sample are not in the series."""
    found = engine_with().range("m > 10", 0, 60, 15)
    assert [dict(one.labels)["n"] for one in found.series] == ["0", "1", "2"]
    assert found.series[0].timestamps.tolist() == [60000]
    assert found.series[2].timestamps.tolist() == [45000, 60000]


@pytest.mark.parametrize(
    "query",
    ["", "sum(", "rate(m)", "m{", "nofunction(m)", "1 == 1", "m offset", "m{x=~'('}", "m + 'a'", "m[5m] + 1", "{}"],
)
def test_a_query_that_cannot_be_read_is_bad_data(query: str) -> None:
    """Every fault of the text is a QueryError of kind bad_data, from check() as from the engine."""
    with pytest.raises(QueryError) as caught:
        check(query)
    assert caught.value.kind == "bad_data"


@pytest.mark.parametrize(
    "query",
    [
        "(" * 5000 + "m" + ")" * 5000,
        "-" * 9000 + "m",
        "m+" * 9000 + "m",
        "abs(" * 4000 + "m" + ")" * 4000,
        "m" * 200_000,
    ],
    ids=["brackets", "minuses", "sums", "calls", "long"],
)
def test_a_bomb_of_a_query_is_refused(query: str) -> None:
    """Nesting that would end the process inside the parser is refused before it gets there."""
    with pytest.raises(QueryError) as caught:
        check(query)
    assert caught.value.kind == "bad_data"
    assert len(str(caught.value)) < 1000


def test_operators_inside_strings_and_braces_do_not_count_as_nesting() -> None:
    """A long regular expression is not a deep query."""
    check('m{a=~"' + "|".join(["x+"] * 500) + '"} > 1')


def test_times_before_1970_and_far_away_are_times() -> None:
    """The parser panics on a negative @ and overflows on a huge one: here they are just times without samples."""
    engine = engine_with()
    assert engine.instant("m @ -3", 10) == Vector([])
    assert engine.instant("m @ 99999999999999", 10) == Vector([])
    assert engine.instant("max(m @ 1.5)", 10) == Vector([Sample((), 10.0, 2.0)])


def test_what_the_parser_reads_beyond_promql_is_refused() -> None:
    """MetricsQL's or-matchers and what we lack say so instead of giving something else."""
    for query in ('m{a="1" or b="2"}', "limit_ratio(0.5, m)"):
        with pytest.raises(QueryError, match="not"):
            engine_with().instant(query, 10)


def test_limits_of_a_range_query() -> None:
    """11,000 points a series, an end after the start, a step above zero, no range vector."""
    engine = engine_with()
    for query, start, end, step in (("m", 0, 11_001, 1), ("m", 10, 0, 1), ("m", 0, 10, 0), ("m[5m]", 0, 10, 1)):
        with pytest.raises(QueryError) as caught:
            engine.range(query, start, end, step)
        assert caught.value.kind == "bad_data"
    for value in (math.nan, math.inf):
        with pytest.raises(QueryError):
            engine.instant("1", value)


def test_a_query_may_not_hold_too_many_samples() -> None:
    """Also not through a subquery with a tiny step."""
    store = Store()
    store.append(0, [(labels_of(__name__="m", n=str(one)), 1.0) for one in range(100)])
    engine = Engine(store, max_samples=1000)
    with pytest.raises(QueryError) as caught:
        engine.range("m", 0, 100, 1)
    assert caught.value.kind == "execution"
    with pytest.raises(QueryError):
        engine.instant("count_over_time(vector(1)[10y:1ms])", 100)


def test_a_query_past_its_time_ends() -> None:
    """The kind of the error is timeout."""
    with pytest.raises(QueryError) as caught:
        engine_with().instant("sum(rate(m[1m]))", 100, timeout=-1)
    assert caught.value.kind == "timeout"


def test_wide_windows_end_in_time_too() -> None:
    """A range of a day over thousands of steps is left off at the deadline, not after it."""
    store = Store()
    for at in range(20_000):
        store.append(at * 5000, [(labels_of(__name__="m", n=str(one)), float(at % 7)) for one in range(5)])
    begun = time.monotonic()
    with pytest.raises(QueryError) as caught:
        Engine(store, timeout=0.3).range("quantile_over_time(0.9, m[1d])", 90_000, 100_000, 1)
    assert caught.value.kind == "timeout"
    assert time.monotonic() - begun < 10


def test_lookback_and_subquery_step_are_settings() -> None:
    """Both are given in seconds."""
    store = Store()
    store.append(0, [(labels_of(__name__="m"), 1.0)])
    assert Engine(store, lookback=10).instant("m", 10) == Vector([])
    assert Engine(store, lookback=10).instant("m", 9.999) != Vector([])
    assert Engine(store, subquery_step=5).instant("count_over_time(vector(1)[20s:])", 20) == Vector(
        [Sample((), 20, 4.0)]
    )


def test_a_large_group_and_wide_windows_agree_with_plain_python() -> None:
    """Sums over many series and samples are right to 1e-12 of their size."""
    choice = np.random.default_rng(1)
    values = choice.normal(1e6, 1e5, (40, 300))
    store = Store()
    for at in range(300):
        store.append(at * 1000, [(labels_of(__name__="m", n=str(row)), float(values[row, at])) for row in range(40)])
    engine = Engine(store)
    total = engine.instant("sum(sum_over_time(m[5m]))", 299)
    assert isinstance(total, Vector)
    assert total.samples[0].value == pytest.approx(math.fsum(values.ravel().tolist()), rel=1e-12)
    variance = engine.instant("stdvar_over_time(m{n='7'}[5m])", 299)
    assert isinstance(variance, Vector)
    assert variance.samples[0].value == pytest.approx(float(np.var(values[7])), rel=1e-10)


def test_topk_keeps_among_equals_what_prometheus_heap_keeps() -> None:
    """Two of the values 1, 1, 2: the heap gives up the first 1, so the second stays."""
    store = Store()
    store.append(0, [(labels_of(__name__="m", n=name), value) for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0))])
    found = Engine(store).instant("topk(2, m)", 0)
    assert isinstance(found, Vector)
    assert [dict(one.labels)["n"] for one in found.samples] == ["c", "b"]


def test_queries_run_while_another_thread_appends_and_trims() -> None:
    """A reader sees whole samples: the sum of two series that always cancel stays 0."""
    store = Store()
    engine = Engine(store)
    plus, minus = labels_of(__name__="m", s="plus"), labels_of(__name__="m", s="minus")
    stop = threading.Event()
    faults: list[Exception] = []

    def write() -> None:
        try:
            for at in range(1, 20_000):
                if stop.is_set():
                    break
                store.append(at * 1000, [(plus, float(at)), (minus, float(-at))])
                if at % 50 == 0:
                    store.trim((at - 100) * 1000)
        except Exception as error:  # noqa: BLE001  (told to the main thread)
            faults.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            found = engine.instant("sum(m)", 20_000)
            assert isinstance(found, Vector)
            assert all(sample.value == 0 for sample in found.samples)
            engine.instant("sum_over_time(m[1h])", 20_000)
    finally:
        stop.set()
        writer.join(10)
    assert not faults


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (-0.0, "-0"),
        (0.1, "0.1"),
        (1e21, "1e+21"),
        (123456789012345680000.0, "123456789012345680000"),
        (1e-7, "1e-07"),
        (1.5e-10, "1.5e-10"),
        (0.000001, "0.000001"),
        (math.nan, "NaN"),
        (-math.inf, "-Inf"),
        (1e308, "1e+308"),
    ],
)
def test_numbers_are_written_as_prometheus_writes_them(value: float, text: str) -> None:
    """The shortest digits; an exponent below 1e-6 and from 1e21 on."""
    assert number_text(value) == text


def test_a_query_is_left_off_when_nobody_wants_it_any_more() -> None:
    """The kind of the error is canceled, with Prometheus' text."""
    cancel = threading.Event()
    engine = engine_with()
    assert engine.instant("m", 10, cancel=cancel)
    cancel.set()
    for ask in (
        lambda: engine.instant("sum(rate(m[1m]))", 100, cancel=cancel),
        lambda: engine.range("m", 0, 100, 5, cancel=cancel),
    ):
        with pytest.raises(QueryError, match="query was canceled in expression evaluation") as caught:
            ask()
        assert caught.value.kind == "canceled"


def test_limits_are_told_as_prometheus_tells_them() -> None:
    """Time, samples and points: the texts that clients know."""
    engine = engine_with()
    with pytest.raises(QueryError, match="query timed out in expression evaluation"):
        engine.instant("m", 10, timeout=-1)
    with pytest.raises(QueryError, match=r"exceeded maximum resolution of 11,000 points per timeseries\. Try"):
        engine.range("m", 0, 20_000, 1)
    small = Engine(engine._storage, max_samples=10)
    with pytest.raises(QueryError, match="query processing would load too many samples into memory in query execution"):
        small.instant("m[10m]", 500)


@pytest.mark.parametrize(
    ("query", "warnings", "infos"),
    [
        ("m", (), ()),
        ("quantile(1.5, m)", ("PromQL warning: quantile value should be between 0 and 1, got 1.5",), ()),
        ("quantile_over_time(NaN, m[1m])", ("PromQL warning: quantile value should be between 0 and 1, got NaN",), ()),
        (
            "histogram_quantile(-Inf, m)",
            (
                "PromQL warning: quantile value should be between 0 and 1, got -Inf",
                'PromQL warning: bucket label "le" is missing or has a malformed value of "" for metric name "m"',
            ),
            (),
        ),
        (
            "rate(m[1m])",
            (),
            ('PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "m"',),
        ),
    ],
)
def test_an_answer_tells_of_likely_mistakes(query: str, warnings: tuple[str, ...], infos: tuple[str, ...]) -> None:
    """Warnings and infos come with the value, each once, in Prometheus' words; from a range query as well."""
    engine = engine_with()
    for value in (engine.instant(query, 100), engine.range(query, 100, 200, 15)):
        assert (value.warnings, value.infos) == (warnings, infos)


def test_sorting_a_range_is_warned_of_and_annotations_are_bounded() -> None:
    """At most ten of a kind, and how many more there were."""
    engine = engine_with()
    assert engine.range("sort(m)", 0, 60, 15).warnings == (
        "PromQL warning: sort is ineffective for range queries since results are always ordered by labels",
    )
    store = Store()
    store.append(1000, [(labels_of(__name__="h", le=f"x{one:02}"), 1.0) for one in range(30)])
    warnings = Engine(store).instant("histogram_quantile(0.5, h)", 2).warnings
    assert len(warnings) == 11
    assert warnings[-1] == "20 more warning annotations omitted"


def test_names_are_dropped_at_once_unless_asked_otherwise() -> None:
    """With delayed removal a dropped name can still be grouped by, and is gone from the answer."""
    store = Store()
    for at in range(10):
        both = [(labels_of(__name__=name, env="1"), at * 60.0) for name in ("a_total", "b_total")]
        store.append(at * 60_000, both)
    query = 'sum by (env) (rate({env="1"}[5m]))'
    with pytest.raises(QueryError, match="same labelset"):
        Engine(store).instant(query, 540)
    assert Engine(store, delayed_name_removal=True).instant(query, 540) == Vector([Sample((("env", "1"),), 540.0, 2.0)])
