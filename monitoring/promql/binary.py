"""Binary operators: arithmetic, comparison, and the matching of two vectors.

Which rows belong together depends on labels alone and is found once; whether a match is unique depends on which rows
have a sample, and is checked at every step. Rules: Prometheus 3, promql/engine.go (VectorBinop).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from ..samples import NAME, Booleans, Floats, Labels
from .frame import Frame, Scalars, merge, shown, with_labels
from .labelsets import MARK, derived, drop, keep, marked, without_name, without_names
from .nodes import Matching
from .values import QueryError

ARITHMETIC: dict[str, Callable[[Floats, Floats], Floats]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,  # the sign of the dividend, as in Go and C
    "^": np.power,
    "atan2": np.arctan2,
}
COMPARISON: dict[str, Callable[[Floats, Floats], Booleans]] = {
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
}
SETS = frozenset({"and", "or", "unless"})


def scalars(op: str, left: Scalars, right: Scalars) -> Scalars:
    """Scalar by scalar; a comparison gives 0 or 1."""
    if op in ARITHMETIC:
        return ARITHMETIC[op](left, right)
    return COMPARISON[op](left, right).astype(np.float64)


def with_scalar(op: str, frame: Frame, scalar: Scalars, *, swapped: bool, return_bool: bool) -> Frame:
    """Vector by scalar, or with ``swapped`` scalar by vector. A filter always keeps the vector's value."""
    other = np.broadcast_to(scalar, frame.values.shape)
    left, right = (other, frame.values) if swapped else (frame.values, other)
    if op in ARITHMETIC:
        return merge(Frame(without_names(frame.labels), ARITHMETIC[op](left, right), frame.present))
    holds = COMPARISON[op](left, right)
    if return_bool:
        return merge(Frame(without_names(frame.labels), holds.astype(np.float64), frame.present))
    return Frame(frame.labels, frame.values, frame.present & holds)


def _signatures(frame: Frame, matching: Matching) -> list[Labels]:
    names = frozenset(matching.labels)
    if matching.on:
        return derived(frame.labels, ("on", names), lambda all_: [keep(labels, names) for labels in all_])
    names |= {NAME}
    return derived(frame.labels, ("ignoring", names), lambda all_: [drop(labels, names) for labels in all_])


def sets(op: str, left: Frame, right: Frame, matching: Matching) -> Frame:
    """``and``, ``or``, ``unless``: only the signature counts, labels and values stay."""
    numbers: dict[Labels, int] = {}
    left_groups = [numbers.setdefault(one, len(numbers)) for one in _signatures(left, matching)]
    right_groups = [numbers.setdefault(one, len(numbers)) for one in _signatures(right, matching)]
    first, second = (right, right_groups) if op != "or" else (left, left_groups)
    there = np.zeros((len(numbers), left.steps), dtype=bool)
    for row, group in enumerate(second):
        there[group] |= first.present[row]
    if op == "and":
        return Frame(left.labels, left.values, left.present & there[left_groups]).compact()
    if op == "unless":
        return Frame(left.labels, left.values, left.present & ~there[left_groups]).compact()
    rest = right.present & ~there[right_groups]
    both = Frame([*left.labels, *right.labels], np.vstack((left.values, right.values)), np.vstack((left.present, rest)))
    return merge(both.compact())


