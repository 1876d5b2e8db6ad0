"""``anvil-monitor backtest``: what it says is what the same history, played live, does."""

from __future__ import annotations

import contextlib
import io
import json
import math
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import real_prometheus
from starlette.applications import Starlette
from starlette.testclient import TestClient

from anvil_monitor.alerts import rulefile, templates
from anvil_monitor.alerts.rulefile import Alerting, Group, Recording
from anvil_monitor.alerts.rules import rule_groups
from anvil_monitor.monitoring.api import routes
from anvil_monitor.monitoring.apistate import Sources
from anvil_monitor.monitoring.backtest import run
from anvil_monitor.monitoring.backtestcommand import _progress
from anvil_monitor.monitoring.backtestdata import Source
from anvil_monitor.monitoring.cli import main
from anvil_monitor.monitoring.promql import Engine
from anvil_monitor.monitoring.promql.parse import parse
from anvil_monitor.monitoring.promql.text import text
from anvil_monitor.monitoring.remote import Remote, RemoteError, UnreachableError
from anvil_monitor.monitoring.rulemanager import GroupState, State, evaluate, next_slot, slot_offset
from anvil_monitor.monitoring.samples import Labels, labels_of
from anvil_monitor.monitoring.store import Store
from anvil_monitor.monitoring.threads import Threads
from anvil_monitor.targets import load

RULES = """\
groups:
- name: first
  interval: 10s
  rules:
  - {record: level:max, expr: max by (of) (level)}
  - {record: level:smooth, expr: 0.8 * level:smooth + on (of) group_left () 0.2 * level:max or level:max}
  - {record: level:past, expr: level:max + (0.5 * level:past offset 3m or 0 * level:max)}
  - {record: level:late, expr: level:after or vector(1)}
  - {record: level:after, expr: count(level:max > 0)}
  - {record: "level:kind", expr: avg(level:max), labels: {kind: raw}}
  - {record: "level:kind", expr: 'max_over_time(level:kind{kind="raw"}[2m])', labels: {kind: top}}
- name: second
  interval: 15s
  rules:
  - {alert: Plain, expr: level > 0.8}
  - {alert: Held, expr: level > 0.5, for: 45s, keep_firing_for: 30s, labels: {severity: critical}}
  - {alert: Recorded, expr: 'level:max > 0.6 and on (of) level{on="x"}', for: 30s}
  - {alert: Smooth, expr: level:smooth > 0.2, for: 20s, labels: {to: '{{ if gt $value 0.4 }}top{{ else }}low{{ end }}'}}
  - {alert: Past, expr: level:past > 1 unless on (of) (level:max offset 1m < 0)}
  - {alert: Mixed, expr: 'level:max - on (of) group_right () avg_over_time(level[2m]) > 0.1'}
  - {alert: Late, expr: level:late != level:after, for: 15s}
  - {alert: Kinds, expr: 'level:kind{kind="top"} - ignoring (kind) level:kind{kind="raw"} > 0.1'}
  - {alert: Gone, expr: absent(level:max) or absent(level), for: 10s}
  - alert: Sticky
    expr: level > 0.9 or (level > 0.2 and on (of) ALERTS{alertname="Sticky",alertstate="firing"})
    for: 10s
  - {alert: Stuck, expr: 'level > 1.2 or (level > -2 and on (of) ALERTS_FOR_STATE{alertname="Stuck"})'}
  - alert: Tired
    expr: level > 0.9 unless on (of) max_over_time(ALERTS{alertname="Tired",alertstate="firing"}[9m] offset 15s)
  - {alert: Once, expr: 'level > 0.9 unless on (of) max_over_time(ALERTS{alertname="Once"}[9m])'}
  - {alert: Seen, expr: 'count by (of) (ALERTS{alertname=~"Held|Plain",alertstate="firing"}) > 1', for: 15s}
  - {alert: Wake, expr: 'absent(gone) unless on () ALERTS{alertname="Always"}'}
  - {alert: Awake, expr: 'level > 0 and on () ALERTS{alertname="Always"} offset 1m'}
  - {alert: Always, expr: vector(1)}
"""
NOW = 1_800_000_000
UP = labels_of(__name__="up", job="pushed")
Series = list[tuple[Labels, list[tuple[int, float]]]]


