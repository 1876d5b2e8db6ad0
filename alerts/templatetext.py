"""The text of a template in pieces: what is printed as it stands, actions, and the tokens of one action."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

# An atomic group: a text that was read is never read again as single characters, of which there are 2^n ways.
ACTION: Final = re.compile(
    r"\{\{(?P<left>- )?(?P<body>(?>\"(?:\\.|[^\"\\\n])*\"|`[^`]*`|(?!\}\}).)*?)(?P<right> -)?\}\}", re.DOTALL
)
COMMENT: Final = re.compile(r"/\*.*\*/", re.DOTALL)
TOKEN: Final = re.compile(
    r"""\s*(?:(?P<text>"(?:\\.|[^"\\\n])*"|`[^`]*`)
    |(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<path>[.$][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)*)
    |(?P<name>[A-Za-z_][A-Za-z_0-9]*)
    |(?P<mark>:=|[|()=,]))""",
    re.VERBOSE | re.ASCII,
)
ESCAPE: Final = re.compile(
    r'\\(?:(?P<letter>[abfnrtv\\"])|x(?P<hex>[0-9A-Fa-f]{2})|u(?P<short>[0-9A-Fa-f]{4})|U(?P<long>[0-9A-Fa-f]{8})'
    r"|(?P<octal>[0-3][0-7]{2}))|(?P<wrong>\\)"
)
LETTERS: Final = dict(zip('abfnrtv\\"', '\a\b\f\n\r\t\v\\"', strict=True))


class TemplateError(ValueError):
    """A template that is wrong, or that uses what this expander does not know."""


class Token(NamedTuple):
    """``kind``: text, number, path, name, mark, or end. ``touches``: nothing stands between it and what is before."""

    kind: str
    text: str
    touches: bool = False


END: Final = Token("end", "")


def pieces(text: str) -> Iterator[tuple[bool, str]]:
    """Whether it is an action, and its text, in turn. Raises :class:`TemplateError` for an action without an end."""
    position, trim = 0, False
    while (start := text.find("{{", position)) >= 0:
        # In "{{{" the action may begin one later; what fails at both would make a search look at all the rest again.
        action = ACTION.match(text, start) or (
            ACTION.match(text, start + 1) if text[start + 2 : start + 3] == "{" else None
        )
        if action is None:
            break
        before = text[position : action.start()]
        before = before.lstrip(" \t\r\n") if trim else before
        yield False, before.rstrip(" \t\r\n") if action["left"] else before
        trim, position = bool(action["right"]), action.end()
        body = action["body"].strip()
        if not COMMENT.fullmatch(body):
            yield True, body
    rest = text[position:]
    if "{{" in rest:
        raise TemplateError(f"unclosed or malformed action in {shown(rest[rest.index('{{') :])}")
    yield False, rest.lstrip(" \t\r\n") if trim else rest


def tokens(body: str) -> list[Token]:
    """The tokens of one action. Raises :class:`TemplateError`, with what cannot be read."""
    found: list[Token] = []
    position = 0
    while position < len(body.rstrip()):
        match = TOKEN.match(body, position)
        if match is None:
            raise TemplateError(f"{shown(body[position:].strip())} is not supported in a template")
        end = match.end()
        # Go wants a space between operands: `$value"x"` is a mistake there, and so it is here.
        if match.lastgroup != "mark" and end < len(body) and body[end] not in " \t\r\n|),:=":
            raise TemplateError(f"{shown(body[match.start() :].strip())} is not supported in a template")
        kind = str(match.lastgroup)
        found.append(Token(kind, match.group().strip(), match.start(kind) == position > 0))
        position = end
    return found


def constant(text: str) -> str:
    """What a text in quotes says, as Go reads it. Raises :class:`TemplateError` for an escape that Go does not know."""
    if text[0] == "`":
        return text[1:-1].replace("\r", "")

    def one(match: re.Match[str]) -> str:
        if match["letter"]:
            return LETTERS[match["letter"]]
        digits = match["short"] or match["long"]
        code = int(digits, 16) if digits else int(match["hex"] or "0", 16) or int(match["octal"] or "0", 8)
        # A byte above ASCII is part of a character, which nobody writes so.
        if match["wrong"] or code > 0x10FFFF or 0xD800 <= code < 0xE000 or (not digits and code > 0x7F):
            raise TemplateError(f"text {shown(text)} has an escape that is not supported in a template")
        return chr(code)

    return ESCAPE.sub(one, text[1:-1])


def shown(text: str) -> str:
    """``text`` as an error shows it."""
    return repr(text if len(text) <= 60 else text[:57] + "…")
