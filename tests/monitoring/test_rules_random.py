"""Lives of alerts made at random: ours and Prometheus's write the same series at every evaluation."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from anvil_monitor.alerts import rulefile
from anvil_monitor.alerts.promseries import parse_labels, parse_values
from anvil_monitor.monitoring.ruletest import Embedded

MINUTES = 40
# No window ends on a sample: Prometheus 2 closes it at the left.
WRITTEN = ("ALERTS", "ALERTS_FOR_STATE", "count_over_time(ALERTS[9m30s])", "r:sum", "r:copy", "r:alerts", "r:one")
LABELS = (
    {},
    {"severity": "page"},
    {"severity": "{{ if gt $value 1.0 }}page{{ end }}"},
    {"level": "{{ $value }}", "x": ""},
    {"alertname": "other", "alertstate": "mine", "job": "{{ $labels.job | toUpper }}"},
)


def rules(chance: random.Random) -> dict[str, Any]:
    """Alerts with `for` and `keep_firing_for` of all relations to each other, and what is recorded around them."""
    alerts = []
    for number in range(8):
        rule: dict[str, Any] = {"alert": f"A{number}", "expr": f"m > {chance.choice([0, 0, 1])}"}
        rule |= {"for": f"{chance.randrange(5)}m"} if chance.random() < 0.7 else {}
        rule |= {"keep_firing_for": f"{chance.randrange(1, 6)}m"} if chance.random() < 0.6 else {}
        alerts.append({**rule, "labels": chance.choice(LABELS)})
    recorded = [
        {"record": "r:sum", "expr": "sum by (job) (m)", "labels": {"of": "jobs", "x": ""}}
        if chance.random() < 0.5
        else {"record": "r:sum", "expr": "sum(m)"},
        {"record": "r:copy", "expr": "m > 1", "labels": {"copied": "yes"}},
        *alerts,
        {"record": "r:alerts", "expr": 'count by (alertstate) (ALERTS{alertname=~"A."})'},
        {"record": "r:one", "expr": "1"},
    ]
    return {"groups": [{"name": "g", "interval": "1m", "rules": recorded}]}


def values(chance: random.Random) -> str:
    """Runs of one value, of nothing, and markers of the end. No sample is just five minutes old: the same reason."""
    found: list[str] = []
    while len(found) < MINUTES:
        what = chance.choice(["0", "1", "1", "2", "2", "_", "stale"])
        if what != "_" or found[-1:] != ["_"]:
            found += [what] if what == "stale" else [what] * chance.randrange(1, 5)
    return " ".join(found[:MINUTES])


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("seed", range(6))
def test_what_is_written_is_what_prometheus_writes(seed: int, tmp_path: Path) -> None:
    """Forty minutes of eight alerts on three series: ALERTS, ALERTS_FOR_STATE and recorded series, minute by minute."""
    chance = random.Random(seed)
    text = yaml.safe_dump(rules(chance))
    series = {f'm{{job="{job}",x="{number}"}}': values(chance) for number, job in enumerate("abc")}
    ours = Embedded(rulefile.load(text, tmp_path / "rules.yml"), 60.0, {})
    read = {parse_labels(name): parse_values(given) for name, given in series.items()}
    for minute in range(MINUTES):
        samples = [(labels, given[minute]) for labels, given in read.items()]
        ours.append(minute * 60.0, [(labels, value) for labels, value in samples if value is not None])
        ours.evaluate(minute * 60.0)
    asked = []
    for minute in range(MINUTES):
        for expr in WRITTEN:
            found = [
                {"labels": "{" + ",".join(f"{name}={_quoted(text)}" for name, text in labels) + "}", "value": value}
                for labels, value in ours.query(expr, minute * 60.0)
            ]
            asked.append({"expr": expr, "eval_time": f"{minute}m", "exp_samples": found})
    assert sum(len(each["exp_samples"]) for each in asked) > 20 * MINUTES
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": given} for name, given in series.items()],
        "promql_expr_test": asked,
    }
    (tmp_path / "rules.yml").write_text(text, encoding="utf-8")
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(document), encoding="utf-8")
    run = subprocess.run(["promtool", "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, (run.stdout + run.stderr)[:5000]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
