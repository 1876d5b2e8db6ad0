"""What a service would say while a target is missed, kept or silent: the made-up series of the rules' tests.

The numbers are chosen so that every expected value is exact in floating point, whoever computes it: traffic that is
missed lies wholly past a histogram's last edge (the quantile is then that edge), means are powers of two, and traffic
that is good again outweighs all that went before, so that a miss ends with the first good scrape.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from anvil_monitor.exporter import names
from anvil_monitor.targets import Capacity, Direction, Formula, Level, Mean, Percentile, Target

from .ruleparts import number, quoted
from .rules_missed import ENDS_SHARE, ENDS_VALUE, ends_at
from .selectors import selector, strays

STOCK_EDGES: Final = {
    names.HTTP_DURATION.name: names.SECONDS_EDGES,
    names.DB_DURATION.name: names.DATABASE_EDGES,
    names.PAGE_LOAD.name: names.PAGE_LOAD_EDGES,
}

NO_SCENE: Final = "a formula has scenes of its own"

FEW: Final = 15
"""Samples in a window of which one is more than the margin."""

Runs = Sequence[tuple[float, int]]
Series = dict[str, str]


def gauge(runs: Runs) -> str:
    """promtool's notation of ``n`` samples of ``value`` for every (value, n)."""
    return " ".join(f"{number(value)}+0x{n - 1}" for value, n in runs if n > 0)


def counter(runs: Runs) -> str:
    """0, then ``n`` samples that grow by ``step`` for every (step, n)."""
    text, at = ["0"], 0.0
    for step, n in runs:
        if n > 0:
            text.append(f"{number(at + step)}+{number(step)}x{n - 1}")
            at += step * n
    return " ".join(text)


