"""The part of Go's templates that alert rules use, printed to the letter as Prometheus prints it.

Fields ``$value .Value $labels.x .Labels.x $externalLabels.x $externalURL``, text and numbers in quotes, pipelines,
brackets, comments, trim marks, and the functions of :mod:`.formats`. Everything else (``if``, ``range``, ``query`` …)
is refused when a rule file is loaded: better no rule than one that says something else than under Prometheus.
The oracle is ``promtool test rules`` (tests/alerts/test_rules_templates.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, TypeAlias

from . import formats
from .formats import GoValue

Evaluate: TypeAlias = Callable[["Data"], GoValue]

ACTION: Final = re.compile(
    r"\{\{(?P<left>- )?(?P<body>(?:\"(?:\\.|[^\"\\\n])*\"|`[^`]*`|(?!\}\}).)*?)(?P<right> -)?\}\}", re.DOTALL
)
COMMENT: Final = re.compile(r"/\*.*\*/", re.DOTALL)
TOKEN: Final = re.compile(
    r"""\s*(?:(?P<text>"(?:\\.|[^"\\\n])*"|`[^`]*`)
    |(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<path>[.$][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)*)
    |(?P<name>[A-Za-z_][A-Za-z_0-9]*)
    |(?P<mark>[|()]))""",
    re.VERBOSE,
)
KEYWORDS: Final = ("if", "else", "end", "range", "with", "define", "template", "block", "break", "continue")
ALLOWED: Final = "allowed: $value, $labels.NAME and pipelines of " + ", ".join(formats.FUNCTIONS)


FIELDS: Final = {
    "Value": "$value",
    "Labels": "$labels",
    "ExternalLabels": "$externalLabels",
    "ExternalURL": "$externalURL",
}


class TemplateError(ValueError):
    """A template that is wrong, or that uses what this expander does not know."""


@dataclass(frozen=True, slots=True)
class Data:
    """What a template may speak of: the labels of the element (with ``__name__``) and its value."""

    labels: Mapping[str, str]
    value: float
    external_labels: Mapping[str, str] = field(default_factory=dict)
    external_url: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: pieces of text and of evaluation in turn."""

    pieces: tuple[str | Evaluate, ...]

    def expand(self, data: Data) -> str:
        """The text. What goes wrong becomes the text ``<error expanding template: …>``, as in Prometheus: a
        mistake in an annotation must never keep an alert from being sent."""
        try:
            return "".join(piece if isinstance(piece, str) else formats.plain(piece(data)) for piece in self.pieces)
        except (ValueError, IndexError, TypeError, OverflowError) as error:
            return f"<error expanding template: {error}>"


def expand(text: str, labels: Mapping[str, str], value: float, external_labels: Mapping[str, str] | None = None) -> str:
    """``text`` for one alert. Raises :class:`TemplateError` only for what :func:`parse` refuses."""
    return parse(text).expand(Data(labels, value, external_labels or {}))


@lru_cache(1024)
def parse(text: str) -> Template:
    """The template, parsed once however often it is expanded.

    Raises :class:`TemplateError` naming the construct that is wrong or not supported.
    """
    pieces: list[str | Evaluate] = []
    position, trim = 0, False
    for action in ACTION.finditer(text):
        before = text[position : action.start()]
        if "{{" in before:
            break
        before = before.lstrip(" \t\r\n") if trim else before
        pieces.append(before.rstrip(" \t\r\n") if action["left"] else before)
        trim, position = bool(action["right"]), action.end()
        body = action["body"].strip()
        if not COMMENT.fullmatch(body):
            pieces.append(_Parser(body).pipeline_only())
    rest = text[position:]
    if "{{" in rest:
        raise TemplateError(f"unclosed or malformed action in {_shown(rest[rest.index('{{') :])}")
    pieces.append(rest.lstrip(" \t\r\n") if trim else rest)
    return Template(tuple(piece for piece in pieces if piece != ""))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")


