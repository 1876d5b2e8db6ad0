"""The rules of targets that users write themselves: each kind fires when it is missed and is silent when it is kept."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import pytest

from anvil_monitor import dashboards
from anvil_monitor.alerts import driftkinds, promtest, rulefile, rules, ruletests, templates
from anvil_monitor.monitoring import ruletest, status
from anvil_monitor.monitoring.promql import Engine
from anvil_monitor.monitoring.samples import labels_of
from anvil_monitor.monitoring.store import Store
from anvil_monitor.targets import Unit
from anvil_monitor.targets.load import parse
from tests.targets.test_own import OWN

HTTP = "http_server_request_duration_seconds"
# By target: series of a service that misses it, and of one that keeps it, a value every 15 s.
PLAYED = {
    "checkout": (
        {f'{HTTP}_bucket{{http_route="/checkout/{{id}}",le="0.5"}}': "0+0x40",
         f'{HTTP}_bucket{{http_route="/checkout/{{id}}",le="1"}}': "0+0x40",
         f'{HTTP}_bucket{{http_route="/checkout/{{id}}",le="+Inf"}}': "0+10x40",
         f'{HTTP}_count{{http_route="/checkout/{{id}}"}}': "0+10x40"},
        {f'{HTTP}_bucket{{http_route="/other",le="0.5"}}': "0+0x40",
         f'{HTTP}_bucket{{http_route="/other",le="+Inf"}}': "0+10x40",
         f'{HTTP}_count{{http_route="/other"}}': "0+10x40"},
    ),
    "job_time": (
        {"job_duration_seconds_sum": "0+400x40", "job_duration_seconds_count": "0+10x40"},
        {"job_duration_seconds_sum": "0+100x40", "job_duration_seconds_count": "0+10x40"},
    ),
    "queue": ({'jobs_waiting{queue="mail"}': "101+0x40"}, {'jobs_waiting{queue="print"}': "40+0x40"}),
    "free": ({"cache_free_bytes": "900000000+0x40"}, {"cache_free_bytes": "1100000000+0x40"}),
    "good_orders": (
        {'orders_total{result="ok"}': "0+99x40", 'orders_total{result="lost"}': "0+1x40"},
        {'orders_total{result="ok"}': "0+999x40", 'orders_total{result="lost"}': "0+1x40"},
    ),
    "signups": ({"signups_total": "0+1x40"}, {"signups_total": "0+2x40"}),
    "backlog": ({'jobs_waiting{queue="a"}': "10+0x40", 'jobs_waiting{queue="b"}': "51+0x40"},
                {'jobs_waiting{queue="a"}': "10+0x40", 'jobs_waiting{queue="b"}': "49+0x40"}),
}  # fmt: skip


def _firing(folder: Path, series: dict[str, str], target: str) -> set[str]:
    """The alerts of ``target`` that fire after nine minutes of ``series``."""
    configuration = parse(OWN)
    of = next(each for each in configuration.targets if each.name == target)
    groups = rules.own_groups(configuration, of, rules.Links("http://127.0.0.1/"))
    (folder / "rules.yml").write_text(rulefile.dump(groups), encoding="utf-8")
    lines = ["rule_files: [rules.yml]", "evaluation_interval: 15s", "tests:", "- interval: 15s", "  input_series:"]
    for name, values in series.items():
        metric, _, labels = name.partition("{")
        text = f'{metric}{{service="app",{labels or "}"}'
        lines += [f"  - series: '{text}'", f"    values: '{values}'"]
    lines += ["  alert_rule_test:", "  - {eval_time: 9m, alertname: TargetMissed, exp_alerts: []}"]
    path = folder / "rules_test.yml"
    file = promtest.load("\n".join(lines), path)
    (test,) = file.tests
    evaluator = ruletest.Embedded(file.groups(), file.evaluation_interval, {})
    promtest.run_test(file, test, evaluator)
    found = (labels for labels, _ in evaluator.firing())
    return {labels["alertname"] for labels in found if labels.get("target") == target}


@pytest.mark.parametrize("target", PLAYED)
def test_it_fires_when_missed_and_is_silent_when_kept(tmp_path: Path, target: str) -> None:
    """A value on the wrong side of the limit is told; one on the right side, or another label's, is not."""
    missed, kept = PLAYED[target]
    assert _firing(tmp_path, missed, target) == {"TargetMissed"}
    assert "TargetMissed" not in _firing(tmp_path, kept, target)