def vectors(op: str, left: Frame, right: Frame, matching: Matching, *, return_bool: bool) -> Frame:
    """Arithmetic or comparison of two vectors. Raises QueryError where a match is not unique."""
    if matching.card == "right":
        many, one, many_side = right, left, "right"
    else:
        many, one, many_side = left, right, "left"
    many, one = many.compact(), one.compact()
    if matching.fill != (None, None):
        many, one = _filled(many, one, matching, matching.fill[0]), _filled(one, many, matching, matching.fill[1])
    if not many.labels or not one.labels:
        return Frame.empty(left.steps)
    partners: dict[Labels, list[int]] = defaultdict(list)
    for row, signature in enumerate(_signatures(one, matching)):
        partners[signature].append(row)
    signatures = _signatures(many, matching)
    needed: Booleans = np.logical_or.reduce(many.present, axis=0)
    _refuse_duplicates(one, partners, needed, "left" if many_side == "right" else "right")
    pairs = [(row, other) for row, signature in enumerate(signatures) for other in partners.get(signature, ())]
    if not pairs:
        return Frame.empty(left.steps)
    many_rows, one_rows = (np.array(rows, dtype=np.intp) for rows in zip(*pairs, strict=True))
    matched = many.present[many_rows] & one.present[one_rows]
    if matching.card == "one":
        _refuse_many(matched, [signatures[row] for row in many_rows])
    a, b = many.values[many_rows], one.values[one_rows]
    if many_side == "right":
        a, b = b, a
    drop_name = op in ARITHMETIC or return_bool
    labels = [_result(many.labels[row], one.labels[other], matching, drop_name) for row, other in pairs]
    if matching.card != "one":
        # Labels must be unique among what one partner gives, whether or not a comparison filters it out after.
        message = "multiple matches for labels: grouping labels must ensure unique matches"
        merge(Frame(labels, a, matched), message)
    if op in ARITHMETIC:
        return merge(Frame(labels, ARITHMETIC[op](a, b), matched).compact())
    holds = COMPARISON[op](a, b)
    if return_bool:
        return merge(Frame(labels, holds.astype(np.float64), matched).compact())
    # A filter hands on the left operand's value, also with group_right.
    return merge(Frame(labels, a, matched & holds).compact())


def _filled(frame: Frame, other: Frame, matching: Matching, value: float | None) -> Frame:
    """With rows of this value for what only the other side has."""
    if value is None:
        return frame
    there: dict[Labels, Booleans] = {}
    for row, signature in enumerate(_signatures(frame, matching)):
        there[signature] = there.get(signature, np.zeros(frame.steps, dtype=bool)) | frame.present[row]
    missing: dict[Labels, Booleans] = {}
    for row, signature in enumerate(_signatures(other, matching)):
        lacks = other.present[row] & ~there.get(signature, np.zeros(frame.steps, dtype=bool))
        missing[signature] = missing.get(signature, np.zeros(frame.steps, dtype=bool)) | lacks
    present = np.array([*frame.present, *missing.values()]).reshape(-1, frame.steps)
    values = np.vstack((frame.values, np.full((len(missing), frame.steps), value)))
    return Frame((*frame.labels, *missing), values, present).compact()


def _refuse_duplicates(one: Frame, partners: dict[Labels, list[int]], needed: Booleans, side: str) -> None:
    for signature, rows in partners.items():
        if len(rows) == 1:
            continue
        twice = (one.present[rows].sum(axis=0) > 1) & needed
        if twice.any():
            step = int(np.flatnonzero(twice)[0])
            culprits = [one.labels[row] for row in rows if one.present[row, step]][:2]
            raise QueryError(
                "execution",
                f"found duplicate series for the match group {shown(signature)} on the {side} hand-side of the"
                f" operation: [{', '.join(map(shown, culprits))}]; many-to-many matching not allowed: matching labels"
                " must be unique on one side",
            )


def _refuse_many(matched: Booleans, signatures: list[Labels]) -> None:
    if len(set(signatures)) == len(signatures):
        return
    seen: dict[Labels, Booleans] = {}
    for row, signature in enumerate(signatures):
        if signature in seen:
            if (seen[signature] & matched[row]).any():
                message = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
                raise QueryError("execution", message)
            seen[signature] = seen[signature] | matched[row]
        else:
            seen[signature] = matched[row]


def _result(many: Labels, one: Labels, matching: Matching, drop_name: bool) -> Labels:
    labels = without_name(many) if drop_name else many
    if matching.card == "one":
        names = frozenset(matching.labels)
        kept = keep(labels, names) if matching.on else drop(labels, names)
        return (MARK, *kept) if marked(labels) else kept
    if not matching.include:
        return labels
    pairs = dict(one)
    return with_labels(labels, [(name, pairs.get(name, "")) for name in matching.include])
