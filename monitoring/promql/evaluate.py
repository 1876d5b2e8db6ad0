"""Evaluation of an expression tree: each kind of node in one place, the work in the modules around."""

from __future__ import annotations

from typing import cast

import numpy as np

from ..samples import NAME, Floats, Integers, Labels
from . import binary, functions, histogram, info, ranges
from .aggregation import aggregate
from .frame import Frame, Scalars, merge
from .labelsets import without_names
from .nodes import Aggregate, Binary, Call, Negate, Node, Number, Range, Selector, String, Subquery
from .query import warn
from .selectors import Context, instant, subquery
from .selectors import ranges as range_windows
from .values import QueryError
from .windows import Windows

Found = Frame | Scalars | str
"""What an expression gives: a vector, a scalar (one value a step) or a text."""


def evaluate(node: Node, steps: Integers, context: Context) -> Found:
    """The value of an expression at every step (ms). Raises QueryError."""
    context.check_time()
    match node:
        case Number():
            return np.full(len(steps), node.value)
        case String():
            return node.value
        case Selector():
            return instant(node, steps, context)[0].compact()
        case Negate():
            found = evaluate(node.expr, steps, context)
            return functions.mapped(found, -found.values) if isinstance(found, Frame) else -cast(Floats, found)
        case Binary():
            return _binary(node, steps, context)
        case Aggregate():
            param = None if node.param is None else evaluate(node.param, steps, context)
            frame = _frame(node.expr, steps, context)
            return aggregate(
                node.op,
                frame,
                node.labels,
                node.without,
                cast("Scalars | str | None", param),
                instant=context.instant and len(steps) == 1,
            )
        case Call():
            return _call(node, steps, context)
    raise QueryError("execution", "a range vector stands where a value at one time is needed")


def windows_of(node: Range | Subquery, steps: Integers, context: Context) -> Windows:
    """The windows of a range selector or subquery."""
    context.check_time()
    if isinstance(node, Range):
        return range_windows(node, steps, context)
    return subquery(node, steps, context, lambda grid: cast("Frame | Floats", evaluate(node.expr, grid, context)))


def _frame(node: Node, steps: Integers, context: Context) -> Frame:
    found = evaluate(node, steps, context)
    if not isinstance(found, Frame):
        raise QueryError("execution", "a vector is needed here")
    return found


def _scalar(node: Node, steps: Integers, context: Context) -> Scalars:
    found = evaluate(node, steps, context)
    if isinstance(found, Frame | str):
        raise QueryError("execution", "a scalar is needed here")
    return found


def _text(node: Node) -> str:
    if not isinstance(node, String):
        raise QueryError("execution", "a string is needed here")
    return node.value


def _binary(node: Binary, steps: Integers, context: Context) -> Found:
    left, right = evaluate(node.left, steps, context), evaluate(node.right, steps, context)
    if isinstance(left, str) or isinstance(right, str):
        raise QueryError("execution", "an operator cannot take a string")
    if isinstance(left, Frame) and isinstance(right, Frame):
        if node.op in binary.SETS:
            return binary.sets(node.op, left, right, node.matching)
        return binary.vectors(node.op, left, right, node.matching, return_bool=node.return_bool)
    if isinstance(left, Frame):
        return binary.with_scalar(node.op, left, cast(Floats, right), swapped=False, return_bool=node.return_bool)
    if isinstance(right, Frame):
        return binary.with_scalar(node.op, right, left, swapped=True, return_bool=node.return_bool)
    return binary.scalars(node.op, left, right)


