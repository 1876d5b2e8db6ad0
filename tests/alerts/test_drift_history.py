"""The drift rules on days of measurements: what they say is what docs/drift.md says, and Prometheus says the same.

Days are played in one go, with a value every five minutes (bench/drift/play.py).
"""

from __future__ import annotations

import math
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from anvil_monitor.alerts import rulefile
from anvil_monitor.alerts.drift import THRESHOLDS, drift_groups
from anvil_monitor.alerts.rulefile import Recording
from anvil_monitor.monitoring.promql import Engine, Vector
from anvil_monitor.monitoring.samples import ABSENT, Labels
from anvil_monitor.targets import Configuration
from anvil_monitor.targets.load import parse
from bench.drift.play import Firing, Memory, play

STEP = 300
OFF_THE_ENDS = 290
"""Seconds that divide no window or offset of the rules."""
DAY = 86_400 // STEP
HOUR = DAY // 24
API, USERS, STORAGE, SHARE = "api_response_time", "concurrent_users", "memory", "checkout"
OWN = """
[targets.checkout]
kind = "ratio"
good = 'http_server_request_duration_seconds_count{http_response_status_code!~"5.."}'
total = "http_server_request_duration_seconds_count"
at_least = "99.5%"
"""
SIDES = {
    API: ("latency", "up", "seconds"),
    USERS: ("traffic", "both", "users"),
    STORAGE: ("memory", "up", "bytes"),
    SHARE: ("share", "down", "percent"),
}
LIMITS = {API: 0.2, USERS: 100.0, STORAGE: 5e8, SHARE: 0.995}


def _configuration() -> Configuration:
    configuration = parse(OWN)
    return replace(configuration, targets=tuple(each for each in configuration.targets if each.name in SIDES))


class Days:
    """Measurements every five minutes (``step``, in s) from 0 on; what the rules make of them when ``played``."""

    def __init__(self, days: float, step: int = STEP) -> None:
        self.step = step
        self.times = np.arange(round(days * 86_400 / step), dtype=np.int64) * step * 1000
        self.memory = Memory()
        self.firing: list[Firing] = []

    def given(self, target: str, values: Any) -> Days:
        """``values`` of the signal; of memory, of the target itself. NaN is no sample."""
        kind, side, unit = SIDES[target]
        labels: Labels = (("service", "app"), ("target", target), ("unit", unit))
        there = np.where(np.isnan(values), ABSENT, values)[:, None]
        if kind == "memory":
            self.memory.add("target:value", self.times, [labels], there)
        else:
            self.memory.add("drift:signal", self.times, [(*labels, ("class", kind), ("side", side))], there)
        self.memory.add("target:limit", self.times, [labels], np.full((len(self.times), 1), LIMITS[target]))
        return self

    def up(self, seconds: Any) -> Days:
        """How long the process has been up."""
        self.memory.add("process_uptime_seconds", self.times, [(("service", "app"),)], seconds[:, None])
        return self

    def played(self) -> Days:
        groups = drift_groups(_configuration())
        self.firing = play(groups, self.memory, 0.0, float(self.times[-1]) / 1000, self.step)
        return self

    def told(self, alert: str) -> list[tuple[float, float]]:
        """When it was told and when it was over, in hours."""
        return [(one.since / 3600, one.until / 3600) for one in self.firing if one.alert == alert]

    def at(self, hours: float, query: str) -> float | None:
        answer = Engine(self.memory).instant(query, hours * 3600)
        assert isinstance(answer, Vector)
        assert len(answer.samples) <= 1
        return answer.samples[0].value if answer.samples else None


def _season(count: int, low: float, high: float) -> Any:
    return low + (high - low) * (1 + np.sin(2 * np.pi * np.arange(count) / DAY)) / 2


def test_a_season_stays_silent_and_a_shift_of_it_is_told_once_and_over_within_a_day() -> None:
    """60 to 120 ms by the hour of the day are usual; half as much again is told within the hour, and a day later it is
    the usual."""
    season = _season(9 * DAY, 0.06, 0.12)
    season[6 * DAY :] *= 1.5
    days = Days(9).given(API, season).played()
    (told,) = days.told("TargetDrifting")
    assert 144 < told[0] < 145
    assert told[1] < 144 + 24 + 7
    assert days.told("TargetTrending") == []


def test_nothing_is_told_while_it_is_learning() -> None:
    """The response time doubles on the fourth day: there is no score yet. On the sixth there is."""
    early, late = (np.where(np.arange(6 * DAY) < day * DAY, 0.05, 0.1) for day in (3, 5))
    learning = Days(6).given(API, early).played()
    assert learning.told("TargetDrifting") == []
    learned = Days(6).given(API, late).played()
    assert len(learned.told("TargetDrifting")) == 1
    first = next(
        hour
        for hour in range(1, 144)
        if learned.at(hour, 'drift:score{target="api_response_time",rule="slow"}') is not None
    )
    assert 101 <= first <= 103  # docs/drift.md: 4 days 6 hours
    assert learned.at(100, 'target:upper{target="api_response_time"}') is None


