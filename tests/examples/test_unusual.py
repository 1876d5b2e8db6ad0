"""examples/rules/unusual.yml: what it tells, once, and what it leaves alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from anvil_monitor.alerts import rulefile
from anvil_monitor.alerts.rulefile import Alerting
from anvil_monitor.monitoring.samples import Floats, Labels
from anvil_monitor.targets.load import parse
from bench.drift.play import Memory, play

RULES = Path(__file__).parents[2] / "examples" / "rules" / "unusual.yml"
STEP = 300
DAY = 86_400 // STEP
LABELS: Labels = (
    ("class", "latency"), ("service", "app"), ("side", "up"), ("target", "api_response_time"), ("unit", "seconds"),
)  # fmt: skip


def _season(days: int) -> Floats:
    noise = np.random.default_rng(1).standard_normal(days * DAY)
    season: Floats = 0.08 + 0.02 * np.sin(2 * np.pi * np.arange(days * DAY) / DAY) + 0.001 * noise
    return season


def _told(values: Floats) -> list[float]:
    """When (hours) alerts began."""
    memory = Memory()
    times = np.arange(len(values), dtype=np.int64) * STEP * 1000
    memory.add("drift:signal", times, [LABELS], values[:, None].copy())
    groups = rulefile.load(RULES.read_text(encoding="utf-8"), RULES)
    return [one.since / 3600 for one in play(groups, memory, 0.0, float(times[-1]) / 1000, STEP)]


def test_ten_minutes_out_of_the_ordinary_are_told_once() -> None:
    """Twice the usual for ten minutes of the sixth day: one alert at once. A season and its noise: none."""
    values = _season(7)
    assert _told(values) == []
    at = 5 * DAY + 100
    values[at : at + 2] *= 2
    (told,) = _told(values)
    assert told == pytest.approx(at * STEP / 3600, abs=0.1)


def test_it_speaks_after_two_days() -> None:
    """What doubles on the second day is not told, on the fourth it is."""
    early, late = _season(5), _season(5)
    early[DAY + 100 : DAY + 102] *= 2
    late[3 * DAY + 100 : 3 * DAY + 102] *= 2
    assert _told(early) == []
    assert len(_told(late)) == 1


def test_no_channel_has_it_unless_it_asks() -> None:
    """Its severity is not among those of a channel that names none, and a channel may name it."""
    groups = rulefile.load(RULES.read_text(encoding="utf-8"), RULES)
    (alert,) = (rule for group in groups for rule in group.rules if isinstance(rule, Alerting))
    (channel,) = parse('[channels.team]\nurl = "env:TEAM"\n').channels
    assert alert.labels["severity"] == "info"
    assert "info" not in channel.severities
    (digest,) = parse('[channels.digest]\nurl = "env:DIGEST"\nseverities = ["info"]\n').channels
    assert digest.severities == ("info",)


@pytest.mark.needs("promtool")
def test_promtool_accepts_it() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", "--lint-fatal", str(RULES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
