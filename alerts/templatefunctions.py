"""The functions that a template can call, those of Prometheus and those of Go, by name: :data:`FUNCTIONS`.

Meaning and wording after Prometheus's template/template.go and Go's text/template; the oracle is promtool
(tests/alerts/test_rules_templates.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote_plus, unquote, urlsplit

from . import formats
from . import templatewords as words
from .templatevalues import LONGEST, Arguments, Data, Element, GoValue, Html, kind, missing, plain, truth

MOST: Final = 64


@dataclass(frozen=True, slots=True)
class Function:
    """``call`` takes ``least`` to ``most`` values, and the template's data before them where it ``asks`` for it."""

    call: Callable[..., GoValue]
    least: int
    most: int
    asks: bool = False


def call(function: Function, data: Data, values: Sequence[GoValue]) -> GoValue:
    """The result. Raises ``ValueError`` for what Go would call a mistake, and for a text that is too long."""
    result = function.call(data, *values) if function.asks else function.call(*values)
    if isinstance(result, str) and len(result) > LONGEST:
        raise ValueError(f"the text is longer than {LONGEST} characters")
    return result


# What a query found.


def _query(data: Data, expression: GoValue) -> GoValue:
    if data.query is None:
        raise ValueError("query: there is nothing to be asked here")
    return list(data.query(words.string(expression)))


def _elements(value: GoValue) -> Sequence[Element]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return value
    raise ValueError("wrong type for value; expected the result of a query")


def _element(value: GoValue) -> Element:
    if not isinstance(value, Element):
        raise ValueError("wrong type for value; expected an element of a query")
    return value


def _first(value: GoValue) -> Element:
    found = _elements(value)
    if not found:
        raise ValueError("first() called on vector with no elements")
    return found[0]


def _sort_by_label(label: GoValue, value: GoValue) -> GoValue:
    """Sorted in place: a variable that holds the same result is sorted too, as in Prometheus."""
    name, found = words.string(label), _elements(value)
    if isinstance(found, list):
        found.sort(key=lambda each: each.labels.get(name, ""))
    return found


# Values in general.


def _index(among: GoValue, *keys: GoValue) -> GoValue:
    for key in keys:
        if isinstance(among, Mapping) and isinstance(key, str):
            among = among.get(key, missing(among))
        elif isinstance(among, Sequence) and isinstance(key, int) and not isinstance(key, bool):
            inside = among.encode() if isinstance(among, str) else among
            if not 0 <= key < len(inside):
                raise ValueError(f"index out of range: {key}")
            among = inside[key]
        else:
            raise ValueError(f"can't index {kind(among)} with {kind(key)}")
    return among


def _slice(among: GoValue, *bounds: GoValue) -> GoValue:
    inside = among.encode() if isinstance(among, str) else among
    if not isinstance(inside, Sequence):
        raise ValueError(f"can't slice item of type {kind(among)}")
    if len(bounds) == 3 and isinstance(among, str):
        raise ValueError("cannot 3-index slice a string")
    places = [0, len(inside)]
    for number, bound in enumerate(bounds):
        if not isinstance(bound, int) or isinstance(bound, bool):
            raise ValueError(f"cannot index slice/array with type {kind(bound)}")
        if not 0 <= bound <= len(inside):
            raise ValueError(f"index out of range: {bound}")
        places[number : number + 1] = [bound]
    if places != sorted(places):
        raise ValueError(f"invalid slice index: {places}")
    part = inside[places[0] : places[1]]
    return part.decode(errors="replace") if isinstance(part, bytes) else part


def _length(value: GoValue) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, Mapping | Sequence):
        return len(value)
    raise ValueError(f"len of type {kind(value)}")


