"""One action of a template, from its tokens to what can be evaluated: operands, function calls, pipelines."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from . import formats, templatefunctions, templatetext
from .templatefunctions import FUNCTIONS
from .templatenodes import Action, Evaluate, Nothing, Scope
from .templatetext import END, TemplateError, Token, shown
from .templatevalues import GoValue, get, truth

# Fields of the data, and the variables that Prometheus declares for each.
FIELDS: Final = {
    "Value": "$value",
    "Labels": "$labels",
    "ExternalLabels": "$externalLabels",
    "ExternalURL": "$externalURL",
}
# They evaluate their arguments from the left, as far as needed.
SHORT: Final = ("and", "or")
METHODS: Final = {"Format": 1}  # what takes arguments, and how many
ALLOWED: Final = "allowed: $value, $labels.NAME, if, range, with, template and pipelines of " + ", ".join(
    (*FUNCTIONS, *SHORT)
)
OCTAL: Final = re.compile(r"[+-]?0[0-9]+")
# Deeper than anybody writes; the parser calls itself.
DEEPEST: Final = 50


@dataclass(frozen=True, slots=True)
class Place:
    """Where an action stands: the variables there are, what dot and ``$`` are known to be, and how deep it is.

    ``outermost``: the dot is the data; ``rooted``: ``$`` is; ``looped``: inside ``range``.
    """

    known: list[str]
    outermost: bool
    rooted: bool
    looped: bool = False
    depth: int = 0

    def inside(self, known: Sequence[str], **changes: bool) -> Place:
        return replace(self, known=list(known), depth=self.depth + 1, **changes)


class Parser:
    """One action: ``operand``, or ``function operand …``, joined by ``|``."""

    def __init__(self, body: str, place: Place) -> None:
        self.body, self.place = body, place
        try:
            self.tokens = templatetext.tokens(body)
        except TemplateError as error:
            raise TemplateError(f"{error}; {ALLOWED}") from None
        self.at = 0

    def peek(self, ahead: int = 0) -> Token:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else END

    def marked(self, mark: str, ahead: int = 0) -> bool:
        return self.peek(ahead)[:2] == ("mark", mark)

    def action(self) -> Action:
        kind, text, _ = self.peek()
        if kind == "path" and self.marked("=", 1):
            self._variable(text)
            self.at += 2
            return Action(self.rest(), assigns=text)
        declares = self.declared(most=1)
        evaluate = self.rest()
        self.place.known.extend(declares)
        return Action(evaluate, declares=declares[0] if declares else "")

    def declared(self, most: int) -> tuple[str, ...]:
        """The variables of ``$x :=`` or ``$i, $x :=``, if it begins so."""
        names: list[str] = []
        for ahead in (1, 3)[:most]:
            kind, text, _ = self.peek(ahead - 1)
            if kind != "path" or not text.startswith("$") or "." in text or text == "$":
                return ()
            names.append(text)
            if self.marked(":=", ahead):
                self.at += ahead + 1
                return tuple(names)
            if not self.marked(",", ahead):
                return ()
        return ()

    def name(self) -> str:
        """The name of a template, in quotes."""
        kind, text, _ = self.peek()
        if kind != "text":
            raise TemplateError(f"{shown(self.body.strip())}: a template is named by a text in quotes")
        self.at += 1
        return templatetext.constant(text)

    def rest(self) -> Evaluate:
        """What the action evaluates, up to its end."""
        result = self.pipeline(0)
        if self.peek() != END:
            raise TemplateError(f"unexpected {self.peek().text!r} in {shown(self.body)}")
        return result

    def nothing(self) -> Evaluate:
        if self.peek() != END:
            raise TemplateError(f"unexpected {self.peek().text!r} in {shown(self.body)}")
        return lambda scope: None

    def pipeline(self, depth: int) -> Evaluate:
        if depth > DEEPEST:
            raise TemplateError(f"brackets are nested more than {DEEPEST} deep")
        result = self.command(None, depth)
        while self.marked("|"):
            self.at += 1
            result = self.command(result, depth)
        return result

    def command(self, piped: Evaluate | None, depth: int) -> Evaluate:
        kind, text, _ = self.peek()
        if kind != "name" or text in ("true", "false"):
            operand = self.operand(depth)
            if isinstance(operand, _Field) and operand.name in METHODS and (arguments := self.arguments(depth, piped)):
                return self.method(operand, arguments)
            if piped is not None:
                raise TemplateError(f"{shown(self.body)}: only a function can stand behind '|'")
            if self.peek().text not in ("|", ")", ""):
                raise TemplateError(f"{shown(self.body)}: {text} is not a function")
            return operand
        self.at += 1
        if text not in (*FUNCTIONS, *SHORT):
            near = difflib.get_close_matches(text, FUNCTIONS, 1)
            todo = f"did you mean {near[0]!r}?" if near else ALLOWED
            raise TemplateError(f"{text!r} is not supported in a template; {todo}")
        form = self.peek() if text == "printf" else END
        if text in SHORT:
            return self.short(text, self.arguments(depth), piped)
        return self.call(text, self.arguments(depth, piped), form)

    def arguments(self, depth: int, piped: Evaluate | None = None) -> list[Evaluate]:
        found: list[Evaluate] = []
        while self.peek() != END and self.peek().text not in ("|", ")"):
            found.append(self.operand(depth))
        return found if piped is None else [*found, piped]

    def method(self, operand: _Field, arguments: list[Evaluate]) -> Evaluate:
        if len(arguments) != METHODS[operand.name]:
            raise TemplateError(f"{shown(self.body)}: wrong number of arguments for {operand.name}")
        return lambda scope: formats.formatted(operand.inner(scope), arguments[0](scope))

    def short(self, name: str, arguments: list[Evaluate], piped: Evaluate | None) -> Evaluate:
        if not arguments and piped is None:
            raise TemplateError(f"{shown(self.body)}: wrong number of arguments for {name}")
        return lambda scope: _until(scope, arguments, piped, name == "or")

    def call(self, name: str, arguments: list[Evaluate], form: Token) -> Evaluate:
        function = FUNCTIONS[name]
        if not function.least <= len(arguments) <= function.most:
            raise TemplateError(f"{shown(self.body)}: wrong number of arguments for {name}")
        # A form that is written out can be checked before it is used.
        if form.kind == "text" and (reason := formats.printf_problem(templatetext.constant(form.text))):
            raise TemplateError(reason)
        return lambda scope: templatefunctions.call(
            function, scope.data, [argument(scope) for argument in arguments]
        )  # fmt: skip

    def operand(self, depth: int) -> Evaluate:
        kind, text, _ = self.peek()
        self.at += 1
        if kind == "text":
            constant = templatetext.constant(text)
            return lambda scope: constant
        if kind == "number":
            if OCTAL.fullmatch(text):
                raise TemplateError(f"{text!r} is an octal number to Go, which is not supported in a template")
            number: GoValue = float(text) if any(c in text for c in ".eE") else int(text)
            return lambda scope: number
        if kind == "name" and text in ("true", "false"):
            return lambda scope: text == "true"
        if kind == "name" and text in FUNCTIONS and FUNCTIONS[text].least == 0:
            return self.call(text, [], END)
        if kind == "path":
            return self.path(text)
        if (kind, text) == ("mark", "("):
            inner = self.pipeline(depth + 1)
            if not self.marked(")"):
                raise TemplateError(f"unclosed bracket in {shown(self.body)}")
            self.at += 1
            kind, text, touches = self.peek()
            if kind == "path" and text.startswith(".") and touches:  # (…).Field
                self.at += 1
                return _fields(inner, text.removeprefix(".").split("."))
            return inner
        raise TemplateError(
            f"{text or 'nothing'!r} is not supported there in {shown('{{' + self.body.strip() + '}}')}; {ALLOWED}"
        )

    def path(self, text: str) -> Evaluate:
        head, *names = text.split(".")
        names = [name for name in names if name]
        if head:
            self._variable(head)
        if (self.place.rooted if head == "$" else self.place.outermost and not head) and names:
            self._check(text, FIELDS.get(names[0], ""), names[1:])
        elif head in FIELDS.values() and self.place.known.count(head) == 1:
            self._check(text, head, names)
        return _fields((lambda scope: scope.of(head)) if head else _dot, names)

    def _check(self, text: str, variable: str, names: list[str]) -> None:
        """Of what is known before it is evaluated, what cannot be asked is a mistake."""
        if not variable or len(names) > (1 if variable in ("$labels", "$externalLabels") else 0):
            raise TemplateError(f"{text!r} is not supported in a template; {ALLOWED}")

    def _variable(self, text: str) -> None:
        name = text.partition(".")[0]
        if name not in self.place.known:
            raise TemplateError(f"undefined variable {shown(name)}; {ALLOWED}")


@dataclass(frozen=True, slots=True)
class _Field:
    """``inner.name``."""

    inner: Evaluate
    name: str

    def __call__(self, scope: Scope) -> GoValue:
        return get(self.inner(scope), self.name)


def _dot(scope: Scope) -> GoValue:
    if isinstance(scope.dot, Nothing):
        raise ValueError("the dot has no value there")
    return scope.dot


def _fields(inner: Evaluate, names: Sequence[str]) -> Evaluate:
    for name in names:
        inner = _Field(inner, name)
    return inner


def _until(scope: Scope, arguments: Sequence[Evaluate], piped: Evaluate | None, wanted: bool) -> GoValue:
    """The first value that decides, else the last. What is piped in is there before any other is looked at."""
    last = piped(scope) if piped is not None else None
    value: GoValue = None
    for argument in arguments:
        value = argument(scope)
        if truth(value) is wanted:
            return value
    return value if piped is None else last
