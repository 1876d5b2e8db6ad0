"""Whatever fires, ends and crashes in whatever order: each channel hears of each firing once, and of its end once."""

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
from anvil_monitor.targets import Channel, Configuration, Secret, load

START = 1_800_000_000.0
STEP = 5.0  # an evaluation every so many seconds
SECRET = Secret("monitor.toml", "json://127.0.0.1/")
ALL = (("app", "memory", "critical"), ("app", "api_response_time", "critical"), ("app", "db_query_time", "warning"),
       ("shop", "memory", "critical"), ("shop", "db_query_time", "warning"))  # fmt: skip


class CrashError(Exception):
    """The process ends here."""


class World:
    """Alerts that fire and end, a monitor that evaluates, crashes and starts, and what each channel was told of it."""

    def __init__(self, folder: Path) -> None:
        shipped = load(None, {})
        channels = (Channel("all", SECRET), Channel("critical", SECRET, severities=("critical",)),
                    Channel("shop", SECRET, services=("shop",)))  # fmt: skip
        # Flapping is told otherwise, and has tests of its own.
        self.configuration: Configuration = replace(
            shipped, channels=channels, monitor=replace(shipped.monitor, data=folder, flap_limit=0)
        )
        self.now = START
        self.path = folder / "outbox.sqlite3"
        self.firing: dict[int, Alert] = {}
        self.ended: list[Alert] = []
        self.seen = 0  # the last message that was looked at
        self.heard: dict[tuple[str, str], bool] = {}
        self.start()

    def start(self) -> None:
        self.outbox = Outbox(self.path)
        self.pipeline = Pipeline(self.configuration, self.outbox, lambda: self.now)
        self.ended = []  # a rule manager that starts knows of nothing that was over before

    def restart(self) -> None:
        self.outbox.close()
        self.start()

    def toggle(self, number: int) -> None:
        if number in self.firing:
            self.ended.append(replace(self.firing.pop(number), ends_at=self.now))
            return
        service, target, severity = ALL[number]
        labels = {"alertname": "Mine", "service": service, "target": target, "severity": severity}
        self.ended = [one for one in self.ended if one.labels != labels]
        self.firing[number] = Alert(labels, {"summary": target}, self.now)

    def evaluate(self, times: int) -> None:
        for _ in range(times):
            self.now += STEP
            self.pipeline.update([*self.firing.values(), *self.ended])
            self.check()

    def crash(self, written: bool) -> None:
        """The process is killed in the midst of an evaluation: before, or after, its messages are on disk."""
        record = self.outbox.record

        def killed(*arguments: Any) -> list[int]:
            if written:
                record(*arguments)
            raise CrashError

        self.outbox.record = killed  # type: ignore[method-assign]
        with contextlib.suppress(CrashError):
            self.evaluate(1)
        self.restart()
        self.check()

    def check(self) -> None:
        """Look at what is told anew: nothing twice, no end of what was not told, nothing that is not so."""
        names = {alert.fingerprint for alert in self.firing.values()}
        for message in self.outbox.rows(
            "SELECT id, channel, payload FROM messages WHERE id > ? ORDER BY id", self.seen
        ):
            self.seen = message["id"]
            told = Notification.from_json(message["payload"])
            for alert in told.firing:
                place = (message["channel"], alert.fingerprint)
                assert not self.heard.get(place), "a firing is told twice"
                assert alert.fingerprint in names, "what does not fire is told"
                self.heard[place] = True
            for alert in told.resolved:
                place = (message["channel"], alert.fingerprint)
                assert self.heard.get(place), "an end is told to who has not heard of the firing, or twice"
                assert alert.fingerprint not in names, "what fires is told as over"
                self.heard[place] = False

    def settled(self) -> None:
        """After some quiet minutes every channel knows exactly what fires of its own.

        After a restart memory has 220 s to fire again before it counts as over.
        """
        self.evaluate(60)
        fires = {alert.fingerprint: alert for alert in self.firing.values()}
        for channel in self.configuration.channels:
            known = {fingerprint for (name, fingerprint), on in self.heard.items() if name == channel.name and on}
            assert known == {
                fingerprint
                for fingerprint, alert in fires.items()
                if alert.severity in channel.severities and alert.service in (channel.services or (alert.service,))
            }


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
    st.tuples(st.just("evaluate"), st.integers(1, 12)),
    st.tuples(st.just("restart")),
    st.tuples(st.just("crash"), st.booleans()),
    st.tuples(st.just("settled")),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(happenings, max_size=40))
def test_each_firing_and_each_end_is_told_once(happens: list[tuple[Any, ...]]) -> None:
    """Over restarts and kills at any instant of a round, for channels of all, of a severity and of a service."""
    with world() as it:
        for name, *arguments in happens:
            getattr(it, name)(*arguments)
        it.settled()
        for number in list(it.firing):
            it.toggle(number)
        it.settled()
        assert it.outbox.told() == {}
