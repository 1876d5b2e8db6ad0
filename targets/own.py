"""Targets that users write themselves: ``[targets.NAME]`` with a ``kind``. What each may say is in :data:`KINDS`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from . import settings
from .model import Direction, Formula, Indicator, Level, Mean, Monitor, Percentile, Target
from .reader import Table
from .units import Unit

COMMON: Final = (
    "kind", "title", "window", "for", "keep_firing_for", "silence", "services", "enabled", "at_most",
)  # fmt: skip
# What is asked of a target that says nothing: five minutes smooth what one minute of a quiet service would not.
DEFAULTS: Final = {"window": "5m", "for": "1m", "keep_firing_for": "1m", "floor": 20}


@dataclass(frozen=True, slots=True)
class Kind:
    """``keys``: those besides the common ones. ``least``: whether ``at_least`` makes sense."""

    keys: tuple[str, ...]
    least: bool = True


KINDS: Final = {
    "percentile": Kind(("metric", "percentile", "floor", "unit"), least=False),
    "mean": Kind(("metric", "floor", "unit"), least=False),
    "gauge": Kind(("metric", "unit")),
    "ratio": Kind(("good", "total", "floor")),
    "rate": Kind(("metric",)),
    "expression": Kind(("expr", "unit")),
}
UNITS: Final = tuple(str(unit) for unit in Unit if unit is not Unit.USERS)
# No backquote in it: messages ask for it between two of them.
MATCHER: Final = r'[a-zA-Z_]\w*\s*(?:=~|!~|!=|=)\s*"(?:[^"\\\n`]|\\[^`])*"'
SELECTOR: Final = re.compile(
    rf"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{{\s*({MATCHER}(?:\s*,\s*{MATCHER})*)?\s*,?\s*\}})?\s*"
)
SELECTOR_RULE: Final = 'must be a metric, as in jobs_waiting or jobs_waiting{queue="mail"}'
PERCENT: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*")


def names_of(tables: Table) -> tuple[str, ...]:
    """The targets among ``tables`` that say what kind they are."""
    found = (name for name, values in tables.values.items() if isinstance(values, dict) and "kind" in values)
    return tuple(name for name in found if name not in settings.KINDS)


def targets(tables: Table, services: tuple[str, ...], monitor: Monitor) -> Iterator[Target]:
    """Every target of the user's own, for each of its services. Mistakes are noted, and their target left out."""
    for name in names_of(tables):
        table = tables.table(name, defaults=DEFAULTS)
        if not settings.NAME.fullmatch(name):
            tables.problem(name, f"target name {name!r} is not allowed", settings.NAME_RULE)
        word = table.text("kind", default="")
        if word not in KINDS:
            near = difflib.get_close_matches(word, list(KINDS), 1)
            guess = f"did you mean {near[0]!r}? " if near else ""
            table.problem("kind", f"unknown kind {word!r} in [{table.place}]", f"{guess}allowed: {', '.join(KINDS)}")
            continue
        yield from _read(name, word, table, services, monitor)


def _read(name: str, word: str, table: Table, services: tuple[str, ...], monitor: Monitor) -> Iterator[Target]:
    kind = KINDS[word]
    table.allow((*COMMON, *(("at_least",) if kind.least else ()), *kind.keys))
    title = table.text("title", default=name.replace("_", " ").capitalize())
    if not title.strip() or len(title) > 80 or not title.isprintable() or "{{" in title:
        todo = "use up to 80 characters on one line, without {{"
        table.problem("title", f"title = {table.shown('title')} is no title", todo)
    window = table.window("window", monitor.scrape_interval)
    hold, keep = table.duration("for", zero=True), table.duration("keep_firing_for", zero=True)
    silence = table.duration("silence", default=settings.SILENCE)
    floor = table.integer("floor", least=0) if "floor" in kind.keys else 0
    chosen = table.names("services", among=services, kind="service") or services
    bounds = [key for key in ("at_most", "at_least") if key in table.values]
    if len(bounds) != 1:
        allowed = "at_most or at_least" if kind.least else "at_most"
        table.problem(bounds[-1] if bounds else "", f"[{table.place}] needs exactly one of {allowed}",
                      "say which side of which limit keeps the promise")  # fmt: skip
        return
    direction = Direction.BELOW if bounds[0] == "at_most" else Direction.ABOVE
    metric, match = _selector(table, "metric") if "metric" in kind.keys else ("", "")
    unit = Unit.PERCENT if word == "ratio" else Unit.NUMBER if word == "rate" else _unit(table, metric)
    limit = _limit(table, bounds[0], unit)
    indicator = _indicator(word, table, metric, match, direction)
    if table.boolean("enabled", default=True):
        for service in services:
            if service in chosen:
                yield Target(
                    service, name, title, unit, limit, direction, indicator, window, hold, keep, floor, silence
                )


