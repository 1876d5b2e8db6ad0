"""The scenes of targets that users write themselves: called so that their matchers take them; shares and rates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from anvil_monitor.targets import Formula, Target

from .ruleparts import number, quoted
from .rules_missed import ENDS_VALUE, ends_at
from .rules_values import value_of
from .scenes import Runs, Scene, Series, counter
from .selectors import Selector, selector, selectors, strays, taken

MUCH: Final = 2**20
"""Events a scrape of which one is too few to matter."""
EXPRESSION: Final = "expression"
HOVERS: Final = (1 + ENDS_VALUE) / 2


class NoSceneError(Exception):
    """Why no series can be made up that miss a target. The text goes into a comment and a message."""


def is_expression(target: Target) -> bool:
    """Whether ``target`` is PromQL that its user wrote, of which no more is known."""
    return isinstance(target.indicator, Formula) and target.indicator.label == EXPRESSION


def scene_of(target: Target, targets: tuple[Target, ...], step: float) -> Scene:
    """The scene of ``target``. Raises :class:`NoSceneError`."""
    indicator = target.indicator
    if not isinstance(indicator, Formula):
        by = selector(indicator.metric, getattr(indicator, "match", ""))
        return Scene(target, targets, step, _labels((by,)))
    found = selectors(value_of(target))
    match indicator.label:
        case "share":
            return _shares(target, targets, step, found)
        case "per second":
            return RateScene(target, targets, step, _labels(found))
        case _:
            raise NoSceneError("an expression has to be searched for what misses it")


def _shares(target: Target, targets: tuple[Target, ...], step: float, found: tuple[Selector, ...]) -> ShareScene:
    good, total = found if len(found) == 2 else (*found, *found)
    if target.limit == 1 and target.direction == "below":
        raise NoSceneError("no share is more than 100 %")
    if good.metric != total.metric:
        return ShareScene(target, targets, step, _labels((total,)), good=good, total=total, of_good=_labels((good,)),
                          others=None)  # fmt: skip
    bad = taken((total,), (good,))
    if bad is None:
        raise NoSceneError("good takes all that total takes, so that every event is a good one")
    return ShareScene(target, targets, step, bad, good=good, total=total, of_good=_labels((good, total)), others=bad)


def _labels(by: tuple[Selector, ...]) -> dict[str, str]:
    found = taken(by)
    if found is None:
        raise NoSceneError("no labels were found that all its matchers take")
    return found


@dataclass(frozen=True, slots=True)
class ShareScene(Scene):
    """A share of good events. Where both are of one metric, the others have the labels ``others``; else the two are
    counted each for itself."""

    good: Selector = field(kw_only=True)
    total: Selector = field(kw_only=True)
    of_good: Mapping[str, str] = field(kw_only=True)
    others: Mapping[str, str] | None = field(kw_only=True)

    @property
    def bad_value(self) -> float:
        """Exact in floating point: all of them, half of them, or none."""
        if self.rises:
            return 1.0
        return 0.5 if self.target.limit > 0.5 else 0.0

    @property
    def sharp(self) -> bool:
        return self._room > 0

    @property
    def is_silent(self) -> bool:
        return True

    @property
    def _room(self) -> float:
        """The share that may be on the wrong side: of bad events, or of good ones."""
        return self.target.limit if self.rises else 1 - self.target.limit

    def missed(self, bad: int, good: int) -> Series:
        ends = ends_at(self.target) if self.rises else 1 - ends_at(self.target)
        much = self.traffic * 2 ** math.ceil(math.log2(4 * self.window / (ends or 1.0)))
        wrong = self.traffic if self.bad_value != 0.5 else self.traffic // 2
        return self._events(((self.traffic - wrong, bad - 1), (much, good)), ((wrong, bad - 1), (0, good)))

    def kept(self, scrapes: int) -> Series:
        wrong = max(0, math.floor(self._room * MUCH) - 16)
        return self._events(((MUCH - wrong, scrapes - 1),), ((wrong, scrapes - 1),))

    def hovering(self, bad: int, near: int, good: int) -> Series:
        if not self.sharp:
            return self._events(((self.traffic, good),), ((0, good),)) if not bad and not near else {}
        limit, ends = self.target.limit, ends_at(self.target)
        much = self.traffic * 2 ** math.ceil(math.log2(20 * self.window / abs(limit - ends)))
        close = (limit + ends) / 2
        parts = ((self.bad_value if self.rises else 1 - self.bad_value, self.traffic, bad),
                 (close if self.rises else 1 - close, much, near), (0.1 * self._room, 64 * much, good))  # fmt: skip
        wrong = tuple((round(share * n), times) for share, n, times in parts)
        right = tuple((n - round(share * n), times) for share, n, times in parts)
        return self._events(right, wrong)

    def idle(self, scrapes: int) -> Series:
        return self._events(((0, scrapes - 1),), ((0, scrapes - 1),))

    def without_good(self, scrapes: int) -> Series:
        """Events, none of which is a good one; there is no series of those."""
        every = self._events(((0, scrapes),), ((self.traffic, scrapes),))
        return {name: text for name, text in every.items() if name != self._named(self.good.metric, self.of_good)}

    def strays(self) -> Iterator[Scene]:
        for labels in strays(self.good if self.others is None and self.rises else self.total):
            if self.others is None:
                yield replace(self, of_good=labels) if self.rises else replace(self, labels=labels)
            elif not self.good.takes(labels):
                yield replace(self, of_good=labels | {"stray": "1"}, others=labels, labels=labels)

    def _slow(self, runs: Runs) -> Series:
        return self._events([(0, n) for _, n in runs], runs)

    def _events(self, right: Runs, wrong: Runs) -> Series:
        """Events on the right side of the promise and on the wrong one: good and others, or the other way round."""
        good, others = (wrong, right) if self.rises else (right, wrong)
        if self.others is not None:
            return {
                self._named(self.good.metric, self.of_good): counter(good),
                self._named(self.total.metric, self.others): counter(others),
            }
        both = [(a + b, n) for (a, n), (b, _) in zip(good, others, strict=True)]
        return {
            self._named(self.good.metric, self.of_good): counter(good),
            self._named(self.total.metric, self.labels): counter(both),
        }

    def _named(self, metric: str, labels: Mapping[str, str]) -> str:
        said = ",".join(f"{name}={quoted(text)}" for name, text in sorted(labels.items()))
        return f"{metric}{{{said}}}"


@dataclass(frozen=True, slots=True)
class RateScene(Scene):
    """Events a second. A burst fills the window at once; what was in it is forgotten a window later."""

    @property
    def sharp(self) -> bool:
        return not self.rises

    @property
    def is_silent(self) -> bool:
        return False

    @property
    def bad_value(self) -> float:
        return math.nan  # another with each scrape

    @property
    def bad_ratio(self) -> float:
        return math.nan

    def missed(self, bad: int, good: int) -> Series:
        if self.rises:
            return self._counted(((1.25 * self._full, 1), (1.25 * self._each, bad - 2), (0, good)))
        return self._counted(((0.8 * self._each, bad - 1), *self._steady(2, good)))

    def kept(self, scrapes: int) -> Series:
        if self.rises:
            return self._counted(((0.99 * self._each, scrapes - 1),))
        return self._counted(self._steady(1.01, scrapes - 1))

    def hovering(self, bad: int, near: int, good: int) -> Series:
        if self.rises:
            # Steadily over for a whole window, so that it goes over into what is near without a gap.
            over = ((1.25 * self._full, 1), (1.25 * self._each, bad - 1)) if bad else ()
            return self._counted((*over, (HOVERS * self._each, near), (0, good)))
        start = () if bad or not near else ((self._full, 1),)
        steady = ((self._each / HOVERS, near - len(start)),)
        return self._counted(((0.8 * self._each, bad), *start, *steady, *self._steady(2, good)))

    def idle(self, scrapes: int) -> Series:
        """None is fine where few are promised; elsewhere so many that two scrapes of a window are enough."""
        return self._counted(((0, scrapes - 1),) if self.rises else self._steady(8, scrapes - 1))

    def broken_off(self, before: int, gap: int, after: int) -> Series:
        (name, _), *_ = self.idle(2).items()
        first = self.idle(before)[name]
        return {name: f"{first} _x{gap} {self.idle(after)[name]}"}

    def strays(self) -> Iterator[Scene]:
        (by,) = selectors(value_of(self.target))
        for labels in strays(by):
            yield replace(self, labels=labels)

    @property
    def _each(self) -> float:
        """Events a scrape that are just what the limit says."""
        return self.target.limit * self.step

    @property
    def _full(self) -> float:
        """Events that fill a whole window in one scrape."""
        return self.target.limit * (self.target.window + self.step)

    def _steady(self, times: float, scrapes: int) -> Runs:
        return ((times * self._full, min(1, scrapes)), (times * self._each, scrapes - 1))

    def _counted(self, runs: Runs) -> Series:
        said = ",".join(f"{name}={quoted(text)}" for name, text in sorted(self.labels.items()))
        metric = selectors(value_of(self.target))[0].metric
        # Whole steps in twelve digits: what a person can read, and what adds up to the same everywhere.
        return {f"{metric}{{{said}}}": counter([(float(number(float(f"{step:.6g}"))), n) for step, n in runs])}
