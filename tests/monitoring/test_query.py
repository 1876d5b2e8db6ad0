"""``anvil-monitor query``: tables, plots, errors with a caret, exit status."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import real_prometheus

from anvil_monitor.monitoring import plot
from anvil_monitor.monitoring.asking import aligned, explain, over_time, table
from anvil_monitor.monitoring.cli import main
from anvil_monitor.monitoring.samples import labels_of


@pytest.fixture
def ask(
    start: Callable[..., Any], configuration_file: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command against a monitor with an hour of samples; exit status, output, errors."""
    monitor, now = start(), round(time.time())
    times = range(now - 3600, now + 1, 15)
    series = [
        (labels_of(__name__="level", of=of), [(at * 1000, math.sin(at / 300 + shift)) for at in times])
        for of, shift in (("a", 0), ("b", 1))
    ]
    real_prometheus.push(monitor.url, series)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["query", *arguments, "--config", str(configuration_file), "--url", monitor.url])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_a_table(ask: Callable[..., tuple[int, str, str]]) -> None:
    """Columns by label, the value to the right; a scalar alone; ``--json`` is the API's answer; warnings on stderr."""
    status, out, _ = ask("level * 0 + 2")
    assert (status, out.splitlines()) == (0, ["of  value", "a       2", "b       2"])
    assert ask("1+1") == (0, "2\n", "")
    status, out, _ = ask("sum(level) > -10", "--json", "--at", "10m")
    assert json.loads(out)["data"]["resultType"] == "vector"
    status, out, errors = ask("quantile(2, level)")
    assert (status, "warning: " in errors) == (0, True)
    assert "level{of=" in ask('level{of="a"}[1m]')[1]


def test_a_plot(ask: Callable[..., tuple[int, str, str]]) -> None:
    """One series is drawn with its axes, several as a line each; without a terminal there is no colour."""
    status, out, _ = ask('level{of="a"}', "--range", "1h")
    lines = out.splitlines()
    assert (status, lines[0]) == (0, 'level{of="a"}')
    assert len(lines) == 1 + 14 + 2
    assert "⣀" in out or "⠤" in out or "⠉" in out
    status, out, _ = ask("level", "--range", "30m", "--step", "1m")
    assert (status, len(out.splitlines())) == (0, 3)
    assert "█" in out
    assert "\x1b" not in out


def test_exit_status(ask: Callable[..., tuple[int, str, str]]) -> None:
    """1 where nothing is found; 2, and a caret below the mistake, where the question is wrong."""
    assert ask("no_such_series") == (1, "nothing found\n", "")
    assert ask("no_such_series", "--range", "5m")[0] == 1
    status, out, errors = ask("sum(rate(level[5m])")
    assert (status, out) == (2, "")
    assert errors.splitlines()[1:3] == ["  sum(rate(level[5m])", "     ^"]
    for arguments in (
        ("up", "--at", "soon"),
        ("up", "--range", "x"),
        ("up", "--step", "5s"),
        ("up", "--token", "hunter2"),
    ):
        assert ask(*arguments)[0] == 2


def test_no_monitor(configuration_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody there: exit 1 and who did not answer."""
    assert main(["query", "up", "--url", "http://127.0.0.1:9", "--config", str(configuration_file)]) == 1
    assert "http://127.0.0.1:9 does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("expr", "reason", "caret"),
    [
        ("sum(up", "invalid query 'sum(up': unclosed left parenthesis", 3),
        ('f("(") + (a', "unclosed left parenthesis", 9),
        ("up{a=b}", "unexpected identifier 'b' in label matching, expected string", 5),
        ("nosuch(up)", "unknown function with name 'nosuch'", 0),
        ("1 + + foo bar", '1:11: parse error: unexpected identifier "bar"', 10),
        ("a a", "unexpected identifier 'a'", None),
        ("foo bar", "invalid promql query", None),
    ],
)
def test_the_caret_is_honest(expr: str, reason: str, caret: int | None) -> None:
    """It stands where the place is certain: told by line and column, or named by a text that is there once."""
    lines = explain(expr, f'invalid parameter "query": {reason}').splitlines()
    assert lines[1] == f"  {expr}"
    assert lines[2:] == ([] if caret is None else ["  " + " " * caret + "^"])
    assert "invalid query" not in lines[0]


def test_plots_of_odd_values() -> None:
    """No value, one value, equal values, NaN, infinity and the largest numbers are drawn without a fault."""
    for points in (
        [],
        [(5.0, 1.0)],
        [(0.0, 1.0), (10.0, 1.0)],
        [(0.0, math.nan), (5.0, math.inf), (10.0, -1e308), (11.0, 1e308)],
    ):
        for plain in (True, False):
            drawn = plot.plot(points, 0, 10, 60, 8, plain=plain)
            assert len(drawn) == 10
            assert max(map(len, drawn)) <= 60
            assert len(plot.sparkline(points, 0, 10, 20, plot.bounds([points]), plain=plain)) == 20
    assert plot.sparkline([(0, 0), (10, 7)], 0, 10, 4, (0, 7), plain=True) == "_  @"
    assert table("vector", []) == over_time([], 0, 1, 80, plain=True, colour=False) == []
    assert "\x1b" not in "".join(aligned([["a", "value"], ["\x1b[31m", "1"]]))


def test_a_terminal_that_knows_no_unicode(ask: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """With an ASCII terminal the plot is made of ASCII; a test of the program as it is run."""
    code = (
        "from anvil_monitor.monitoring import asking\n"
        "import sys\n"
        "one = [{'metric': {'a': 'b'}, 'values': [[0, '1'], [1, '2']]}]\n"
        "print(asking._plain(sys.stdout))\n"
        "print('\\n'.join(asking.over_time(one, 0, 1, 60, plain=asking._plain(sys.stdout), colour=False)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("True")