def made(now: int, seed: int, *, seconds: int = 3000) -> Series:
    """Waves with steps and gaps: some longer than the five minutes that a value lives."""
    rng = random.Random(seed)
    found: Series = []
    for number, of in enumerate("abcd"):
        samples, at = [], now - seconds + rng.random()
        while at < now:
            if rng.random() < 0.01:
                at += rng.choice((20, 90, 400))
            jitter = rng.random() * 0.2
            samples.append((round(at * 1000), math.sin(at / (90 + 40 * number)) + rng.gauss(0, 0.15)))
            at += 5 + jitter
        samples = [sample for sample in samples if sample[0] <= now * 1000]
        found.append((labels_of(__name__="level", of=of, on="x" if number % 2 else "y"), samples))
    return [*found, (UP, [(at * 1000, 1.0) for at in range(now - seconds, now + 1, 15)])]


def live(
    groups: Sequence[Group], series: Series, start: float, end: float, first: float | None = None
) -> dict[str, list[Any]]:
    """By alert: (labels, fired, ended) of every firing, as the monitor itself would have seen them.

    ``first``: since when the group of that name has recorded.
    """
    store = Store()
    engine = Engine(store)
    events: list[tuple[float, int, Any]] = []
    for labels, samples in series:
        events += [(at / 1000, 0, (labels, value)) for at, value in samples]
    for number, group in enumerate(groups):
        begin = first if first is not None and group.name == "first" else start
        at = next_slot(begin - 1e-6, group.interval, slot_offset(group))
        while at <= end:
            events.append((at, 1 + number, group))
            at += group.interval
    states = {group.name: GroupState.of(group) for group in groups}
    found: dict[str, list[Any]] = {}
    opened: dict[tuple[str, Labels], list[Any]] = {}
    for at, _, what in sorted(events, key=lambda one: (round(one[0] * 1000), one[1])):
        if not isinstance(what, Group):
            store.append(round(at * 1000), [what])
            continue
        evaluate(
            what, states[what.name], at, engine.instant, store.append, lambda t, data: templates.parse(t).expand(data)
        )
        for rule, memory in zip(what.rules, states[what.name].rules, strict=True):
            assert memory.health == "ok", memory.error
            if not isinstance(rule, Alerting):
                continue
            for labels, alert in memory.alerts.items():
                key = (rule.alert, labels)
                if alert.state is State.FIRING and key not in opened:
                    opened[key] = [labels, round(at, 3), None]
                    found.setdefault(rule.alert, []).append(opened[key])
                elif alert.state is State.INACTIVE and key in opened:
                    opened.pop(key)[2] = round(at, 3)
    return found


@pytest.fixture
def recorded() -> Iterator[Callable[[Series], Remote]]:
    """Makes the API of a monitor whose history is the given series."""
    with Threads(1, "test") as threads, contextlib.ExitStack() as stack:

        def make(series: Series) -> Remote:
            store = Store()
            for labels, samples in series:
                for at, value in samples:
                    store.append(at, [(labels, value)])
            sources = Sources(store, Engine(store), [], [], lambda: float(NOW), threads)
            remote = stack.enter_context(Remote("http://127.0.0.1"))
            remote._http = stack.enter_context(TestClient(Starlette(routes=routes(sources))))
            return remote

        yield make


def played(groups: Sequence[Group], remote: Remote, start: float, end: float) -> dict[str, list[Any]]:
    result = run(groups, Source(remote), start, end)
    assert [each.problem for each in result.outcomes if each.problem] == []
    assert result.gap == 0
    found: dict[str, list[Any]] = {}
    for each in result.outcomes:
        for one in each.firings:
            spell = [one.labels, round(one.fired, 3), one.ended and round(one.ended, 3)]
            found.setdefault(each.rule.alert, []).append(spell)
    return found


