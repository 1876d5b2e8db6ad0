"""From a template's text to what can be evaluated: see :mod:`.templates`, which is the way in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from . import templatetext
from .templateaction import DEEPEST, FIELDS, Parser, Place
from .templatenodes import Branch, Jump, Node, Tree, Use
from .templatetext import END, TemplateError, shown

__all__ = ["TemplateError", "parse"]

BRANCHES: Final = ("if", "range", "with")
WORD: Final = re.compile(r"[a-z]+\b")
ELSE: Final = re.compile(r"else\s+(?P<more>(?P<word>if|with)\b.*)", re.DOTALL)


def parse(text: str, variables: Sequence[str] = ()) -> Tree:
    """The template. Raises :class:`TemplateError` naming the construct that is wrong or not supported.

    ``variables``: what stands for those of Prometheus (``$value`` …) in a template of another kind, which has no dot.
    """
    blocks = _Blocks(text)
    known = list(variables) or ["$", *FIELDS.values()]
    nodes, ended = blocks.read(Place(known, outermost=not variables, rooted=not variables))
    if ended:
        raise TemplateError(f"unexpected {shown('{{' + ended + '}}')}")
    for name in blocks.used:
        if name not in blocks.defined:
            raise TemplateError(f"template {shown(name)} is not defined; define it in the same text")
    return Tree(nodes, blocks.defined)


class _Blocks:
    """Reads nodes. ``defined``: the templates of ``define`` and ``block``; ``used``: those that are called for."""

    def __init__(self, text: str) -> None:
        self._rest: Iterator[tuple[bool, str]] = templatetext.pieces(text)
        self.defined: dict[str, tuple[Node, ...]] = {}
        self.used: list[str] = []

    def read(self, place: Place) -> tuple[tuple[Node, ...], str]:
        """The nodes up to ``end`` or ``else``, and that action's body (empty at the end of the text)."""
        if place.depth > DEEPEST:
            raise TemplateError(f"blocks are nested more than {DEEPEST} deep")
        place, nodes = replace(place, known=list(place.known)), list[Node]()
        for is_action, body in self._rest:
            if not is_action:
                nodes += [body] if body else []
                continue
            match = WORD.match(body)
            word = match.group() if match else ""
            if word in ("end", "else"):
                return tuple(nodes), body
            nodes += self._node(word, body, place)
        return tuple(nodes), ""

    def _node(self, word: str, body: str, place: Place) -> list[Node]:
        if word in BRANCHES:
            return [self._branch(word, body, place)]
        if word in ("break", "continue"):
            if not place.looped or body != word:
                raise TemplateError(f"{shown('{{' + body + '}}')} outside of {{{{range}}}}")
            return [Jump(word)]
        if word in ("define", "block", "template"):
            return self._template(word, body, place)
        return [Parser(body, place).action()]

    def _template(self, word: str, body: str, place: Place) -> list[Node]:
        parser = Parser(body.removeprefix(word), place)
        name = parser.name()
        if word == "define" and place.depth:
            raise TemplateError(f"unexpected {shown('{{' + body + '}}')}: a template is defined outside of any block")
        if word != "template":
            evaluate = parser.rest() if word == "block" else parser.nothing()
            inner = Place(["$"], outermost=False, rooted=False, depth=place.depth + 1)
            nodes, ended = self.read(inner)
            self._ends(body, ended)
            self._define(name, nodes)
            if word == "define":
                return []
        else:
            evaluate = parser.rest() if parser.peek() != END else parser.nothing()
        self.used.append(name)
        return [Use(name, evaluate)]

    def _define(self, name: str, nodes: tuple[Node, ...]) -> None:
        if not _empty(self.defined.get(name, ())):
            if _empty(nodes):
                return
            raise TemplateError(f"template {shown(name)} is defined twice")
        self.defined[name] = nodes

    def _branch(self, word: str, body: str, place: Place) -> Branch:
        known = list(place.known)
        parser = Parser(body.removeprefix(word), replace(place, known=known))
        declares = parser.declared(most=2 if word == "range" else 1)
        evaluate = parser.rest()
        known += declares
        # range and with set the dot
        then, ended = self.read(
            place.inside(
                known, outermost=place.outermost and word == "if", looped=place.looped or word == "range"
            )
        )  # fmt: skip
        otherwise: tuple[Node, ...] = ()
        if ended == "else":
            otherwise, ended = self.read(place.inside(known))
        elif (more := ELSE.fullmatch(ended)) and more["word"] == word:
            return Branch(word, declares, evaluate, then, (self._branch(word, more["more"], place.inside(known)),))
        self._ends(body, ended)
        return Branch(word, declares, evaluate, then, otherwise)

    def _ends(self, body: str, ended: str) -> None:
        if not ended:
            raise TemplateError(f"{shown('{{' + body + '}}')} has no {{{{end}}}}")
        if ended != "end":
            raise TemplateError(f"unexpected {shown('{{' + ended + '}}')}")


def _empty(nodes: Sequence[Node]) -> bool:
    return all(isinstance(node, str) and not node.strip() for node in nodes)
