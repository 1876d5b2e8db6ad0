"""What would miss an expression of the user's own: a general one cannot be solved, so series are tried until it does.

Each selector of the expression becomes a series that stands still or grows, as the function round it asks. One of them
after the other is tried on a scale of levels while the rest stay at one; what the expression then gives is asked of an
evaluator. The same expression gives the same scene: the order is fixed, nothing is random.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from anvil_monitor.targets import Direction, Target, Unit

from .ownscenes import NoSceneError
from .promseries import parse_labels, parse_values
from .promtest import Evaluator
from .rulefile import Group
from .ruleparts import number, quoted
from .rules_missed import ENDS_SHARE, ENDS_VALUE
from .rules_values import value_of
from .scenes import Series, gauge
from .selectors import Selector, selectors, taken

# A new evaluator of groups (none: only queries), whose subqueries step so many seconds where they do not say.
Play: TypeAlias = Callable[[Sequence[Group], float], Evaluator]
# Of one series: a level and how many scrapes it holds; None: it is not there.
Level: TypeAlias = float | None
Levels: TypeAlias = tuple[Level, ...]

LOOKBACK: Final = 300.0
"""Seconds for which a sample holds where no range is given: Prometheus's own default."""
MOST_STEP: Final = 240.0
"""Seconds between scrapes and evaluations at which the last one is still found."""
BETWEEN: Final = re.compile(r"\boffset\b|@|\[[^\]]*:")
MOST_SERIES: Final = 6
MOST_SCRAPES: Final = 1500
"""Of one test: what looks back over more of them would take seconds to play."""
MOST_TRIED: Final = 100
"""Scrapes that a level is tried for."""
SCALE: Final = (0.0, *(float(2**power) for power in range(-10, 42, 2)))
ABSENT: Final = (None,)
BELOW: Final = tuple(-each for each in SCALE[1:])
BASES: Final[Levels] = (64.0, 1.0, 0.0, None)
EVENTS: Final = 64
"""Of a histogram: events a scrape; its level is where they lie."""
CLEARLY: Final = 1.25
"""How far beyond its limit a miss is looked for, and within it what keeps it."""


@dataclass(frozen=True, slots=True)
class Source:
    """The series of one selector."""

    name: str
    moves: bool
    edges: tuple[float, ...] = ()  # of a histogram's buckets

    def series(self, runs: Sequence[tuple[Level, int]]) -> Series:
        if not self.edges:
            return {self.name: self._text(runs, moves=self.moves)}
        head = self.name.removesuffix("}")
        head += "" if head.endswith("{") else ","
        found: Series = {}
        for edge in (*self.edges, math.inf):
            within = [(None if at is None else EVENTS if at <= edge else 0, n) for at, n in runs]
            le = "+Inf" if edge == math.inf else number(edge)
            found[f"{head}le={quoted(le)}}}"] = self._text(within, moves=True)
        return found

    def _text(self, runs: Sequence[tuple[Level, int]], *, moves: bool) -> str:
        parts: list[str] = []
        at = 0.0
        for level, group in itertools.groupby(runs, key=lambda run: run[0]):
            n = sum(times for _, times in group)
            if n <= 0:
                continue
            if level is None:
                parts.append(f"stale _x{n - 1}" if n > 1 else "stale")
            elif not moves:
                parts.append(gauge(((level, n),)))
            else:
                parts.append(f"{number(at)}+{number(level)}x{n - 1}")
                at += level * n
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Found:
    """By source, the levels at which the target is missed, and those at which it is kept."""

    sources: tuple[Source, ...]
    bad: Levels
    good: Levels

    def series(self, *runs: tuple[Levels | None, int]) -> Series:
        """Phases one after the other, each so many scrapes long; None: nothing is there."""
        found: Series = {}
        for place, source in enumerate(self.sources):
            found |= source.series([(None if levels is None else levels[place], n) for levels, n in runs])
        return found


def sources_of(target: Target) -> tuple[Source, ...]:
    """A series for every selector. Raises :class:`NoSceneError`."""
    found: dict[str, Source] = {}
    every = selectors(value_of(target))
    for each in every:
        source = _source(each, [other for other in every if other.metric == each.metric], target.limit)
        known = found.get(source.name)
        if known is None or not known.moves:
            found[source.name] = source
    if len(found) > MOST_SERIES:
        raise NoSceneError(f"it asks for {len(found)} series, of which no more than {MOST_SERIES} are tried")
    if not found:
        raise NoSceneError("it asks for no series")
    return tuple(found.values())