def ordered(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: sorted(firings, key=repr) for name, firings in sorted(found.items())}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_says_what_would_have_happened_live(recorded: Callable[[Series], Remote], seed: int) -> None:
    """Every firing, to the millisecond: recorded series, their own past, mixtures with history, templates, gaps."""
    series = made(NOW, seed)
    groups = rulefile.load(RULES, Path("rules.yml"))
    begin = NOW - 3000
    expected = live(groups, series, begin, NOW)
    assert set(expected) >= {rule.alert for rule in groups[1].rules if isinstance(rule, Alerting)} - {"Late", "Gone"}
    assert ordered(played(groups, recorded(series), begin, NOW)) == ordered(expected)


def breached(now: int) -> Series:
    """Half an hour of a server that answers slowly for six minutes of it, and is down for two."""
    times = list(range(now - 1800, now + 1, 5))
    mine = {"service": "app", "job": "server", "instance": "a"}
    found: Series = [
        (labels_of(__name__="up", **mine), [(at * 1000, float(not now - 400 < at < now - 280)) for at in times]),
        (labels_of(__name__="process_memory_usage_bytes", **mine), [(at * 1000, 4e8 + at % 900 * 2e5) for at in times]),
        (labels_of(__name__="http_server_active_users", **mine), [(at * 1000, 30.0 + at % 7) for at in times]),
    ]
    for name, limit in (("http_server_request", 0.2), ("db_client_operation", 0.05), ("browser_page_load", 2.0)):
        counts = {f"{edge:g}": 0.0 for edge in (limit / 2, limit, limit * 4)} | {"+Inf": 0.0}
        rows: dict[str, list[tuple[int, float]]] = {edge: [] for edge in counts}
        total = 0.0
        for at in times:
            slow = now - 1400 < at < now - 1040 and at % 50 < 40
            for number, edge in enumerate(counts):
                counts[edge] += 40.0 if number >= (2 if slow else 0) else 0.0
                rows[edge].append((at * 1000, counts[edge]))
            total += 40 * limit * (3 if slow else 0.4)
            rows.setdefault("sum", []).append((at * 1000, total))
        base = f"{name}_duration_seconds"
        found += [(labels_of(__name__=f"{base}_bucket", le=edge, **mine), rows[edge]) for edge in counts]
        found.append((labels_of(__name__=f"{base}_sum", **mine), rows["sum"]))
        found.append((labels_of(__name__=f"{base}_count", **mine), rows["+Inf"]))
    return found


def test_our_own_rules_as_they_would_live(recorded: Callable[[Series], Remote]) -> None:
    """Each rule that the shipped targets make, over a breach and an outage: the very firings of the monitor."""
    groups = rulefile.load(rulefile.dump(rule_groups(load(None, {}))), Path("rules.yml"))
    series = breached(NOW)
    expected = live(groups, series, NOW - 1800, NOW)
    assert set(expected) >= {"TargetMissed", "ServiceDown", "Watchdog"}
    got = played(groups, recorded(series), NOW - 1800, NOW)
    assert ordered(got) == ordered(expected)


def test_what_is_recorded_is_computed_from_before_the_start(recorded: Callable[[Series], Remote]) -> None:
    """With more history than was asked for, recorded series have the past that the alerts look at."""
    series = made(NOW, 4)
    first, second = rulefile.load(RULES, Path("rules.yml"))
    kept = ("Recorded", "Mixed", "Kinds")
    second = replace(second, rules=tuple(rule for rule in second.rules if getattr(rule, "alert", "") in kept))
    begin = NOW - 1200
    expected = live([first, second], series, begin, NOW, first=NOW - 3000)
    assert set(expected) == set(kept)
    assert ordered(played([first, second], recorded(series), begin, NOW)) == ordered(expected)


