"""Regular expressions of matchers, label functions and templates: RE2's dialect, in time linear in the text.

With the package google-re2 (``anvil-monitor[stack]`` brings it where there are wheels) patterns mean what they mean to
Prometheus. Without it, on musl for instance, Python's ``re`` matches; it backtracks, so patterns that could take long
are refused: repetitions of what repeats or branches itself, more than ``REPEATS`` unbounded ones, references back, and
looking around. What is left means the same, but for RE2's own spellings (``\\z``, ``\\pL``, ``[[:alpha:]]``), which
``re`` does not read or reads otherwise; they are refused as well.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from functools import lru_cache
from types import ModuleType
from typing import Any

REPEATS = 4
"""Unbounded repetitions in one pattern; each multiplies the time by the length of the text, in the worst case."""

_OWN = re.compile(r"\\[pPzQC]|\[\[:")


def _engine() -> ModuleType:
    """RE2 where its package exists, else the standard library's."""
    try:
        return importlib.import_module("re2")
    except ImportError:
        return re


REGEX = _engine()


class PatternError(ValueError):
    """A regular expression that cannot be compiled; the text names it."""


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> Any:
    """The compiled pattern. Matches with ``fullmatch``; ``.`` takes a newline too, as in Prometheus 3.

    Raises PatternError.
    """
    return compiled(pattern, REGEX)


def compiled(pattern: str, engine: ModuleType) -> Any:
    """The pattern compiled by ``re2`` or ``re``. Raises PatternError."""
    try:
        if engine is re:
            return _backtracking(pattern)
        options = engine.Options()
        options.log_errors = False
        return engine.compile(f"(?s:{pattern})", options)
    except PatternError:
        raise
    except Exception as error:  # noqa: BLE001  (re2.error and re.error share no base class)
        raise PatternError(f"invalid regular expression {pattern!r}: {error}") from None


def _backtracking(pattern: str) -> re.Pattern[str]:
    if _OWN.search(pattern):
        raise PatternError(f"the regular expression {pattern!r} needs RE2: install google-re2")
    text = f"(?s:{pattern})"
    repeats = _repeats(importlib.import_module("re._parser").parse(text), pattern, inside=False)
    if repeats > REPEATS:
        raise _slow(pattern, f"it has {repeats} unbounded repetitions, {REPEATS} may be")
    return re.compile(text)


def _slow(pattern: str, why: str) -> PatternError:
    return PatternError(f"the regular expression {pattern!r} may take long without RE2 ({why}): install google-re2")


def _repeats(parsed: Iterable[Any], pattern: str, *, inside: bool) -> int:
    """How many unbounded repetitions there are. Raises PatternError for what takes longer than their power."""
    found = 0
    for op, argument in parsed:
        name = str(op)
        if name in ("ASSERT", "ASSERT_NOT", "GROUPREF", "GROUPREF_EXISTS"):
            raise PatternError(f"the regular expression {pattern!r} refers back or looks around: that is not RE2")
        if name == "BRANCH":
            if inside:
                raise _slow(pattern, "alternatives inside a repetition")
            found += sum(_repeats(branch, pattern, inside=inside) for branch in argument[1])
        elif name == "SUBPATTERN":
            found += _repeats(argument[-1], pattern, inside=inside)
        elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            if inside:
                raise _slow(pattern, "a repetition inside a repetition")
            few = argument[1] == 1  # a question mark
            found += (not few) + _repeats(argument[2], pattern, inside=not few)
        elif name == "ATOMIC_GROUP":
            raise PatternError(f"the regular expression {pattern!r} has an atomic group: that is not RE2")
    return found
