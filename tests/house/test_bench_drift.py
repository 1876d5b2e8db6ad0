"""``scripts/bench drift``: what it plays is what the rule manager plays, and its worlds are what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anvil_monitor.alerts.rulefile import Recording
from anvil_monitor.monitoring import ruletest
from anvil_monitor.monitoring.promql import Engine, Vector
from anvil_monitor.monitoring.samples import Panel, is_absent
from bench.drift import labelled, run, scoring, sets, tables, worlds
from bench.drift.play import Firing, Memory, firing, play
from bench.drift.worlds import World

STEP = 300


def test_what_is_played_at_once_is_what_the_rule_manager_records() -> None:
    """A day and a half of a p95 and of memory, step by step as ``up`` does it, and in one go: the same series."""
    memory = Memory()
    sets.fill(memory, World("p95", "p95", 1, days=2), "app")
    sets.fill(memory, World("memory", "memory", 2, days=2, restarts=2), "app")
    groups = tuple(
        replace(group, rules=tuple(rule for rule in group.rules if not _given(rule))) for group in sets.rules()
    )
    start, end = sets.START, sets.START + 1.5 * 86_400
    stepped = ruletest.Embedded(groups, STEP, {})
    panels = memory.between(round(start * 1000), round(end * 1000))
    for at in np.arange(start, end, STEP):
        stepped.append(float(at), _at(panels, round(at * 1000)))
        stepped.evaluate(float(at))
    played = Memory()
    for panel in panels:
        rows = panel.times % (STEP * 1000) == 0
        name = dict(panel.labels[0])["__name__"]
        bare = [tuple(pair for pair in labels if pair[0] != "__name__") for labels in panel.labels]
        played.add(name, panel.times[rows], bare, panel.values[rows].copy())
    # The manager evaluates group by group: what a later group records is seen by an earlier one in the next round.
    play(groups, played, start, end - STEP, STEP)
    for query in ("drift:level", "drift:ref", "drift:hi", "drift:usual", "drift:kept", "drift:ahead"):
        for hours in (3, 26, 35.9):
            at = start + int(hours * 3600 / STEP) * STEP
            mine = Engine(played).instant(query, at)
            assert isinstance(mine, Vector)
            theirs = dict(stepped.query(query, at))
            assert {one.labels: one.value for one in mine.samples} == pytest.approx(theirs, rel=1e-9), (query, hours)
    assert dict(stepped.query("drift:ref", end - STEP))


def _given(rule: object) -> bool:
    return isinstance(rule, Recording) and rule.record == "drift:signal" and rule.labels["target"] != "memory"


def _at(panels: list[Panel], time: int) -> list[tuple[tuple[tuple[str, str], ...], float]]:
    found = []
    for panel in panels:
        row = int(np.searchsorted(panel.times, time))
        if row < len(panel.times) and panel.times[row] == time:
            there = ~is_absent(panel.values[row])
            found += [(one, float(panel.values[row, at])) for at, one in enumerate(panel.labels) if there[at]]
    return found


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ("0011111000", [(4, 9)]),  # for 2, kept 2
        ("0011000000", []),
        ("1111100000", [(2, 7)]),
        ("0011110111", [(4, 10)]),
        ("0011100001111", [(4, 7), (11, 13)]),
    ],
)
def test_for_and_keep_firing_for(there: str, told: list[tuple[int, int]]) -> None:
    """An alert fires two steps after its condition began, and goes on for two after it ended."""
    steps = np.array([each == "1" for each in there])
    assert firing(steps, np.arange(len(there), dtype=float), 2.0, 2.0) == told


def test_worlds_are_what_they_say() -> None:
    """A drift of 60 % moves the mean by 60 %, a leak of 20 MB an hour the trough by 20 MB an hour, gaps are gaps; the
    same seed gives the same world."""
    grown = worlds.made(World("step", "mean", 3, start=7 * 1440, grows=0.6))
    assert np.nanmean(grown[7 * 1440 :]) / np.nanmean(grown[: 7 * 1440]) == pytest.approx(1.6, rel=0.1)
    leaking, dry = (worlds.made(World("memory", "memory", 4, start=7 * 1440, leak=leak)) for leak in (20e6, 0.0))
    assert leaking[-1] - dry[-1] == pytest.approx(20e6 * 7 * 24, rel=1e-3)
    assert np.array_equal(leaking[: 7 * 1440], dry[: 7 * 1440])
    assert np.isnan(worlds.made(World("gaps", "p95", 5, gaps=3.0))).sum() > 100
    assert np.array_equal(worlds.made(World("a", "p95", 6)), worlds.made(World("a", "p95", 6)), equal_nan=True)


def test_little_traffic_has_minutes_without_a_value() -> None:
    """At one request in 200 seconds some five minutes pass without any: no value, and none that is made up."""
    values = worlds.made(World("little", "p95", 7, rate=0.005))
    assert 0.05 < np.isnan(values).mean() < 0.6


def test_labelled_series_are_read_with_their_windows_and_gaps(tmp_path: Path) -> None:
    """A folder of the form of the benchmark; what is not one is an error that says what it needs."""
    with pytest.raises(SystemExit, match=r"windows\.json and data"):
        labelled.read(tmp_path)
    (tmp_path / "data" / "kind").mkdir(parents=True)
    (tmp_path / "data" / "kind" / "a.csv").write_text(
        "timestamp,value\n2014-04-01 00:00:00,1.5\n2014-04-01 00:05:00,2\n2014-04-01 00:15:00,3\n", encoding="utf-8"
    )
    window = ["2014-04-01 00:05:00.000000", "2014-04-01 00:10:00.000000"]
    (tmp_path / "windows.json").write_text(json.dumps({"kind/a.csv": [window]}), encoding="utf-8")
    (one,) = labelled.read(tmp_path)
    assert one.values.tolist()[:2] == [1.5, 2.0]
    assert np.isnan(one.values[2])
    assert [high - low for low, high in one.windows] == [300.0]
    assert one.windows[0][0] - one.start == 300.0


def test_a_quick_run_makes_its_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """Two worlds of a kind: a leak is found and nothing is told of memory without one; no page is rewritten."""
    assert run.main(["--worlds", "2", "--only", "memory"]) == 0
    said = capsys.readouterr().out
    assert "80 MB an hour   2 of 2" in said
    assert "written into" not in said


def test_an_alarm_before_the_drift_is_false_and_the_first_after_it_is_the_delay() -> None:
    """Minutes from the drift's start on; the weeks without a drift are those before it."""
    world = World("step", "p95", 0, start=7 * 1440, grows=1.0)
    spans = ((100, 200), (7 * 1440 + 30, 7 * 1440 + 400), (8 * 1440, 9 * 1440))
    labels = (("service", "w0"),)
    alarms = [Firing("TargetDrifting", labels, sets.START + 60 * low, sets.START + 60 * high) for low, high in spans]
    judged = sets.verdict_of(world, alarms)
    assert (judged.delay, judged.false, judged.weeks) == (30, 1, 1.0)
    assert [low for low, _ in judged.told] == [30, 1440]
    quiet = sets.verdict_of(World("daily", "p95", 0), alarms)
    assert (quiet.delay, quiet.false, quiet.weeks) == (None, 3, 2.0)