def _source(each: Selector, others: Sequence[Selector], limit: float) -> Source:
    """The series of ``each``; ``others`` of the same metric do not take it, as far as that can be."""
    labels = taken((each,))
    but: tuple[Selector, ...] = ()
    for other in others:
        if (labels_apart := taken((each,), (*but, other))) is not None:
            labels, but = labels_apart, (*but, other)
    if not each.metric:
        raise NoSceneError("one of its selectors names no metric")
    if labels is None:
        raise NoSceneError(f"no labels were found that all matchers of {each.metric} take")
    name = f"{each.metric}{{{','.join(f'{name}={quoted(text)}' for name, text in sorted(labels.items()))}}}"
    edges: tuple[float, ...] = ()
    if each.metric.endswith("_bucket") and "le" not in labels:
        edges = tuple(limit * 2.0**power for power in range(-4, 5))
    return Source(name, each.moves, edges)


def looks_back(target: Target) -> float:
    """Seconds of the past that the value of ``target`` rests on."""
    return max((each.back for each in selectors(value_of(target))), default=0.0)


def apart(target: Target) -> float:
    """Seconds from one scrape to the next that are close enough for the shortest time it looks back over."""
    expr = value_of(target)
    step = min((each.back for each in selectors(expr) if each.back), default=target.window) / 4
    # A subquery and an offset look at times between the scrapes, at what is no older than the look back.
    return min(step, MOST_STEP) if BETWEEN.search(expr) else step


def search(target: Target, step: float, play: Play) -> Found:
    """Levels that miss ``target``, and levels that keep it. Raises :class:`NoSceneError` that says what was tried."""
    sources = sources_of(target)
    scrapes = min(MOST_TRIED, math.ceil(looks_back(target) / step) + 4)
    expr = value_of(target)
    gave = False
    bad: Levels | None = None
    good: Levels | None = None
    for tried in _tried(sources):
        bad_here: Levels | None = None
        good_here: Levels | None = None
        for levels in tried:
            value = _value(Found(sources, levels, levels), levels, scrapes, step, expr, play)
            if value is None or math.isnan(value):
                continue
            gave = True
            ratio = ratio_of(target, value)
            if bad_here is None and ratio >= CLEARLY:
                bad_here = levels
            if good_here is None and _kept(target, value, ratio):
                good_here = levels
            if bad_here is not None and good_here is not None:
                return Found(sources, bad_here, good_here)
        bad, good = bad or bad_here, good or good_here
    if bad is not None and good is not None:
        return Found(sources, bad, good)
    if not gave:
        raise NoSceneError("it gives no number, whatever its series say")
    what = "misses" if bad is None else "keeps"
    raise NoSceneError(f"no level of its series was found that {what} its limit")


def ratio_of(target: Target, value: float) -> float:
    """As ``target:ratio`` says it: over 1 = missed."""
    if target.direction is Direction.ABOVE:
        return target.limit / value if value else math.inf
    return value / target.limit


def _kept(target: Target, value: float, ratio: float) -> bool:
    if target.unit is Unit.PERCENT and target.direction is Direction.ABOVE:
        return 0 <= 1 - value <= ENDS_SHARE * (1 - target.limit) / CLEARLY or value == 1 >= target.limit
    return ratio <= ENDS_VALUE / CLEARLY


def _tried(sources: Sequence[Source]) -> Iterator[list[Levels]]:
    """One source after the other on the scale, the others at one level; then all of them together."""
    for scale in (SCALE, (*SCALE, *ABSENT), (*SCALE, *BELOW)):
        for base, place in itertools.product(BASES if len(sources) > 1 else BASES[:1], range(len(sources))):
            yield [
                tuple(level if each == place else base for each in range(len(sources)))
                for level in scale
                if level is None or level >= 0 or not sources[place].moves
            ]


def _value(found: Found, levels: Levels, scrapes: int, step: float, expr: str, play: Play) -> float | None:
    evaluator = play((), step)
    feed(evaluator, found.series((levels, scrapes)), step)
    values = [value for _, value in evaluator.query(expr, (scrapes - 1) * step)]
    return values[0] if len(values) == 1 else None


def feed(evaluator: Evaluator, series: Mapping[str, str], step: float) -> None:
    """All of ``series`` at once, from 0 on, a value every ``step`` seconds."""
    every = [(parse_labels(name), parse_values(text)) for name, text in series.items()]
    for place in range(max(len(values) for _, values in every)):
        samples = [(labels, values[place]) for labels, values in every if place < len(values)]
        evaluator.append(place * step, [(labels, value) for labels, value in samples if value is not None])