def _call(node: Call, steps: Integers, context: Context) -> Found:
    name, arguments = node.name, node.arguments
    if name in ranges.FUNCTIONS:
        return _over_range(node, steps, context)
    if name in functions.ELEMENTWISE:
        frame = _frame(arguments[0], steps, context)
        return functions.mapped(frame, functions.ELEMENTWISE[name](frame.values))
    if name in functions.DATES:
        now = np.floor_divide(steps, 1000).astype(np.float64)
        frame = _frame(arguments[0], steps, context) if arguments else Frame.one(now)
        return functions.mapped(frame, functions.DATES[name](frame.values))
    if name in QUERY_SCALARS:
        return np.full(len(steps), QUERY_SCALARS[name](context))
    match name:
        case "time":
            return steps / 1000.0
        case "pi":
            return np.full(len(steps), np.pi)
        case "vector":
            return Frame.one(_scalar(arguments[0], steps, context))
        case "scalar":
            return functions.scalar(_frame(arguments[0], steps, context))
        case "min_of" | "max_of":
            operation = np.minimum if name == "min_of" else np.maximum
            first, second = (_scalar(argument, steps, context) for argument in arguments)
            return cast(Floats, operation(first, second))
        case "timestamp":
            return _timestamp(arguments[0], steps, context)
        case "absent":
            return functions.absent(_frame(arguments[0], steps, context), _told_labels(arguments[0]))
        case "absent_over_time":
            windows = windows_of(cast("Range | Subquery", arguments[0]), steps, context)
            filled = windows.filled()
            there = Frame(windows.labels, np.zeros(filled.shape), filled)
            return functions.absent(there, _told_labels(arguments[0]))
        case "histogram_quantile":
            wanted = _scalar(arguments[0], steps, context)
            return histogram.quantile(_frame(arguments[1], steps, context).compact(), wanted)
        case "histogram_fraction":
            lower, upper = (_scalar(argument, steps, context) for argument in arguments[:2])
            return histogram.fraction(_frame(arguments[2], steps, context).compact(), lower, upper)
        case "histogram_avg" | "histogram_count" | "histogram_sum" | "histogram_stddev" | "histogram_stdvar":
            return Frame.empty(len(steps))  # only native histograms have these
        case "round":
            frame = _frame(arguments[0], steps, context)
            to = _scalar(arguments[1], steps, context) if len(arguments) > 1 else np.ones(len(steps))
            return functions.nearest(frame, to)
        case "clamp" | "clamp_min" | "clamp_max":
            return _clamp(node, steps, context)
        case "sort" | "sort_desc":
            frame = _frame(arguments[0], steps, context)
            # Ranges are always ordered by labels.
            sorting = context.instant and len(steps) == 1
            _warn_of_sorting(context)
            return functions.ordered(frame, descending=name == "sort_desc") if sorting else frame
        case "info":
            return _info(node, steps, context)
        case "sort_by_label" | "sort_by_label_desc":
            frame = _frame(arguments[0], steps, context)
            names = tuple(map(_text, arguments[1:]))
            sorting = context.instant and len(steps) == 1
            _warn_of_sorting(context)
            return functions.ordered_by(frame, names, descending=name.endswith("desc")) if sorting else frame
        case "histogram_quantiles":
            frame, target = _frame(arguments[0], steps, context).compact(), _text(arguments[1])
            several = [_scalar(argument, steps, context) for argument in arguments[2:]]
            return histogram.quantiles(frame, target, several)
        case "label_replace":
            frame = _frame(arguments[0], steps, context)
            return functions.label_replace(frame, *map(_text, arguments[1:]))
        case "label_join":
            frame = _frame(arguments[0], steps, context)
            target, separator, *sources = map(_text, arguments[1:])
            return functions.label_join(frame, target, separator, tuple(sources))
    raise QueryError("bad_data", f"function {name} is not supported")


QUERY_SCALARS = {
    "start": lambda context: context.start / 1000.0,
    "end": lambda context: context.end / 1000.0,
    "step": lambda context: context.step / 1000.0,
    "range": lambda context: (context.end - context.start) / 1000.0,
}


def _warn_of_sorting(context: Context) -> None:
    if not context.instant:
        warn("sort is ineffective for range queries since results are always ordered by labels")


def _info(node: Call, steps: Integers, context: Context) -> Frame:
    wanted = node.arguments[1].matchers if len(node.arguments) > 1 and isinstance(node.arguments[1], Selector) else ()
    base = _frame(node.arguments[0], steps, context).compact()
    return info.info(base, node.arguments[0], wanted, lambda selector: instant(selector, steps, context, times=True))


def _over_range(node: Call, steps: Integers, context: Context) -> Frame:
    scalars = []
    windows: Windows | None = None
    for argument in node.arguments:
        if isinstance(argument, Range | Subquery):
            windows = windows_of(argument, steps, context)
        else:
            scalars.append(_scalar(argument, steps, context))
    if windows is None:
        raise QueryError("execution", f"{node.name} needs a range vector")
    if not windows.labels:
        return Frame.empty(len(steps))
    values, present = ranges.FUNCTIONS[node.name](windows, *scalars)
    labels = windows.labels
    if node.name not in ranges.KEEP_NAME:
        labels = without_names(labels)
    return merge(Frame(labels, values, present).compact())


def _clamp(node: Call, steps: Integers, context: Context) -> Frame:
    frame = _frame(node.arguments[0], steps, context)
    bounds = [_scalar(argument, steps, context) for argument in node.arguments[1:]]
    if node.name == "clamp_min":
        return functions.mapped(frame, np.maximum(frame.values, bounds[0]))
    if node.name == "clamp_max":
        return functions.mapped(frame, np.minimum(frame.values, bounds[0]))
    return functions.clamp(frame, bounds[0], bounds[1])


def _timestamp(argument: Node, steps: Integers, context: Context) -> Frame:
    """When each sample was taken, for a selector; for any other expression the time of the step."""
    if isinstance(argument, Selector):
        frame, seconds = instant(argument, steps, context, times=True)
        return functions.mapped(frame, seconds).compact()
    frame = _frame(argument, steps, context)
    return functions.mapped(frame, np.broadcast_to(steps / 1000.0, frame.values.shape))


def _told_labels(node: Node) -> Labels:
    """The labels that a selector pins to one value: what ``absent`` can say about the series that are not there."""
    selector = node.selector if isinstance(node, Range) else node
    if not isinstance(selector, Selector):
        return ()
    told: dict[str, str] = {}
    unclear = {NAME}
    for matcher in selector.matchers:
        if matcher.op == "=" and matcher.name not in told:
            told[matcher.name] = matcher.value
        else:
            unclear.add(matcher.name)
    return tuple(sorted((name, value) for name, value in told.items() if name not in unclear and value))
