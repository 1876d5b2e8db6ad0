"""Whatever Alertmanager posts and wherever the notifier is killed: each firing and each end is told once."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from anvil_monitor.alerts.model import Alert, Notification
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.pipeline import Pipeline
from anvil_monitor.alerts.posted import Posted
from anvil_monitor.alerts.prometheus import nobody_knows
from anvil_monitor.alerts.rounds import Rounds
from anvil_monitor.targets import Channel, Configuration, Secret, load

START = 1_800_000_000.0
SECRET = Secret("monitor.toml", "json://127.0.0.1/")
ALL = (("app", "memory", "critical"), ("app", "api_response_time", "critical"), ("app", "db_query_time", "warning"),
       ("shop", "memory", "critical"), ("shop", "db_query_time", "warning"))  # fmt: skip
SERVICES = ("app", "shop")


class KilledError(Exception):
    """The process ends here."""


class World:
    """Alerts, an Alertmanager that posts each group until that is accepted, and a notifier that is killed."""

    def __init__(self, folder: Path) -> None:
        shipped = load(None, {})
        channels = (Channel("all", SECRET), Channel("critical", SECRET, severities=("critical",)),
                    Channel("late", SECRET, escalate_after=300.0))  # fmt: skip
        self.configuration: Configuration = replace(
            shipped, channels=channels, monitor=replace(shipped.monitor, data=folder, flap_limit=0)
        )
        self.now = START
        self.path = folder / "outbox.sqlite3"
        self.firing: dict[int, Alert] = {}
        self.over: dict[int, Alert] = {}  # ended, and not yet posted with success
        self.said: dict[str, bool] = {}  # what was accepted, by fingerprint
        self.heard: dict[tuple[str, str], bool] = {}
        self.seen = 0
        self.start()

    def start(self) -> None:
        self.outbox = Outbox(self.path)
        pipeline = Pipeline(self.configuration, self.outbox, lambda: self.now)
        posted = Posted(self.outbox, self.configuration.monitor, self.now)
        self.rounds = Rounds(pipeline, posted, lambda: self.now, nobody_knows)

    def restart(self) -> None:
        self.outbox.close()
        self.start()

    def toggle(self, number: int) -> None:
        service, target, severity = ALL[number]
        labels = {"alertname": "Mine", "service": service, "target": target, "severity": severity}
        if number in self.firing:
            self.over[number] = replace(self.firing.pop(number), ends_at=self.now)
        else:
            self.firing[number] = Alert(labels, {"summary": target}, self.now)
            self.over.pop(number, None)

    def group(self, service: str) -> list[Alert]:
        return [alert for alert in (*self.firing.values(), *self.over.values()) if alert.service == service]

    def post(self, service: str) -> None:
        alerts = self.group(service)
        if alerts:
            self.rounds.take(alerts, service, True)
            self.accepted(service, alerts)

    def accepted(self, service: str, alerts: list[Alert]) -> None:
        self.said.update({alert.fingerprint: alert.firing for alert in alerts})
        self.over = {number: alert for number, alert in self.over.items() if alert.service != service}

    def round(self) -> None:
        self.rounds.round()
        self.check()

    def killed(self, name: str, written: bool, act: Any) -> None:
        """SIGKILL in the midst of ``act``, before or after what it writes is on disk."""
        write = getattr(self.outbox, name)

        def crash(*arguments: Any) -> None:
            if written:
                write(*arguments)
            raise KilledError

        setattr(self.outbox, name, crash)
        with contextlib.suppress(KilledError):
            act()
        self.restart()

    def killed_in_post(self, service: str, written: bool) -> None:
        """Alertmanager has no answer and posts the same again, later; what was written counts as said."""
        alerts, before = self.group(service), {row["fingerprint"]: row["alert"] for row in self.rows()}
        self.killed("execute_all", written, lambda: self.rounds.take(alerts, service, True) if alerts else None)
        if {row["fingerprint"]: row["alert"] for row in self.rows()} != before:
            self.said.update({alert.fingerprint: alert.firing for alert in alerts})
        self.check()

    def killed_in_round(self, written: bool) -> None:
        self.killed("record", written, self.rounds.round)
        self.check()

    def rows(self) -> list[dict[str, Any]]:
        return self.outbox.rows("SELECT * FROM posted")

    def wait(self, times: int) -> None:
        """Seconds go by in steps of ten; each group is posted once a minute."""
        for number in range(times):
            self.now += 5.0
            if number % 12 == 0:
                for service in SERVICES:
                    self.post(service)
            self.round()

    def check(self) -> None:
        """What is told anew: nothing twice, no end of what was not told, nothing but what was accepted."""
        rows = self.outbox.rows("SELECT id, channel, payload FROM messages WHERE id > ? ORDER BY id", self.seen)
        for message in rows:
            self.seen = message["id"]
            told = Notification.from_json(message["payload"])
            for alert in told.firing:
                place = (message["channel"], alert.fingerprint)
                assert not self.heard.get(place), "a firing is told twice"
                assert self.said[alert.fingerprint], "what does not fire is told"
                self.heard[place] = True
            for alert in told.resolved:
                place = (message["channel"], alert.fingerprint)
                assert self.heard.get(place), "an end is told to who has not heard of the firing, or twice"
                assert not self.said[alert.fingerprint], "what fires is told as over"
                self.heard[place] = False

    def settled(self) -> None:
        """After some minutes every channel knows exactly what fires of its own."""
        self.wait(90)
        fires = {alert.fingerprint: alert for alert in self.firing.values()}
        for channel in self.configuration.channels:
            known = {fingerprint for (name, fingerprint), on in self.heard.items() if name == channel.name and on}
            assert known == {key for key, alert in fires.items() if alert.severity in channel.severities}


@contextlib.contextmanager
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as folder:
        made = World(Path(folder))
        try:
            yield made
        finally:
            made.outbox.close()


happenings = st.one_of(
    st.tuples(st.just("toggle"), st.integers(0, len(ALL) - 1)),
    st.tuples(st.just("toggle"), st.integers(0, len(ALL) - 1)),
    st.tuples(st.just("post"), st.sampled_from(SERVICES)),
    st.tuples(st.just("post"), st.sampled_from(SERVICES)),
    st.tuples(st.just("round")),
    st.tuples(st.just("wait"), st.integers(1, 12)),
    st.tuples(st.just("restart")),
    st.tuples(st.just("killed_in_post"), st.sampled_from(SERVICES), st.booleans()),
    st.tuples(st.just("killed_in_round"), st.booleans()),
    st.tuples(st.just("settled")),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(happenings, max_size=30))
def test_each_firing_and_each_end_is_told_once(happens: list[tuple[Any, ...]]) -> None:
    """Over kills at any instant of a post or a round, for channels of all, of a severity, and one that waits."""
    with world() as it:
        for name, *arguments in happens:
            getattr(it, name)(*arguments)
        it.settled()
        for number in list(it.firing):
            it.toggle(number)
        it.settled()
        assert it.outbox.told() == {}
        assert it.rows() == []