class _Parser:
    """One action: ``operand``, or ``function operand …``, joined by ``|``."""

    def __init__(self, body: str) -> None:
        self.body = body
        self.tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(body):
            match = TOKEN.match(body, position)
            if match is None:
                raise TemplateError(f"{_shown(body[position:].strip())} is not supported in a template; {ALLOWED}")
            end = match.end()
            # Go wants a space between operands: `$value"x"` is a mistake there, and so it is here.
            if match.lastgroup != "mark" and end < len(body) and body[end] not in " \t\r\n|)":
                raise TemplateError(
                    f"{_shown(body[match.start() :].strip())} is not supported in a template; {ALLOWED}"
                )
            self.tokens.append((str(match.lastgroup), match.group().strip()))
            position = end
        self.at = 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def pipeline_only(self) -> Evaluate:
        result = self.pipeline()
        if self.peek()[0] != "end":
            raise TemplateError(f"unexpected {self.peek()[1]!r} in {_shown(self.body)}")
        return result

    def pipeline(self) -> Evaluate:
        result = self.command(None)
        while self.peek() == ("mark", "|"):
            self.at += 1
            result = self.command(result)
        return result

    def command(self, piped: Evaluate | None) -> Evaluate:
        kind, text = self.peek()
        if kind != "name" or text in ("true", "false"):
            operand = self.operand()
            if piped is not None:
                raise TemplateError(f"{_shown(self.body)}: only a function can stand behind '|'")
            if self.peek()[1] not in ("|", ")", ""):
                raise TemplateError(f"{_shown(self.body)}: {text} is not a function")
            return operand
        self.at += 1
        if text in KEYWORDS or text not in formats.FUNCTIONS:
            raise TemplateError(f"{text!r} is not supported in a template; {ALLOWED}")
        function, start = formats.FUNCTIONS[text], self.at
        arguments: list[Evaluate] = []
        while self.peek()[0] != "end" and self.peek()[1] not in ("|", ")"):
            arguments.append(self.operand())
        if piped is not None:
            arguments.append(piped)
        if not function.least <= len(arguments) <= function.most:
            raise TemplateError(f"{_shown(self.body)}: wrong number of arguments for {text}")
        form = self.constant_after(start) if text == "printf" else None
        if form is not None and (reason := formats.printf_problem(form)):
            raise TemplateError(reason)
        call = function.call
        return lambda data: call(*(argument(data) for argument in arguments))

    def constant_after(self, position: int) -> str | None:
        """The text at ``position`` where it is written out, so that it can be checked before it is used."""
        kind, text = self.tokens[position] if position < len(self.tokens) else ("end", "")
        return _constant(text) if kind == "text" else None

    def operand(self) -> Evaluate:
        kind, text = self.peek()
        self.at += 1
        if kind == "text":
            constant = _constant(text)
            return lambda data: constant
        if kind == "number":
            number: GoValue = float(text) if any(c in text for c in ".eE") else int(text)
            return lambda data: number
        if kind == "path":
            return _path(text)
        if (kind, text) == ("mark", "("):
            inner = self.pipeline()
            if self.peek() != ("mark", ")"):
                raise TemplateError(f"unclosed bracket in {_shown(self.body)}")
            self.at += 1
            return inner
        raise TemplateError(
            f"{text or 'nothing'!r} is not supported there in {_shown('{{' + self.body + '}}')}; {ALLOWED}"
        )


def _path(text: str) -> Evaluate:
    head, _, name = text.removeprefix(".").partition(".")
    if "." in name or text in (".", "$"):
        raise TemplateError(f"{text!r} is not supported in a template; {ALLOWED}")
    if text.startswith("."):
        head = FIELDS.get(head, text)
    if head == "$value" and not name:
        return lambda data: data.value
    if head == "$externalURL" and not name:
        return lambda data: data.external_url
    # A label that is not there is empty text.
    if head == "$labels":
        return (lambda data: data.labels.get(name, "")) if name else (lambda data: data.labels)
    if head == "$externalLabels":
        return (lambda data: data.external_labels.get(name, "")) if name else (lambda data: data.external_labels)
    raise TemplateError(f"{text!r} is not supported in a template; {ALLOWED}")


def _constant(text: str) -> str:
    if text[0] == "`":
        return text[1:-1]
    try:
        return str(json.loads(text))
    except ValueError:
        raise TemplateError(f"text {_shown(text)} is not supported in a template: only JSON's escapes are") from None
