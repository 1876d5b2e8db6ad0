"""Regular expressions take time in proportion to the text, with RE2 and without."""

from __future__ import annotations

import re

import pytest

from anvil_monitor.alerts.patterns import REGEX, PatternError, compile_pattern, compiled, found, replaced

HARMLESS = [
    "",
    ".*",
    ".+",
    "a|b",
    "5..",
    "(GET|POST)",
    "/api/.*",
    "prod-.+-[0-9]+",
    "(?i:abc)",
    "x?y?z?",
    "a{3}",
    "[a-z]*b",
]
SLOW = ["(a+)+b", "(a*)*", "(a|aa)+b", "(.*)(.*)(.*)(.*)(.*)x", "(x+x+)+y", "((a{1,9})+)+", "(a|b|ab)*c"]
FOREIGN = [r"(a)\1", "(?=a)b", "(?<!a)b", "(?>a)b", r"(?P<x>a)(?P=x)"]


@pytest.mark.parametrize("pattern", HARMLESS)
def test_ordinary_patterns_mean_the_same_to_both(pattern: str) -> None:
    """What people write in matchers is taken with RE2 and without, and matches the same."""
    for text in ("", "a", "aab", "GET", "/api/x", "prod-eu-12", "ABC", "xz", "500", "aaa", "a\nb"):
        with_re, with_re2 = compiled(pattern, re).fullmatch(text), compile_pattern(pattern).fullmatch(text)
        assert (with_re is None) == (with_re2 is None), text


@pytest.mark.parametrize("pattern", SLOW)
def test_patterns_that_backtrack_are_refused_without_re2(pattern: str) -> None:
    """The error says what to install; with RE2 they are taken, and end."""
    with pytest.raises(PatternError, match="install google-re2"):
        compiled(pattern, re)
    assert REGEX is not re
    assert compile_pattern(pattern).fullmatch("a" * 5000 + "!") is None  # backtracking would not end today


@pytest.mark.parametrize("pattern", FOREIGN)
def test_what_is_not_re2_is_refused_by_both(pattern: str) -> None:
    """A rule file that is taken here is taken by Prometheus."""
    with pytest.raises(PatternError):
        compile_pattern(pattern)
    with pytest.raises(PatternError):
        compiled(pattern, re)


@pytest.mark.parametrize("pattern", [r"\pL+", "[[:alpha:]]+", r"a\z"])
def test_spellings_of_re2_alone_need_it(pattern: str) -> None:
    """Instead of matching something else, Python's re is not asked."""
    assert compile_pattern(pattern).fullmatch("a")
    with pytest.raises(PatternError, match="google-re2"):
        compiled(pattern, re)


@pytest.mark.parametrize("pattern", ["a)(b", "a(", "a)", "*", "[z-a]", "a{2,1}", "x**"])
def test_what_is_no_pattern_is_refused_by_both(pattern: str) -> None:
    """A bracket of ours around a pattern must not make one of what is none."""
    for engine in (REGEX, re):
        with pytest.raises(PatternError):
            compiled(pattern, engine)


REPLACED = [
    ("ab", "AB", "abcdabcda", "ABcdABcda"),
    ("x*", "-", "abxxc", "-a-b-c-"),
    ("x*", "-", "äöü€𝄞", "-ä-ö-ü-€-𝄞-"),
    ("^a", "b", "aaa", "baa"),
    ("a$", "b", "aa", "ab"),
    ("", "-", "", "-"),
    (":.*", "", "host:9100", "host"),
    (r"(.*)\.(.*)", "$2.$1", "a.b.c", "c.a.b"),
    (r"(\w+)@(\w+)", "${2}_$1", "user@host", "host_user"),
    (r"(?P<first>\w)(?P<rest>\w*)", "$rest$first $firstly ${first}ly", "abc", "bca  aly"),
    ("(a)(b)?", "[$1|$2|$3|$0|$$1|$01|$1x|${1}x|$|${|${}|$-]", "a", "[a|||a|$1|||ax|$|${|${}|$-]"),
    ("é", "e", "héé", "hee"),
    (".", "x", "a\nb", "x\nx"),
]


@pytest.mark.parametrize(("pattern", "replacement", "text", "expected"), REPLACED)
def test_replacing_is_gos(pattern: str, replacement: str, text: str, expected: str) -> None:
    """References, empty matches and characters of several bytes, with RE2 and without."""
    assert replaced(pattern, replacement, text, 100) == expected
    assert replaced(pattern, replacement, text, 100, engine=re) == expected


def test_searching_is_not_anchored_and_dots_take_no_newline() -> None:
    """As Go's regexp, and unlike a matcher."""
    for engine in (REGEX, re):
        assert found("b", "abc", engine)
        assert not found("^b", "abc", engine)
        assert not found("a.b", "a\nb", engine)
        assert not found(r"\d", "٣", engine)
    assert not found("a$", "a\n")
    with pytest.raises(PatternError, match="install google-re2"):
        found("a$", "a\n", re)
    with pytest.raises(PatternError, match="install google-re2"):
        found("a", "b" * 1000, re)


def test_replacing_is_bounded_in_size_and_work() -> None:
    """A replacement that grows beyond the limit, or a pattern that searches all the rest each time, is an error."""
    with pytest.raises(ValueError, match="longer than 1000"):
        replaced("a", "b" * 100, "a" * 100, 1000)
    with pytest.raises(ValueError, match="takes too long"):
        replaced("a.*z|a", "b", "a" * 60_000, 100_000)
    assert replaced("(a+)+$", "b", "a" * 60_000, 100_000) == "b"
