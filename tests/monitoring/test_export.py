"""History leaves: over /federate to a Prometheus that scrapes us, and as a file that promtool makes blocks of."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import real_prometheus

from anvil_monitor.monitoring.cli import main
from anvil_monitor.monitoring.federate import go_text
from anvil_monitor.monitoring.samples import STALE_NAN, Labels, labels_of

ODD = 'ä "quoted" \\ back\nline'


def samples(now: int) -> list[tuple[Labels, list[tuple[int, float]]]]:
    """Three hours up to ``now`` (ms), with what a text format could get wrong."""
    times = list(range(now - 3 * 3_600_000, now, 60_000))
    return [
        (labels_of(__name__="jobs_total", job="a", instance="i"), [(at, i / 3) for i, at in enumerate(times)]),
        (labels_of(__name__="level", of=ODD), [(at, -0.0 if i % 2 else 1.5e-7) for i, at in enumerate(times)]),
        (labels_of(__name__="level", of="inf"), [(at, math.inf) for at in times[::7]]),
        (labels_of(__name__="level", of="big"), [(at, 1e21 + i * 1e10) for i, at in enumerate(times)]),
        (labels_of(__name__="level", of="nan"), [(times[-2], math.nan)]),
        (labels_of(__name__="gone"), [(times[-3], 5.0), (times[-2], STALE_NAN)]),
        (labels_of(__name__="count"), [(at, 1_000_000.0) for at in times]),
    ]


@pytest.mark.needs("prometheus")
def test_federate_is_the_same_text(start: Callable[..., Any], tmp_path: Path) -> None:
    """Line for line what a real Prometheus with the same samples answers; a series that ended is left out."""
    monitor, now = start(), round(time.time() * 1000)
    with (
        real_prometheus.running(tmp_path / "prometheus", "storage: {tsdb: {out_of_order_time_window: 1d}}\n") as url,
        httpx.Client(base_url=url, trust_env=False) as theirs,
    ):
        for where in (monitor.url, url):
            real_prometheus.push(where, [(labels, points[-60:]) for labels, points in samples(now)])
        for match in (["level"], ['{__name__=~"jobs_total|gone|count"}'], ["count", '{job="a"}'], ["nothing"], []):
            ours, true = (client.get("/federate", params={"match[]": match}) for client in (monitor.http, theirs))
            assert ours.status_code == true.status_code == 200
            assert sorted(ours.text.splitlines()) == sorted(true.text.splitlines())
            assert ours.headers["content-type"] == true.headers["content-type"]
        for bad in ("up(", "1+1"):
            answers = [client.get("/federate", params={"match[]": bad}) for client in (monitor.http, theirs)]
            assert [answer.status_code for answer in answers] == [400, 400]
    assert "gone" not in monitor.http.get("/federate", params={"match[]": "gone"}).text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e6, "1e+06"), (123456.0, "123456"), (1e-4, "0.0001"), (1e-5, "1e-05"), (-0.0, "0"), (-2.5, "-2.5"),
     (math.nan, "NaN"), (-math.inf, "-Inf")],
)  # fmt: skip
def test_numbers_as_go_writes_them(value: float, text: str) -> None:
    """The shortest form, with an exponent from a million on."""
    assert go_text(value) == text


@pytest.mark.needs("promtool", "prometheus")
def test_history_moves_to_a_prometheus(
    start: Callable[..., Any], configuration_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``export``, ``promtool tsdb create-blocks-from openmetrics``, a Prometheus on the blocks: all is equal."""
    monitor, now = start(), round(time.time() * 1000)
    real_prometheus.push(monitor.url, samples(now))
    file, blocks = tmp_path / "history.om", tmp_path / "blocks"
    arguments = ["export", "--openmetrics", str(file), "--since", "1d", "--url", monitor.url]
    assert main([*arguments, "--config", str(configuration_file)]) == 0
    assert f"{file}" in capsys.readouterr().out
    made = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(file), str(blocks)]
    subprocess.run(made, check=True, capture_output=True, timeout=60)

    def held(client: httpx.Client, name: str) -> dict[str, dict[float, str]]:
        asked = {"query": f"{name}[4h]", "time": f"{now / 1000:.3f}"}
        result = client.get("/api/v1/query", params=asked).json()["data"]["result"]
        return {str(sorted(one["metric"].items())): dict(map(tuple, one["values"])) for one in result}

    with (
        real_prometheus.running(tmp_path / "prometheus", data=blocks) as url,
        httpx.Client(base_url=url, trust_env=False) as theirs,
    ):
        for name in ("jobs_total", "level", "gone", "count", "up"):
            ours = held(monitor.http, name)
            assert ours
            assert held(theirs, name) == ours, name


def test_an_export_that_cannot_be(tmp_path: Path, configuration_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No monitor there: exit 1 and no file. A file that exists, a folder that does not, a wrong span: exit 2."""
    file = tmp_path / "x.om"
    common = ["--config", str(configuration_file), "--url", "http://127.0.0.1:9"]
    assert main(["export", "--openmetrics", str(file), *common]) == 1
    assert "does not answer" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".x", "x"))]
    assert main(["export", "--openmetrics", str(tmp_path / "no" / "x.om"), *common]) == 2
    assert main(["export", "--openmetrics", str(file), "--since", "long", *common]) == 2
    file.write_text("mine")
    assert main(["export", "--openmetrics", str(file), *common]) == 2
    assert file.read_text() == "mine"