def _indicator(word: str, table: Table, metric: str, match: str, direction: Direction) -> Indicator:
    if word in ("percentile", "mean") and (end := re.search(r"_(?:bucket|sum|count)\Z", metric)):
        table.problem("metric", f"metric = {table.shown('metric')} is a part of a histogram",
                      f"give its name without {end.group()}")  # fmt: skip
    match word:
        case "percentile":
            return Percentile(metric, table.number("percentile", least=1, most=99.99, default=95) / 100, match)
        case "mean":
            return Mean(metric, match)
        case "gauge":
            return Level(metric, match)
        case "rate":
            return Formula(metric, f"sum(rate({_series(metric, match)}[$window]))", "", "per second")
        case "ratio":
            (good, good_match), (total, total_match) = _selector(table, "good"), _selector(table, "total")
            all_ = _series(total, total_match)
            # No good event at all is a series that is not there, and a share of 0.
            share = f"(sum(rate({_series(good, good_match)}[$window])) or vector(0))\n/\nsum(rate({all_}[$window]))"
            return Formula(total, share, f"sum(increase({all_}[$window]))", "share")
    expr = table.text("expr", default="").strip()
    # One number: of several series the worst.
    whole = f"{'max' if direction is Direction.BELOW else 'min'}(\n{expr}\n)"
    if reason := _problem(whole) if expr else "it is empty":
        todo = 'write it as for Prometheus, as in sum(rate(jobs_total{service="$service"}[$window]))'
        table.problem("expr", f"expr in [{table.place}] gives no series that could be measured: {reason}", todo)
    return Formula("what its expression asks for", whole, "", "expression")


def _series(metric: str, match: str) -> str:
    return f'{metric}{{service="$service"{f",{match}" if match else ""}}}'


def _selector(table: Table, key: str) -> tuple[str, str]:
    """The metric's name and its matchers."""
    text = table.text(key, default="")
    found = SELECTOR.fullmatch(text) if len(text) <= 500 else None
    if found is None:
        table.problem(key, f"{key} = {table.shown(key)} in [{table.place}]: {SELECTOR_RULE}", "")
        return "", ""
    match = (found.group(2) or "").strip()
    if re.search(r"(?:\A|,)\s*service\s*[=!]", re.sub(r'"(?:[^"\\]|\\.)*"', "", match)):
        table.problem(key, f"{key} = {table.shown(key)} in [{table.place}] matches the label service",
                      "take it out: it is added by itself; services = [...] chooses which")  # fmt: skip
    return found.group(1), match


def _unit(table: Table, metric: str) -> Unit:
    word = table.one_of("unit", UNITS)
    if word:
        return Unit(word)
    return next((unit for unit in (Unit.SECONDS, Unit.BYTES) if metric.endswith(f"_{unit.value}")), Unit.NUMBER)


def _limit(table: Table, key: str, unit: Unit) -> float:
    value = table.values[key]
    if unit in (Unit.SECONDS, Unit.BYTES):
        return table.quantity(key, unit)
    if unit is Unit.PERCENT:
        found = PERCENT.fullmatch(value) if isinstance(value, str) else None
        if found and 0 < float(found.group(1)) <= 100:
            return float(f"{float(found.group(1)) / 100:.12g}")
        table.problem(key, f'{key} = {table.shown(key)} in [{table.place}]: must be a share, as in "99.5%"', "")
        return 1.0
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e15:
        return float(value)
    table.problem(key, f"{key} = {table.shown(key)} in [{table.place}]: must be a number more than 0", "")
    return 1.0


def _problem(expr: str) -> str:
    """Why ``expr`` cannot be parsed. Inside a watched server, which has no parser, it is taken as it is."""
    try:
        import promql_parser
    except ImportError:
        return ""
    try:
        promql_parser.parse(expr.replace("$service", "app").replace("$window", "5m"))
    except Exception as error:  # noqa: BLE001  the parser's own edge: whatever it says becomes a problem with a line
        return " ".join(str(error).split())
    return ""
