"""Why an alert fires or does not: its expression taken apart where it joins and compares, each part with its values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from anvil_monitor.alerts.rulefile import Recording
from anvil_monitor.targets import Unit, format_value

from .backtestsplit import ALERT_SERIES, SplitError, reads_of
from .promql import QueryError
from .promql.nodes import Binary, Node, Number, Selector, kind
from .promql.parse import parse
from .promql.text import SETS, operator, text
from .samples import NAME, Labels

Vector: TypeAlias = Sequence[tuple[Labels, float]]
Ask: TypeAlias = Callable[[str], Vector]

COMPARISONS: Final = ("==", "!=", "<=", "<", ">=", ">")
# Recorded series whose value is in the unit that their label `unit` names (a ratio of the same target is not).
MEASURED: Final = ("target:value", "target:limit", "target:baseline", "target:upper")
# Elements of one side, and silent series, that are shown; rules that are followed, one resting on the other.
SHOWN: Final = 3
DEEPEST: Final = 8


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


def explain(node: Node, ask: Ask, labels: Mapping[str, str], recorded: Sequence[Recording] = ()) -> Part:
    """The parts of ``node``, with what ``ask`` gives for each now; only elements that agree with ``labels`` count.

    Where a part gives nothing, the series are named that are silent below it, through the ``recorded`` ones.
    """

    def of(inner: Node) -> Vector:
        return [(found, value) for found, value in ask(text(inner)) if _agrees(found, labels)]

    if isinstance(node, Binary) and node.op in SETS:
        parts = [explain(side, ask, labels, recorded) for side in _chain(node, node.op)]
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
        note = f"nothing on its {' and '.join(missing)} now{_silent(node, ask, recorded)}" if missing else ""
        values = "" if missing else f"{left} {node.op} {right}" + ("" if holds else ", which is not so")
        return Part(text(node), holds, values, note)
    found = of(node)
    return Part(
        text(node), bool(found), _values(node, found), "" if found else f"nothing now{_silent(node, ask, recorded)}"
    )


def _silent(node: Node, ask: Ask, recorded: Sequence[Recording]) -> str:
    """The series that nobody writes, of those that ``node`` rests on."""
    found: dict[str, bool] = {}
    todo: list[tuple[Node, int]] = [(node, 0)]
    with contextlib.suppress(SplitError, QueryError):
        while todo:
            inner, deep = todo.pop()
            for read in reads_of(inner):
                below = [rule for rule in recorded if read.may_read(rule)]
                said = text(Selector(read.matchers, 0, None))
                if read.name in ALERT_SERIES or said in found or deep > DEEPEST:
                    continue
                found[said] = not below and not ask(f"count({said})")
                todo += [(parse(rule.expr), deep + 1) for rule in below]
    silent = sorted(said for said, nothing in found.items() if nothing and said != text(node))
    more = f" and {len(silent) - SHOWN} more" if len(silent) > SHOWN else ""
    return f": there is no {', '.join(silent[:SHOWN])}{more}" if silent else ""


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
