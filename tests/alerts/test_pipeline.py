"""What happens before a person hears: each stage, their order, and what a restart or a full disk does to them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anvil_monitor.alerts import inhibition, silences
from anvil_monitor.alerts.matchers import parse
from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.outbox import Outbox, OutboxError
from anvil_monitor.alerts.pipeline import STAGES, Pipeline
from anvil_monitor.targets import Channel, Secret

URL = "json://127.0.0.1/"


@pytest.fixture
def build(configure: Any, outbox: Outbox, clock: Any) -> Callable[..., Pipeline]:
    """A pipeline with one channel, ``team``, or with given ones; group_wait 1 s, group_interval 30 s, repeat 4 h."""

    def make(channels: Any = None, **options: Any) -> Pipeline:
        configuration = configure(channels or {"team": URL})
        return Pipeline(configuration, outbox, clock, **options)

    return make


def titles(outbox: Outbox, channel: str = "team") -> list[str]:
    return [message.title for message in reversed(outbox.ledger()) if message.channel == channel]


def test_the_list_of_stages() -> None:
    """The product is one readable list."""
    names = [stage.__name__ for stage in STAGES]  # type: ignore[attr-defined]
    assert names == ["silence", "inhibit", "group", "route", "escalate", "hours", "deduplicate", "enqueue"]


def test_told_once(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """A firing is told after group_wait, once, however often it is evaluated; its end is told once."""
    pipeline, alert = build(), alerts.missed()
    pipeline.update([alert])
    assert titles(outbox) == []
    clock.now += 1
    pipeline.tick()
    for _ in range(20):
        clock.now += 5
        pipeline.update([replace(alert, annotations={**alert.annotations, "value": str(clock.now % 7)})])
    assert titles(outbox) == ["app: API response time 312 ms, target < 200 ms"]
    assert pipeline.decisions[0].reason == "nothing new"
    pipeline.update([alerts.over(alert, clock.now)])
    for _ in range(20):
        clock.now += 5
        pipeline.update([])
    assert titles(outbox)[1:] == ["app: API response time recovered"]


def test_one_that_has_been_pending_waits_no_more(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """An alert older than group_wait is told in the same round: its hold was wait enough."""
    build().update([alerts.missed(at=clock.now - 60)])
    assert len(titles(outbox)) == 1


def test_over_before_it_was_told(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """A firing that ended within group_wait is never told, and neither is its end."""
    pipeline, alert = build(), alerts.missed()
    pipeline.update([alert])
    clock.now += 0.5
    pipeline.update([alerts.over(alert, clock.now)])
    clock.now += 60
    pipeline.tick()
    assert titles(outbox) == []


def test_several_alerts_are_one_message(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """What breaks together within group_wait is one message a service."""
    pipeline = build()
    shop = alerts.missed("memory", service="shop", title="Server memory")
    pipeline.update([alerts.missed(), alerts.missed("memory", title="Server memory"), shop])
    clock.now += 1
    pipeline.tick()
    assert titles(outbox) == [
        "app: 2 alerts: API response time, Server memory",
        "shop: Server memory 312 ms, target < 200 ms",
    ]


def test_an_update_waits_for_the_group_interval(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """A second alert of a service is told group_interval after the first message, with the first as still going on."""
    pipeline = build()
    first, second = alerts.missed(), alerts.missed("memory", title="Server memory", at=clock.now + 5)
    clock.now += 1
    pipeline.update([first])
    clock.now += 10
    assert pipeline.update([first, second]) == clock.now + 20
    assert len(titles(outbox)) == 1
    clock.now += 20
    pipeline.update([first, second])
    assert titles(outbox)[1] == "app: Server memory 312 ms, target < 200 ms"
    assert "Still: API response time" in outbox.ledger()[0].body


def test_repeated_after_the_repeat_interval(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """What goes on is told again after repeat_interval, not before."""
    pipeline, alert = build(), alerts.missed()
    clock.now += 1
    pipeline.update([alert])
    clock.now += 4 * 3600 - 1
    pipeline.update([alert])
    assert len(titles(outbox)) == 1
    clock.now += 1
    pipeline.update([alert])
    assert titles(outbox)[1].startswith("app: still: API response time")
    assert outbox.ledger()[0].cause == "repeat interval elapsed"


def test_a_server_that_is_down_explains_the_rest(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """ServiceDown holds back all else of its service, not of another, and for two scrapes after it is back."""
    pipeline = build()
    down, missed = alerts.other("ServiceDown"), alerts.missed()
    silent = alerts.other("TargetNoData", severity="warning", target="memory")
    clock.now += 2
    pipeline.update([down, missed, silent, alerts.missed(service="shop")])
    assert titles(outbox) == ["app: ServiceDown", "shop: API response time 312 ms, target < 200 ms"]
    clock.now += 60
    pipeline.update([alerts.over(down, clock.now), missed, silent])
    assert titles(outbox)[2:] == ["ServiceDown of app is over"]
    clock.now += 10
    pipeline.update([missed, alerts.over(silent, clock.now)])
    assert len(titles(outbox)) == 3
    clock.now += 30
    pipeline.update([missed])
    assert titles(outbox)[3:] == ["app: API response time 312 ms, target < 200 ms"]


def test_a_server_that_is_down_has_not_recovered(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """A missed target whose server dies is not told as recovered, until the server is back and it still holds."""
    pipeline = build()
    missed, down = alerts.missed(), alerts.other("ServiceDown", at=clock.now + 30)
    clock.now += 2
    pipeline.update([missed])
    clock.now += 60
    pipeline.update([alerts.over(missed, clock.now), down])
    clock.now += 60
    pipeline.update([down])
    assert titles(outbox)[1:] == ["app: ServiceDown"]
    clock.now += 5
    pipeline.update([alerts.over(down, clock.now)])
    clock.now += 31
    pipeline.update([])
    assert titles(outbox)[2:] == ["ServiceDown of app is over", "app: API response time recovered"]


def test_a_silence_holds_back_firings_only(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """A silenced alert is not told while the silence lasts, then is; who was told before hears of the end anyway."""
    pipeline, known, new = build(), alerts.missed(), alerts.missed("memory", title="Server memory")
    clock.now += 2
    pipeline.update([known])
    silences.add(outbox, [parse("service=app")], author="Ada", reason="move", starts=clock.now, ends=clock.now + 600)
    clock.now += 60
    pipeline.update([known, new])
    assert len(titles(outbox)) == 1
    pipeline.update([alerts.over(known, clock.now), new])
    assert titles(outbox)[1:] == ["app: API response time recovered"]
    clock.now += 601
    pipeline.update([new])
    assert titles(outbox)[2:] == ["app: Server memory 312 ms, target < 200 ms"]


def test_channels_choose_by_severity_and_service(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """A channel hears of its severities and services only; an alert without severity counts as a warning."""
    secret = Secret("monitor.toml", URL)
    pipeline = build({
        "all": URL,
        "critical": Channel("critical", secret, severities=("critical",)),
        "shop": Channel("shop", secret, services=("shop",)),
    })  # fmt: skip
    clock.now += 2
    pipeline.update([
        alerts.missed(), alerts.other("Slow", service="shop", severity="warning"),
        Alert({"alertname": "Bare"}, {}, 0.0), alerts.other("Watchdog", severity="none"),
    ])  # fmt: skip
    assert titles(outbox, "all") == ["app: API response time 312 ms, target < 200 ms", "shop: Slow", "Bare"]
    assert titles(outbox, "critical") == ["app: API response time 312 ms, target < 200 ms"]
    assert titles(outbox, "shop") == ["shop: Slow"]


def test_channels_choose_by_target_and_label(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """Of targets only what is about one of them; of labels all of them have to fit, each with one of its values."""
    secret = Secret("monitor.toml", URL)
    pipeline = build({
        "database": Channel("database", secret, targets=("db_query_time",)),
        "team": Channel("team", secret, labels=(("team", ("shop", "cart")), ("tier", ("gold",)))),
    })  # fmt: skip
    clock.now += 2
    pipeline.update([
        alerts.other("About", target="db_query_time"), alerts.other("Other", target="memory"),
        alerts.other("Gold", team="cart", tier="gold"), alerts.other("Silver", team="shop", tier="silver"),
        alerts.other("Bare"),
    ])  # fmt: skip
    assert titles(outbox, "database") == ["app: About"]
    assert titles(outbox, "team") == ["app: Gold"]


def test_an_end_is_told_to_whom_the_firing_was(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """The recovery goes to the channels that heard of the firing, even where the channel's choice has changed."""
    critical = Channel("critical", Secret("monitor.toml", URL), severities=("critical",))
    alert = alerts.other("Slow", severity="warning")
    clock.now += 2
    build({"team": URL, "critical": critical}).update([alert])
    changed = build({"team": Channel("team", Secret("monitor.toml", URL), severities=("critical",)), "critical": URL})
    clock.now += 60
    changed.update([alerts.over(alert, clock.now)])
    assert titles(outbox, "team") == ["app: Slow", "Slow of app is over"]
    assert titles(outbox, "critical") == []


