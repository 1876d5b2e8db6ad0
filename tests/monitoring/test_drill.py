"""``anvil-monitor drill``: a target is missed for real, told through the channels, timed, and marked as a drill."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anvil_monitor.alerts.rulefile import Alerting
from anvil_monitor.alerts.rules import rule_groups
from anvil_monitor.monitoring.cli import main
from anvil_monitor.monitoring.drill import drill
from anvil_monitor.monitoring.drillcommand import as_json, lines
from anvil_monitor.monitoring.drillservice import Instrument
from anvil_monitor.monitoring.drillstage import BEAT, MARK, Report, Step, marked, staged
from anvil_monitor.targets import Configuration, ConfigurationError, Target, load
from anvil_monitor.targets.load import parse

TARGETS = ("api_response_time", "db_query_time", "memory", "concurrent_users")


@pytest.fixture
def shop(configuration_file: Path) -> Path:
    """A monitor.toml with two channels: one arrives at the server's sink, the other at a closed door."""
    text = configuration_file.read_text(encoding="utf-8")
    more = '[channels.gone]\nurl = "env:GONE_URL"\nseverities = ["warning"]\nservices = ["shop"]\n[monitor]'
    configuration_file.write_text(text.replace("[monitor]", more), encoding="utf-8")
    return configuration_file


def of(configuration: Configuration, name: str) -> Target:
    return next(target for target in configuration.targets if target.name == name)


