"""What rules read from each other: in which order they are computed, and what of an expression is asked elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from anvil_monitor.alerts.rulefile import Alerting, Group, Recording, Rule

from .backtestdata import PART
from .promql.nodes import Aggregate, Binary, Call, Negate, Node, Range, Selector, Subquery, kind
from .promql.parse import parse
from .promql.text import text
from .samples import NAME, Matcher

# Milliseconds. How far an instant selector looks back, and a subquery's step where none is given.
LOOKBACK: Final = 300_000
# What an alert rule writes.
ALERT_SERIES: Final = ("ALERTS", "ALERTS_FOR_STATE")
# Rules are computed from so long before the first instant that is looked at, at most.
MOST_REACH: Final = 31 * 86_400_000


class SplitError(Exception):
    """Why a rule cannot be played from range queries."""


@dataclass(frozen=True, slots=True)
class Read:
    """One selector: it looks at samples from ``depth`` ms to ``delay`` ms before the instant."""

    matchers: tuple[Matcher, ...]
    delay: int
    depth: int
    within: bool  # a subquery

    @property
    def name(self) -> str:
        return next((each.value for each in self.matchers if each.name == NAME and each.op == "="), "")

    def may_read(self, rule: Rule) -> bool:
        """Whether what ``rule`` writes can match; labels that it does not set could be anything."""
        fixed = {name: text for name, text in rule.labels.items() if "{{" not in text}
        if isinstance(rule, Recording):
            return self._may({**fixed, NAME: rule.record})
        return any(self._may({**fixed, NAME: name, "alertname": rule.alert}) for name in ALERT_SERIES)

    def _may(self, known: dict[str, str]) -> bool:
        return all(each.test(known[each.name]) for each in self.matchers if each.name in known)


@dataclass(slots=True, eq=False)
class Split:
    """One rule and what is known of it. ``parts``: what is asked elsewhere, by the name that stands for it in ``node``.

    ``node`` is None where the whole expression is asked elsewhere. ``reach`` (ms): how long before the start it is
    computed. ``needs``: the rules that it reads, directly or not, and itself.
    """

    rule: Rule
    group: Group
    place: int
    tree: Node
    reads: tuple[Read, ...]
    node: Node | None = None
    parts: dict[str, str] = field(default_factory=dict)
    edges: dict[Split, list[Read]] = field(default_factory=dict)
    needs: set[Split] = field(default_factory=set)
    reach: int = 0
    problem: str = ""

    @property
    def names(self) -> frozenset[str]:
        return frozenset(read.name for read in self.reads if read.name)


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Rules that read each other's past, or one alone: ``delay`` is the shortest such past, in ms.

    ``read``: others read what it writes.
    """

    splits: tuple[Split, ...]
    delay: int | None
    read: bool


def plan(groups: Sequence[Group]) -> tuple[Segment, ...]:
    """The alert rules of ``groups`` and what they need, in the order in which they are computed."""
    found = [_read(rule, group, place) for group in groups for place, rule in enumerate(group.rules)]
    for split in found:
        for read in split.reads:
            for other in found:
                if read.may_read(other.rule):
                    split.edges.setdefault(other, []).append(read)
    alerts = [split for split in found if isinstance(split.rule, Alerting)]
    components = _components(alerts)
    wanted = {other for component in components for split in component for other in split.edges}
    segments = tuple(_segment(component, wanted) for component in components)
    for segment in segments:
        near = {other for split in segment.splits for other in split.edges}
        for split in segment.splits:
            split.needs = {*segment.splits, *near, *(far for other in near for far in other.needs)}
            _cut(split)
    _reach(segments)
    return segments


def _read(rule: Rule, group: Group, place: int) -> Split:
    tree = parse(rule.expr)
    try:
        return Split(rule, group, place, tree, tuple(reads_of(tree)))
    except SplitError as error:
        return Split(rule, group, place, tree, (), problem=str(error))


def reads_of(node: Node, delay: int = 0, depth: int = 0, within: bool = False) -> Iterator[Read]:
    """Every selector of ``node``. Raises :class:`SplitError` for those that a rule on history cannot have."""
    match node:
        case Selector() | Range():
            selector = node.selector if isinstance(node, Range) else node
            _refuse(selector.offset, selector.at)
            back = node.range if isinstance(node, Range) else LOOKBACK
            shift = selector.offset
            yield Read(selector.matchers, delay + shift, depth + shift + back, within)
        case Subquery():
            _refuse(node.offset, node.at)
            step = node.step or 60_000
            yield from reads_of(node.expr, delay + node.offset, depth + node.offset + node.range + step, True)
        case Call():
            for each in node.arguments:
                yield from reads_of(each, delay, depth, within)
        case Aggregate():
            for inner in (node.expr, node.param):
                if inner is not None:
                    yield from reads_of(inner, delay, depth, within)
        case Binary():
            yield from reads_of(node.left, delay, depth, within)
            yield from reads_of(node.right, delay, depth, within)
        case Negate():
            yield from reads_of(node.expr, delay, depth, within)