def test_a_restart_repeats_nothing(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """After a restart the same alert, pending and firing anew, is known; its end is told once."""
    alert = alerts.missed()
    clock.now += 2
    build().update([alert])
    clock.now += 10
    again = build()
    for _ in range(12):
        clock.now += 5
        again.update([])
    alert = replace(alert, starts_at=clock.now - 60)
    again.update([alert])
    assert len(titles(outbox)) == 1
    clock.now += 60
    again.update([alerts.over(alert, clock.now)])
    build().update([])
    assert titles(outbox)[1:] == ["app: API response time recovered"]


def test_what_recovered_while_the_monitor_was_down(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """An alert told before a restart that had time to fire again and did not is over, and that is told once."""
    clock.now += 2
    build().update([alerts.missed()])
    clock.now += 10
    again = build()
    for _ in range(60):
        clock.now += 5
        again.update([])
    assert titles(outbox)[1:] == ["app: API response time recovered"]


def test_an_alert_that_is_no_longer_mentioned_ends(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """An alert whose rule is gone without a word is over after a few evaluations; one missing evaluation is not."""
    pipeline, alert = build(), alerts.missed()
    clock.now += 2
    pipeline.update([alert])
    for _ in range(7):
        clock.now += 5
        pipeline.update([])
    assert len(titles(outbox)) == 1
    clock.now += 5
    pipeline.update([])
    assert titles(outbox)[1:] == ["app: API response time recovered"]


def test_a_suspended_monitor_has_seen_no_recovery(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """After an hour without an evaluation the alerts of before go on until evaluations say otherwise."""
    pipeline, alert = build(), alerts.missed()
    clock.now += 2
    pipeline.update([alert])
    clock.now += 3600
    pipeline.tick()
    pipeline.update([])
    pipeline.update([alert])
    assert len(titles(outbox)) == 1


def test_a_channel_that_is_gone_is_forgotten(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """What a channel was told that is no longer configured keeps no alert open."""
    clock.now += 2
    build({"old": URL}).update([alerts.missed()])
    build({"new": URL})
    assert outbox.told() == {}


def test_a_full_disk_delays_and_loses_nothing(
    build: Any, outbox: Outbox, clock: Any, alerts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the outbox cannot be written evaluation goes on and the problem is named; then the message is told."""
    pipeline = build()
    clock.now += 2

    def full(*_: Any) -> None:
        raise OutboxError("no space is left")

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "record", full)
        assert pipeline.update([alerts.missed()]) == clock.now + 1
        assert pipeline.problem == "no space is left"
    clock.now += 1
    pipeline.tick()
    assert pipeline.problem is None
    assert len(titles(outbox)) == 1


def test_a_recovery_says_what_is_measured_now(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """``measure`` is asked at the recovery; one that fails costs the number, not the message."""
    for measure, words in ((lambda _: 0.142, "recovered: 142 ms"), (lambda _: 1 / 0, "recovered, target")):
        pipeline, alert = build(measure=measure), alerts.missed(at=clock.now)
        clock.now += 2
        pipeline.update([alert])
        clock.now += 60
        pipeline.update([alerts.over(alert, clock.now)])
        assert words in outbox.ledger()[0].body


def test_flapping_is_bounded_by_the_group_interval(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """An alert that comes and goes every five seconds beside one that stays is told at most every group_interval."""
    pipeline, stays = build(), alerts.missed("memory", title="Server memory")
    start = clock.now
    for number in range(120):
        clock.now += 5
        flapping = alerts.missed(at=clock.now - 20)
        pipeline.update([stays, flapping if number % 2 else alerts.over(flapping, clock.now)])
    assert len(titles(outbox)) <= (clock.now - start) / 30 + 1


def test_a_thousand_alerts_in_a_round(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """A thousand alerts of one service are one message, and the next round sends none."""
    many = [alerts.missed(f"target_{number}") for number in range(1000)]
    pipeline = build()
    clock.now += 2
    pipeline.update(many)
    clock.now += 60
    pipeline.update(many)
    assert len(titles(outbox)) == 1


def test_a_broken_promise_needs_no_early_warning(build: Any, outbox: Outbox, clock: Any, alerts: Any) -> None:
    """TargetMissed holds back the warnings of its own target only; once it is over, one that still fires is told."""
    pipeline, missed = build(), alerts.missed()
    drifting = alerts.other("TargetDrifting", severity="warning", target="api_response_time")
    other = alerts.other("TargetTrending", severity="warning", target="memory")
    clock.now += 2
    pipeline.update([missed, drifting, other])
    assert titles(outbox) == ["app: 2 alerts: API response time, TargetTrending"]
    clock.now += 60
    pipeline.update([alerts.over(missed, clock.now), drifting, other])
    assert titles(outbox)[1:] == ["app: TargetDrifting"]


def test_what_explains_shares_labels_that_are_there() -> None:
    """An alert without the label of an inhibition is explained by nothing, not by another one without it."""
    bare = [Alert({"alertname": name}, {}, 0.0) for name in ("ServiceDown", "TargetMissed", "TargetDrifting")]
    assert not any(inhibition.explained(bare)(alert) for alert in bare)
    down = Alert({"alertname": "ServiceDown", "service": "app"}, {}, 0.0)
    assert not inhibition.explained([down])(down)
    assert inhibition.explained([down])(Alert({"alertname": "Mine", "service": "app"}, {}, 0.0))


def test_the_page_of_the_pipeline_has_the_stages_and_the_inhibitions() -> None:
    """docs/alerting.md lists every stage, in its order, and every row of the table of what explains what."""
    text = (Path(__file__).parents[2] / "docs" / "alerting.md").read_text(encoding="utf-8")
    names = [stage.__name__ for stage in STAGES]  # type: ignore[attr-defined]
    assert re.findall(r"^\| ([a-z]+) \|", text, re.MULTILINE)[1:] == names
    for rule in inhibition.TABLE:
        explains = ", ".join(f"`{name}`" for name in rule.explains) or "everything else"
        assert f"| `{rule.source}` | {explains} | {' and '.join(rule.equal)}" in text
