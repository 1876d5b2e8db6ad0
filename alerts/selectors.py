"""The selectors of an expression, and labels that they take or leave: what a made-up series has to be called."""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import promql_parser

from .matchers import Matcher
from .patterns import PatternError, compile_pattern

# Functions whose answer depends on how a series moves, not on where it stands.
MOVING: Final = ("rate", "irate", "increase", "resets", "delta", "idelta", "deriv", "predict_linear", "changes",
                 "double_exponential_smoothing")  # fmt: skip
OPERATORS: Final = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}
# Values of a label that are tried besides those that the matchers name; the last one: the label is not there.
ELSE: Final = ("other", "x1", "7", "")
MOST: Final = 20_000  # sets of labels that are looked at


@dataclass(frozen=True, slots=True)
class Selector:
    """``metric{matchers}``. ``moves``: it is asked how it moves; ``back``: seconds that it is looked back over."""

    metric: str
    matchers: tuple[Matcher, ...] = ()
    moves: bool = False
    back: float = 0.0

    def takes(self, labels: Mapping[str, str]) -> bool:
        return all(matcher.matches(labels) for matcher in self.matchers)


def selector(metric: str, matchers: str = "") -> Selector:
    """``metric`` with ``matchers`` as PromQL writes them, without brackets."""
    (found,) = selectors(f"{metric}{{{matchers}}}")
    return found


def selectors(expr: str) -> tuple[Selector, ...]:
    """Every selector in ``expr``, in its order, each once. ``expr`` is PromQL that can be parsed."""
    return tuple(dict.fromkeys(_found(promql_parser.parse(expr), "", 0.0)))


def _found(node: Any, function: str, back: float) -> Iterator[Selector]:
    if isinstance(node, promql_parser.MatrixSelector):
        yield from _found(node.vector_selector, function, back + _seconds(node.range))
    elif isinstance(node, promql_parser.SubqueryExpr):
        yield from _found(node.expr, function, back + _seconds(node.range) + max(0.0, _seconds(node.offset)))
    elif isinstance(node, promql_parser.VectorSelector):
        offset = _seconds(node.offset)
        matchers = tuple(
            Matcher(each.name, OPERATORS[str(each.op).rpartition(".")[2]], each.value)
            for each in node.matchers.matchers
            if each.name != "__name__"
        )
        named = (each.value for each in node.matchers.matchers if each.name == "__name__")
        yield Selector(node.name or next(named, ""), matchers, function in MOVING, back + max(0.0, offset))
    else:
        if isinstance(node, promql_parser.Call):
            function = node.func.name
            for argument in node.args:
                yield from _found(argument, function, back)
        for part in ("lhs", "rhs", "expr", "param"):
            inner = getattr(node, part, None)
            if isinstance(inner, promql_parser.Expr):
                yield from _found(inner, function, back)


def _seconds(length: timedelta | None) -> float:
    return 0.0 if length is None else length.total_seconds()


def taken(by: Iterable[Selector], but: Sequence[Selector] = ()) -> dict[str, str] | None:
    """Labels that every one of ``by`` takes and none of ``but``; None where there are none to be found."""
    every = tuple(by)
    for labels in _sets((*every, *but)):
        if all(each.takes(labels) for each in every) and not any(each.takes(labels) for each in but):
            return {name: value for name, value in labels.items() if value}
    return None


def strays(by: Selector) -> Iterator[dict[str, str]]:
    """Labels that ``by`` does not take: for each of its matchers those that fail this one alone."""
    for lost in by.matchers:
        others = tuple(each for each in by.matchers if each is not lost)
        labels = taken((Selector(by.metric, others),), (Selector(by.metric, (lost,)),))
        if labels is not None:
            yield labels


def _sets(of: Iterable[Selector]) -> Iterator[dict[str, str]]:
    """Labels worth trying, of the names that the matchers name."""
    tried: dict[str, dict[str, None]] = {}
    for matcher in (matcher for each in of for matcher in each.matchers):
        values = tried.setdefault(matcher.name, {})
        values.update(dict.fromkeys(_examples(matcher)))
    choices = [[*values, *(each for each in ELSE if each not in values)] for values in tried.values()]
    for chosen in itertools.islice(itertools.product(*choices), MOST):
        yield dict(zip(tried, chosen, strict=True))


def _examples(matcher: Matcher) -> list[str]:
    if matcher.operator in ("=", "!="):
        return [matcher.value]
    try:
        pattern = compile_pattern(matcher.value)
        parsed = importlib.import_module("re._parser").parse(matcher.value)
        found = [*_words(parsed, fewest=False), *_words(parsed, fewest=True)]
        return [word for word in dict.fromkeys(found) if pattern.fullmatch(word)]
    except (PatternError, re.error, RecursionError):
        return []


def _words(parsed: Any, *, fewest: bool) -> list[str]:
    """Some of the words that a parsed pattern takes; whoever asks tries each of them."""
    words = [""]
    for op, argument in parsed:
        words = [f"{word}{more}" for word in words for more in _word(str(op), argument, fewest=fewest)][:50]
    return words


def _word(op: str, argument: Any, *, fewest: bool) -> list[str]:
    match op:
        case "LITERAL":
            return [chr(argument)]
        case "ANY":
            return ["0"]
        case "NOT_LITERAL":
            return ["0" if argument != ord("0") else "1"]
        case "IN":
            return [next((each for each in "0a-_A/. " if _in(each, argument)), "")]
        case "BRANCH":
            return [word for branch in argument[1] for word in _words(branch, fewest=fewest)]
        case "SUBPATTERN":
            return _words(argument[-1], fewest=fewest)
        case "MAX_REPEAT" | "MIN_REPEAT":
            least, most, inner = argument
            times = least if fewest else max(least, min(1, int(most)))
            return [word * times for word in _words(inner, fewest=fewest)]
        case _:
            return [""]  # an anchor


def _in(letter: str, members: Any) -> bool:
    """Whether ``letter`` is in a class of a parsed pattern; what is not known here counts as not in it."""
    found, negated = False, False
    for op, argument in members:
        match str(op):
            case "NEGATE":
                negated = True
            case "LITERAL":
                found |= ord(letter) == argument
            case "RANGE":
                found |= argument[0] <= ord(letter) <= argument[1]
            case "CATEGORY":
                name = str(argument)
                digit, word = letter.isdigit(), letter.isalnum() or letter == "_"
                kinds = {"DIGIT": digit, "WORD": word, "SPACE": letter == " "}
                kind = name.rpartition("_")[2]
                found |= kinds.get(kind, False) is ("_NOT_" not in name)
    return found is not negated
