"""Signed links: who can make one, what it is about, and when it ends; and the key they are signed with."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anvil_monitor.alerts.links import LASTS, LinkError, Links, Scope, load_key, silence_matchers
from anvil_monitor.alerts.matchers import match
from anvil_monitor.alerts.messages import message
from anvil_monitor.alerts.model import Alert, Notification
from anvil_monitor.alerts.pipeline import Pipeline

LINKS = Links("https://monitor.test/anvil/", bytes(range(32)))


def parts(url: str) -> tuple[str, str, str, str]:
    """What :meth:`Links.check` is given: action, of, until, sign."""
    split = urlsplit(url)
    query = parse_qs(split.query)
    return split.path.rpartition("/")[2], query["of"][0], query["until"][0], query["sign"][0]


def test_a_link_says_what_it_is_about(alerts: Any) -> None:
    """Each message has one to acknowledge and one to silence what fires in it, below the external URL."""
    firing, still, over = alerts.missed(), alerts.missed("memory"), alerts.missed("db_query_time")
    told = Notification("app", 1000.0, "new alerts", (firing,), (still,), (alerts.over(over, 900.0),))
    (name, ack), (other, silence) = LINKS.of(told)
    assert (name, other) == ("Acknowledge", "Silence")
    assert ack.startswith("https://monitor.test/anvil/act/ack?of=")
    assert silence.startswith("https://monitor.test/anvil/act/silence?of=")
    scope = LINKS.check(*parts(ack), now=1000.0)
    assert scope == Scope((firing.fingerprint, still.fingerprint))
    assert scope.of([firing, over, still]) == [firing, still]
    assert LINKS.of(replace(told, firing=(), still=())) == ()


def test_many_alerts_are_their_service(alerts: Any) -> None:
    """With more alerts than a message shows, a link is about the service; without a service there is none."""
    many = tuple(alerts.missed(f"target_{number}") for number in range(11))
    (_, ack), _ = LINKS.of(Notification("a b&c=d", 1000.0, "new alerts", many))
    assert LINKS.check(*parts(ack), now=1000.0) == Scope(service="a b&c=d")
    assert LINKS.of(Notification("", 1000.0, "new alerts", many)) == ()


def test_a_link_ends(alerts: Any) -> None:
    """After a day it does nothing; its time is signed, too."""
    (_, ack), _ = LINKS.of(Notification("app", 1000.0, "new alerts", (alerts.missed(),)))
    action, of, until, sign = parts(ack)
    assert LINKS.check(action, of, until, sign, now=1000.0 + LASTS)
    with pytest.raises(LinkError, match="too old"):
        LINKS.check(action, of, until, sign, now=1001.0 + LASTS)
    with pytest.raises(LinkError, match="not whole"):
        LINKS.check(action, of, str(int(until) + 1), sign, now=1000.0)


@given(st.data())
def test_nothing_but_the_link_itself_is_taken(data: st.DataObject) -> None:
    """Any change of what is done, of the alerts, of the time or of the signature is refused, and so is another key."""
    link = LINKS.link("ack", Scope(("0123456789abcdef",)), 2000)
    given_ = list(parts(link))
    place = data.draw(st.integers(0, 3))
    changed = data.draw(st.text(max_size=60).filter(lambda text: text != given_[place]))
    given_[place] = changed
    with pytest.raises(LinkError):
        LINKS.check(*given_, now=1000.0)
    with pytest.raises(LinkError):
        Links(LINKS.base, bytes(32)).check(*parts(link), now=1000.0)


def test_words_cannot_move_between_the_parts() -> None:
    """The signature of one thing is not that of another whose parts read alike together."""
    first = parts(LINKS.link("ack", Scope(service="a\n2000"), 3000))
    assert first[3] != parts(LINKS.link("ack", Scope(service="a"), 2000))[3]
    with pytest.raises(LinkError):
        LINKS.check("ack\nservice:a", "2000", first[2], first[3], now=1000.0)


def test_a_silence_of_an_alert_is_of_no_other(alerts: Any) -> None:
    """All its labels are named; with too many, or too long ones, those that tell alerts apart come first."""
    alert = alerts.missed()
    matchers = silence_matchers(alert)
    assert match(matchers, alert.labels)
    assert not match(matchers, alerts.missed("memory").labels)
    labels = {f"label_{number:02}": "x" for number in range(40)} | {
        "service": "app",
        "alertname": "A",
        "long": "y" * 501,
    }
    names = [matcher.name for matcher in silence_matchers(Alert(labels, {}, 0.0))]
    assert names[:2] == ["alertname", "service"]
    assert len(names) == 20


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    """A folder has one key, for its owner only; half a key, of a crash, is made anew."""
    folder = tmp_path / "data"
    key = load_key(folder)
    assert len(key) == 32
    assert load_key(folder) == key
    path = folder / "link.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(key[:7])
    (folder / "link.key.new").write_bytes(b"left over")
    assert len(load_key(folder)) == 32
    assert load_key(tmp_path / "other") != key


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """They could make links of their own: the error says what to do. So it does for a folder that cannot be used."""
    load_key(tmp_path)
    (tmp_path / "link.key").chmod(0o644)
    with pytest.raises(LinkError, match="can be read by others: remove it"):
        load_key(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(LinkError, match="cannot be used"):
        load_key(tmp_path / "file")


def test_the_links_are_in_the_message(configure: Any, outbox: Any, clock: Any, alerts: Any) -> None:
    """The pipeline puts them into the text and into what other forms are made of; the end of an alert has none."""
    pipeline = Pipeline(configure({"team": "json://127.0.0.1/"}), outbox, clock, links=LINKS.of)
    alert = alerts.missed(at=clock.now - 60)
    pipeline.update([alert])
    (sent,) = outbox.ledger()
    told = Notification.from_json(sent.payload)
    assert told.links == LINKS.of(told)
    for name, url in told.links:
        assert f"{name}: {url}" in sent.body
    clock.now += 60
    pipeline.update([alerts.over(alert, clock.now)])
    assert "/act/" not in outbox.ledger()[0].body


def test_the_longest_link_is_whole_in_a_message(alerts: Any) -> None:
    """No form of a message cuts an address: with ten alerts it still has its signature."""
    many = tuple(alerts.missed(f"target_{number}") for number in range(10))
    told = Notification("app", 1000.0, "new alerts", many)
    _, body = message(replace(told, links=LINKS.of(told)))
    ack = next(line for line in body.splitlines() if line.startswith("Acknowledge: "))
    assert LINKS.check(*parts(ack.removeprefix("Acknowledge: ")), now=1000.0).fingerprints