def _order(left: GoValue, right: GoValue) -> int:
    """-1, 0 or 1. Go compares what is of one basic type only."""
    if isinstance(left, bool) or isinstance(right, bool):
        raise ValueError("invalid type for comparison")
    if isinstance(left, str) and isinstance(right, str):
        return (left > right) - (left < right)
    if type(left) is not type(right) or not isinstance(left, int | float) or not isinstance(right, type(left)):
        raise ValueError("incompatible types for comparison")
    return 0 if left == right else -1 if left < right else 1


def _same(left: GoValue, right: GoValue) -> bool:
    if isinstance(left, bool) and isinstance(right, bool):
        return left is right
    if isinstance(left, bool) or isinstance(right, bool):
        raise ValueError("incompatible types for comparison")
    return _order(left, right) == 0


def _equal(left: GoValue, *others: GoValue) -> bool:
    return any(_same(left, other) for other in others)


def _arguments(*values: GoValue) -> GoValue:
    return Arguments((f"arg{number}", value) for number, value in enumerate(values))


FUNCTIONS: Final = {
    "query": Function(_query, 1, 1, asks=True),
    "first": Function(_first, 1, 1),
    "value": Function(lambda element: _element(element).value, 1, 1),
    "label": Function(lambda name, element: _element(element).labels.get(words.string(name), ""), 2, 2),
    "strvalue": Function(lambda element: _element(element).labels.get("__value__", ""), 1, 1),
    "sortByLabel": Function(_sort_by_label, 2, 2),
    "args": Function(_arguments, 0, MOST),
    "humanize": Function(formats.humanize, 1, 1),
    "humanize1024": Function(formats.humanize1024, 1, 1),
    "humanizeDuration": Function(formats.humanize_duration, 1, 1),
    "humanizePercentage": Function(formats.humanize_percentage, 1, 1),
    "humanizeTimestamp": Function(formats.humanize_timestamp, 1, 1),
    "toTime": Function(formats.instant, 1, 1),
    "toDuration": Function(formats.span, 1, 1),
    "now": Function(lambda data: data.at, 0, 0, asks=True),
    "parseDuration": Function(words.duration, 1, 1),
    "match": Function(words.matches, 2, 2),
    "reReplaceAll": Function(words.replace_all, 3, 3),
    "title": Function(words.title, 1, 1),
    "toUpper": Function(words.upper, 1, 1),
    "toLower": Function(words.lower, 1, 1),
    "stripPort": Function(words.strip_port, 1, 1),
    "stripDomain": Function(words.strip_domain, 1, 1),
    "safeHtml": Function(lambda value: Html(words.string(value)), 1, 1),
    "urlQueryEscape": Function(lambda value: quote_plus(words.string(value)), 1, 1),
    "tableLink": Function(lambda expression: words.link(expression, 1), 1, 1),
    "graphLink": Function(lambda expression: words.link(expression, 0), 1, 1),
    "pathPrefix": Function(lambda data: unquote(urlsplit(data.external_url).path), 0, 0, asks=True),
    "externalURL": Function(lambda data: data.external_url, 0, 0, asks=True),
    "printf": Function(formats.printf, 1, MOST),
    "print": Function(words.printed, 0, MOST),
    "println": Function(words.println, 0, MOST),
    "html": Function(words.html, 0, MOST),
    "js": Function(words.js, 0, MOST),
    "urlquery": Function(lambda *values: quote_plus(words.printed(*values, show=plain)), 0, MOST),
    "index": Function(_index, 1, MOST),
    "slice": Function(_slice, 1, 4),
    "len": Function(_length, 1, 1),
    "eq": Function(_equal, 2, MOST),
    "ne": Function(lambda left, right: not _same(left, right), 2, 2),
    "lt": Function(lambda left, right: _order(left, right) < 0, 2, 2),
    "le": Function(lambda left, right: _order(left, right) <= 0, 2, 2),
    "gt": Function(lambda left, right: _order(left, right) > 0, 2, 2),
    "ge": Function(lambda left, right: _order(left, right) >= 0, 2, 2),
    "not": Function(lambda value: not truth(value), 1, 1),
}
