"""PromQL as text and as a tree: what ``/format_query`` and ``/parse_query`` answer, and escaped label names.

The tree is that of Prometheus 3 (``web/api/v1/translate_ast.go``), which keeps parentheses; the engine's does not.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import promql_parser as parser

from .parameters import ApiError, Parameters, invalid
from .promql import QueryError, number_text
from .promql.parse import at_of, parse

if TYPE_CHECKING:
    from .apistate import Sources

CARDS: Final = {
    "OneToOne": "one-to-one",
    "ManyToOne": "many-to-one",
    "OneToMany": "one-to-many",
    "ManyToMany": "many-to-many",
}
MATCHES: Final = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}
# A run of no underscore, a doubled underscore, or a character's number in hexadecimal between two.
ESCAPED: Final = re.compile(r"[^_]|__|_([0-9A-Fa-f]{1,8})_")


def format_query(sources: Sources, parameters: Parameters) -> Any:
    return str(_tree(parameters.text("query")).prettify())


def parse_query(sources: Sources, parameters: Parameters) -> Any:
    return _node(_tree(parameters.text("query")))


def _tree(text: str) -> Any:
    try:
        parse(text)  # with all its guards, which the parser's own objects need
        return parser.parse(text)
    except QueryError as error:
        raise invalid("query", error.message) from None


def _node(node: Any) -> dict[str, Any]:
    match node:
        case parser.NumberLiteral():
            return {"type": "numberLiteral", "val": number_text(node.val)}
        case parser.StringLiteral():
            return {"type": "stringLiteral", "val": node.val}
        case parser.ParenExpr():
            return {"type": "parenExpr", "expr": _node(node.expr)}
        case parser.UnaryExpr():
            return {"type": "unaryExpr", "op": "-", "expr": _node(node.expr)}
        case parser.VectorSelector():
            return {"type": "vectorSelector", **_selector(node)}
        case parser.MatrixSelector():
            return {"type": "matrixSelector", **_selector(node.vector_selector), "range": _ms(node.range)}
        case parser.SubqueryExpr():
            spans = {"range": _ms(node.range), "offset": _ms(node.offset), "step": _ms(node.step)}
            return {"type": "subquery", "expr": _node(node.expr), **spans, **_at(node)}
        case parser.Call():
            return {"type": "call", "func": _function(node.func), "args": [_node(each) for each in node.args]}
        case parser.AggregateExpr():
            return {
                "type": "aggregation",
                "op": str(node.op),
                "expr": _node(node.expr),
                "param": None if node.param is None else _node(node.param),
                "grouping": list(node.modifier.labels) if node.modifier is not None else [],
                "without": node.modifier is not None and _word(node.modifier.type) in ("Without", "Exclude"),
            }
        case parser.BinaryExpr():
            return {
                "type": "binaryExpr",
                "op": str(node.op),
                "lhs": _node(node.lhs),
                "rhs": _node(node.rhs),
                "matching": _matching(node),
                "bool": node.modifier is not None and node.modifier.return_bool,
            }
    raise ApiError("internal", f"{type(node).__name__} has no form here")


def _selector(node: Any) -> dict[str, Any]:
    matchers = [{"name": each.name, "value": each.value, "type": MATCHES[_word(each.op)]}
                for each in node.matchers.matchers]  # fmt: skip
    if node.name is not None:
        matchers.append({"name": "__name__", "value": node.name, "type": "="})
    return {"name": node.name or "", "offset": _ms(node.offset), "matchers": matchers, **_at(node)}


def _at(node: Any) -> dict[str, Any]:
    at = at_of(node)
    return {"timestamp": at if isinstance(at, int) else None, "startOrEnd": at if isinstance(at, str) else None}


def _function(function: Any) -> dict[str, Any]:
    return {
        "name": function.name,
        "argTypes": [_word(each).lower() for each in function.arg_types],
        "variadic": function.variadic,
        "returnType": _word(function.return_type).lower(),
    }


def _matching(node: Any) -> dict[str, Any] | None:
    modifier = node.modifier
    if not all(_is_vector(side) for side in (node.lhs, node.rhs)):
        return None
    matching = modifier.matching if modifier is not None else None
    return {
        "card": CARDS[_word(modifier.card)] if modifier is not None else "one-to-one",
        "labels": list(matching.labels) if matching is not None else [],
        "on": matching is not None and _word(matching.type) == "Include",
        "include": list(modifier.group_labels or ()) if modifier is not None else [],
    }


def _is_vector(node: Any) -> bool:
    if isinstance(node, parser.NumberLiteral | parser.StringLiteral):
        return False
    if isinstance(node, parser.ParenExpr | parser.UnaryExpr):
        return _is_vector(node.expr)
    if isinstance(node, parser.Call):
        return _word(node.func.return_type) == "Vector"
    if isinstance(node, parser.BinaryExpr):
        return _is_vector(node.lhs) or _is_vector(node.rhs)
    return True


def _word(value: Any) -> str:
    return str(value).rsplit(".", 1)[-1]


def _ms(duration: timedelta | None) -> int:
    return 0 if duration is None else duration // timedelta(milliseconds=1)


def unescape(name: str) -> str:
    """A label name written ``U__…`` (``U__my_2e_label`` is ``my.label``). What cannot be read stays as it is.

    https://prometheus.io/docs/instrumenting/escaping_schemes/
    """
    found: list[str] = []
    position = 3
    while position < len(name):
        match = ESCAPED.match(name, position)
        if match is None:
            return name
        if match[1] is None:
            found.append(match[0][0])
        elif int(match[1], 16) > 0x10FFFF or 0xD800 <= int(match[1], 16) <= 0xDFFF:
            return name
        else:
            found.append(chr(int(match[1], 16)))
        position = match.end()
    return "".join(found)
