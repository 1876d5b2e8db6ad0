"""A parsed template, and what its expressions see while it is expanded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from .templatevalues import Data, GoValue


class Nothing:
    """The dot where there is none."""


@dataclass(slots=True)
class Scope:
    """What an expression sees. ``dot``: :class:`Nothing` where there is none; ``variables``: innermost last.

    ``templates``: what ``define`` made, by name; ``depth``: how many ``template`` actions it is inside of.
    """

    dot: GoValue | Nothing
    variables: list[tuple[str, GoValue]]
    data: Data
    templates: Mapping[str, tuple[Node, ...]] = field(default_factory=dict)
    depth: int = 0

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


@dataclass(frozen=True, slots=True)
class Jump:
    """``{{ break }}`` or ``{{ continue }}``."""

    word: str


@dataclass(frozen=True, slots=True)
class Use:
    """``{{ template "name" pipeline }}``; without a pipeline the template's dot is nil."""

    name: str
    evaluate: Evaluate


Node: TypeAlias = str | Action | Branch | Jump | Use


@dataclass(frozen=True, slots=True)
class Tree:
    """The nodes of a template, and the templates that are defined in it."""

    nodes: tuple[Node, ...]
    templates: Mapping[str, tuple[Node, ...]] = field(default_factory=dict)
