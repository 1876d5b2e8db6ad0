"""``info``: samples with the labels that describe their target, taken from metrics such as ``target_info``.

Rules: Prometheus 3, promql/info.go. Series belong together when they agree in ``instance`` and ``job``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields, is_dataclass

import numpy as np

from ..samples import NAME, Booleans, Floats, Labels, Matcher, matches
from .frame import Frame, merge, shown, with_labels
from .nodes import At, Node, Selector, Subquery
from .values import QueryError

IDENTIFYING = ("instance", "job")

Select = Callable[[Selector], tuple[Frame, Floats]]
"""The vector of a selector, and when its samples were taken."""


def reference(node: object) -> tuple[At, int]:
    """The ``@`` and offset at which the first selector in an expression looks at samples."""
    if isinstance(node, Selector):
        return node.at, node.offset
    if isinstance(node, Subquery):
        at, offset = reference(node.expr)
        return (at, offset) if at is not None else (node.at, offset + node.offset)
    parts = node if isinstance(node, tuple) else ()
    if is_dataclass(node):
        parts = tuple([getattr(node, field.name) for field in fields(node)])
    for part in parts:
        found = reference(part)
        if found != (None, 0):
            return found
    return None, 0


def info(base: Frame, expr: Node, wanted: tuple[Matcher, ...], select: Select) -> Frame:
    """The base vector with labels of matching info series. Raises QueryError where two of these contradict."""
    names = [one for one in wanted if one.name == NAME] or [Matcher(NAME, "=", "target_info")]
    if all(one.op in ("!=", "!~") for one in names):
        names.append(Matcher(NAME, "=~", ".+_info"))
    data = [one for one in wanted if one.name != NAME]
    at, offset = reference(expr)
    matchers = (*names, *data)
    if all(one.matches_empty for one in matchers):
        matchers = (*matchers, Matcher(NAME, "!=", ""))
    infos, times = select(Selector(matchers, offset, at))
    candidates = _by_target(infos)
    only = frozenset(one.name for one in data)
    optional = all(one.matches_empty for one in data)
    labels: list[Labels] = []
    values: list[Floats] = []
    present: list[Booleans] = []

    def put(one: Labels, row: int, where: Booleans) -> None:
        if where.any():
            labels.append(one)
            values.append(base.values[row])
            present.append(where)

    positive = [one for one in names if one.op in ("=", "=~")]
    for row, one in enumerate(base.labels):
        here = base.present[row]
        if positive and matches(one, names):  # an info series itself
            put(one, row, here)
            continue
        metrics = candidates.get(_target(one), {}) if _target(one) != ("", "") else {}
        for which, where in _choices(metrics, infos, times, here):
            if which or optional:
                put(_enriched(one, [infos.labels[each] for each in which], only), row, where)
    if not labels:
        return Frame.empty(base.steps)
    return merge(Frame(tuple(labels), np.array(values), np.array(present)))


def _target(labels: Labels) -> tuple[str, str]:
    pairs = dict(labels)
    return pairs.get(IDENTIFYING[0], ""), pairs.get(IDENTIFYING[1], "")


def _by_target(infos: Frame) -> dict[tuple[str, str], dict[str, list[int]]]:
    """Rows of info series by target and metric name."""
    found: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, labels in enumerate(infos.labels):
        found[_target(labels)][dict(labels).get(NAME, "")].append(row)
    return found


def _choices(
    metrics: dict[str, list[int]], infos: Frame, times: Floats, here: Booleans
) -> list[tuple[tuple[int, ...], Booleans]]:
    """Which info rows apply (at most one a metric), and at which steps."""
    chosen = []
    for rows in metrics.values():
        # Of several series of one info metric the one with the latest sample counts.
        when = np.where(infos.present[rows], times[rows], -np.inf)
        best = when.argmax(axis=0)
        latest = when.max(axis=0)
        if (((when == latest) & (latest > -np.inf)).sum(axis=0)[here] > 1).any():
            twice = ", ".join(shown(infos.labels[row]) for row in rows)
            raise QueryError("execution", f"found duplicate series for info metric: {twice}")
        chosen.append(np.where(latest > -np.inf, np.array(rows)[best], -1))
    if not chosen:
        return [((), here)]
    rows_of = np.array(chosen)
    # Where nothing changes from one step to the next the choice is the same.
    changes = np.flatnonzero((rows_of[:, 1:] != rows_of[:, :-1]).any(axis=0)) + 1
    found: dict[tuple[int, ...], Booleans] = {}
    for begin, end in zip([0, *changes.tolist()], [*changes.tolist(), rows_of.shape[1]], strict=True):
        key = tuple([int(row) for row in rows_of[:, begin] if row >= 0])
        found.setdefault(key, np.zeros(len(here), dtype=bool))[begin:end] = here[begin:end]
    return list(found.items())


def _enriched(labels: Labels, infos: list[Labels], only: frozenset[str]) -> Labels:
    own = dict(labels)
    more: dict[str, str] = {}
    for one in infos:
        for name, value in one:
            if name == NAME or name in IDENTIFYING or (only and name not in only):
                continue
            if more.get(name, value) != value:
                raise QueryError("execution", f"conflicting label: {name}")
            if name not in own:
                more[name] = value
    return with_labels(labels, more.items())