def test_a_window_is_found_by_an_alarm_that_begins_in_it() -> None:
    """Or in the hour before; what begins elsewhere is false, and what ended before the probation is not judged."""
    values = np.ones(4_000)
    one = labelled.Labelled("x", 0.0, values, ((600_000.0, 660_000.0), (900_000.0, 910_000.0)))
    labels = (("service", "s"),)
    alarms = [Firing("TargetDrifting", labels, low, low + 600) for low in (100_000.0, 300_000.0, 601_200.0)]
    found, there, delays, weeks, false = tables.windows_of(one, alarms)
    assert (found, there, delays, false) == (1, 2, [20.0], 1)
    assert weeks == pytest.approx((one.end - one.judged) / 604_800)


def test_the_score_is_that_of_the_benchmark() -> None:
    """Its standard profile, from nab/sweeper.py: 1 at the first row of a window, less later in it, -1 for a window that
    is missed; 0.11 for an alarm before any window, less just behind one. Of 100, silence gets 0."""
    one = labelled.Labelled("x", 0.0, np.ones(4_000), ((300_000.0, 330_000.0), (600_000.0, 660_000.0)))
    assert scoring.of_hundred([scoring.score(one, ())]) == 0.0
    assert scoring.of_hundred([scoring.score(one, (300_000.0, 600_000.0))]) == pytest.approx(100.0)
    assert scoring.score(one, (250_000.0,)) == (pytest.approx(-2.11), 2)
    assert scoring.score(one, (10_000.0,)) == (-2.0, 2)  # in the first 15 %, which nobody is judged by
    middle = (2 / (1 + np.exp(-5 * 51 / 101)) - 1) / (2 / (1 + np.exp(-5)) - 1)
    assert scoring.score(one, (315_000.0, 316_000.0, 600_000.0))[0] == pytest.approx(middle + 1)
    behind = 0.11 * (2 / (1 + np.exp(5 * 10 / 100)) - 1)  # 10 rows behind a window of 101
    assert scoring.score(one, (333_000.0,))[0] == pytest.approx(behind - 2)
    assert scoring.of_hundred([(0.0, 0)]) is None