@pytest.mark.parametrize(
    ("low", "high", "told"), [(0.005, 0.010, 0), (0.005, 0.060, 1), (0.1, 0.110, 0), (0.1, 0.13, 1)]
)
def test_only_what_matters_against_the_limit_is_told(low: float, high: float, told: int) -> None:
    """5 ms that become 10 ms of the 200 ms that they may be are left alone, and so are 10 % of anything."""
    days = Days(6).given(API, np.where(np.arange(6 * DAY) < 5 * DAY, low, high)).played()
    assert len(days.told("TargetDrifting")) == told


def test_what_people_see_is_what_the_rules_go_by() -> None:
    """target:baseline is the most tolerant of the references, target:upper lies a margin above it: a threshold times a
    tenth of the level, or of the way to the limit; more as long as less than a week is known."""
    days = Days(9).given(API, np.full(9 * DAY, 0.06)).played()
    margin = THRESHOLDS["fast"] * 0.1 * (0.2 - 0.06)
    assert days.at(200, 'target:baseline{target="api_response_time"}') == pytest.approx(0.06)
    assert days.at(200, 'target:upper{target="api_response_time"}') == pytest.approx(0.06 + margin)
    assert days.at(200, 'target:lower{target="api_response_time"}') is None
    hours = 140 - 6 - 24  # of excess, when the noise of 6 hours ago was taken
    young = days.at(140, 'target:upper{target="api_response_time"}')
    assert young == pytest.approx(0.06 + margin * (2 - hours / 168), rel=0.01)


@pytest.mark.parametrize(("rest", "told"), [(0.0012, 0), (0.004, 1)])
def test_of_a_share_near_the_whole_the_rest_is_what_drifts(rest: float, told: int) -> None:
    """Of 99.5 % that are promised, 99.9 % are usual: 99.88 % are left alone, 99.6 % are told, and still kept."""
    days = Days(6).given(SHARE, 1 - np.where(np.arange(6 * DAY) < 5 * DAY, 0.001, rest)).played()
    assert len(days.told("TargetDrifting")) == told
    assert days.at(100, 'target:upper{target="checkout"}') is None


def test_failures_that_creep_are_told_by_how_many_times_they_are() -> None:
    """Failures of 0.1 % that are 5 % more each day: 1.41 times those of a week ago."""
    rest = 0.001 * 1.05 ** (np.arange(16 * DAY) / DAY)
    days = Days(16).given(SHARE, 1 - rest).played()
    assert days.at(15 * 24, 'drift:creep{target="checkout"}') == pytest.approx(1.05**7, rel=0.01)
    assert days.told("TargetTrending")


def test_a_creep_is_told_where_no_day_is_a_drift() -> None:
    """3 % more each day for three weeks: no day stands out; after a week it is 23 % more than a week before."""
    values = 0.08 * 1.03 ** (np.arange(15 * DAY) / DAY)
    days = Days(15).given(API, values).played()
    assert days.told("TargetDrifting") == []
    assert days.told("TargetTrending")[0][0] < 10 * 24


def test_the_first_weekend_of_users_is_no_drift_and_a_crowd_is() -> None:
    """60 users on weekdays and 20 at weekends: the week is waited for. In the third week 150 come on a Wednesday."""
    number = np.arange(18 * DAY) // DAY
    values = np.where(number % 7 >= 5, 20.0, 60.0)
    values[16 * DAY :] = 150.0
    days = Days(18).given(USERS, values).played()
    told = days.told("TargetDrifting")
    assert [round(begin / 24) for begin, _ in told] == [16]
    assert days.at(16 * 24 + 3, 'target:lower{target="concurrent_users"}') is not None


def test_a_leak_is_told_against_its_own_maximum_and_a_sawtooth_is_not() -> None:
    """Collections between 200 and 260 MB are usual; 5 MB an hour more are told within the day."""
    tooth = 200e6 + 60e6 * (np.arange(7 * DAY) % HOUR) / HOUR
    assert Days(7).given(STORAGE, tooth).played().firing == []
    tooth[5 * DAY :] += 5e6 / HOUR * np.arange(2 * DAY)
    (told,) = Days(7).given(STORAGE, tooth).played().told("TargetTrending")
    assert 120 < told[0] < 132


def test_a_line_to_the_limit_waits_for_the_warm_up() -> None:
    """20 MB an hour from a restart on: nothing is known of the past; after 7 hours up the line is drawn. A server that
    is restarted before is not judged, nor is one whose uptime nobody measures."""
    count = 12 * HOUR
    values = 200e6 + 20e6 / HOUR * np.arange(count)
    seconds = np.arange(count) * float(STEP)
    (told,) = Days(0.5).given(STORAGE, values).up(seconds).played().told("TargetTrending")
    assert 7 < told[0] < 7.6
    assert Days(0.5).given(STORAGE, values).up(seconds % (6 * 3600)).played().firing == []
    assert Days(0.5).given(STORAGE, values).played().firing == []


