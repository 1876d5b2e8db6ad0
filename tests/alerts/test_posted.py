"""What the notifier knows of alerts between two posts of Alertmanager, and what time alone does to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from anvil_monitor.alerts import acks, silences
from anvil_monitor.alerts.matchers import parse
from anvil_monitor.alerts.model import Alert, Notification
from anvil_monitor.alerts.outbox import Outbox, OutboxError
from anvil_monitor.alerts.pipeline import Pipeline
from anvil_monitor.alerts.posted import LONGEST_STEP, MOST, Posted
from anvil_monitor.alerts.prometheus import nobody_knows
from anvil_monitor.alerts.rounds import Rounds
from anvil_monitor.targets import Channel, Configuration, Hours, Maintenance, Once, Secret, Weekly

URL = Secret("monitor.toml", "json://127.0.0.1:9/")
GROUP = "app"  # of the service


class Notifier:
    """The notifier's rounds on a clock that the test moves. ``fires``: what Prometheus says, if it is there."""

    def __init__(self, configuration: Configuration, outbox: Outbox, clock: Any) -> None:
        self.configuration, self.outbox, self.clock = configuration, outbox, clock
        self.firing: Sequence[Alert] | None = None
        self.asked = 0
        self.start()

    def start(self) -> None:
        pipeline = Pipeline(self.configuration, self.outbox, self.clock)
        self.posted = Posted(self.outbox, self.configuration.monitor, self.clock.now)
        self.rounds = Rounds(pipeline, self.posted, self.clock, self._fires)

    def _fires(self, alerts: Sequence[Alert]) -> dict[str, bool | None]:
        self.asked += 1
        if self.firing is None:
            return nobody_knows(alerts)
        there = {alert.fingerprint for alert in self.firing}
        return {alert.fingerprint: alert.fingerprint in there for alert in alerts}

    def post(self, *alerts: Alert, group: str = GROUP, whole: bool = True) -> bool:
        fresh = self.rounds.take(alerts, group, whole)
        self.rounds.round()
        return fresh

    def wait(self, seconds: float, every: float = 1.0) -> None:
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.clock.now = min(until, self.clock.now + every)
            self.rounds.round()

    def signs(self, seconds: float, *alerts: Alert) -> None:
        """Time goes by, and Alertmanager repeats its posts every minute: a group for each service."""
        for _ in range(int(seconds // 60)):
            self.wait(60, every=5.0)
            for service in {alert.service for alert in alerts}:
                self.post(*(alert for alert in alerts if alert.service == service), group=service)

    def told(self) -> list[str]:
        return [f"{message.channel}: {message.title}" for message in reversed(self.outbox.ledger(1000))]

    def last(self) -> Notification:
        return Notification.from_json(self.outbox.ledger(1)[0].payload)


@pytest.fixture
def notifier(configure: Any, outbox: Outbox, clock: Any) -> Callable[..., Notifier]:
    """A notifier with the channel ``team``, others and maintenance as given."""

    def make(*channels: Channel, maintenance: tuple[Maintenance, ...] = (), **monitor: Any) -> Notifier:
        known = {channel.name: channel for channel in (Channel("team", URL), *channels)}
        configuration = configure(known, group_wait=0.0, **monitor)
        return Notifier(replace(configuration, maintenance=maintenance), outbox, clock)

    return make


MISSED = "app: API response time 312 ms, target < 200 ms"


def test_time_alone_escalates_and_repeats(notifier: Any, alerts: Any) -> None:
    """A channel with escalate_after and the repetition of another come at their time, though nothing new is posted."""
    it, missed = notifier(Channel("boss", URL, escalate_after=900.0), repeat_interval=3600.0), alerts.missed()
    it.post(missed)
    it.signs(840, missed)
    assert it.told() == [f"team: {MISSED}"]
    it.signs(120, missed)
    assert it.told() == [f"team: {MISSED}", f"boss: {MISSED}"]
    it.signs(2700, missed)
    assert it.told()[2:] == ["team: app: still: API response time 312 ms, target < 200 ms"]


def test_who_acknowledges_or_silences_is_heard(notifier: Any, alerts: Any, clock: Any, outbox: Outbox) -> None:
    """Neither repeated nor escalated while somebody looks after it; what is silenced here waits; ends are told."""
    it = notifier(Channel("boss", URL, escalate_after=900.0), repeat_interval=3600.0)
    missed, memory = alerts.missed(), alerts.missed("memory", service="shop")
    it.post(missed)
    acks.add(outbox, [missed], author="Ada", at=clock.now)
    silences.add(outbox, [parse("service=shop")], author="Ada", reason="move", starts=clock.now, ends=clock.now + 600)
    it.post(memory, group="shop")
    it.signs(540, missed, memory)
    assert it.told() == [f"team: {MISSED}", f"team: app: acknowledged by Ada: {MISSED.removeprefix('app: ')}"]
    it.wait(61)
    assert it.told()[2:] == ["team: shop: API response time 312 ms, target < 200 ms"]
    it.signs(7200, missed)
    assert [title for title in it.told() if title.startswith("boss: app")] == []
    it.wait(30)
    it.post(alerts.over(missed, clock.now))
    assert it.told()[-1] == "team: app: API response time recovered"
    assert acks.current(outbox) == {}


def test_maintenance_and_hours(notifier: Any, alerts: Any, clock: Any) -> None:
    """What is posted during maintenance is told when it ends; a channel outside its hours is told when they begin, of
    what came and went meanwhile nothing; its severities of any hour come at once."""
    start = clock.now  # 08:00 UTC
    nine = Hours(Weekly(tuple(range(7)), 9 * 3600, 18 * 3600, "UTC"), ("warning",))
    move = Maintenance("move", Once(start - 60, start + 600), services=("shop",))
    it = notifier(Channel("office", URL, hours=nine), maintenance=(move,))
    shop, gone, slow = alerts.missed(service="shop"), alerts.missed(), alerts.other("Slow", severity="warning")
    it.post(shop, group="shop")
    it.post(gone, slow)
    assert sorted(it.told()) == ["office: app: Slow", "team: app: 2 alerts: API response time, Slow"]
    it.signs(540, shop, slow, gone)
    assert len(it.told()) == 2
    it.signs(60, shop, alerts.over(gone, clock.now), slow)
    assert sorted(it.told()[2:]) == [
        "team: API response time recovered; still: app: Slow",
        "team: shop: API response time 312 ms, target < 200 ms",
    ]
    it.signs(2940, shop, slow)
    assert len(it.told()) == 4
    it.signs(60, shop, slow)  # it is nine
    assert it.told()[4:] == ["office: shop: API response time 312 ms, target < 200 ms"]


def test_a_restart_knows_what_was_accepted(notifier: Any, alerts: Any, clock: Any) -> None:
    """What was posted and not told yet (here: an end during hours that are closed) is told after a restart."""
    it = notifier(Channel("boss", URL, escalate_after=900.0))
    missed = alerts.missed()
    it.post(missed)
    it.signs(600, missed)
    it.start()
    it.signs(360, missed)
    assert it.told() == [f"team: {MISSED}", f"boss: {MISSED}"]
    it.rounds.take([alerts.over(missed, clock.now)], GROUP, True)  # killed before its round
    it.start()
    it.rounds.round()
    assert sorted(it.told()[2:]) == [f"{name}: app: API response time recovered" for name in ("boss", "team")]
    assert it.outbox.rows("SELECT * FROM posted") == []


def test_the_same_post_is_known_already(notifier: Any, alerts: Any, clock: Any) -> None:
    """What Alertmanager repeats is no news, also an end that was told; nothing is written for it."""
    it, missed = notifier(), alerts.missed()
    assert it.post(missed)
    assert not it.post(missed)
    over = alerts.over(missed, clock.now)
    assert it.post(over)
    assert not it.post(over)
    it.wait(30)
    assert not it.post(over)
    assert it.told() == [f"team: {MISSED}", "team: app: API response time recovered"]


def test_what_alertmanager_holds_back(notifier: Any, alerts: Any) -> None:
    """An alert that its group's post leaves out is silenced there: not repeated, not escalated, not over."""
    it = notifier(Channel("boss", URL, escalate_after=900.0), repeat_interval=1200.0)
    missed, memory = alerts.missed(), alerts.missed("memory")
    it.post(missed, memory)
    it.firing = [missed, memory]
    it.post(memory)
    it.signs(3000, memory)
    boss = [message for message in it.outbox.ledger() if message.channel == "boss"]
    (told,) = [Notification.from_json(message.payload) for message in boss][-1:]
    assert [alert.labels["target"] for alert in told.firing] == ["memory"]
    assert not any("recovered" in title or "no longer" in title for title in it.told())
    it.post(missed, memory)  # the silence there has ended
    it.wait(60)
    assert [alert.labels["target"] for alert in it.last().firing] == ["api_response_time"]


def test_a_group_that_is_quiet_while_others_are_not_is_held_back(notifier: Any, alerts: Any) -> None:
    """A silence on all of a group stops its posts: no escalation then. Where nothing comes from Alertmanager at all, it
    is dead, and what was accepted goes its way."""
    for others in (True, False):
        it = notifier(Channel("boss", URL, escalate_after=900.0))
        missed, watchdog = alerts.missed(service=f"app-{others}"), alerts.other("Watchdog", severity="none", service="")
        it.firing = [missed]
        it.post(missed)
        for _ in range(20):
            it.wait(60)
            if others:
                it.post(watchdog, group="watchdog")
        assert any(title.startswith("boss") for title in it.told()) == (not others)


def test_an_end_that_was_never_posted(notifier: Any, alerts: Any) -> None:
    """Without a sign of life Prometheus is asked: what does not fire there, twice, is over and told so, not before."""
    it, missed = notifier(), alerts.missed()
    it.post(missed)
    it.firing = [missed]
    it.wait(1200)
    assert it.told() == [f"team: {MISSED}"]
    it.firing, asked = [], it.asked
    it.wait(60)
    assert (it.asked - asked, len(it.told())) == (1, 1)
    it.wait(61)
    assert it.told()[1:] == ["team: app: API response time recovered"]
    assert it.outbox.told() == {}


def test_what_nobody_can_say_is_told_as_that(notifier: Any, alerts: Any) -> None:
    """Where Prometheus does not answer either: once, as no success, with the words that it is not known. If it fires on
    it is news again."""
    it, missed = notifier(), alerts.missed()
    it.post(missed)
    it.wait(290)
    assert it.told() == [f"team: {MISSED}"]
    it.wait(20)
    assert it.told()[1:] == ["team: app: API response time is no longer reported"]
    (message,) = it.outbox.ledger(1)
    assert message.kind == "warning"
    assert "Alertmanager has not mentioned it for 5 min, it may have ended while it was silenced there" in message.body
    assert "Whether it is over is not known" in message.body
    it.wait(3600)
    assert len(it.told()) == 2
    it.post(missed)
    assert it.told()[2:] == [f"team: {MISSED}"]


@pytest.mark.parametrize(
    ("firing", "told", "kind"),
    [([], "API response time recovered", "success"), (None, "API response time is no longer reported", "warning")],
)
def test_an_end_for_want_of_a_prometheus(
    notifier: Any, alerts: Any, clock: Any, firing: list[Alert] | None, told: str, kind: str
) -> None:
    """Alertmanager posts ends, too, when Prometheus is dead and tells it nothing more: whether it is an end is asked,
    and without an answer it is not told as one; over a restart, too."""
    for restarts in (False, True):
        it, missed = notifier(prometheus="http://127.0.0.1:9"), alerts.missed(service=f"app-{restarts}")
        it.firing = firing
        it.post(missed, group="group")
        clock.now += 60
        it.rounds.take([alerts.over(missed, clock.now)], "group", True)
        if restarts:
            it.start()
        it.rounds.round()
        (message,) = it.outbox.ledger(1)
        assert (message.title, message.kind) == (f"app-{restarts}: {told}", kind)
        assert ("but Prometheus does not answer; it fired since" in message.body) == (firing is None)
        assert it.outbox.told() == {}


def test_signs_of_life_while_the_machine_slept(notifier: Any, alerts: Any) -> None:
    """Hours without a round count for seconds: nobody could have posted."""
    it, missed = notifier(), alerts.missed()
    it.post(missed)
    for _ in range(10):
        it.wait(7200, every=7200)
    assert it.posted.patience > 10 * LONGEST_STEP
    assert not any("no longer" in title for title in it.told())


def test_a_post_that_was_cut(notifier: Any, alerts: Any) -> None:
    """Of more alerts than a post takes, those that are left out still live."""
    it, missed, memory = notifier(), alerts.missed(), alerts.missed("memory")
    it.post(missed, memory)
    for _ in range(10):
        it.wait(60)
        it.post(memory, whole=False)
    assert it.posted.held() == frozenset()
    assert it.asked == 0


def test_inhibition_is_ours(notifier: Any, alerts: Any, clock: Any) -> None:
    """What a server that is down explains waits, and its end, which Alertmanager posts, is told afterwards."""
    it, missed = notifier(), alerts.missed()
    it.post(missed)
    down = alerts.other("ServiceDown")
    it.clock.now += 40
    it.post(missed, down)
    it.clock.now += 40
    it.post(alerts.over(missed, clock.now), down)
    assert it.told() == [f"team: {MISSED}", "team: app: ServiceDown"]
    it.clock.now += 40
    it.post(alerts.over(down, clock.now))
    it.wait(60)
    assert it.told()[2:] == ["team: ServiceDown of app is over", "team: app: API response time recovered"]


def test_nothing_is_half_taken(notifier: Any, alerts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A post that cannot be written, or is one too many, is refused as a whole and told to nobody."""
    it = notifier()

    def full(*_: Any) -> None:
        raise OutboxError("no space is left")

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "execute_all", full)
        with pytest.raises(OutboxError):
            it.post(alerts.missed())
    monkeypatch.setattr("anvil_monitor.alerts.posted.MOST", 1)
    with pytest.raises(OutboxError, match="1 alerts are kept already"):
        it.post(alerts.missed(), alerts.missed("memory"))
    it.wait(5)
    assert (it.told(), it.posted.alerts(), MOST) == ([], [], 20_000)
