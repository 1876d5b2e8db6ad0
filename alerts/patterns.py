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
SHORT = 256
"""Characters. Without RE2 no longer text is searched: where a match begins is one repetition more."""
MOST_WORK = 100_000_000
"""Bytes that the searches of one replacement may look at, each at all the rest of the text: about 0.3 s."""

_OWN = re.compile(r"\\[pPzQC]|\[\[:")
_BYTE = re.compile(r"(?s:[^\\]|\\[^C])*\\C")
_CLASS = re.compile(r"\\[dwsbDWSB]")
_REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|(?P<name>\w+)|\{(?P<braced>\w+)\})")


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


@lru_cache(maxsize=1024)
def compile_search(pattern: str) -> Any:
    """As :func:`compile_pattern` for what is looked for anywhere, as Go's ``regexp`` does: ``.`` takes no newline."""
    return compiled(pattern, REGEX, dot_takes_newline=False)


def found(pattern: str, text: str, engine: ModuleType = REGEX) -> bool:
    """Whether ``pattern`` is anywhere in ``text``: Go's ``regexp.MatchString``. Raises PatternError."""
    return _search(pattern, text, engine).search(text) is not None


def replaced(pattern: str, replacement: str, text: str, longest: int, engine: ModuleType = REGEX) -> str:
    """Every match replaced: Go's ``Regexp.ReplaceAllString``, with ``$1 ${1} ${name} $$`` in ``replacement``.

    Raises PatternError, and ``ValueError`` for a result of more than ``longest`` characters or one that takes long.
    """
    search = _search(pattern, text, engine)
    # RE2 counts in bytes; giving it those spares it the counting of characters at every match.
    source: Any = text if engine is re else text.encode()
    pieces: list[Any] = []
    size = last = at = work = 0
    while at <= len(source):
        match = search.search(source, at)
        work += len(source) - at
        if work > MOST_WORK:
            raise ValueError(f"replacing {pattern!r} takes too long")
        if match is None:
            break
        begin, end = match.span()
        pieces.append(source[last:begin])
        if end > last or begin == 0:  # an empty match right behind another one is none
            pieces.append(_filled(replacement, match, search))
        size += len(pieces[-1]) + begin - last
        if size > longest:
            raise ValueError(f"the text is longer than {longest} characters")
        last = end
        at = max(end, at + _width(source, at))
    pieces.append(source[last:])
    joined = source[:0].join(pieces)
    return joined if isinstance(joined, str) else joined.decode(errors="replace")


def _search(pattern: str, text: str, engine: ModuleType) -> Any:
    if engine is not re:
        return compile_search(pattern)
    if len(text) > SHORT:
        raise _slow(pattern, f"in a text of {len(text)} characters, {SHORT} may be")
    if text.endswith("\n") and "$" in pattern:
        raise PatternError(f"the regular expression {pattern!r} needs RE2: install google-re2")
    return compiled(pattern, re, dot_takes_newline=False)


def _filled(replacement: str, match: Any, search: Any) -> Any:
    """``replacement`` with its references filled in; one that names nothing is empty."""
    kind = str if isinstance(match.group(), str) else str.encode

    def group(reference: re.Match[str]) -> str:
        if reference["dollar"]:
            return "$"
        name = reference["name"] or reference["braced"]
        number = search.groupindex.get(name, -1)
        if re.fullmatch(r"0|[1-9][0-9]{0,8}", name):
            number = int(name)
        value = match.group(number) if 0 <= number <= search.groups else None
        return value if isinstance(value, str) else (value or b"").decode(errors="surrogateescape")

    text = _REFERENCE.sub(group, replacement)
    return text if kind is str else text.encode(errors="surrogateescape")


def _width(source: Any, at: int) -> int:
    """How long the character at ``at`` is: the search goes on behind it."""
    if isinstance(source, str) or at >= len(source):
        return 1
    first = source[at]
    return 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


def compiled(pattern: str, engine: ModuleType, dot_takes_newline: bool = True) -> Any:
    """The pattern compiled by ``re2`` or ``re``. Raises PatternError."""
    try:
        if _BYTE.match(pattern):
            raise PatternError(f"the regular expression {pattern!r} matches single bytes: Go has no \\C")
        if engine is re:
            return _backtracking(pattern, re.DOTALL if dot_takes_newline else re.NOFLAG)
        options = engine.Options()
        options.log_errors = False
        options.dot_nl = dot_takes_newline
        return engine.compile(pattern, options)
    except PatternError:
        raise
    except Exception as error:  # noqa: BLE001  (re2.error and re.error share no base class)
        raise PatternError(f"invalid regular expression {pattern!r}: {error}") from None


def _backtracking(pattern: str, flags: re.RegexFlag) -> re.Pattern[str]:
    if _OWN.search(pattern):
        raise PatternError(f"the regular expression {pattern!r} needs RE2: install google-re2")
    repeats = _repeats(importlib.import_module("re._parser").parse(pattern, flags), pattern, inside=False)
    if repeats > REPEATS:
        raise _slow(pattern, f"it has {repeats} unbounded repetitions, {REPEATS} may be")
    return re.compile(
        pattern, flags | (re.ASCII if _CLASS.search(pattern) else re.NOFLAG)
    )  # RE2's \\d and \\w are ASCII


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
