"""From a template's text to what can be evaluated: see :mod:`.templates`, which is the way in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from . import formats
from .formats import Element, GoValue

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
    re.VERBOSE,
)
# Fields of the outermost dot, and the variables that Prometheus declares for each.
FIELDS: Final = {
    "Value": "$value",
    "Labels": "$labels",
    "ExternalLabels": "$externalLabels",
    "ExternalURL": "$externalURL",
}
BRANCHES: Final = ("if", "range", "with")
REFUSED: Final = ("define", "template", "block", "break", "continue")
# Functions that need more than the values of their arguments, and how many they take: `and` and `or` evaluate from the
# left as far as needed.
SPECIAL: Final = {"query": (1, 1), "and": (1, formats.MOST), "or": (1, formats.MOST)}
ALLOWED: Final = "allowed: $value, $labels.NAME, if, range, with and pipelines of " + ", ".join(
    (*SPECIAL, *formats.FUNCTIONS)
)
# Deeper than anybody writes; the parser calls itself.
DEEPEST: Final = 50


class TemplateError(ValueError):
    """A template that is wrong, or that uses what this expander does not know."""


@dataclass(slots=True)
class Scope:
    """What an expression sees. ``dot``: ``None`` outside ``range`` and ``with``; ``variables``: innermost last."""

    dot: GoValue | None
    variables: list[tuple[str, GoValue]]
    query: Callable[[str], Sequence[Element]] | None

    def of(self, name: str) -> GoValue:
        return next(value for known, value in reversed(self.variables) if known == name)

    def assign(self, name: str, value: GoValue) -> None:
        at = max(i for i, (known, _) in enumerate(self.variables) if known == name)
        self.variables[at] = (name, value)


Evaluate: TypeAlias = Callable[[Scope], GoValue]


@dataclass(frozen=True, slots=True)
class Action:
    """``{{ pipeline }}``, ``{{ $x := pipeline }}`` or ``{{ $x = pipeline }}``."""

    evaluate: Evaluate
    declares: str = ""
    assigns: str = ""


@dataclass(frozen=True, slots=True)
class Branch:
    """``{{ if }}``, ``{{ range }}`` or ``{{ with }}`` up to its ``{{ end }}``."""

    word: str
    declares: tuple[str, ...]
    evaluate: Evaluate
    then: tuple[Node, ...]
    otherwise: tuple[Node, ...]


Node: TypeAlias = str | Action | Branch


def parse(text: str, variables: Sequence[str] = ()) -> tuple[Node, ...]:
    """The nodes of ``text``. Raises :class:`TemplateError` naming the construct that is wrong or not supported.

    ``variables``: what stands for those of Prometheus (``$value`` …) in a template of another kind, which has no dot.
    """
    pieces = _Pieces(text)
    nodes, ended = _block(pieces, list(variables or FIELDS.values()), outermost=not variables, depth=0)
    if ended:
        raise TemplateError(f"unexpected {_shown('{{' + ended + '}}')}")
    return nodes


class _Pieces:
    """Text and actions in turn, one to be looked at ahead."""

    def __init__(self, text: str) -> None:
        self._rest = _split(text)

    def next(self) -> tuple[bool, str] | None:
        """Whether it is an action, and its text; ``None`` at the end."""
        return next(self._rest, None)


def _split(text: str) -> Iterator[tuple[bool, str]]:
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
        raise TemplateError(f"unclosed or malformed action in {_shown(rest[rest.index('{{') :])}")
    yield False, rest.lstrip(" \t\r\n") if trim else rest


def _block(pieces: _Pieces, known: list[str], outermost: bool, depth: int) -> tuple[tuple[Node, ...], str]:
    """The nodes up to ``end`` or ``else``, and that action's body (empty at the end of the text)."""
    if depth > DEEPEST:
        raise TemplateError(f"blocks are nested more than {DEEPEST} deep")
    known, nodes = list(known), list[Node]()
    while (piece := pieces.next()) is not None:
        is_action, body = piece
        if not is_action:
            nodes += [body] if body else []
            continue
        word = body.split(None, 1)[0] if body else ""
        if word in ("end", "else"):
            return tuple(nodes), body
        if word in BRANCHES:
            nodes.append(_branch(word, body, pieces, known, outermost, depth))
        else:
            nodes.append(_Parser(body, known, outermost).action())
    return tuple(nodes), ""


