"""What the text of a query needs before promql-parser reads it, and what is put back afterwards.

The parser does not take two things that Prometheus takes: label matchers of ``info`` that a missing label would
satisfy, and strings whose escapes are no valid UTF-8.
"""

from __future__ import annotations

import re

STRINGS = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`|#[^\n]*", re.DOTALL)

PLACEHOLDER = "anvil_monitor_any"
"""A matcher of this label is put beside those of ``info``'s second argument and left out again."""

_BYTES = 0x10FF00  # private characters that stand for single bytes
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|([0-7]{3})|.)", re.DOTALL)
_INFO = re.compile(r"\binfo\s*\(", re.IGNORECASE)
_TOKENS = re.compile(rf"({STRINGS.pattern}|\binfo\s*\(|[()\[\]{{}},])", re.DOTALL | re.IGNORECASE)


def prepared(query: str) -> str:
    """The query as the parser reads it."""
    if "\\" in query:
        query = STRINGS.sub(lambda found: _string(found[0]), query)
    return _with_placeholders(query) if _INFO.search(query) else query


def restored(text: str) -> str:
    """A string of the query; bytes that are no UTF-8 are in it as lone surrogates."""
    if text.isascii():
        return text
    return "".join([chr(0xDC00 + ord(one) - _BYTES) if ord(one) >= _BYTES + 0x80 else one for one in text])


def _string(text: str) -> str:
    """A string literal in which escaped bytes are the characters that they encode."""
    if text[0] not in "\"'":
        return text

    def escape(found: re.Match[str]) -> str:
        number = int(found[1], 16) if found[1] else int(found[2], 8) if found[2] else 0
        return chr(_BYTES + number) if 0x80 <= number < 0x100 else found[0]

    def decoded(found: re.Match[str]) -> str:
        raw = bytes([ord(one) - _BYTES for one in found[0]])
        known = raw.decode("utf-8", "surrogateescape")
        return "".join([chr(_BYTES + ord(one) - 0xDC00) if 0xDC80 <= ord(one) <= 0xDCFF else one for one in known])

    return re.sub(f"[{chr(_BYTES + 0x80)}-{chr(_BYTES + 0xFF)}]+", decoded, _ESCAPE.sub(escape, text))


def _with_placeholders(query: str) -> str:
    """One more matcher, that no missing label satisfies, in the second argument of each ``info``."""
    out: list[str] = []
    calls: list[bool] = []  # the open brackets, and which of them are those of info
    waiting = False
    for part in _TOKENS.split(query):
        out.append(part)
        if _INFO.fullmatch(part) or part in ("(", "[", "{"):
            calls.append(_INFO.fullmatch(part) is not None)
            if waiting and part == "{":
                out.append(f'{PLACEHOLDER}!="",')
            waiting = False
        elif part in (")", "]", "}"):
            del calls[-1:]
            waiting = False
        elif part == ",":
            waiting = calls[-1:] == [True]
        elif part.strip():
            waiting = False
    return "".join(out)