def test_nothing_good_at_all_is_a_share_of_nothing(tmp_path: Path) -> None:
    """A ratio whose good events have no series yet is 0, not unknown; without any event it is no data."""
    assert _firing(tmp_path, {'orders_total{result="lost"}': "0+100x40"}, "good_orders") == {"TargetMissed"}
    assert _firing(tmp_path, {}, "good_orders") == {"TargetNoData"}


def test_too_few_events_are_not_judged(tmp_path: Path) -> None:
    """Under the floor, a share that is missed is told to nobody."""
    assert _firing(tmp_path, {'orders_total{result="lost"}': "0+1x40"}, "good_orders") == set()


def test_more_than_what_is_promised_at_least_is_no_leak() -> None:
    """A size of which there has to be so much is not told to be growing when it is forecast to stay above its limit."""
    free = next(target for target in parse(OWN).targets if target.name == "free")
    assert (driftkinds.kind(free), driftkinds.side(free)) == (driftkinds.LATENCY, driftkinds.DOWN)


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [(Unit.USERS, 1.0, "1 user"), (Unit.USERS, 12.0, "12 users"), (Unit.NUMBER, 0.75, "0.75"),
     (Unit.NUMBER, -0.5, "-0.5"), (Unit.NUMBER, 1.0, "1"), (Unit.NUMBER, 12345.0, "12.35k")],
)  # fmt: skip
def test_a_rule_says_a_value_as_a_person_does(unit: Unit, value: float, text: str) -> None:
    """One user is no users, three quarters are no 750 thousandths; the same inside a query of the message."""
    assert templates.expand(rules.human(unit), {}, value) == text
    asked = rules.human(unit).replace("$value", ". | first | value")
    found = [templates.Element({}, value)]
    assert templates.expand(f"{{{{ with query `x` }}}}{asked}{{{{ end }}}}", {}, 0.0, query=lambda _: found) == text


def test_what_an_expression_looks_back_over_is_not_made_up() -> None:
    """Its measure names the window only where the expression has it."""
    texts = ("sum(rate(a_total[$window]))", "sum(rate(a_total[1h]))")
    made = [parse(f"[targets.x]\nkind = 'expression'\nexpr = '{text}'\nat_most = 5").targets[-1] for text in texts]
    assert [target.measure for target in made] == ["expression over 5 min", "expression"]


def test_the_page_says_how_far_a_target_is_missed() -> None:
    """Over its limit, or only so much of it; an expression that gives no number names its window."""
    configuration = parse(OWN)
    board, store = status.Board(configuration, 0.0), Store()
    for name, value, ratio in (("queue", 200.0, 2.0), ("free", 4e8, 2.5), ("backlog", math.nan, math.nan)):
        unit = next(str(each.unit) for each in configuration.targets if each.name == name)
        labels = {"service": "app", "target": name, "unit": unit}
        found = (("target:value", value), ("target:ratio", ratio))
        store.append(60_000, [(labels_of(__name__=series, **labels), number) for series, number in found])
    engine = Engine(store)
    board.update(60.0, engine.instant, engine.range, [])
    notes = {each.target.name: each.to_json()["note"] for each in board.targets}
    assert notes["queue"] == "2.0 times its limit"
    assert notes["free"] == "40 % of its limit"
    assert notes["backlog"] == "no samples in the last 10 min"


@pytest.mark.needs("promtool")
def test_prometheus_takes_the_rules_and_the_board_takes_the_targets(tmp_path: Path) -> None:
    """`promtool check rules` accepts them; the board has a panel for each; the shipped targets keep their tests."""
    configuration = parse(OWN)
    path = tmp_path / "rules.yml"
    path.write_text(rulefile.dump(rules.rule_groups(configuration)), encoding="utf-8")
    done = subprocess.run(["promtool", "check", "rules", "--lint-fatal", str(path)], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
    board = "".join(dashboards.generated(configuration).values())
    assert all(f'target=\\"{target}\\"' in board for target in PLAYED)
    assert "app, api_response_time: fires" in ruletests.dump(configuration)
