"""Delivery processes begun before their message, and the one plugin of Apprise's that each of them loads."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anvil_monitor.alerts import plugins
from anvil_monitor.alerts.delivery import Delivery
from anvil_monitor.alerts.model import Draft
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.pipeline import Pipeline
from anvil_monitor.alerts.sender import REST, AppriseSender
from anvil_monitor.targets import Channel, Secret

CHANNEL = Channel("hook", Secret("monitor.toml", "json://127.0.0.1:9/x"))


def running(delivery: Delivery) -> dict[str, int]:
    assert delivery._own is not None
    return delivery._own.pids()


def test_a_message_finds_the_process_ready(
    outbox: Outbox, configure: Any, make_sink: Any, until: Any, alerts: Any
) -> None:
    """What is expected begins the process of each channel that would hear of it and sends by Apprise; its message
    goes through that process, and nothing is sent before."""
    sink = make_sink()
    hook = Channel("hook", Secret("monitor.toml", sink.url))
    channels = {
        "hook": hook,
        "warnings": replace(hook, name="warnings", severities=("warning",)),
        "plain": Channel("plain", Secret("monitor.toml", sink.url.replace("json://", "webhook+http://"))),
        "bot": Channel("bot", Secret("monitor.toml", "slackbot://xoxb-0000000000@C01234567")),
        "unset": Channel("unset", Secret("env:ANVIL_TEST_NOT_SET")),
    }

    async def work() -> None:
        delivery = Delivery(configure(channels), outbox, dict(os.environ))
        task = asyncio.create_task(delivery.run())
        await until(lambda: delivery._loop)
        delivery.expect([alerts.missed()])
        await until(lambda: "hook" in running(delivery))
        before = running(delivery)
        assert list(before) == ["hook"]
        outbox.record([Draft("hook", "app", "failure", "Title", "Body")], [], time.time())  # while it gets ready
        await until(lambda: outbox.counts() == {("hook", "sent"): 1})
        assert running(delivery) == before
        assert len(sink.received) == 1
        await delivery.close(0)
        await task
        delivery.expect([alerts.missed()])
        assert running(delivery) == {}

    asyncio.run(work())


def test_what_never_comes_costs_little(until: Any) -> None:
    """A process that was begun for nothing ends when idle, and none is begun ahead again for five minutes."""
    now = [1000.0]

    async def work() -> None:
        sender = AppriseSender(idle=0.05, clock=lambda: now[0])
        url = CHANNEL.url.reveal({})
        await sender.warm(CHANNEL, url)
        await until(lambda: sender.pids() == {})
        now[0] += REST - 1
        await sender.warm(CHANNEL, url)
        assert sender.pids() == {}
        now[0] += 1
        await sender.warm(CHANNEL, url)
        (pid,) = sender.pids().values()
        await until(lambda: not Path(f"/proc/{pid}").exists())
        await sender.close()

    asyncio.run(work())


def test_what_waits_for_its_group_is_told_soon(outbox: Outbox, configure: Any, clock: Any, alerts: Any) -> None:
    """An alert that waits for its group is known by when it is told; one that was told is expected no more."""
    pipeline = Pipeline(configure({"hook": "json://127.0.0.1/"}, group_wait=40.0), outbox, clock)
    alert = alerts.missed(at=clock.now)
    pipeline.update([alert])
    assert pipeline.soon(30) == []
    clock.now += 15
    pipeline.update([alert])
    assert pipeline.soon(30) == [alert]
    clock.now += 25
    pipeline.update([alert])
    assert pipeline.soon(30) == []
    assert len(outbox.ledger()) == 1


LOADED = """
import sys
from anvil_monitor.alerts.delivery_process import Sending
outcome = Sending().answer({"url": sys.argv[1]})
print(outcome.delivered, sum(name.count(".") == 2 for name in sys.modules if name.startswith("apprise.plugins.")))
"""


@pytest.mark.parametrize(
    "url",
    [
        "json://127.0.0.1/x",
        "mailto://user:word@127.0.0.1:25?from=a@example.test&to=b@example.test",
        "tgram://123456789:abcdefg_hijklmnop/12315544/",
    ],
)
def test_only_the_plugin_that_is_needed_is_loaded(url: str) -> None:
    """A delivery process has one plugin of Apprise's in it, of more than a hundred."""
    # The base that each of them rests on is a module, too.
    done = subprocess.run([sys.executable, "-P", "-c", LOADED, url], capture_output=True, text=True, check=True)
    delivered, modules = done.stdout.split()
    assert (delivered, int(modules) - 1) == ("True", 1)


@pytest.mark.parametrize(
    ("url", "delivered"),
    [("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "True"), ("bogus://x", "False")],
)
def test_what_no_plugin_claims_is_shown_to_all(url: str, delivered: str) -> None:
    """The web address of a service is understood, and what nobody understands is refused, as by Apprise alone."""
    done = subprocess.run([sys.executable, "-P", "-c", LOADED, url], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == delivered
    assert int(done.stdout.split()[1]) > 100


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what all those plugins import
def test_each_scheme_leads_to_its_plugin() -> None:
    """For each scheme of Apprise's: the plugin that is found by its name is the one that Apprise has for it, or none
    is found and all are loaded. For most it is found."""
    from apprise.manager_plugins import NotificationManager

    manager = NotificationManager()
    manager.load_modules()
    schemes = {scheme: manager[scheme].__module__.split(".")[2] for scheme in manager.schemas()}
    found = {scheme: plugins.named(scheme) for scheme in schemes}
    assert {scheme: names for scheme, names in found.items() if names and schemes[scheme] not in names} == {}
    assert sum(names == [schemes[scheme]] for scheme, names in found.items()) > 0.9 * len(schemes) > 100
