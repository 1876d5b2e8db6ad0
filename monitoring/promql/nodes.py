"""The expression tree that the engine evaluates: plain frozen values, made once from the parser's objects.

Every duration and time in it is in milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..samples import Matcher

At = int | Literal["start", "end"] | None
"""The ``@`` modifier: a time, a bound of the whole query, or none."""


@dataclass(frozen=True, slots=True)
class Number:
    value: float


@dataclass(frozen=True, slots=True)
class String:
    value: str


@dataclass(frozen=True, slots=True)
class Selector:
    """An instant selector. The metric name is one of the matchers."""

    matchers: tuple[Matcher, ...]
    offset: int
    at: At


@dataclass(frozen=True, slots=True)
class Range:
    """``selector[range]``; offset and ``@`` are the selector's."""

    selector: Selector
    range: int


@dataclass(frozen=True, slots=True)
class Subquery:
    """``expr[range:step]``; step None is the engine's default."""

    expr: Node
    range: int
    step: int | None
    offset: int
    at: At


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: tuple[Node, ...]
    kind: Literal["scalar", "vector"]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """``op by|without (labels) (param, expr)``; without any grouping it is ``by ()``."""

    op: str
    expr: Node
    param: Node | None
    labels: tuple[str, ...]
    without: bool


@dataclass(frozen=True, slots=True)
class Matching:
    """How two vectors are joined. ``card`` names the side with many: one, left (group_left), right (group_right).

    ``fill`` are values for series that are missing on the left and on the right (with group_right the other way round).
    """

    card: Literal["one", "left", "right"] = "one"
    on: bool = False
    labels: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    fill: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True, slots=True)
class Binary:
    op: str
    left: Node
    right: Node
    return_bool: bool
    matching: Matching


@dataclass(frozen=True, slots=True)
class Negate:
    expr: Node


Node = Number | String | Selector | Range | Subquery | Call | Aggregate | Binary | Negate


def kind(node: Node) -> Literal["scalar", "string", "vector", "matrix"]:
    """The type of an expression; the parser has checked that operands fit."""
    match node:
        case Number():
            return "scalar"
        case String():
            return "string"
        case Range() | Subquery():
            return "matrix"
        case Call():
            return node.kind
        case Negate():
            return kind(node.expr)
        case Binary():
            return "scalar" if kind(node.left) == kind(node.right) == "scalar" else "vector"
    return "vector"
