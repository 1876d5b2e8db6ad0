"""The part of Go's templates that alert rules use, printed to the letter as Prometheus prints it.

Fields ``$value .Value $labels.x .Labels.x $externalLabels.x $externalURL``, variables, text and numbers in quotes,
pipelines, brackets, comments, trim marks, ``if else range with end``, ``query`` and the functions of :mod:`.formats`.
Everything else (``define``, ``template``, regular expressions …) is refused when a rule file is loaded: better no rule
than one that says something else than under Prometheus. The oracle is ``promtool test rules``
(tests/alerts/test_rules_templates.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, TypeAlias

from . import formats, templateparser
from .formats import Element, GoValue
from .templateparser import Action, Branch, Node, Scope, TemplateError

__all__ = ["Data", "Element", "Query", "Template", "TemplateError", "expand", "parse"]

# What ``query`` asks; whoever expands a template says as of when.
Query: TypeAlias = Callable[[str], Sequence[Element]]
# A mistake in a template must not fill the memory.
LONGEST: Final = 64 * 1024
MOST_STEPS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Data:
    """What a template may speak of: the labels of the element (with ``__name__``), its value, and what is around it.

    ``at``: the instant of the evaluation, in Unix seconds.
    """

    labels: Mapping[str, str]
    value: float
    external_labels: Mapping[str, str] = field(default_factory=dict)
    external_url: str = ""
    query: Query | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template."""

    nodes: tuple[Node, ...]

    def expand(self, data: Data) -> str:
        """The text. What goes wrong becomes the text ``<error expanding template: …>``, as in Prometheus: a
        mistake in an annotation must never keep an alert from being sent."""
        variables = {
            "$labels": data.labels,
            "$externalLabels": data.external_labels,
            "$externalURL": data.external_url,
            "$value": data.value,
        }
        try:
            return self.fill(variables, data.query)
        except ValueError as error:
            return f"<error expanding template: {error}>"

    def fill(self, variables: Mapping[str, GoValue], query: Query | None = None) -> str:
        """The text with these variables. Raises ``ValueError`` for what goes wrong."""
        written = Written()
        try:
            _write(self.nodes, Scope(None, list(variables.items()), query), written)
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


def _write(nodes: Sequence[Node], scope: Scope, written: Written) -> None:
    mark = len(scope.variables)
    for node in nodes:
        written.step()
        if isinstance(node, str):
            written.add(node)
        elif isinstance(node, Action):
            _act(node, scope, written)
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
        written.add(formats.plain(value))


def _branch(node: Branch, scope: Scope, written: Written) -> None:
    mark, dot = len(scope.variables), scope.dot
    value = node.evaluate(scope)
    if node.word == "range":
        items = _items(value)
        for key, item in items:
            written.step()
            scope.variables += (
                zip(node.declares, (key, item)[-len(node.declares) :], strict=True) if node.declares else ()
            )
            scope.dot = item
            _write(node.then, scope, written)
            del scope.variables[mark:]
        scope.dot = dot
        chosen = node.otherwise if not items else ()
    else:
        scope.variables += [(name, value) for name in node.declares]
        taken = formats.truth(value)
        chosen = node.then if taken else node.otherwise
        if node.word == "with" and taken:
            scope.dot = value
    _write(chosen, scope, written)
    scope.dot = dot
    del scope.variables[mark:]


def _items(value: GoValue) -> list[tuple[GoValue, GoValue]]:
    if isinstance(value, Mapping):
        return [(name, value[name]) for name in sorted(value)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(enumerate(value))
    raise ValueError("range can't iterate over that")
