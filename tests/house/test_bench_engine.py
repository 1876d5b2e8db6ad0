"""The bench of the engine asks both the same questions about the same samples, and tells when answers differ."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIZE = (50, 600)


@pytest.fixture(autouse=True)
def _bench_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(ROOT)


@pytest.mark.needs("prometheus")
def test_both_sides_answer_the_sixteen_queries_alike(tmp_path: Path) -> None:
    """On little data: every query gives the same series, times and values (1e-9), and each range finds something."""
    from bench.engine import asked

    found = asked.measure(SIZE, 1, 1, tmp_path, [], lambda *_: None)
    assert len(found.asked) == 16
    assert found.wrong == []
    assert [one.name for one in found.asked if one.path == "query_range" and not one.points] == []
    assert all(seconds > 0 for one in found.asked for seconds in (*one.ours, *one.theirs, *one.inside))


def test_the_same_arguments_give_the_same_samples_off_the_bounds_of_windows() -> None:
    """Histograms are cumulative, counters fall at restarts only, no sample lies on a whole second."""
    import numpy as np

    from bench.engine.data import LE, PER_HISTOGRAM, make

    one, other = make(1000, 900), make(1000, 900)
    assert 900 < one.series < 1100
    for source, same in zip(one.sources, other.sources, strict=True):
        assert np.array_equal(source.values, same.values)
        assert np.array_equal(source.times, same.times)
        assert (source.times % 1000 != 0).all()
        assert (np.diff(source.times) > 0).all()
        assert len(set(source.labels)) == len(source.labels)
    buckets = one.sources[0].values[:, : len(LE)]
    assert (np.diff(buckets, axis=1) >= 0).all()
    fell = np.flatnonzero((np.diff(one.sources[0].values[:, : PER_HISTOGRAM * 3], axis=0) < 0).any(axis=1))
    assert 1 <= len(fell) <= 2


def test_a_history_is_opened_whole(tmp_path: Path) -> None:
    """Every series of the hours that were written is there each time; otherwise the bench ends with an error."""
    from bench.engine import opening

    found = opening.measure(50, 3, 2, tmp_path, lambda *_: None)
    assert (found.hours, len(found.seconds)) == (3, 2)
    assert found.size > 0


def test_answers_that_differ_are_told() -> None:
    """A value beside the bound, a series and a time that the other lacks; two NaNs are the same."""
    from bench.engine.compare import difference, read

    def answer(values: list[list[object]], **metric: str) -> bytes:
        return json.dumps({"data": {"resultType": "matrix", "result": [{"metric": metric, "values": values}]}}).encode()

    base = read(answer([[1, "2"], [2, "NaN"]], a="b"))
    assert difference(base, read(answer([[1, "2"], [2, "NaN"]], a="b"))) == 0
    assert difference(base, read(answer([[1, "2.00001"], [2, "NaN"]], a="b"))) == pytest.approx(5e-6, rel=1e-3)
    assert difference(base, read(answer([[1, "2"], [2, "1"]], a="b"))) == math.inf
    assert difference(base, read(answer([[1, "2"]], a="b"))) == math.inf
    assert difference(base, read(answer([[1, "2"], [2, "NaN"]], a="c"))) == math.inf


def test_what_the_bench_scrapes_is_the_data() -> None:
    """The exporter's text, read by our parser, gives the series of the source, its type lines said once."""
    from anvil_monitor.monitoring.parse import Parser
    from bench.engine.data import SERVICE, make
    from bench.engine.exporter import texts

    source = make(100, 60, instances=1).sources[0]
    added = {"job": "server", "service": SERVICE, "instance": "10.0.0.1:8000"}
    lines = [f"{text}1.0\n" for text in texts(source) if text]
    parser = Parser(added)
    present, _ = parser.parse("".join(lines))
    synthetic = ("up", "scrape_duration_seconds")
    assert sorted(present) == sorted(one for one in source.labels if dict(one)["__name__"] not in synthetic)
    assert "# TYPE http_server_request_duration_seconds histogram" in parser.comments
    assert sum(line.count("# TYPE http_server_request_duration_seconds ") for line in lines) == 1


def test_without_prometheus_it_says_what_to_install(tmp_path: Path) -> None:
    """--help has examples; without the peer nothing is measured, and docs/performance.md stays as it is."""
    line = [sys.executable, "-m", "bench", "engine"]
    helped = subprocess.run([*line, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert helped.returncode == 0
    assert "examples:" in helped.stdout
    page = (ROOT / "docs" / "performance.md").read_bytes()
    ran = subprocess.run(
        [*line, "--quick"], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 2
    assert "apt-get install prometheus" in ran.stderr
    assert (ROOT / "docs" / "performance.md").read_bytes() == page
    assert b"<!-- bench:engine -->" in page
