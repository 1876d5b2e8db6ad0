"""The functions that a template can call, those of Prometheus and those of Go, by name: :data:`FUNCTIONS`.

Meaning and wording after Prometheus's template/template.go and Go's text/template; the oracle is promtool
(tests/alerts/test_rules_templates.py).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote_plus, unquote, urlsplit

from . import formats, patterns
from .templatevalues import LONGEST, Arguments, Data, Element, GoValue, kind, missing, plain, quoted, truth
from .yamltext import parse_duration

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


def _text(value: GoValue) -> str:
    if not isinstance(value, str):
        raise ValueError(f"wrong type for value; expected string; got {kind(value)}")
    return value


# What a query found.


def _query(data: Data, expression: GoValue) -> GoValue:
    if data.query is None:
        raise ValueError("query: there is nothing to be asked here")
    return list(data.query(_text(expression)))


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
    name, found = _text(label), _elements(value)
    if isinstance(found, list):
        found.sort(key=lambda each: each.labels.get(name, ""))
    return found


# Text.


def _upper(value: GoValue) -> str:
    return "".join(map(_capital, _text(value)))


def _capital(letter: str) -> str:
    """The one capital letter that Unicode gives: Go has no use for the longer ones (``ß`` stays)."""
    for each in (letter.upper(), letter.title()):
        if len(each) == 1:
            return each
    return letter


def _lower(value: GoValue) -> str:
    return "".join(letter.lower()[0] for letter in _text(value))


def _title(value: GoValue) -> str:
    """Go's ``strings.Title``: what stands behind no letter, digit, ``_`` or non-ASCII mark becomes a capital."""
    text, before, out = _text(value), " ", []
    for letter in text:
        inside = before == "_" or before.isalnum() or (ord(before) > 127 and not before.isspace())
        titled = letter.title()
        out.append(letter if inside or len(titled) != 1 else titled)
        before = letter
    return "".join(out)


def _match(pattern: GoValue, text: GoValue) -> bool:
    return patterns.found(_text(pattern), _text(text))


def _replace_all(pattern: GoValue, replacement: GoValue, text: GoValue) -> str:
    return patterns.replaced(_text(pattern), _text(replacement), _text(text), LONGEST)


def _print(*values: GoValue) -> str:
    text = ""
    for before, value in zip((None, *values), values, strict=False):
        gap = text and not isinstance(before, str) and not isinstance(value, str)
        text += (" " if gap else "") + _shown(value)
    return text


def _println(*values: GoValue) -> str:
    return " ".join(map(_shown, values)) + "\n"


def _shown(value: GoValue) -> str:
    return "<nil>" if value is None else plain(value)


HTML: Final = str.maketrans({"\0": "\N{REPLACEMENT CHARACTER}", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"})  # fmt: skip  # noqa: E501
SCRIPT: Final = {"\\": r"\\", "'": r"\'", '"': r"\"", "<": r"\u003C", ">": r"\u003E", "&": r"\u0026", "=": r"\u003D"}


def _js(*values: GoValue) -> str:
    return "".join(SCRIPT.get(each) or _unicode(each) for each in _print(*values))


def _unicode(character: str) -> str:
    return character if character.isprintable() else f"\\u{ord(character):04X}"


def _duration(value: GoValue) -> float:
    try:
        return parse_duration(_text(value))
    except ValueError:
        words = f"not a valid duration string: {quoted(_text(value))}" if value else "empty duration string"
        raise ValueError(words) from None


# Addresses and links.


def _host_port(address: str) -> tuple[str, str] | None:
    """Go's ``net.SplitHostPort``; ``None`` where it is an error."""
    before, colon, port = address.rpartition(":")
    host = before
    if not colon:
        return None
    if address.startswith("["):
        host, bracket, rest = before[1:].partition("]")
        if not bracket or rest:
            return None
    elif ":" in host:
        return None
    return None if any(each in host + port for each in "[]") else (host, port)


def _strip_port(value: GoValue) -> str:
    split = _host_port(_text(value))
    return split[0] if split else _text(value)


def _strip_domain(value: GoValue) -> str:
    address = _text(value)
    host, port = _host_port(address) or (address, "")
    try:
        if "%" not in host:
            ipaddress.ip_address(host)
            return address
    except ValueError:
        pass
    host = host.partition(".")[0]
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _link(expression: GoValue, tab: int) -> str:
    return f"/graph?g0.expr={quote_plus(_text(expression))}&g0.tab={tab}"


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
    if type(left) is not type(right) or not isinstance(left, int | float | str) or not isinstance(right, type(left)):
        raise ValueError("incompatible types for comparison")
    return 0 if left == right else -1 if left < right else 1  # type: ignore[operator]


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
    "label": Function(lambda name, element: _element(element).labels.get(_text(name), ""), 2, 2),
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
    "parseDuration": Function(_duration, 1, 1),
    "match": Function(_match, 2, 2),
    "reReplaceAll": Function(_replace_all, 3, 3),
    "title": Function(_title, 1, 1),
    "toUpper": Function(_upper, 1, 1),
    "toLower": Function(_lower, 1, 1),
    "stripPort": Function(_strip_port, 1, 1),
    "stripDomain": Function(_strip_domain, 1, 1),
    "safeHtml": Function(_text, 1, 1),
    "urlQueryEscape": Function(lambda value: quote_plus(_text(value)), 1, 1),
    "tableLink": Function(lambda expression: _link(expression, 1), 1, 1),
    "graphLink": Function(lambda expression: _link(expression, 0), 1, 1),
    "pathPrefix": Function(lambda data: unquote(urlsplit(data.external_url).path), 0, 0, asks=True),
    "externalURL": Function(lambda data: data.external_url, 0, 0, asks=True),
    "printf": Function(formats.printf, 1, MOST),
    "print": Function(_print, 0, MOST),
    "println": Function(_println, 0, MOST),
    "html": Function(lambda *values: _print(*values).translate(HTML), 0, MOST),
    "js": Function(_js, 0, MOST),
    "urlquery": Function(lambda *values: quote_plus(_print(*values)), 0, MOST),
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