@dataclass(frozen=True, slots=True)
class Scene:
    """The series of one target, scraped every ``step`` seconds. ``targets`` are all of its service.

    ``labels``: what its series are called besides ``service``, so that the matchers of a user's target take them; with
    ``service`` among them, they are another's.
    """

    target: Target
    targets: tuple[Target, ...]
    step: float
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def rises(self) -> bool:
        """Whether more than the limit is a miss."""
        return self.target.direction is Direction.BELOW or isinstance(self.target.indicator, Capacity)

    @property
    def sharp(self) -> bool:
        """Whether a miss ends just when good scrapes come, to the scrape; else once the window has forgotten it."""
        return True

    @property
    def window(self) -> int:
        """How many samples a window can hold (it is closed at both ends in Prometheus 2)."""
        return round(self.target.window / self.step) + 1

    @property
    def rest(self) -> Scene:
        """The scene of the target that a capacity is counted against."""
        assert isinstance(self.target.indicator, Capacity)
        other = next(each for each in self.targets if each.name == self.target.indicator.while_holds)
        return Scene(other, self.targets, self.step)

    @property
    def traffic(self) -> int:
        """Requests a scrape that are enough by far: a power of two."""
        return int(2 ** math.ceil(math.log2(max(64, 2 * self.target.floor))))

    @property
    def starts(self) -> float:
        """When the first value is there: a rate needs two scrapes, a gauge one."""
        return 0.0 if isinstance(self.target.indicator, Level) else self.step

    @property
    def is_silent(self) -> bool:
        """Whether :meth:`idle` measures nothing at all (NaN)."""
        return not isinstance(self.target.indicator, Level | Capacity)

    @property
    def bad_ratio(self) -> float:
        """What ``target:ratio`` is then; over 1."""
        if isinstance(self.target.indicator, Capacity):
            return self.rest.bad_ratio
        if self.rises:
            return self.bad_value / self.target.limit
        return self.target.limit / self.bad_value if self.bad_value else math.inf

    @property
    def bad_value(self) -> float:
        """What is measured while :meth:`missed` is bad."""
        limit = self.target.limit
        match self.target.indicator:
            case Percentile():
                return float(f"{limit * 1.5:.6g}")
            case Mean():
                return float(2.0 ** math.ceil(math.log2(limit * 1.05)))
            case Level():
                if self.rises and limit % 1 == 0 and limit >= 4 * self.window:
                    return limit + math.ceil(limit / (4 * self.window))
                return self._near(over=self.rises)
            case Capacity():
                return float(limit // 5)
            case Formula():
                raise ValueError(NO_SCENE)
            case other:
                assert_never(other)

    @property
    def lingers(self) -> int:
        """Good scrapes of :meth:`missed` that pass before the value is below the limit by the margin."""
        if isinstance(self.target.indicator, Capacity):
            return self.rest.lingers
        if not isinstance(self.target.indicator, Level) or self._well:
            return 0
        # The window's mean falls by a sample at a time; one sample less in Prometheus 3 makes no difference to this.
        kept = 1 - ENDS_VALUE * self.target.limit / self.bad_value
        return math.floor(self.window * kept)

    def missed(self, bad: int, good: int) -> Series:
        """``bad`` scrapes over the limit (the first at 0), then ``good`` scrapes that end the miss at once."""
        value = self.bad_value
        match self.target.indicator:
            case Percentile(metric, quantile):
                outweigh = 2 ** math.ceil(math.log2(2 * self.window / (1 - quantile)))
                below, over = self.traffic * outweigh, self.traffic
                edges = {number(self.target.limit): 0, number(value): 0, "+Inf": over}
                return self._histogram(metric, {le: ((n, bad - 1), (below, good)) for le, n in edges.items()})
            case Mean(metric):
                outweigh = 2 ** math.ceil(math.log2(4 * self.window))
                counts = ((self.traffic, bad - 1), (self.traffic * outweigh, good))
                sums = ((self.traffic * value, bad - 1), (self.traffic * outweigh * value / 8, good))
                return {
                    self._name(f"{metric}_sum"): counter(sums),
                    self._name(f"{metric}_count"): counter(counts),
                }
            case Level(metric):
                return {self._name(metric): gauge(((value, bad), (self._well, good)))}
            case Capacity(metric):
                return {self._name(metric): gauge(((value, bad + good),))} | self.rest.missed(bad, good)
            case Formula():
                raise ValueError(NO_SCENE)
            case other:
                assert_never(other)

    def kept(self, scrapes: int) -> Series:
        """The limit kept, only just: the value that a careless rule would call a miss."""
        limit = self.target.limit
        match self.target.indicator:
            case Percentile(metric):
                stock = (*STOCK_EDGES.get(metric, ()), limit)
                edges = {number(edge): self.traffic if edge >= limit else 0 for edge in sorted(set(stock))}
                edges["+Inf"] = self.traffic
                return self._histogram(metric, {le: ((n, scrapes - 1),) for le, n in edges.items()})
            case Mean(metric):
                mean = 2.0 ** math.floor(math.log2(limit))
                sums, counts = ((self.traffic * mean, scrapes - 1),), ((self.traffic, scrapes - 1),)
                return {
                    self._name(f"{metric}_sum"): counter(sums),
                    self._name(f"{metric}_count"): counter(counts),
                }
            case Level(metric):
                if not self.rises or limit % 1:
                    return {self._name(metric): gauge(((self._near(over=not self.rises), scrapes),))}
                # Exactly the limit is no miss, and neither is a spike that the window's mean outweighs.
                spikes = [(limit // 2, self.window - 1), (limit * 1.25, 1)] * (scrapes // (2 * self.window) + 1)
                return {self._name(metric): gauge(((limit, scrapes // 2), *spikes))}
            case Capacity(metric):
                # Enough users are on: what is broken then is the other target, not this one.
                return {self._name(metric): gauge(((limit, scrapes),))} | self.rest.missed(scrapes, 0)
            case Formula():
                raise ValueError(NO_SCENE)
            case other:
                assert_never(other)

    def sparse(self, scrapes: int) -> Series:
        """All of it over the limit, something in every window (so that without a floor it would be told), but only
        four samples in all; a window has ``window - 1`` steps in Prometheus 2, one less in 3."""
        apart = self.window - 2
        bursts = min(4, scrapes // apart)
        return self._slow([(1, 1), (0, apart - 1)] * bursts + [(0, scrapes)])

    def outage(self, scrapes: int, after: int) -> Series:
        """One sample over the limit every ``apart`` scrapes, ``scrapes`` long, then nothing for ``after`` scrapes."""
        return self._slow([(0, self.apart - 1), (1, 1)] * (scrapes // self.apart) + [(0, after)])

    def few(self, slow: int, fast: int, after: int) -> Series:
        """Of a percentile: ``slow`` samples over the limit, then ``fast`` within it, each ``apart`` scrapes later."""
        assert isinstance(self.target.indicator, Percentile)
        one = [(0, self.apart - 1), (1, 1)]
        within = [(0, slow * self.apart), *(one * fast), (0, after)]
        total = [*(one * (slow + fast)), (0, after)]
        edges = {number(self.target.limit): within, number(self.bad_value): within, "+Inf": total}
        return self._histogram(self.target.indicator.metric, edges)

    @property
    def apart(self) -> int:
        """Scrapes from one sample to the next with fewer in a window than the floor."""
        return (self.window - 1) // max(1, self.target.floor - 1) + 1

    def _slow(self, runs: Runs) -> Series:
        none = [(0.0, sum(n for _, n in runs))]
        match self.target.indicator:
            case Percentile(metric):
                edges = {number(self.target.limit): none, number(self.bad_value): none, "+Inf": runs}
                return self._histogram(metric, edges)
            case Mean(metric):
                sums = [(n * self.bad_value, times) for n, times in runs]
                buckets = self._histogram(metric, {number(self.target.limit): none, "+Inf": runs})
                return {self._name(f"{metric}_sum"): counter(sums)} | buckets
            case Capacity(metric):
                total = sum(n for _, n in runs)
                return {self._name(metric): gauge(((self.bad_value, total),))} | self.rest._slow(runs)
            case Level():
                return {}
            case Formula():
                raise ValueError(NO_SCENE)
            case other:
                assert_never(other)

    def hovering(self, bad: int, near: int, good: int) -> Series:
        """``bad`` scrapes over the limit, ``near`` just within it but not by the margin, ``good`` well within it.

        What follows is so much more than what was before that the window is of it alone; ``bad`` may be 0.
        """
        limit = self.target.limit
        match self.target.indicator:
            case Percentile(metric, quantile):
                much = self.traffic * 2 ** math.ceil(math.log2(40 * self.window / (1 - quantile)))
                shares = ((1.0, self.traffic, bad), ((1 + ENDS_SHARE) / 2 * (1 - quantile), much, near),
                          (0.1 * (1 - quantile), 64 * much, good))  # fmt: skip
                below = tuple((n - round(share * n), times) for share, n, times in shares)
                total = tuple((n, times) for _, n, times in shares)
                edges = {number(limit): below, number(self.bad_value): below, "+Inf": total}
                return self._histogram(metric, edges)
            case Mean(metric):
                much = self.traffic * 2 ** math.ceil(math.log2(80 * self.window))
                means = ((self.bad_value, self.traffic, bad), ((1 + ENDS_VALUE) / 2 * limit, much, near),
                         (limit / 8, 64 * much, good))  # fmt: skip
                sums = tuple((mean * n, times) for mean, n, times in means)
                counts = tuple((n, times) for _, n, times in means)
                return {self._name(f"{metric}_sum"): counter(sums), self._name(f"{metric}_count"): counter(counts)}
            case Level(metric):
                if limit == ends_at(self.target):
                    return {}
                within = (limit + ends_at(self.target)) / 2
                return {self._name(metric): gauge(((self.bad_value, bad), (within, near), (self._well, good)))}
            case Capacity():
                return {}
            case Formula():
                raise ValueError(NO_SCENE)
            case other:
                assert_never(other)

    def routes(self, scrapes: int, within: Mapping[str, int], labels: tuple[str, ...]) -> Series:
        """By the value of ``labels`` how many samples a scrape are within the limit; seven times as many are over."""
        metric = self.target.indicator.metric
        series: Series = {}
        for value, each in within.items():
            of = replace(self, labels={**dict.fromkeys(labels, value), **self.labels})
            fast, all_ = ((each, scrapes),), ((8 * each, scrapes),)
            for le, runs in ((number(self.target.limit), fast), (number(self.bad_value), fast), ("+Inf", all_)):
                series[of._name(f"{metric}_bucket", f",le={quoted(le)}")] = counter(runs)
            series[of._name(f"{metric}_count")] = counter(all_)
            series[of._name(f"{metric}_sum")] = counter(((8 * each * self.bad_value, scrapes),))
        return series

    def idle(self, scrapes: int) -> Series:
        """The instrument is there and counts nothing (a gauge: stands well within its limit)."""
        match self.target.indicator:
            case Percentile(metric):
                flat = ((0, scrapes - 1),)
                return self._histogram(metric, {number(self.target.limit): flat, "+Inf": flat})
            case Mean(metric):
                still = gauge(((0, scrapes),))
                return {self._name(f"{metric}_sum"): still, self._name(f"{metric}_count"): still}
            case Level(metric):
                level = self.target.limit // 2 if self.rises else 2 * self.target.limit
                return {self._name(metric): gauge(((level, scrapes),))}
            case Capacity(metric):
                return {self._name(metric): gauge(((0, scrapes),))} | self.rest.idle(scrapes)
            case Formula():
                raise ValueError(NO_SCENE)
            case other:
                assert_never(other)

    def well(self, scrapes: int) -> Series:
        """The target kept, by far, with traffic where it has any."""
        good = self.hovering(0, 0, scrapes)
        return good or self.idle(scrapes)

    def strays(self) -> Iterator[Scene]:
        """The same of what the target's matchers leave out, one matcher at a time, and of another service."""
        if self.labels or isinstance(self.target.indicator, Percentile | Mean | Level):
            by = selector(self.target.indicator.metric, getattr(self.target.indicator, "match", ""))
            for labels in strays(by):
                yield replace(self, labels=labels)
            yield replace(self, labels={**self.labels, "service": f"not-{self.target.service}"})

    def broken_off(self, before: int, gap: int, after: int) -> Series:
        """As :meth:`idle`, but its own series say nothing for ``gap`` scrapes."""
        others = self.rest.idle(1) if isinstance(self.target.indicator, Capacity) else {}
        return {
            name: _with_gap(text, before, gap, after)
            for name, text in self.idle(before + gap + after).items()
            if name not in others
        }

    @property
    def _well(self) -> float:
        """Of a level: a sample that brings the mean of the whole window back, at once in a window of many; of few zero
        does."""
        much = self.window * self.target.limit
        return much if not self.rises else 0 if self.window < FEW else -much

    def _near(self, *, over: bool) -> float:
        """What is over (or under) the limit by a hair, and exact in floating point however it is averaged."""
        grain = 2.0 ** math.floor(math.log2(self.target.limit / (4 * self.window)))
        number = self.target.limit / grain
        return grain * (math.floor(number) + 1 if over else math.ceil(number) - 1)

    def _histogram(self, metric: str, buckets: Mapping[str, Runs]) -> Series:
        series = {self._name(f"{metric}_bucket", f",le={quoted(le)}"): counter(runs) for le, runs in buckets.items()}
        return series | {self._name(f"{metric}_count"): counter(buckets["+Inf"])}

    def _name(self, metric: str, more: str = "") -> str:
        labels = {"service": self.target.service, **self.labels}
        said = ",".join(f"{name}={quoted(text)}" for name, text in labels.items())
        return f"{metric}{{{said}{more}}}"


def _with_gap(text: str, before: int, gap: int, after: int) -> str:
    """A flat series (``0 0+0x9`` or ``v+0x9``) that says nothing for ``gap`` scrapes."""
    value = text.split()[-1].partition("+")[0]
    return f"{value}+0x{before - 1} _x{gap} {value}+0x{after - 1}"
