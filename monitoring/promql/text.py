"""An expression tree back to PromQL: for what is asked elsewhere in parts, and for what is shown to a person.

``parse(text(node)) == node``: the text means the same, it need not be the one that was written (durations are given
as one number, and what a line break said is gone).
"""

from __future__ import annotations

import re
from typing import Final

from anvil_monitor.targets import format_promql_duration

from ..samples import NAME, Matcher
from .nodes import Aggregate, At, Binary, Call, Matching, Negate, Node, Number, Range, Selector, String, Subquery
from .values import number_text

METRIC: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
SETS: Final = ("and", "or", "unless")
# How strongly each operator binds; https://prometheus.io/docs/prometheus/latest/querying/operators/
BINDS: Final = {
    **dict.fromkeys(("or",), 1),
    **dict.fromkeys(("and", "unless"), 2),
    **dict.fromkeys(("==", "!=", "<=", "<", ">=", ">"), 3),
    **dict.fromkeys(("+", "-"), 4),
    **dict.fromkeys(("*", "/", "%", "atan2"), 5),
    "^": 6,
}
UNARY: Final = 5


def text(node: Node) -> str:
    """The expression on one line."""
    match node:
        case Number():
            return number_text(node.value)
        case String():
            return quoted(node.value)
        case Selector():
            return _selector(node.matchers) + _shift(node.offset, node.at)
        case Range():
            inner = node.selector
            return f"{_selector(inner.matchers)}[{_duration(node.range)}]{_shift(inner.offset, inner.at)}"
        case Subquery():
            step = _duration(node.step) if node.step is not None else ""
            return f"{_operand(node.expr, 7)}[{_duration(node.range)}:{step}]{_shift(node.offset, node.at)}"
        case Call():
            return f"{node.name}({', '.join(map(text, node.arguments))})"
        case Aggregate():
            inside = text(node.expr) if node.param is None else f"{text(node.param)}, {text(node.expr)}"
            by = (
                f" {'without' if node.without else 'by'} ({_names(node.labels)}) "
                if node.labels or node.without
                else ""
            )
            return f"{node.op}{by}({inside})"
        case Binary():
            return _binary(node)
        case Negate():
            return f"-{_operand(node.expr, UNARY + 1)}"


def operator(node: Binary) -> str:
    """The operator with what is said about its operands: ``> bool``, ``and on (service)``."""
    return " ".join(filter(None, (node.op, "bool" if node.return_bool else "", _matching(node.matching))))


def quoted(value: str) -> str:
    """A PromQL string; what is no UTF-8 (a lone surrogate) is a byte again."""
    out = []
    for one in value:
        if 0xDC80 <= ord(one) <= 0xDCFF:
            out.append(f"\\x{ord(one) - 0xDC00:02x}")
        elif one in '"\\':
            out.append(f"\\{one}")
        elif ord(one) < 32 or ord(one) == 127:
            out.append(f"\\x{ord(one):02x}")
        else:
            out.append(one)
    return f'"{"".join(out)}"'


def _binary(node: Binary) -> str:
    binds = BINDS[node.op]
    right_first = node.op == "^"
    left = _operand(node.left, binds + right_first)
    right = _operand(node.right, binds + (not right_first))
    return f"{left} {operator(node)} {right}"


def _operand(node: Node, least: int) -> str:
    """``node`` as an operand; in parentheses where it binds less than ``least``."""
    binds = BINDS[node.op] if isinstance(node, Binary) else UNARY if _signed(node) else 8
    return text(node) if binds >= least else f"({text(node)})"


def _signed(node: Node) -> bool:
    return isinstance(node, Negate) or (isinstance(node, Number) and text(node)[0] in "-+N")


def _matching(matching: Matching) -> str:
    said = []
    if matching.on or matching.labels:
        said.append(f"{'on' if matching.on else 'ignoring'} ({_names(matching.labels)})")
    if matching.card != "one":
        said.append(f"group_{matching.card} ({_names(matching.include)})")
    left, right = matching.fill
    if left is not None and left == right:
        said.append(f"fill ({number_text(left)})")
    else:
        said += [f"fill_{side} ({number_text(value)})" for side, value in (("left", left), ("right", right))
                 if value is not None]  # fmt: skip
    return " ".join(said)


def _selector(matchers: tuple[Matcher, ...]) -> str:
    name = ""
    rest = []
    for matcher in matchers:
        if matcher.name == NAME and matcher.op == "=" and not name and METRIC.fullmatch(matcher.value):
            name = matcher.value
        else:
            label = matcher.name if LABEL.fullmatch(matcher.name) else quoted(matcher.name)
            rest.append(f"{label}{matcher.op}{quoted(matcher.value)}")
    return name + (f"{{{','.join(rest)}}}" if rest or not name else "")


def _names(labels: tuple[str, ...]) -> str:
    return ", ".join(name if LABEL.fullmatch(name) else quoted(name) for name in labels)


def _shift(offset: int, at: At) -> str:
    said = "" if at is None else f" @ {at}()" if isinstance(at, str) else f" @ {at / 1000:.3f}"
    if offset:
        said += f" offset {'-' if offset < 0 else ''}{_duration(abs(offset))}"
    return said


def _duration(milliseconds: int) -> str:
    return format_promql_duration(milliseconds / 1000)
