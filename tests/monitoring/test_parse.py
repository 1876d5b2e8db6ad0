"""The text that a target answers with."""

from __future__ import annotations

import contextlib
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anvil_monitor.monitoring.parse import ExpositionError, Parser

TARGET = {"job": "server", "instance": "a:1"}


def pairs(parser: Parser, text: str) -> list[tuple[tuple[tuple[str, str], ...], float]]:
    return list(zip(*parser.parse(text), strict=True))


def read(text: str, target: dict[str, str] | None = None) -> dict[tuple[tuple[str, str], ...], float]:
    return dict(pairs(Parser(target or {}), text))


def labels(**pairs: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(pairs.items()))


@pytest.mark.parametrize(
    ("line", "expected", "value"),
    [
        ("up 1", labels(__name__="up"), 1.0),
        ("up{} 1", labels(__name__="up"), 1.0),
        ('up{a="b"} 1.5e3', labels(__name__="up", a="b"), 1500.0),
        ('up{a="b",c="d",} 1', labels(__name__="up", a="b", c="d"), 1.0),
        ('up { a = "b" , c = "d" }   1', labels(__name__="up", a="b", c="d"), 1.0),
        (r'up{path="C:\\dir",say="a \"b\"\nc"} 1', labels(__name__="up", path="C:\\dir", say='a "b"\nc'), 1.0),
        ('up{a="} 1"} 2', labels(__name__="up", a="} 1"), 2.0),
        ('up{a=""} 1', labels(__name__="up"), 1.0),
        ("up 1 1700000000000", labels(__name__="up"), 1.0),
        ('up_total{a="b"} 3 1700000000.5 # {trace_id="x"} 0.5 1', labels(__name__="up_total", a="b"), 3.0),
        ('up_bucket{le="+Inf"} 3 # {trace_id="x"} 0.5', labels(__name__="up_bucket", le="+Inf"), 3.0),
        ('{"my.metric",a="b"} 1', labels(__name__="my.metric", a="b"), 1.0),
        ("up +Inf", labels(__name__="up"), math.inf),
        ("up -Inf", labels(__name__="up"), -math.inf),
        ("  up\t1", labels(__name__="up"), 1.0),
        ("up 1\r", labels(__name__="up"), 1.0),
    ],
)
def test_a_line_is_read(line: str, expected: tuple[tuple[str, str], ...], value: float) -> None:
    """Each form that Prometheus text or OpenMetrics allows gives its labels and its value, the second time too."""
    parser = Parser({})
    for _ in range(2):
        assert pairs(parser, f"# HELP up help\n# TYPE up gauge\n\n{line}\n# EOF\n") == [(expected, value)]


def test_not_a_number_is_a_value() -> None:
    """NaN is a value like another."""
    assert math.isnan(read("up NaN")[labels(__name__="up")])


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE html><html><body>It works!</body></html>",
        '{"error": "not found"}',
        "up",
        "up one",
        "up 1_000",
        'up{a="b" 1',
        "up{a=b} 1",
        'up{a="b",a="c"} 1',
        '{a="b"} 1',
        '{"x","y"} 1',
        "up 1 2 3",
        "1up 1",
        'up{a="b"}',
        'up{a="b\n"} 1',
        "\x00\x01\x02",
        'up{a="b"}1 garbage here',
    ],
)
def test_garbage_is_refused_as_a_whole(text: str) -> None:
    """One bad line refuses the text, with the number of the line, and good lines before it are not handed out."""
    with pytest.raises(ExpositionError, match="line 2"):
        read(f"good 1\n{text}")


def test_too_many_samples_are_refused() -> None:
    """A text with more samples than the limit gives none of them."""
    with pytest.raises(ExpositionError, match="more than 3 samples"):
        Parser({}, sample_limit=3).parse("".join(f"m{i} 1\n" for i in range(4)))


def test_target_labels_win_and_keep_what_they_displace() -> None:
    """A label that the target sets itself survives as exported_, like in Prometheus."""
    found = read('m{job="mine",exported_job="other",a="b"} 1', TARGET)
    expected = {**TARGET, "__name__": "m", "a": "b", "exported_job": "other", "exported_exported_job": "mine"}
    assert found == {labels(**expected): 1.0}


def test_a_series_keeps_its_label_tuple() -> None:
    """From the second text on a series comes with the same tuple, so vanished series are found by identity."""
    parser = Parser(TARGET)
    first, second = pairs(parser, 'm{a="b"} 1'), pairs(parser, 'm{a="b"} 2')
    assert first[0][0] is second[0][0]
    assert second[0][1] == 2.0


def test_a_bad_text_does_not_disturb_the_next() -> None:
    """After a refused text the same parser reads a good one."""
    parser = Parser({})
    with pytest.raises(ExpositionError):
        parser.parse('m{a="b"} 1\nbroken')
    assert pairs(parser, 'm{a="b"} 2') == [(labels(__name__="m", a="b"), 2.0)]


def test_series_that_come_and_go_do_not_fill_the_memory() -> None:
    """The memory of known series stays within about twice what one text holds."""
    parser = Parser({})
    for i in range(200):
        parser.parse("".join(f'm{{id="{i}-{j}"}} 1\n' for j in range(50)))
    assert len(parser._known) <= 2 * 50 + 1000 + 50


def test_a_repeated_text_is_read_fast() -> None:
    """Known series are looked up, not parsed: many times as fast as the first reading."""
    text = "".join(f'm_bucket{{route="/items/{{id}}",method="GET",code="200",le="{i}"}} {i}\n' for i in range(5000))
    parser = Parser(TARGET)

    def seconds() -> float:
        begin = time.thread_time()
        parser.parse(text)
        return time.thread_time() - begin

    cold = seconds()
    assert min(seconds() for _ in range(5)) * 3 < cold


@given(
    st.dictionaries(
        st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,6}", fullmatch=True).filter(lambda name: not name.startswith("__")),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
            lambda text: "\r" not in text
        ),
        max_size=4,
    ),
    st.floats(allow_nan=False),
)
def test_what_is_written_is_read(given_labels: dict[str, str], value: float) -> None:
    """Any label value, escaped as the format says, comes back as it was, and so does any number."""
    escaped = {
        key: text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for key, text in given_labels.items()
    }
    line = "m{" + ",".join(f'{key}="{text}"' for key, text in escaped.items()) + "} " + repr(value)
    parser = Parser({})
    for _ in range(2):
        assert pairs(parser, line + "\n") == [(labels(**{**given_labels, "__name__": "m"}), value)]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the parser fail in any other way than by refusing it."""
    with contextlib.suppress(ExpositionError):
        Parser({}).parse(text)