def _branch(word: str, body: str, pieces: _Pieces, known: list[str], outermost: bool, depth: int) -> Branch:
    inner = list(known)
    parser = _Parser(body.removeprefix(word), inner, outermost)
    declares = parser.declared(most=2 if word == "range" else 1)
    evaluate = parser.pipeline_only()
    inner += declares
    below = outermost and word == "if"  # range and with set the dot
    then, ended = _block(pieces, inner, below, depth + 1)
    otherwise: tuple[Node, ...] = ()
    if ended == "else":
        otherwise, ended = _block(pieces, inner, outermost, depth + 1)
    elif ended.split(None, 2)[:2] == ["else", "if"]:
        nested = _branch("if", ended.removeprefix("else").strip(), pieces, inner, outermost, depth + 1)
        return Branch(word, declares, evaluate, then, (nested,))
    if ended != "end":
        raise TemplateError(f"{_shown('{{' + body + '}}')} has no {{{{end}}}}" if not ended
                            else f"unexpected {_shown('{{' + ended + '}}')}")  # fmt: skip
    return Branch(word, declares, evaluate, then, otherwise)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")


class _Parser:
    """One action: ``operand``, or ``function operand …``, joined by ``|``. ``known``: the variables there are."""

    def __init__(self, body: str, known: list[str], outermost: bool) -> None:
        self.body, self.known, self.outermost = body, known, outermost
        self.tokens: list[tuple[str, str, bool]] = []  # kind, text, whether it touches what stands before it
        position = 0
        while position < len(body.rstrip()):
            match = TOKEN.match(body, position)
            if match is None:
                raise TemplateError(f"{_shown(body[position:].strip())} is not supported in a template; {ALLOWED}")
            end = match.end()
            # Go wants a space between operands: `$value"x"` is a mistake there, and so it is here.
            if match.lastgroup != "mark" and end < len(body) and body[end] not in " \t\r\n|),:=":
                raise TemplateError(
                    f"{_shown(body[match.start() :].strip())} is not supported in a template; {ALLOWED}"
                )
            text = match.group().strip()
            self.tokens.append((str(match.lastgroup), text, match.start(str(match.lastgroup)) == position > 0))
            position = end
        self.at = 0

    def peek(self, ahead: int = 0) -> tuple[str, str]:
        at = self.at + ahead
        return self.tokens[at][:2] if at < len(self.tokens) else ("end", "")

    def action(self) -> Action:
        kind, text = self.peek()
        if kind == "path" and self.peek(1) == ("mark", "="):
            self._variable(text)
            self.at += 2
            return Action(self.pipeline_only(), assigns=text)
        declares = self.declared(most=1)
        evaluate = self.pipeline_only()
        self.known += declares
        return Action(evaluate, declares=declares[0] if declares else "")

    def declared(self, most: int) -> tuple[str, ...]:
        """The variables of ``$x :=`` or ``$i, $x :=``, if it begins so."""
        names: list[str] = []
        for ahead in (1, 3)[:most]:
            kind, text = self.peek(ahead - 1)
            if kind != "path" or not text.startswith("$") or "." in text or text == "$":
                return ()
            names.append(text)
            if self.peek(ahead) == ("mark", ":="):
                self.at += ahead + 1
                return tuple(names)
            if self.peek(ahead) != ("mark", ","):
                return ()
        return ()

    def pipeline_only(self) -> Evaluate:
        result = self.pipeline(0)
        if self.peek()[0] != "end":
            raise TemplateError(f"unexpected {self.peek()[1]!r} in {_shown(self.body)}")
        return result

    def pipeline(self, depth: int) -> Evaluate:
        if depth > DEEPEST:
            raise TemplateError(f"brackets are nested more than {DEEPEST} deep")
        result = self.command(None, depth)
        while self.peek() == ("mark", "|"):
            self.at += 1
            result = self.command(result, depth)
        return result

    def command(self, piped: Evaluate | None, depth: int) -> Evaluate:
        kind, text = self.peek()
        if kind != "name" or text in ("true", "false"):
            operand = self.operand(depth)
            if piped is not None:
                raise TemplateError(f"{_shown(self.body)}: only a function can stand behind '|'")
            if self.peek()[1] not in ("|", ")", ""):
                raise TemplateError(f"{_shown(self.body)}: {text} is not a function")
            return operand
        self.at += 1
        if text in REFUSED or text not in (*formats.FUNCTIONS, *SPECIAL):
            raise TemplateError(f"{text!r} is not supported in a template; {ALLOWED}")
        start = self.at
        arguments: list[Evaluate] = []
        while self.peek()[0] != "end" and self.peek()[1] not in ("|", ")"):
            arguments.append(self.operand(depth))
        if piped is not None:
            arguments.append(piped)
        return self.call(text, start, arguments)

    def call(self, name: str, start: int, arguments: list[Evaluate]) -> Evaluate:
        function = formats.FUNCTIONS.get(name)
        least, most = SPECIAL[name] if function is None else (function.least, function.most)
        if not least <= len(arguments) <= most:
            raise TemplateError(f"{_shown(self.body)}: wrong number of arguments for {name}")
        form = self.constant_after(start) if name == "printf" else None
        if form is not None and (reason := formats.printf_problem(form)):
            raise TemplateError(reason)
        if function is not None:
            call = function.call
            return lambda scope: call(*(argument(scope) for argument in arguments))
        if name == "query":
            return lambda scope: _asked(scope, arguments[0](scope))
        return lambda scope: _until(scope, arguments, name == "or")

    def constant_after(self, position: int) -> str | None:
        """The text at ``position`` where it is written out, so that it can be checked before it is used."""
        kind, text = self.tokens[position][:2] if position < len(self.tokens) else ("end", "")
        return _constant(text) if kind == "text" else None

    def operand(self, depth: int) -> Evaluate:
        kind, text = self.peek()
        self.at += 1
        if kind == "text":
            constant = _constant(text)
            return lambda scope: constant
        if kind == "number":
            number: GoValue = float(text) if any(c in text for c in ".eE") else int(text)
            return lambda scope: number
        if kind == "name" and text in ("true", "false"):
            return lambda scope: text == "true"
        if kind == "path":
            return self.path(text)
        if (kind, text) == ("mark", "("):
            inner = self.pipeline(depth + 1)
            if self.peek() != ("mark", ")"):
                raise TemplateError(f"unclosed bracket in {_shown(self.body)}")
            self.at += 1
            kind, text = self.peek()
            if kind == "path" and text.startswith(".") and self.tokens[self.at][2]:  # (…).Field
                self.at += 1
                return _fields(inner, text.removeprefix(".").split("."))
            return inner
        raise TemplateError(
            f"{text or 'nothing'!r} is not supported there in {_shown('{{' + self.body + '}}')}; {ALLOWED}"
        )

    def path(self, text: str) -> Evaluate:
        head, *names = text.split(".")
        names = [name for name in names if name]
        if head not in ("", "$"):
            self._variable(head)
            known = (*FIELDS.values(),)
            # Of the variables whose type is known, what cannot be asked is a mistake before it is evaluated.
            plain = head in ("$value", "$externalURL")
            if head in known and self.known.count(head) == 1 and len(names) > (0 if plain else 1):
                raise TemplateError(f"{text!r} is not supported in a template; {ALLOWED}")
            return _fields(lambda scope: scope.of(head), names)
        if head == "$" or self.outermost:
            if not names or names[0] not in FIELDS:
                raise TemplateError(f"{text!r} is not supported in a template; {ALLOWED}")
            variable, rest = FIELDS[names[0]], names[1:]
            if len(rest) > (1 if variable in ("$labels", "$externalLabels") else 0):
                raise TemplateError(f"{text!r} is not supported in a template; {ALLOWED}")
            return _fields(lambda scope: _first_of(scope, variable), rest)
        return _fields(_dot, names)

    def _variable(self, text: str) -> None:
        name = text.partition(".")[0]
        if name not in self.known:
            raise TemplateError(f"undefined variable {_shown(name)}; {ALLOWED}")