def test_times_in_which_nobody_collected_are_left_out(recorded: Callable[[Series], Remote]) -> None:
    """A monitor that was off tells of nothing; a `for` goes on after it; the result says how long it was off."""
    ticks = [*range(NOW - 3000, NOW - 2000, 10), *range(NOW - 800, NOW + 1, 10)]
    series: Series = [(UP, [(at * 1000, 1.0) for at in ticks])]
    rules = (Alerting("Silent", "absent(other)", hold=1500.0), Alerting("Quick", "vector(1)", hold=60.0))
    result = run([Group("g", 10.0, rules)], Source(recorded(series)), NOW - 3000, NOW)
    silent, quick = result.outcomes
    assert result.gap == pytest.approx(1200, abs=200)
    assert len(quick.firings) == 1
    assert silent.firings[0].fired == pytest.approx(NOW - 3000 + 1500 + 1200 - 150, abs=40)
    assert (silent.missing, quick.missing) == (("other",), ())


def test_what_cannot_be_said_is_said(recorded: Callable[[Series], Remote]) -> None:
    """A rule with @, one that looks ahead, circles over two groups, an error in a query: only that rule is left out."""
    exprs = {
        "At": "level @ end() > 0",
        "Ahead": "level offset -1m > 0",
        "Inside": "max_over_time((level and a:x)[5m:1m]) > 0",
        "Circle": "a:x > 0",
        "Rests": "c:z > 0",
        "Error": "level + on () group_left () level",
        "Fine": "level > 0",
    }
    groups = [
        Group("one", 10.0, (Recording("a:x", "b:y or vector(1)"), Recording("c:z", "a:x + 1"))),
        Group("two", 10.0, (Recording("b:y", "a:x"), *(Alerting(name, expr) for name, expr in exprs.items()))),
    ]
    result = run(groups, Source(recorded(made(NOW, 5, seconds=600))), NOW - 600, NOW)
    said = {each.rule.alert: each.problem for each in result.outcomes}
    assert "@ modifier" in said["At"]
    assert "future" in said["Ahead"]
    assert "level is from history" in said["Inside"]
    assert said["Circle"] == said["Rests"].partition(": ")[2] or "one, two read from each other" in said["Circle"]
    assert "one, two read from each other" in said["Rests"]
    assert "many-to-many" in said["Error"] or "duplicate" in said["Error"] or "multiple" in said["Error"]
    assert said["Fine"] == ""


def test_a_query_that_is_too_much_at_once_is_asked_in_pieces(recorded: Callable[[Series], Remote]) -> None:
    """A monitor that refuses long ranges still answers; never are more than 11,000 points asked for."""
    remote, asked = recorded([(UP, [(at * 1000, 1.0) for at in range(NOW - 90_000, NOW + 1, 60)])]), []
    ask = remote.ask

    def limited(path: str, **parameters: str) -> dict[str, Any]:
        if path == "query_range":
            points = (float(parameters["end"]) - float(parameters["start"])) / float(parameters["step"])
            asked.append(points)
            if points > 300 and len(asked) < 20:
                raise RemoteError("query processing would load too many samples", wrong=True)
        return ask(path, **parameters)

    remote.ask = limited  # type: ignore[method-assign]
    result = run([Group("g", 1.0, (Alerting("Up", "up > 0"),))], Source(remote), NOW - 86_400, NOW)
    assert len(result.outcomes[0].firings) == 1
    assert max(asked) < 11_000
    assert max(asked) > 1000