def test_gaps_and_silence_are_no_drift() -> None:
    """Six hours without a sample, and a day without: nothing is told, neither then nor when it is back."""
    values = _season(8 * DAY, 0.06, 0.12)
    values[5 * DAY + 20 : 5 * DAY + 20 + 6 * HOUR] = np.nan
    values[6 * DAY + 100 : 7 * DAY + 100] = np.nan
    assert Days(8).given(API, values).played().firing == []


def test_compliance_counts_only_minutes_with_a_ratio() -> None:
    """A quarter of the hours over the limit, and a night without traffic (NaN): 75 %."""
    days = Days(2)
    ratio = np.where(np.arange(2 * DAY) % (4 * HOUR) < HOUR, 1.5, 0.5)
    ratio[DAY : DAY + 8 * HOUR] = np.nan
    labels: Labels = (("service", "app"), ("target", API), ("unit", "seconds"))
    days.memory.add("target:ratio", days.times, [labels], ratio[:, None])
    days.played()
    assert days.at(47.9, "target:compliance_30d") == pytest.approx(0.75, abs=0.05)


@pytest.mark.needs("promtool")
def test_prometheus_records_the_same(tmp_path: Path) -> None:
    """Five days and a half with worse hours, a gap, a shift and a leak: levels, references, noise, score and alerts are
    equal to nine digits in promtool and here, every twelve hours.

    Prometheus 2 counts a sample on the left end of a window, Prometheus 3 and this engine do not. 290 s divide no
    window of the rules, so no sample is on an end (with 300 s one of seven is, and such means differ by up to 12 %).
    """
    days = Days(5.5, OFF_THE_ENDS)
    seconds = days.times / 1000
    day = seconds / 86_400
    season = (1 + np.sin(2 * np.pi * day)) / 2
    worse = (day % 1 < 1 / 24) * (day.astype(int) % 2)
    given = {
        API: ((0.06 + 0.06 * season) * (1 + 0.2 * worse)).round(6),
        STORAGE: (200e6 + 30e6 * season + 5e6 / 3600 * (seconds - 4.6 * 86_400).clip(0)).round(),
    }
    given[API][day >= 5] = (given[API][day >= 5] * 1.8).round(6)
    given[API][(day >= 4) & (day < 4 + 3 / 24)] = np.nan
    for target, values in given.items():
        days.given(target, values)
    groups = tuple(
        replace(group, rules=tuple(rule for rule in group.rules if not _replaced(rule)))
        for group in drift_groups(_configuration())
    )
    days.played()
    assert days.told("TargetDrifting")
    asked = []
    for hour in range(10, 132, 12):
        # Half past: on the hour memory's maximum changes, which promtool's first group sees an evaluation later.
        at = round((hour + 0.5) * 3600 / OFF_THE_ENDS) * OFF_THE_ENDS
        for name in ("drift:level", "drift:ref", "drift:noise", "drift:score", "target:upper", "ALERTS"):
            answer = Engine(days.memory).instant(f'{{__name__="{name}"}}', float(at))
            assert isinstance(answer, Vector)
            for sample in answer.samples:
                labels = {key: text for key, text in sample.labels if key not in ("__name__", "severity", "unit")}
                own = ",".join(f"{key}={text!r}" for key, text in labels.items())
                near = 1e-9 * abs(sample.value) + 1e-12
                asked.append((f"abs({name}{{{own}}} - {sample.value!r}) < bool {near!r}", at))
    assert len(asked) > 50
    tests = {
        "rule_files": ["drift.yml"],
        "evaluation_interval": f"{OFF_THE_ENDS}s",
        "group_eval_order": [group.name for group in groups],
        "tests": [{
            "interval": f"{OFF_THE_ENDS}s",
            "input_series": [_input(target, values) for target, values in given.items()] + [
                {"series": f'target:limit{{service="app",target="{target}"}}',
                 "values": f"{LIMITS[target]!r}x{len(seconds)}"}
                for target in given
            ],
            "promql_expr_test": [
                {"expr": f"sum({expr})", "eval_time": f"{at}s", "exp_samples": [{"labels": "{}", "value": 1}]}
                for expr, at in asked
            ],
        }],
    }  # fmt: skip
    (tmp_path / "drift.yml").write_text(rulefile.dump(groups), encoding="utf-8")
    (tmp_path / "drift_test.yml").write_text(yaml.safe_dump(tests, width=1 << 30), encoding="utf-8")
    command = ["promtool", "test", "rules", str(tmp_path / "drift_test.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[:3000]


def _replaced(rule: Any) -> bool:
    """A signal that is given instead of measured."""
    return isinstance(rule, Recording) and rule.record == "drift:signal" and rule.labels["target"] != STORAGE


def _input(target: str, values: Any) -> dict[str, str]:
    kind, side, unit = SIDES[target]
    labels = f'service="app",target="{target}",unit="{unit}"'
    name = "target:value" if kind == "memory" else "drift:signal"
    more = "" if kind == "memory" else f',class="{kind}",side="{side}"'
    texts = ["_" if math.isnan(value) else repr(float(value)) for value in values]
    return {"series": f"{name}{{{labels}{more}}}", "values": " ".join(texts)}
