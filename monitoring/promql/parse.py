"""The edge to promql-parser: text in, our own tree out, and nothing but QueryError when it cannot be read.

The parser's objects are read here and nowhere else, because three of their habits need a guard: a negative ``@`` panics
when it is read, a huge one overflows, and very deep nesting ends the process (its recursion has no limit of its own).
"""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal

import promql_parser as parser

from anvil_monitor.alerts.depth import too_much

from ..samples import NAME, Matcher, PatternError
from . import edge
from .nodes import Aggregate, At, Binary, Call, Matching, Negate, Node, Number, Range, Selector, String, Subquery
from .values import QueryError

MILLISECOND = timedelta(milliseconds=1)

_AT = re.compile(
    r"^ {8}at: (?:(None)|Some\(\s+(?:(Start|End)|At\(\s+SystemTime \{\s+tv_sec: (-?\d+),\s+tv_nsec: (\d+)))",
    re.MULTILINE,
)
_OPS = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}
_CARDS: dict[str, Literal["one", "left", "right"]] = {"ManyToOne": "left", "OneToMany": "right"}


@lru_cache(maxsize=512)
def parse(query: str) -> Node:
    """The tree of a query. Raises QueryError of kind ``bad_data``."""
    if reason := too_much(query):
        raise QueryError("bad_data", f"invalid query {_shown(query)}: {reason}")
    try:
        return _node(parser.parse(edge.prepared(query)))
    except QueryError as error:
        raise QueryError("bad_data", f"invalid query {_shown(query)}: {error.message}") from None
    except (PatternError, ValueError, OverflowError) as error:
        raise QueryError("bad_data", f"invalid query {_shown(query)}: {error}") from None
    except RecursionError:
        raise QueryError("bad_data", f"invalid query {_shown(query)}: nested too deeply") from None


def _shown(query: str) -> str:
    return repr(query if len(query) <= 200 else query[:200] + "…")


def _node(node: Any) -> Node:
    match node:
        case parser.NumberLiteral():
            return Number(node.val)
        case parser.StringLiteral():
            return String(edge.restored(node.val))
        case parser.ParenExpr():
            return _node(node.expr)
        case parser.UnaryExpr():
            return Negate(_node(node.expr))
        case parser.VectorSelector():
            return _selector(node)
        case parser.MatrixSelector():
            return Range(_selector(node.vector_selector), _milliseconds(node.range))
        case parser.SubqueryExpr():
            step = _milliseconds(node.step) if node.step is not None else None
            return Subquery(_node(node.expr), _milliseconds(node.range), step, _milliseconds(node.offset), at_of(node))
        case parser.Call():
            kind: Literal["scalar", "vector"] = "scalar" if str(node.func.return_type).endswith("Scalar") else "vector"
            return Call(node.func.name, tuple(map(_node, node.args)), kind)
        case parser.AggregateExpr():
            return _aggregate(node)
        case parser.BinaryExpr():
            return _binary(node)
    raise QueryError("bad_data", f"{type(node).__name__} is not supported")


def _milliseconds(duration: timedelta | None) -> int:
    return 0 if duration is None else duration // MILLISECOND


def at_of(node: Any) -> At:
    """The ``@`` modifier, read from the node's debug text: the attribute panics for times before 1970."""
    found = _AT.search(repr(node))
    if found is None or found[1]:
        return None
    if found[2]:
        return "start" if found[2] == "Start" else "end"
    return int(found[3]) * 1000 + int(found[4]) // 1_000_000


def _selector(node: Any) -> Selector:
    if node.matchers.or_matchers:
        raise QueryError("bad_data", "'or' between matchers is not PromQL")
    matchers = [
        Matcher(edge.restored(matcher.name), _OPS[str(matcher.op).rsplit(".", 1)[-1]], edge.restored(matcher.value))
        for matcher in node.matchers.matchers
        if matcher.name != edge.PLACEHOLDER
    ]
    if node.name is not None:
        matchers.append(Matcher(NAME, "=", node.name))
    return Selector(tuple(matchers), _milliseconds(node.offset), at_of(node))


def _aggregate(node: Any) -> Aggregate:
    labels: tuple[str, ...] = ()
    without = False
    if node.modifier is not None:
        labels = tuple(node.modifier.labels)
        without = str(node.modifier.type).endswith("Without")
    param = None if node.param is None else _node(node.param)
    return Aggregate(str(node.op), _node(node.expr), param, labels, without)


def _binary(node: Any) -> Binary:
    modifier = node.modifier
    if modifier is None:
        return Binary(str(node.op), _node(node.lhs), _node(node.rhs), False, Matching())
    matching = Matching(
        card=_CARDS.get(str(modifier.card).rsplit(".", 1)[-1], "one"),
        on=modifier.matching is not None and str(modifier.matching.type).endswith("Include"),
        labels=tuple(modifier.matching.labels) if modifier.matching is not None else (),
        include=tuple(modifier.group_labels or ()),
        fill=(modifier.fill_values.lhs, modifier.fill_values.rhs),
    )
    return Binary(str(node.op), _node(node.lhs), _node(node.rhs), modifier.return_bool, matching)
