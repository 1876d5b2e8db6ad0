"""Drift: away from its own past before the promise is broken. Targets in, rules out, as in :mod:`.rules`.

Every target becomes one series a minute, ``drift:signal``, and everything after it is the same for all of them:
``drift:level`` (means of 30 minutes and of 2 hours; memory: of 10 minutes and an hour) against ``drift:hi`` and
``drift:lo`` (the most tolerant of yesterday, last week and the habit of this hour; memory: its own maximum of 12 to 72
hours ago) gives ``drift:excess``;
``drift:noise`` is how far the series has strayed before without anybody minding, lagged by 6 hours, and at least what
matters; ``drift:score`` is the excess in thresholds (over 1 = away). For people there are ``target:baseline``,
``target:upper`` and ``target:lower`` (where the warning begins) and ``target:compliance_30d``.

The rules, and each constant that is not explained here, come from a study on labelled series and on made-up drifts
whose truth is known: docs/drift.md says what it found. All of it is as old as the history: nothing is recorded, and
nothing said, before there is enough.

Windows that only ask "is enough there?" are subqueries: they hold for whatever the distance of evaluations is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from anvil_monitor.exporter import names
from anvil_monitor.targets import Configuration, Service, Target

from . import driftalerts
from .driftkinds import BOTH, DOWN, MEMORY, SHARE, TRAFFIC, UP, kind, side
from .rulefile import Group, Recording, Rule
from .ruleparts import LIMIT, RATIO, VALUE, Links, number, quoted, target_labels
from .rules_values import value_of

BASELINE: Final = "target:baseline"
UPPER: Final = "target:upper"
LOWER: Final = "target:lower"
COMPLIANCE: Final = "target:compliance_30d"

EVERY: Final = 60.0
"""Seconds between levels; noise and daily means, which move slowly, come every ``RARELY`` seconds."""
RARELY: Final = 300.0
SMOOTHED: Final = 300.0
"""Seconds that one value of the signal looks back over, at least: the p95 of one minute of little traffic is noise."""

THRESHOLDS: Final = {"fast": 1.7, "slow": 1.6}
"""How many times the noise is a drift, for the means of 30 minutes and of 2 hours."""
USUAL_WORST: Final = 1.5
"""The noise is at least so many times what is exceeded in one hour of ten."""
KNOWN: Final = 168
"""Hours of history, of at most 336, from which on the noise is taken as it is: with fewer it is more, up to 1.6 times.
Without that half of all false alarms come in the first days of warnings."""
WINDOWS: Final = {"fast": ("30m", 3), "slow": ("2h", 12)}
"""What a level is the mean of, and how many of its values (one in 5 minutes) must be there."""
TROUGHS: Final = {"fast": ("10m", 1), "slow": ("1h", 6)}
"""The same of memory, whose signal is smooth already: the least of 20 minutes, with all of them there."""
MATTERS: Final = {MEMORY: 0.035}
MATTERS_ELSE: Final = 0.1
"""The least noise, as a share both of the usual level and of the way from there to the limit. Below the first nobody
acts; the second keeps a server quiet that went from 5 ms to 10 ms of the 200 ms that it may take. A leak goes on, so
a third of it will do."""


def drift_groups(configuration: Configuration, links: Links | None = None) -> tuple[Group, ...]:
    """Three groups a service, a file of their own: they look back over weeks, and their tests over hours.

    ``links``: where messages lead; by default the monitor's own page.
    """
    where = links or Links.to_page(configuration.monitor)
    every = max(EVERY, configuration.monitor.evaluation_interval)
    rarely = max(RARELY, every)
    found: list[Group] = []
    for service in configuration.services:
        targets = configuration.targets_of(service.name)
        if targets:
            scribe = _Scribe(service, targets)
            told: tuple[Rule, ...] = (*scribe.own(scribe.scores()), *driftalerts.alerts(targets, where))
            found += [
                Group(f"drift level of {service.name}", every, scribe.own(scribe.signals(), scribe.levels())),
                Group(f"drift noise of {service.name}", rarely, scribe.own(scribe.noise())),
                Group(f"drift alert of {service.name}", every, told),
            ]
    return tuple(found)


class _Scribe:
    """Writes the recorded series of one service; a branch is written only where a target needs it."""

    def __init__(self, service: Service, targets: tuple[Target, ...]) -> None:
        self.targets, self.name = targets, service.name
        self.service = f"service={quoted(service.name)}"
        self.kinds = {kind(target) for target in targets}
        self.sides = {side(target) for target in targets if kind(target) != MEMORY}

    def own(self, *some: Iterable[Recording]) -> tuple[Recording, ...]:
        """With the service's name, which all results have: without it two services would seem to record the same."""
        return tuple(replace(each, labels={"service": self.name, **each.labels}) for rules in some for each in rules)

    def all(self, series: str, more: str = "") -> str:
        return f"{series}{{{self.service}{',' if more else ''}{more}}}"

    def signals(self) -> Iterable[Recording]:
        """One series a target, one value a minute; nothing where there is no traffic."""
        for target in self.targets:
            labels = target_labels(target) | {"class": kind(target), "side": side(target)}
            smooth = replace(target, window=max(SMOOTHED, target.window))
            expr = f"(\n{value_of(smooth)}\n) > -Inf"  # NaN is not over anything
            if kind(target) == MEMORY:
                # The trough between collections; after a gap a half-filled minimum would jump up.
                own = self.all(VALUE, f"target={quoted(target.name)}")
                expr = f"min_over_time({own}[20m])\nand\ncount_over_time({own}[20m:5m]) >= 4"
            yield Recording("drift:signal", expr, labels)

    def levels(self) -> Iterable[Recording]:
        """Means, what they are held against, and by how much they are over (or under) it."""
        seasonal = self.all("drift:signal", 'class!="memory"')
        kinds = [(seasonal, WINDOWS)] if self.sides else []
        if MEMORY in self.kinds:
            kinds.append((self.all("drift:signal", 'class="memory"'), TROUGHS))
        for rule in THRESHOLDS:
            parts = []
            for signal, windows in kinds:
                long, least = windows[rule]
                parts.append(f"avg_over_time({signal}[{long}])\nand\ncount_over_time({signal}[{long}:5m]) >= {least}")
            yield Recording("drift:level", "\nor\n".join(parts), {"rule": rule})
        if self.sides:
            yield Recording("drift:ref", f"avg_over_time({seasonal}[1h] offset 23h30m)", {"ref": "yesterday"})
            yield Recording("drift:ref", f"avg_over_time({seasonal}[1h] offset 167h30m)", {"ref": "lastweek"})
            yesterday, habit = (self.all("drift:ref", f'ref="{ref}"') for ref in ("yesterday", "habit"))
            yield Recording(
                "drift:ref",  # this time of day, smoothed once a day; reads itself
                f"0.3 * {yesterday} + ignoring (ref) 0.7 * ({habit} offset 1d)\n"
                f"or ignoring (ref) {yesterday}\nor ignoring (ref) ({habit} offset 1d)",
                {"ref": "habit"},
            )
            yield Recording("drift:hi", f"max without (ref) ({self.all('drift:ref')})")
            yield Recording("drift:lo", f"min without (ref) ({self.all('drift:ref')})")
        yield Recording("drift:excess", "\nor\n".join(self._excess()))
        yield Recording("drift:excess:max1h", f"max_over_time({self.all('drift:excess')}[1h])")
        if MEMORY in self.kinds:
            memory = self.all("drift:level", 'class="memory"')
            yield Recording("drift:level:max1h", f"max_over_time({memory}[1h])")
            # From a slope only after the warm-up, and only with four fifths of it there.
            trough = self.all("drift:signal", 'class="memory"')
            uptime = self.all(names.PROCESS_UPTIME.name)
            yield Recording(
                "drift:ahead",
                f"predict_linear({trough}[6h:5m], 86400)\nand\ncount_over_time({trough}[6h:5m]) >= 58\n"
                f"and on (service)\n(min by (service) ({uptime}) > {7 * 3600})",
            )

    def _excess(self) -> Iterable[str]:
        """By how much the level is past the most tolerant of what it is held against; 0 within."""
        for way in (UP, DOWN, BOTH):
            if way not in self.sides:
                continue
            level = self.all("drift:level", f'class!="memory",side="{way}"')
            over = f"{level} - ignoring (rule) group_left {self.all('drift:hi')}"
            under = f"{level} - ignoring (rule) group_left {self.all('drift:lo')}"
            if way == UP:
                yield f"clamp_min({over}, 0)"
            elif way == DOWN:
                yield f"clamp_min(-({under}), 0)"
            else:
                yield f"({over}) > 0\nor\n-({under}) > 0\nor\n0 * ({over})"
        if MEMORY in self.kinds:
            level, most = self.all("drift:level", 'class="memory"'), f"last_over_time({self.all('drift:most')}[15m])"
            yield f"clamp_min({level} - {most}, 0)"

    def noise(self) -> Iterable[Recording]:
        """How far each level has strayed: by its worst hours, and at least by what matters."""
        if MEMORY in self.kinds:
            hourly = self.all("drift:level:max1h", 'class="memory"')
            yield Recording("drift:most", f"max_over_time({hourly}[60h:1h] offset 12h)")
        worst, part = self.all("drift:excess:max1h"), "drift:noise:part"
        fortnight = f"{worst}[14d:1h]"
        yield Recording(
            part,
            f"quantile_over_time(0.98, {fortnight})\nand\ncount_over_time({fortnight}) >= 72",
            {"part": "q98"},
        )
        yield Recording(part, f"{number(USUAL_WORST)} * quantile_over_time(0.9, {fortnight})", {"part": "q90"})
        first, before = (self.all(part, f'part="{each}"') for each in ("q98", "long"))
        before = f"last_over_time({before}[3h] offset 1h)"
        yield Recording(
            part,  # per hour up by at most 10 %, down by 0.1 %: months of memory; reads itself
            f"({worst} < ignoring (part) (1.1 * {before}))\n> ignoring (part)\n(0.999 * {before})\n"
            f"or ignoring (part)\n"
            f"(1.1 * {before} and ignoring (part) ({worst} >= ignoring (part) (1.1 * {before})))\n"
            f"or ignoring (part)\n0.999 * {before}\nor ignoring (part)\n{first}",
            {"part": "long"},
        )
        yield Recording("drift:usual", f"avg_over_time({self.all('drift:level')}[1d:15m])")
        yield Recording(part, "\nor\n".join(self._shares("")), {"part": "floor"})
        limit = f"on (service, target) group_left {self.all(LIMIT)}"
        yield Recording(part, "\nor\n".join(self._shares(f" - {limit}")), {"part": "room"})
        young = f"clamp_min(2 - count_over_time({fortnight}) / {KNOWN}, 1)"
        yield Recording("drift:noise", f"max without (part) ({self.all(part)}) * {young}\nand ignoring (part)\n{first}")
        yield from self._days()
        # Without traffic there is no ratio, or NaN: such minutes neither keep the promise nor break it.
        kept = f"(({self.all(RATIO)} >= 0) <= bool 1)[1h:1m]"
        yield Recording("drift:kept", f"avg_over_time({kept})")
        yield Recording(COMPLIANCE, f"avg_over_time({self.all('drift:kept')}[30d:1h])")

    def _shares(self, less: str) -> Iterable[str]:
        """What matters, as a share of the usual level less something; of a share near the whole, of the rest."""
        special = [each for each in (MEMORY, SHARE) if each in self.kinds]
        if self.kinds - {MEMORY, SHARE}:
            others = f'class!="{MEMORY}"' if SHARE not in self.kinds else f'class!~"{MEMORY}|{SHARE}"'
            yield f"{number(MATTERS_ELSE)} * abs({self.all('drift:usual', others)}{less})"
        for each in special:
            usual = self.all("drift:usual", f'class="{each}"')
            of = f"1 - {usual}" if each == SHARE and not less else f"{usual}{less}"
            yield f"{number(MATTERS.get(each, MATTERS_ELSE))} * abs({of})"

    def _days(self) -> Iterable[Recording]:
        """Daily means, which have no season of the day, and what they are to those of a week ago."""
        if not self.sides:
            return
        seasonal = self.all("drift:signal", 'class!="memory"')
        yield Recording(
            "drift:day", f"avg_over_time({seasonal}[1d:15m])\nand\ncount_over_time({seasonal}[1d:15m]) >= 86"
        )
        limit = f"on (service, target) group_left {self.all(LIMIT)}"
        creeps = []
        for down, matcher in self._ways():
            day = self.all("drift:day", matcher)
            ago = f"({day} offset 7d)"
            more, less = (ago, day) if down else (day, ago)
            times = f"{more} / {less}"
            if down and SHARE in self.kinds:  # times the failures of a week ago
                share = self.all("drift:day", f'class="{SHARE}"')
                times = f"((1 - {share}) / (1 - ({share} offset 7d)) or {times})"
            creeps.append(f"{times}\nand\n({more} - {less} > {number(MATTERS_ELSE)} * abs({ago} - {limit}))")
        yield Recording("drift:creep", "\nor\n".join(creeps))

    def scores(self) -> Iterable[Recording]:
        """Excess in thresholds, and what people see of it."""
        # Lagged: a ramp must not become its own yardstick.
        noise = ((self.all("drift:noise", f'rule="{rule}"'), times) for rule, times in THRESHOLDS.items())
        lagged = (f"{number(times)} * last_over_time({each}[3h] offset 6h)" for each, times in noise)
        yield Recording("drift:margin", "\nor\n".join(lagged))
        margin = self.all("drift:margin")
        score = f"{self.all('drift:excess')} / {margin}"
        if TRAFFIC in self.kinds:  # the first weekend would be a drift without a weekend before it
            plain, traffic = (self.all("drift:excess", f'class{way}"traffic"') for way in ("!=", "="))
            week = self.all("drift:ref", 'ref="lastweek"')
            score = f"{plain} / {margin}\nor\n({traffic} / {margin} and ignoring (rule, ref) {week})"
        yield Recording("drift:score", score)
        yield Recording(BASELINE, "\nor\n".join(self._baseline()))
        widest = f"on (service, target) max by (service, target) ({self.all('drift:margin')})"
        downs = "|".join(target.name for target in self.targets if side(target) == DOWN)
        if len(self.sides - {DOWN}) + len(self.kinds & {MEMORY}):
            rising = self.all(BASELINE, f"target!~{quoted(downs)}" if downs else "")
            yield Recording(UPPER, f"{rising} + {widest}")
        if self.sides - {UP}:
            lowest = self.all("drift:lo", 'side!="up"')
            yield Recording(LOWER, f"max by (service, target, unit) ({lowest}) - {widest}")

    def _baseline(self) -> Iterable[str]:
        """One series a target: what its level is held against."""
        for down, matcher in self._ways():
            yield f"max by (service, target, unit) ({self.all('drift:lo' if down else 'drift:hi', matcher)})"
        if MEMORY in self.kinds:
            yield f"max by (service, target, unit) (last_over_time({self.all('drift:most')}[15m]))"

    def _ways(self) -> Iterable[tuple[bool, str]]:
        """Whether down is a drift, and which series that concerns; memory is not among them."""
        if self.sides - {DOWN}:
            yield False, 'side!="down"'
        if DOWN in self.sides:
            yield True, 'side="down"'
