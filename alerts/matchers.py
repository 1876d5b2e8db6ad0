"""Which alerts are meant: ``service=shop target=~"mem.*"``, with the four operators and the meaning of Alertmanager.

A label that an alert lacks counts as empty, and a pattern has to match the whole value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .patterns import PatternError, compile_pattern

MOST: Final = 20
LONGEST: Final = 500
TEXT: Final = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*(=~|!~|!=|=)\s*(?:"((?:[^"\\]|\\.)*)"|([^"{},][^{},]*|))\s*')
RULE: Final = "write LABEL=VALUE, LABEL!=VALUE, LABEL=~PATTERN or LABEL!~PATTERN, as in service=shop"


class MatcherError(ValueError):
    """A text that names no alerts. Says what was given and what is allowed."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on one label. ``operator``: ``=``, ``!=``, ``=~`` or ``!~``."""

    name: str
    operator: str
    value: str

    def matches(self, labels: Mapping[str, str]) -> bool:
        given = labels.get(self.name, "")
        if self.operator in ("=", "!="):
            return (given == self.value) is (self.operator == "=")
        return bool(compile_pattern(self.value).fullmatch(given)) is (self.operator == "=~")

    def __str__(self) -> str:
        plain = re.fullmatch(r"[\w.:/-]+", self.value)
        return f"{self.name}{self.operator}{self.value if plain else json.dumps(self.value, ensure_ascii=False)}"


def parse(text: str) -> Matcher:
    """One matcher. Raises :class:`MatcherError`."""
    match = TEXT.fullmatch(text)
    if match is None:
        raise MatcherError(f"{text!r} matches no label: {RULE}")
    name, operator, quoted, bare = match.groups()
    value = re.sub(r'\\(["\\])', r"\1", quoted) if quoted is not None else bare.strip()
    return checked(Matcher(name, operator, value))


def checked(matcher: Matcher) -> Matcher:
    """``matcher``, whatever it came from. Raises :class:`MatcherError`."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", matcher.name) or matcher.operator not in ("=", "!=", "=~", "!~"):
        raise MatcherError(f"{matcher.name!r} {matcher.operator!r} is no matcher: {RULE}")
    if len(matcher.value) > LONGEST:
        raise MatcherError(f"the value for {matcher.name} is longer than {LONGEST} characters")
    if matcher.operator in ("=~", "!~"):
        try:
            compile_pattern(matcher.value)
        except PatternError as error:
            raise MatcherError(str(error)) from None
    return matcher


def chosen(matchers: Sequence[Matcher]) -> tuple[Matcher, ...]:
    """``matchers``, where they choose something. Raises :class:`MatcherError` for what would match every alert."""
    if len(matchers) > MOST:
        raise MatcherError(f"{len(matchers)} matchers are more than {MOST}")
    if all(matcher.matches({}) for matcher in matchers):  # as in Alertmanager; none at all is such a case, too
        raise MatcherError("a label has to be named, as in service=shop: without one it would be every alert")
    return tuple(matchers)


def match(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether ``labels`` meet all of ``matchers``."""
    return all(matcher.matches(labels) for matcher in matchers)


def dump(matchers: Iterable[Matcher]) -> str:
    """The text that the outbox keeps."""
    return json.dumps([[one.name, one.operator, one.value] for one in matchers])


def load(text: str) -> tuple[Matcher, ...]:
    return tuple(Matcher(*one) for one in json.loads(text))


def from_json(given: Any) -> tuple[Matcher, ...]:
    """What an API was sent: texts, or Alertmanager's objects (name, value, isRegex, isEqual).

    Raises :class:`MatcherError`.
    """
    if not isinstance(given, list):
        raise MatcherError(f'matchers must be a list, as in ["service=shop"]: {RULE}')
    return chosen([_one(each) for each in given[: MOST + 1]])


def _one(given: Any) -> Matcher:
    if isinstance(given, str):
        return parse(given)
    if isinstance(given, dict) and isinstance(given.get("name"), str) and isinstance(given.get("value"), str):
        operator = ("=" if given.get("isEqual", True) else "!") + ("~" if given.get("isRegex", False) else "=")
        return checked(Matcher(given["name"], "=" if operator == "==" else operator, given["value"]))
    raise MatcherError(f"{given!r} is no matcher: {RULE}")
