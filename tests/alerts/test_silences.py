"""Silences and the matchers they are made of: what is meant, what is refused, another process that writes one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from anvil_monitor.alerts import matchers, silences
from anvil_monitor.alerts.matchers import Matcher, MatcherError
from anvil_monitor.alerts.outbox import Outbox


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("service=shop", "service=shop"),
        ('service = "shop" ', "service=shop"),
        ("target!=memory", "target!=memory"),
        ('target=~"mem.*"', 'target=~"mem.*"'),
        ("target!~a|b", 'target!~"a|b"'),
        (r'path="a\"b\\c"', r'path="a\"b\\c"'),
        ("target=", 'target=""'),
    ],
)
def test_matchers_are_read_and_written_alike(text: str, said: str) -> None:
    """What is shown can be typed in again, and what is kept in the file is the same matcher."""
    matcher = matchers.parse(text)
    assert str(matcher) == said
    assert matchers.parse(said) == matcher
    assert matchers.load(matchers.dump([matcher])) == (matcher,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shop", "LABEL=VALUE"), ("=shop", "LABEL=VALUE"), ("1a=b", "LABEL=VALUE"), ('a="b', "LABEL=VALUE"),
        ("a=~(", "regular expression"), ("a=" + "x" * 501, "longer than 500"),
    ],
)  # fmt: skip
def test_what_is_no_matcher_is_told(text: str, words: str) -> None:
    """The error says what was given and what is allowed."""
    with pytest.raises(MatcherError, match=words):
        matchers.parse(text)


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("a=b", {"a": "b"}, True), ("a=b", {"a": "bb"}, False), ("a=b", {}, False),
        ("a!=b", {}, True), ("a!=b", {"a": "b"}, False), ("a=", {}, True), ("a=", {"a": "b"}, False),
        ("a=~b", {"a": "bb"}, False), ("a=~b.*", {"a": "bb"}, True), ("a=~b|", {}, True),
        ("a!~b", {"a": "bb"}, True), ("a!~.+", {}, True), ("a!~.+", {"a": "b"}, False),
    ],
)  # fmt: skip
def test_what_a_matcher_means(text: str, labels: dict[str, str], expected: bool) -> None:
    """A label that is not there is empty; a pattern matches the whole value."""
    assert matchers.parse(text).matches(labels) is expected


@pytest.mark.parametrize("texts", [[], ["a!=b"], ["a=~.*"], ["a=", "b!~c"]])
def test_a_silence_of_everything_is_refused(outbox: Outbox, texts: list[str]) -> None:
    """Matchers that a label-less alert meets would hush everything that is new, too."""
    with pytest.raises(ValueError, match="a label has to be named"):
        silences.add(outbox, map(matchers.parse, texts), author="Ada", reason="r", starts=0.0, ends=1.0)


def test_an_api_may_send_texts_or_what_alertmanager_takes() -> None:
    """Both forms are the same matcher; what is neither is refused in words."""
    form = {"name": "a", "value": "b", "isRegex": True, "isEqual": False}
    assert matchers.from_json(["a=b", form, {"name": "a", "value": "b"}]) == (
        Matcher("a", "=", "b"), Matcher("a", "!~", "b"), Matcher("a", "=", "b"),
    )  # fmt: skip
    for wrong in ("a=b", [1], [{"name": "a"}], [{"name": "a b", "value": "c"}], [], ["a=b"] * 21):
        with pytest.raises(MatcherError):
            matchers.from_json(wrong)


def test_what_is_written_is_one_line(outbox: Outbox) -> None:
    """Author and reason keep no line breaks and stay within their lengths; an end is a number."""
    silence = silences.add(outbox, [matchers.parse("a=b")], author="Ada\nL", reason="r\r\n" * 999, starts=0.0, ends=1.0)
    assert (silence.author, len(silence.reason)) == ("Ada L", 500)
    for ends in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="end"):
            silences.add(outbox, silence.matchers, author="Ada", reason="r", starts=0.0, ends=ends)


def test_their_number_is_bounded(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round looks at all of them: one too many is refused; what has ended does not count."""
    monkeypatch.setattr(silences, "MOST", 2)
    good: dict[str, Any] = {"matchers": [matchers.parse("a=b")], "author": "Ada", "reason": "r"}
    for _ in range(2):
        silences.add(outbox, **good, starts=0.0, ends=10.0)
    with pytest.raises(ValueError, match="2 silences already"):
        silences.add(outbox, **good, starts=0.0, ends=10.0)
    silences.add(outbox, **good, starts=11.0, ends=12.0)


def test_ending_says_whether_there_was_one(outbox: Outbox) -> None:
    """A silence ends once: what has ended keeps its end; an unknown number is told."""
    made = silences.add(outbox, [matchers.parse("a=b")], author="Ada", reason="r", starts=0.0, ends=10.0)
    assert silences.since(outbox, 5.0) == [made]
    assert silences.end(outbox, made.id, 6.0)
    assert silences.end(outbox, made.id, 8.0)
    assert outbox.rows("SELECT ends FROM silences") == [{"ends": 6.0}]
    assert not silences.end(outbox, 99, 6.0)


def test_another_process_silences(outbox: Outbox) -> None:
    """While one process holds the outbox and sends from it, another adds a silence, which the first sees."""
    outbox.claim()
    code = (
        "import pathlib, sys; from anvil_monitor.alerts import matchers, silences;"
        "from anvil_monitor.alerts.outbox import Outbox; box = Outbox(pathlib.Path(sys.argv[1]));"
        "silences.add(box, [matchers.parse('service=shop')], author='Ada', reason='r', starts=0.0, ends=10.0)"
    )
    subprocess.run([sys.executable, "-c", code, str(outbox.path)], check=True, timeout=60)
    assert [str(one.matchers[0]) for one in silences.active(outbox, 5.0)] == ["service=shop"]
