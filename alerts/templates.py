"""Go's templates as alert rules use them, printed to the letter as Prometheus prints them.

Fields ``$value .Value $labels.x .Labels.x $externalLabels.x $externalURL``, variables, text and numbers in quotes,
pipelines, brackets, comments, trim marks, ``if else range with break continue end``, ``define template block`` and the
functions of :mod:`.templatefunctions`. Everything else is refused when a rule file is loaded: better no rule than one
that says something else than under Prometheus. The oracle is ``promtool test rules``
(tests/alerts/test_rules_templates.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from . import templateparser
from .templatenodes import Action, Branch, Jump, Node, Nothing, Scope, Tree, Use
from .templatetext import TemplateError
from .templatevalues import LONGEST, Data, Element, GoValue, Query, plain, truth

__all__ = ["Data", "Element", "Query", "Template", "TemplateError", "expand", "parse"]

# A mistake in a template must not take for ever.
MOST_STEPS: Final = 100_000
# Templates that call themselves; Go stops at 100,000.
DEEPEST: Final = 50


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template."""

    tree: Tree

    def expand(self, data: Data) -> str:
        """The text. What goes wrong becomes the text ``<error expanding template: …>``, as in Prometheus: a
        mistake in an annotation must never keep an alert from being sent."""
        variables: dict[str, GoValue] = {
            "$": data,
            "$labels": data.labels,
            "$externalLabels": data.external_labels,
            "$externalURL": data.external_url,
            "$value": data.value,
        }
        try:
            return self._write(Scope(data, list(variables.items()), data, self.tree.templates))
        except ValueError as error:
            return f"<error expanding template: {error}>"

    def fill(self, variables: Mapping[str, GoValue], query: Query | None = None) -> str:
        """The text with these variables. Raises ``ValueError`` for what goes wrong."""
        return self._write(
            Scope(Nothing(), list(variables.items()), Data({}, 0.0, query=query), self.tree.templates)
        )  # fmt: skip

    def _write(self, scope: Scope) -> str:
        written = Written()
        try:
            _write(self.tree.nodes, scope, written)
        except (IndexError, TypeError, OverflowError) as error:
            raise ValueError(str(error)) from None
        return "".join(written.pieces)


def expand(
    text: str, labels: Mapping[str, str], value: float, external_labels: Mapping[str, str] | None = None,
    query: Query | None = None,
) -> str:  # fmt: skip
    """``text`` for one alert. Raises :class:`TemplateError` only for what :func:`parse` refuses."""
    return parse(text).expand(Data(labels, value, external_labels or {}, query=query))


@lru_cache(1024)
def parse(text: str) -> Template:
    """The template, parsed once however often it is expanded.

    Raises :class:`TemplateError` naming the construct that is wrong or not supported.
    """
    return Template(templateparser.parse(text))


class Written:
    """The text so far. Raises ``ValueError`` when it, or the work on it, grows beyond reason."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._size = self._steps = 0

    def add(self, text: str) -> None:
        self._size += len(text)
        if self._size > LONGEST:
            raise ValueError(f"the text is longer than {LONGEST} characters")
        self.pieces.append(text)

    def step(self) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise ValueError(f"more than {MOST_STEPS} steps")


class _Jumped(Exception):  # noqa: N818  it is no error
    """``break`` or ``continue``, on its way to its ``range``."""

    def __init__(self, word: str) -> None:
        self.word = word


def _write(nodes: Sequence[Node], scope: Scope, written: Written) -> None:
    mark = len(scope.variables)
    for node in nodes:
        written.step()
        if isinstance(node, str):
            written.add(node)
        elif isinstance(node, Action):
            _act(node, scope, written)
        elif isinstance(node, Jump):
            raise _Jumped(node.word)
        elif isinstance(node, Use):
            _use(node, scope, written)
        elif node.word == "range":
            _range(node, scope, written)
        else:
            _branch(node, scope, written)
    del scope.variables[mark:]  # what a block declares ends with it


def _act(node: Action, scope: Scope, written: Written) -> None:
    value = node.evaluate(scope)
    if node.assigns:
        scope.assign(node.assigns, value)
    elif node.declares:
        scope.variables.append((node.declares, value))
    else:
        written.add(plain(value))


def _use(node: Use, scope: Scope, written: Written) -> None:
    if scope.depth >= DEEPEST:
        raise ValueError(f"exceeded maximum template depth ({DEEPEST})")
    dot = node.evaluate(scope)
    inner = Scope(dot, [("$", dot)], scope.data, scope.templates, scope.depth + 1)
    _write(scope.templates[node.name], inner, written)


def _branch(node: Branch, scope: Scope, written: Written) -> None:
    mark, dot = len(scope.variables), scope.dot
    value = node.evaluate(scope)
    scope.variables += [(name, value) for name in node.declares]
    taken = truth(value)
    if node.word == "with" and taken:
        scope.dot = value
    _write(node.then if taken else node.otherwise, scope, written)
    scope.dot = dot
    del scope.variables[mark:]


def _range(node: Branch, scope: Scope, written: Written) -> None:
    mark, dot = len(scope.variables), scope.dot
    items = _items(node.evaluate(scope))
    for key, item in items:
        written.step()
        if node.declares:
            scope.variables += zip(node.declares, (key, item)[-len(node.declares) :], strict=True)
        scope.dot = item
        try:
            _write(node.then, scope, written)
        except _Jumped as jump:
            if jump.word == "break":
                break
        finally:
            del scope.variables[mark:]
            scope.dot = dot
    if not items:
        _write(node.otherwise, scope, written)


def _items(value: GoValue) -> list[tuple[GoValue, GoValue]]:
    if isinstance(value, Mapping):
        return [(name, value[name]) for name in sorted(value)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(enumerate(value))
    if value is None:
        return []
    raise ValueError("range can't iterate over that")
