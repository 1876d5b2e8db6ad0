"""Functions of a template on text, addresses and links; :mod:`.templatefunctions` has them by name."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final
from urllib.parse import quote_plus

from . import patterns
from .templatevalues import LONGEST, GoValue, Html, inner, kind, plain, quoted
from .yamltext import parse_duration


def string(value: GoValue) -> str:
    if not isinstance(value, str) or isinstance(value, Html):
        raise ValueError(f"wrong type for value; expected string; got {kind(value)}")
    return value


def upper(value: GoValue) -> str:
    return "".join(map(_capital, string(value)))


def _capital(letter: str) -> str:
    """The one capital letter that Unicode gives: Go has no use for the longer ones (``ß`` stays)."""
    for each in (letter.upper(), letter.title()):
        if len(each) == 1:
            return each
    return letter


def lower(value: GoValue) -> str:
    return "".join(letter.lower()[0] for letter in string(value))


def title(value: GoValue) -> str:
    """Go's ``strings.Title``: what stands behind no letter, digit, ``_`` or non-ASCII mark becomes a capital."""
    text, before, out = string(value), " ", []
    for letter in text:
        inside = before == "_" or before.isalnum() or (ord(before) > 127 and not before.isspace())
        titled = letter.title()
        out.append(letter if inside or len(titled) != 1 else titled)
        before = letter
    return "".join(out)


def matches(pattern: GoValue, text: GoValue) -> bool:
    return patterns.found(string(pattern), string(text))


def replace_all(pattern: GoValue, replacement: GoValue, text: GoValue) -> str:
    return patterns.replaced(string(pattern), string(replacement), string(text), LONGEST)


def printed(*values: GoValue, show: Callable[[GoValue], str] = inner) -> str:
    text = ""
    for before, value in zip((None, *values), values, strict=False):
        gap = text and not isinstance(before, str) and not isinstance(value, str)
        text += (" " if gap else "") + show(value)
    return text


def println(*values: GoValue) -> str:
    return " ".join(map(inner, values)) + "\n"


MARKUP: Final = {"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
SCRIPT: Final = {"\\": r"\\", "'": r"\'", '"': r"\"", "<": r"\u003C", ">": r"\u003E", "&": r"\u0026", "=": r"\u003D"}


def html(*values: GoValue) -> str:
    return "".join(MARKUP.get(each, each) for each in printed(*values, show=plain))


def js(*values: GoValue) -> str:
    return "".join(SCRIPT.get(each) or _unicode(each) for each in printed(*values, show=plain))


def _unicode(character: str) -> str:
    return character if character.isprintable() else f"\\u{ord(character):04X}"


def duration(value: GoValue) -> float:
    try:
        return parse_duration(string(value))
    except ValueError:
        words = f"not a valid duration string: {quoted(string(value))}" if value else "empty duration string"
        raise ValueError(words) from None


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


def strip_port(value: GoValue) -> str:
    split = _host_port(string(value))
    return split[0] if split else string(value)


def strip_domain(value: GoValue) -> str:
    address = string(value)
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


def link(expression: GoValue, tab: int) -> str:
    return f"/graph?g0.expr={quote_plus(string(expression))}&g0.tab={tab}"
