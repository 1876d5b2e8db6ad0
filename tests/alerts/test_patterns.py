"""Regular expressions take time in proportion to the text, with RE2 and without."""

from __future__ import annotations

import re

import pytest

from anvil_monitor.alerts.patterns import REGEX, PatternError, compile_pattern, compiled

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