def test_a_source_that_dies_ends_the_backtest(recorded: Callable[[Series], Remote]) -> None:
    """It is not asked again for every rule: the whole has failed, and says who does not answer."""
    remote, asked = recorded(made(NOW, 6, seconds=900)), []
    ask = remote.ask

    def dying(path: str, **parameters: str) -> dict[str, Any]:
        asked.append(path)
        if len(asked) > 3:
            raise UnreachableError("http://127.0.0.1 does not answer: connection refused")
        return ask(path, **parameters)

    remote.ask = dying  # type: ignore[method-assign]
    with pytest.raises(UnreachableError):
        run(rulefile.load(RULES, Path("rules.yml")), Source(remote), NOW - 900, NOW)
    assert len(asked) == 4


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """How far it is stands on standard error, for a person alone, and is gone at the end."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with _progress() as (total, progress):
        total(200)
        progress(50)
    assert "playing the rules" in terminal.getvalue()
    assert "25%" in terminal.getvalue()
    monkeypatch.setattr("sys.stderr", plain := io.StringIO())
    with _progress() as (total, progress):
        total(2)
        progress(1)
    assert plain.getvalue() == ""


@pytest.mark.parametrize("seed", range(20))
def test_expressions_are_written_as_they_were_read(seed: int) -> None:
    """The text of a tree reads as the same tree, whatever binds how strongly."""
    rng = random.Random(seed)

    def expr(depth: int) -> str:
        if not depth:
            return rng.choice(
                ["a", "1", "-2.5", 'b{x="\\\\d\\"",y=~"c.*"}', "NaN", "c offset 90s", "d @ 5.5", "up offset -1m"]
            )
        left, right = expr(rng.randrange(depth)), expr(rng.randrange(depth))
        return rng.choice([
            f"({left}) {rng.choice(['+', '-', '*', '/', '%', '^'])} ({right})",
            f"(a + {left}) {rng.choice(['and', 'or', 'unless'])} on (x, y) (b - {right})",
            f"(a * {left}) > bool (b ^ {right})",
            f"a / ignoring (x) group_left (z) (b * {right})",
            f"-(a + {left})",
            f"sum by (x) (a + {left})",
            f"topk without () ({right.count('a')}, a - {left})",
            f"max_over_time((a + {left})[5m:90s] offset 1h)",
            'rate(a{b!="c"}[1m] @ end())',
            f"histogram_quantile(0.9, a - {left})",
        ])  # fmt: skip

    for _ in range(20):
        tree = parse(expr(4))
        assert repr(parse(text(tree))) == repr(tree)


def test_the_command(
    start: Callable[..., Any], configuration_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against a monitor that runs: our own rules, a file of rules, --json, what is missing, and the exit status."""
    monitor, now = start(), int(time.time())
    real_prometheus.push(monitor.url, made(now, 7))
    rules = tmp_path / "new.yml"
    rules.write_text(RULES.replace("- {alert: Always, expr: vector(1)}", "- {alert: Lost, expr: nothing_here > 1}"))

    def run_it(*arguments: str) -> tuple[int, str, str]:
        options = ["--config", str(configuration_file), "--url", monitor.url, *arguments]
        status = main(["backtest", *options])
        said = capsys.readouterr()
        return status, said.out, said.err

    status, out, _ = run_it("--since", "45m", "--rules", str(rules))
    assert status == 0
    assert re.search(r"^Held\{?.* +\d+ times +.* +\d+ +20\d\d-", out, re.MULTILINE)
    assert "  Lost: history has no nothing_here" in out
    status, out, _ = run_it("--since", "45m", "--rules", str(rules), "--json")
    found = {each["alert"]: each for each in json.loads(out)["alerts"]}
    assert found["Plain"]["fired"] == len(found["Plain"]["firings"]) > 3
    assert found["Held"]["longest"] > 30
    status, out, _ = run_it("--since", "45m")
    assert status == 0
    assert 'TargetMissed{service="shop",' in out.replace(", ", ",")
    assert run_it("--since", "soon")[0] == 2
    rules.write_text("groups:\n- {name: g, rules: [{record: a, expr: b}]}\n")
    assert run_it("--rules", str(rules))[0] == 2
    assert main(["backtest", "--url", "http://127.0.0.1:9", "--config", str(configuration_file)]) == 1


@pytest.mark.needs("prometheus")
def test_a_real_prometheus_gives_the_same(tmp_path: Path) -> None:
    """The history of a Prometheus, asked over its API, gives the firings that our own evaluator sees live."""
    now = int(time.time()) // 30 * 30  # gaps are looked for every 30 s
    series = made(now, 11)
    groups = rulefile.load(RULES, Path("rules.yml"))
    with real_prometheus.running(tmp_path) as url, Remote(url) as remote:
        real_prometheus.push(url, series)
        assert ordered(played(groups, remote, now - 3000, now)) == ordered(live(groups, series, now - 3000, now))