def test_every_channel_is_told_and_timed(
    server: Any, shop: Path, hook_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message and its end are marked; a channel that fails says why; each step comes after the one before it."""
    monkeypatch.setenv("HOOK_URL", hook_url)
    monkeypatch.setenv("GONE_URL", "json://127.0.0.1:9/secret-path")
    data = load(shop, {}).monitor.data
    assert main(["drill", "shop/api_response_time", "--yes", "--config", str(shop)]) == 1
    said = capsys.readouterr()
    titles = [each["title"] for each in server.posted]
    assert titles[0].startswith(f"{MARK} API response time of drill-shop ")
    assert "< 200 ms" in titles[0]
    assert titles[1] == f"{MARK} API response time of drill-shop recovered"
    assert "This is a drill" in json.dumps(server.posted[0])
    assert len(titles) == 2, "and nothing else of the drill is told"
    steps = [re.split(r"  +", line) for line in said.out.splitlines() if re.search(r"\d\.\d\d s$", line)]
    assert [step[0] for step in steps if step[0] != "delivered to gone"][:6] == [
        "scraped", "recorded", "pending", "firing", "enqueued", "delivered to hook"]  # fmt: skip
    assert re.search(r"delivered to gone +\S.* never", said.out)
    assert "secret-path" not in said.out + said.err
    assert "budget 3.00 s" in said.out
    assert not data.exists(), "the folder of the real monitor is not touched"


OWN = """
[targets.checkout]
kind = "percentile"
metric = 'http_server_request_duration_seconds{http_route=~"/checkout/.+"}'
at_most = "500ms"
[targets.free]
kind = "gauge"
metric = 'cache_free_bytes{tier!="cold"}'
at_least = "1GB"
[targets.good_orders]
kind = "ratio"
good = 'orders_total{result="ok"}'
total = "orders_total"
at_least = "99.5%"
floor = 1000
[targets.signups]
kind = "rate"
metric = 'signups_total{plan="pro"}'
at_least = 0.1
[targets.errors]
kind = "expression"
expr = 'sum(rate(hits{service="$service",code=~"5.."}[$window])) / sum(rate(hits{service="$service"}[$window]))'
unit = "percent"
at_most = "2%"
"""


@pytest.mark.parametrize("names", [TARGETS, ("checkout", "free", "good_orders", "signups", "errors")])
def test_each_kind_of_target_can_be_missed(
    configuration: Configuration, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Each shipped kind and each of the user's own: missed, recovered, and nobody told, for nobody was named."""
    more = tuple(replace(each, service="shop") for each in parse(OWN).targets if f".{each.name}]" in OWN)
    configuration = replace(configuration, targets=(*configuration.targets, *more))

    async def all_of_them() -> list[Any]:
        folders = [tmp_path / name for name in names]
        for folder in folders:
            folder.mkdir()
        return await asyncio.gather(
            *(
                drill(configuration, of(configuration, name), [], {}, folder, lambda text: None)
                for name, folder in zip(names, folders, strict=True)
            )
        )

    for report in asyncio.run(all_of_them()):
        for steps in (report.missed, report.recovered):
            assert None not in [step.seconds for step in steps], (report.target.name, steps)
            assert [step.seconds for step in steps] == sorted(step.seconds for step in steps), report.target.name
        assert report.missed[-1].name == "delivered to dry-run"
        assert report.slowest is not None


UNDRILLABLE = {
    "a long look back": ('sum(rate(hits_total{service="$service"}[5m]))', "looks back over 5 min by itself"),
    "another service": ('sum(jobs{service="other"})', 'asks for service="other" by name; write $service'),
    "what the monitor writes": ('sum(up{service="$service"})', "read from up, which the monitor writes itself"),
    "another job": ('sum(jobs{job="cron"})', 'asks for job="cron", which the service of a drill has not'),
    "no scene": ("vector(3)", "it asks for no series"),
}


@pytest.mark.parametrize(("expr", "says"), UNDRILLABLE.values(), ids=UNDRILLABLE.keys())
def test_what_cannot_be_missed_is_refused(
    configuration_file: Path, capsys: pytest.CaptureFixture[str], expr: str, says: str
) -> None:
    """Exit status 2, with the reason and what to do instead; nothing was started."""
    text = f"[targets.x]\nkind = 'expression'\nexpr = '{expr}'\nat_most = 50\n"
    configuration_file.write_text(text + configuration_file.read_text(encoding="utf-8"), encoding="utf-8")
    assert main(["drill", "x", "--dry-run", "--config", str(configuration_file)]) == 2
    said = capsys.readouterr().err
    assert "x cannot be missed on purpose: it" in said
    assert says in said
    assert "drill another target" in said


def test_only_the_missed_target_is_in_the_rules_and_all_are_marked(
    configuration: Configuration, tmp_path: Path
) -> None:
    """No other alert can come out of a drill, whatever the host does meanwhile; every channel takes this one."""
    target = of(configuration, "concurrent_users")
    stage = staged(configuration, target, configuration.channels, "http://127.0.0.1:1", tmp_path)
    rules = [rule for group in marked(target)(rule_groups(stage)) for rule in group.rules]
    (alert,) = [rule for rule in rules if isinstance(rule, Alerting)]
    assert alert.labels["target"] == "concurrent_users"
    assert alert.labels["severity"] == "critical"
    assert {rule.labels["drill"] for rule in rules} == {"true"}
    assert {rule.labels["service"] for rule in rules} == {"drill-shop"}
    assert [channel.services for channel in stage.channels] == [()]
    assert (stage.maintenance, stage.monitor.rules, stage.monitor.token, stage.monitor.data) == ((), (), None, tmp_path)
    assert (stage.monitor.heartbeat, stage.monitor.external_url) == (None, "")


def test_a_slow_channel_is_a_broken_budget(configuration: Configuration) -> None:
    """The verdict compares what is beyond the rule's own ``for`` with one scrape, one evaluation and a second."""
    target = of(configuration, "memory")
    steps = (Step("firing", 3.5), Step("delivered to team", 9.0))
    slow = Report(target, 0.0, 10.0, steps, steps, 2.0, 3.0, 7.0)
    assert not slow.kept
    assert "7.00 s from breach to the last channel" in "\n".join(lines(slow, configuration))
    assert ": MISSED" in "\n".join(lines(slow, configuration))
    found = as_json(slow)
    assert (found["kept"], found["beyondFor"], found["missed"][1]["seconds"]) == (False, 7.0, 9.0)
    assert replace(slow, slowest=2.9).kept
    assert not replace(slow, slowest=None).kept


def test_numbers_keep_the_target_until_they_do_not(configuration: Configuration) -> None:
    """The instrument has an edge at the limit and enough requests for the floor in every scrape."""
    target = of(configuration, "api_response_time")
    instrument = Instrument((target,), BEAT)
    good = instrument.text()
    assert f'_bucket{{le="0.2"}} {max(100, 2 * target.floor)}\n' in good
    instrument.missed = True
    assert f'_bucket{{le="0.2"}} {max(100, 2 * target.floor)}\n' in instrument.text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["memry", "--yes"], "did you mean 'memory'"),
        (["other/memory", "--yes"], "there is no target 'other/memory'"),
        (["memory", "--yes", "--channels", "team"], "there is no channel 'team'"),
        (["memory", "--yes", "--channels", ","], "names nobody"),
        (["memory"], "say --yes, or --dry-run"),
    ],
)
def test_nobody_is_told_by_mistake(
    arguments: list[str], said: str, configuration_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown names, and a drill that cannot ask before it tells people: exit status 2, nothing started."""
    assert main(["drill", *arguments, "--config", str(configuration_file)]) == 2
    assert said in capsys.readouterr().err


def test_it_asks_before_it_tells(
    configuration_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal everything but yes means no."""
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return "maybe"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", answer)
    assert main(["drill", "--config", str(configuration_file)]) == 2
    assert "This tells hook of a drill" in asked[0]
    assert "nobody was told" in capsys.readouterr().err


def test_an_address_or_channel_that_cannot_be_used_ends_it(
    configuration: Configuration, tmp_path: Path, start: Callable[..., Any]
) -> None:
    """What keeps a monitor from starting keeps the drill from starting, in the same words."""
    (tmp_path / "full").write_text("no folder")
    with pytest.raises(ConfigurationError):
        asyncio.run(drill(configuration, of(configuration, "memory"), [], {}, tmp_path / "full", lambda text: None))