def _first_of(scope: Scope, name: str) -> GoValue:
    """The field behind a predeclared variable, whatever was assigned to a variable of that name since."""
    return next(value for known, value in scope.variables if known == name)


def _dot(scope: Scope) -> GoValue:
    if scope.dot is None:
        raise ValueError("the dot has no value there")
    return scope.dot


def _fields(inner: Evaluate, names: Sequence[str]) -> Evaluate:
    for name in names:
        inner = _field(inner, name)
    return inner


def _field(inner: Evaluate, name: str) -> Evaluate:
    return lambda scope: formats.field(inner(scope), name)


def _asked(scope: Scope, expression: GoValue) -> Sequence[Element]:
    if not isinstance(expression, str):
        raise ValueError("wrong type for value; expected string")
    if scope.query is None:
        raise ValueError("query: there is nothing to be asked here")
    return scope.query(expression)


def _until(scope: Scope, arguments: Sequence[Evaluate], wanted: bool) -> GoValue:
    value: GoValue = False
    for argument in arguments:
        value = argument(scope)
        if formats.truth(value) is wanted:
            break
    return value


def _constant(text: str) -> str:
    if text[0] == "`":
        return text[1:-1]
    try:
        return str(json.loads(text))
    except ValueError:
        raise TemplateError(f"text {_shown(text)} is not supported in a template: only JSON's escapes are") from None
