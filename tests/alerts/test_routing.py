"""That a channel fails is told through another one, to real sinks, and what each channel is for."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any

import pytest

from anvil_monitor.alerts import routing
from anvil_monitor.alerts.delivery import Delivery, Patience
from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.pipeline import Pipeline
from anvil_monitor.targets import Channel, Secret

URL = Secret("monitor.toml", "json://127.0.0.1/")
TEAM, MAIL, PAGER = Channel("team", URL), Channel("mail", URL), Channel("pager", URL, severities=("critical",))
SHOP = Channel("shop", URL, services=("shop",))


def broken(channel: str, at: float = 0.0) -> Alert:
    labels = {"alertname": "NotificationsFailing", "service": "anvil-monitor", "severity": "warning"}
    return Alert({**labels, "channel": channel}, {"summary": f"Nothing reaches the channel {channel}"}, at)


@pytest.mark.parametrize(
    ("channels", "failing", "told"),
    [
        ((TEAM, MAIL, PAGER), ("team",), {"team": ["mail"]}),
        ((TEAM, MAIL, PAGER), ("team", "mail"), {"team": ["pager"], "mail": ["pager"]}),
        ((TEAM, PAGER), ("team",), {"team": ["pager"]}),
        ((TEAM, MAIL), ("team", "mail"), {"team": ["mail"], "mail": ["team"]}),
        ((TEAM, SHOP), ("team",), {"team": ["team"]}),
        ((TEAM,), ("team",), {"team": ["team"]}),
        ((TEAM, MAIL), ("gone",), {"gone": ["team", "mail"]}),
    ],
    ids=[
        "another that takes it",
        "two fail: the third, for all its severities",
        "one that leaves it out for its severity is better than the one that fails",
        "all fail: each through the other, should that come back first",
        "a channel for one service is not told of the monitor",
        "the only one is told when it works again",
        "a channel that is no longer configured is told to all",
    ],
)
def test_round_what_fails(channels: tuple[Channel, ...], failing: tuple[str, ...], told: dict[str, list[str]]) -> None:
    """Which channels hear that others fail."""
    alerts = [broken(name) for name in failing]
    lost = routing.failing(alerts)
    found = {
        alert.labels["channel"]: [channel.name for channel in routing.around(channels, alert, lost)] for alert in alerts
    }
    assert found == told


def test_other_alerts_go_where_they_are_asked_for(alerts: Any) -> None:
    """What fails keeps everything else: it waits in its queue."""
    lost = routing.failing([broken("team")])
    found = routing.around((TEAM, MAIL, SHOP), alerts.missed(), lost)
    assert [channel.name for channel in found] == ["team", "mail"]


def test_it_arrives_elsewhere(outbox: Outbox, configure: Any, make_sink: Any, until: Any, clock: Any) -> None:
    """The channel that answers 500 gets nothing about itself; the other one hears of it and of its end; what else is
    told waits for the broken one."""
    dead, well = make_sink(), make_sink()
    dead.statuses = [500] * 1000

    def hook(sink: Any) -> str:
        return str(sink.url.replace("json://", "webhook+http://"))

    configuration = configure({"team": hook(dead), "mail": hook(well)}, group_wait=0.0, group_interval=0.0)
    pipeline = Pipeline(configuration, outbox, clock)

    async def work() -> None:
        delivery = Delivery(configuration, outbox, dict(os.environ), patience=Patience(first=0.05, longest=0.1))
        running = asyncio.create_task(delivery.run())
        alert = broken("team", clock.now)
        pipeline.update([alert])
        await until(lambda: len(well.received) == 1)
        clock.now += 60
        pipeline.update([replace(alert, ends_at=clock.now), replace(alert, labels={"alertname": "Other"})])
        await until(lambda: len(well.received) == 3 and dead.posts)
        await delivery.close(0)
        await running

    asyncio.run(work())
    told = [got["title"] for got in well.received]
    assert told[0] == "anvil-monitor: Nothing reaches the channel team"
    assert "NotificationsFailing of anvil-monitor is over" in told[1:]
    waiting = [(one.channel, one.topic) for one in outbox.ledger() if one.state == "queued"]
    assert waiting == [("team", "")]