def _refuse(offset: int, at: object) -> None:
    if offset < 0:
        raise SplitError("a negative offset looks into the future, which a rule that runs cannot do")
    if at is not None:
        raise SplitError("the @ modifier means another time at each evaluation; it cannot be asked for all at once")


def _components(roots: Iterable[Split]) -> list[list[Split]]:
    """Rules that depend on each other in circles, those that others rest on first (Tarjan's algorithm)."""
    index: dict[Split, int] = {}
    low: dict[Split, int] = {}
    stack: list[Split] = []
    found: list[list[Split]] = []

    def visit(split: Split) -> None:
        index[split] = low[split] = len(index)
        stack.append(split)
        for other in split.edges:
            if other not in index:
                visit(other)
                low[split] = min(low[split], low[other])
            elif other in stack:
                low[split] = min(low[split], index[other])
        if low[split] == index[split]:
            at = stack.index(split)
            found.append(stack[at:])
            del stack[at:]

    for root in roots:
        if root not in index:
            visit(root)
    return found


def _segment(component: list[Split], wanted: set[Split]) -> Segment:
    inside = sorted(component, key=lambda split: split.place)
    back = [
        read.delay
        for split in inside
        for other, reads in split.edges.items()
        if other in component and other.place >= split.place
        for read in reads
    ]
    reason = ""
    if len({split.group.name for split in inside}) > 1:
        names = ", ".join(sorted({split.group.name for split in inside}))
        reason = f"the groups {names} read from each other; put these rules into one group"
    elif len(inside) > 1 and any(isinstance(split.rule, Alerting) for split in inside):
        reason = "it reads what a recording rule makes of its own alerts"
    for split in inside:
        split.problem = split.problem or reason
    return Segment(tuple(inside), min(back) if back else None, not wanted.isdisjoint(inside))


def _cut(split: Split) -> None:
    """Say which parts of the expression are asked elsewhere: the largest that read nothing which is recorded here."""
    if split.problem:
        return
    own = [read for reads in split.edges.values() for read in reads]
    if split.reads and not own:
        return  # all of it
    later = [
        read
        for other, reads in split.edges.items()
        if other.group.name == split.group.name and other.place >= split.place
        for read in reads
        if read.delay == 0
    ]
    try:
        split.node = _parts(split.tree, split, {read.matchers for read in own}, {read.matchers for read in later})
    except SplitError as error:
        split.problem = str(error)


def _parts(
    node: Node, split: Split, own: set[tuple[Matcher, ...]], later: set[tuple[Matcher, ...]], within: bool = False
) -> Node:
    mine = {matchers for matchers in _selected(node) if matchers in own}
    if not mine:
        if not _selected(node):
            return node
        if within or kind(node) not in ("vector", "scalar"):
            raise SplitError(f"{text(node)} is from history, but what is around it reads what the rules record")
        name = f"{PART}{split.group.name} {split.place} {len(split.parts)}"
        split.parts[name] = text(node)
        stand_in = Selector((Matcher(NAME, "=", name),), 0, None)
        return Call("scalar", (stand_in,), "scalar") if kind(node) == "scalar" else stand_in
    match node:
        case Selector():
            # What comes later in the group was recorded one evaluation ago.
            return replace(node, offset=node.offset + 1) if node.matchers in later and not node.offset else node
        case Range():
            if node.selector.matchers in later and not node.selector.offset:
                return Range(replace(node.selector, offset=1), node.range - 1)
            return node
        case Subquery():
            if later & mine:
                raise SplitError(f"{text(node)} reads what a later rule of its group records; put it after that rule")
            return replace(node, expr=_parts(node.expr, split, own, later, True))
        case Call():
            if node.name == "info":
                raise SplitError("info() cannot be computed over what the rules record")
            arguments = tuple(_parts(each, split, own, later, within) for each in node.arguments)
            return replace(node, arguments=arguments)
        case Aggregate():
            param = None if node.param is None else _parts(node.param, split, own, later, within)
            return replace(node, expr=_parts(node.expr, split, own, later, within), param=param)
        case Binary():
            left, right = (_parts(side, split, own, later, within) for side in (node.left, node.right))
            return replace(node, left=left, right=right)
        case Negate():
            return Negate(_parts(node.expr, split, own, later, within))
    return node


def _selected(node: Node) -> set[tuple[Matcher, ...]]:
    return {read.matchers for read in reads_of(node)}


def _reach(segments: Sequence[Segment]) -> None:
    """Say how long before the start each rule is computed, so that what reads it finds its past."""
    for segment in reversed(segments):
        longest = max(split.reach for split in segment.splits)
        for reader in segment.splits:
            reader.reach = longest
            for other, reads in reader.edges.items():
                if other not in segment.splits:
                    other.reach = min(MOST_REACH, max(other.reach, longest + max(read.depth for read in reads)))
