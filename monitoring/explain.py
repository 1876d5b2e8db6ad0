"""Why an alert fires or does not: its expression taken apart where it joins and compares, each part with its values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from anvil_monitor.targets import Unit, format_value

from .promql.nodes import Binary, Node, Number, kind
from .promql.text import SETS, operator, text
from .samples import NAME, Labels

Vector: TypeAlias = Sequence[tuple[Labels, float]]
Ask: TypeAlias = Callable[[str], Vector]

COMPARISONS: Final = ("==", "!=", "<=", "<", ">=", ">")
# Recorded series whose value is in the unit that their label `unit` names (a ratio of the same target is not).
MEASURED: Final = ("target:value", "target:limit", "target:baseline", "target:upper")
# Elements of one side that are shown.
SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class Part:
    """One node of the expression: ``said`` is its text, or the operator that joins ``parts``.

    ``holds``: it gives at least one element for the alert's labels. ``values`` are what stands on both sides of a
    comparison, or the part's own; ``note`` says what is not to be seen from the values.
    """

    said: str
    holds: bool
    values: str = ""
    note: str = ""
    parts: tuple[Part, ...] = ()


def explain(node: Node, ask: Ask, labels: Mapping[str, str]) -> Part:
    """The parts of ``node``, with what ``ask`` gives for each now; only elements that agree with ``labels`` count."""

    def of(inner: Node) -> Vector:
        return [(found, value) for found, value in ask(text(inner)) if _agrees(found, labels)]

    if isinstance(node, Binary) and node.op in SETS:
        parts = [explain(side, ask, labels) for side in _chain(node, node.op)]
        there = bool(of(node))
        if node.op == "unless":
            parts[1:] = [_against(part) for part in parts[1:]]
        note = ""
        if node.op == "and" and not there and all(part.holds for part in parts):
            note = "each side is there, but none with the labels of the other"
        return Part(operator(node), there, note=note, parts=tuple(parts))
    if isinstance(node, Binary) and node.op in COMPARISONS and not node.return_bool and kind(node) == "vector":
        left, right = (_values(side, of(side)) for side in (node.left, node.right))
        holds = bool(of(node))
        missing = [name for name, shown in (("left", left), ("right", right)) if not shown]
        note = f"nothing on its {' and '.join(missing)} now" if missing else ""
        values = "" if missing else f"{left} {node.op} {right}" + ("" if holds else ", which is not so")
        return Part(text(node), holds, values, note)
    found = of(node)
    return Part(text(node), bool(found), _values(node, found), "" if found else "nothing now")


def _chain(node: Node, op: str) -> list[Node]:
    """The sides of ``a op b op c`` with the same labels to match, in order; ``unless`` and ``and`` go from the left."""
    if not isinstance(node, Binary) or node.op != op:
        return [node]
    left = node.left
    same = isinstance(left, Binary) and left.op == op and left.matching == node.matching
    return [*(_chain(left, op) if same else [left]), node.right]


def _against(part: Part) -> Part:
    note = part.note or ("so the left side does not count" if part.holds else "")
    return Part(part.said, part.holds, part.values, note, part.parts)


def _agrees(found: Labels, labels: Mapping[str, str]) -> bool:
    """An element speaks of the alert where no label of both differs."""
    return all(labels.get(key, value) == value for key, value in found)


def _values(node: Node, found: Vector) -> str:
    if isinstance(node, Number):
        return _short(node.value)
    shown = [_shown(labels, value, alone=len(found) == 1) for labels, value in found[:SHOWN]]
    return ", ".join(shown) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def _shown(labels: Labels, value: float, *, alone: bool) -> str:
    known = dict(labels)
    said = _short(value)
    if known.get(NAME) in MEASURED:
        with contextlib.suppress(ValueError):
            said = format_value(value, Unit(known.get("unit", "")))
    own = ",".join(f'{key}="{text}"' for key, text in labels if key != NAME)
    return said if alone or not own else f"{said} ({own})"


def _short(value: float) -> str:
    return f"{value:.4g}"
