"""``anvil-monitor backtest``: rules on recorded history, before they are switched on."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from anvil_monitor.alerts import rulefile
from anvil_monitor.alerts.rulefile import Group
from anvil_monitor.alerts.rules import rule_groups
from anvil_monitor.targets import Configuration, format_duration

from .asking import Command, Load, add_remote, aligned, connect, duration, series_text, wrong
from .backtest import NoHistoryError, Result, run
from .backtestdata import Source, TooMuchError
from .backtestlife import Firing, Outcome

EXAMPLES: Final = """\
  anvil-monitor backtest                             our own rules and yours, over the last 7 days
  anvil-monitor backtest --since 2d --rules new.yml  only the alerts of this file
  anvil-monitor backtest --config changed.toml       would 150 ms have been a limit to be woken up for?
  anvil-monitor backtest --url http://127.0.0.1:9090 --json
exit status: 0 done, 1 nothing is recorded or nobody answers, 2 the rules or the options are wrong"""
# Times shown of an alert, the newest.
SHOWN: Final = 3

Progress = tuple[Callable[[int], object], Callable[[int], object]]


def add(command: Command, config: Callable[[argparse.ArgumentParser], None], load: Load) -> None:
    """Add the command. ``load`` gives the configuration that the options name."""
    sub = command(
        "backtest",
        lambda options: _backtest(options, load),
        "say how often each alert rule would have fired on recorded history",
        EXAMPLES,
    )
    config(sub)
    sub.add_argument("--since", default="7d", metavar="DURATION", help="how far back (default: 7d, or all there is)")
    sub.add_argument(
        "--rules", nargs="+", type=Path, metavar="FILE", help="rule files (default: ours, and those of [monitor] rules)"
    )
    sub.add_argument("--json", action="store_true", help="every time that every alert would have fired")
    add_remote(sub)


def _backtest(options: argparse.Namespace, load: Load) -> int:
    from .remote import RemoteError

    end = time.time()
    start = end - duration("--since", options.since)
    groups = _groups(load(options), options.rules)
    try:
        with connect(options, load) as remote, _progress() as (total, progress):
            result = run(groups, Source(remote), start, end, total=total, progress=progress)
            url = remote.url
    except RemoteError as error:
        print(error, file=sys.stderr)
        return 2 if error.wrong else 1
    except TooMuchError as error:
        raise wrong(str(error)) from None
    except NoHistoryError:
        print(f"nothing is recorded of the last {options.since}; is it the right monitor (--url)?", file=sys.stderr)
        return 1
    print(json.dumps(as_json(result), ensure_ascii=False) if options.json else "\n".join(report(result, url, start)))
    return 0


def _groups(configuration: Configuration, files: Sequence[Path] | None) -> list[Group]:
    from . import userrules
    from .embedded import RULE_FILE
    from .rulecommands import read

    if files:
        interval = configuration.monitor.evaluation_interval
        groups = [group for path in files for group in read(path, interval)]
    else:
        own = rulefile.load(rulefile.dump(rule_groups(configuration)), RULE_FILE)
        groups = [*own, *userrules.load(configuration)]
    if not any(isinstance(rule, rulefile.Alerting) for group in groups for rule in group.rules):
        raise wrong("there is no alert rule in these files", "a rule with alert: … is one")
    return groups


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """What is told how many instants there are, and of each that is done: a bar on a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda count: None, lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("playing the rules"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda count: bar.update(task, total=count), lambda count: bar.advance(task, count)


def as_json(result: Result) -> dict[str, Any]:
    """Everything, with Unix seconds."""
    return {
        "start": result.start,
        "end": result.end,
        "withoutHistory": result.gap,
        "alerts": [
            {
                "alert": each.rule.alert,
                "group": each.group,
                "labels": dict(each.rule.labels),
                "for": each.rule.hold,
                "fired": len(each.firings),
                "longest": longest(each, result),
                "overBeforeItsFor": each.short,
                "missing": list(each.missing),
                "problem": each.problem,
                "firings": [
                    {"labels": dict(one.labels), "since": one.since, "fired": one.fired, "ended": one.ended}
                    for one in each.firings
                ],
            }
            for each in result.outcomes
        ],
    }


def longest(outcome: Outcome, result: Result) -> float:
    """Seconds of the longest time that one label set fired."""
    return max((_lasted(one, result) for one in outcome.firings), default=0.0)


def report(result: Result, url: str, asked: float) -> list[str]:
    """What a person reads."""
    span = format_duration(round(result.end - result.start))
    lines = [f"{len(result.outcomes)} alert rules over the last {span} of {url}"]
    if result.start > asked + 60:
        lines.append(f"(history begins at {_moment(result.start)})")
    if result.gap:
        lines.append(f"(nobody collected for {format_duration(round(result.gap))} of it: left out)")
    told = [each for each in result.outcomes if each.firings and not each.problem]
    told.sort(key=lambda each: -len(each.firings))
    if told:
        rows = [["alert", "would have fired", "longest", "in all", "too short", "last at"]]
        for each in told:
            rows += _rows(each, result)
        lines += ["", *(line.rstrip() for line in aligned(rows))]
        if any(each.short for each in told):
            lines.append("(too short: it was over before its for)")
    quiet = [each for each in result.outcomes if not each.firings and not each.problem]
    known = [each for each in quiet if not each.missing]
    if known:
        lines += ["", "would not have fired:", *(f"  {name(each)}{_short(each)}" for each in known)]
    blind = [each for each in result.outcomes if each.problem or (each.missing and not each.firings)]
    if blind:
        lines += ["", "nothing can be said:"]
        lines += [f"  {name(each)}: {each.problem or _missing(each)}" for each in blind]
    return lines


def name(outcome: Outcome) -> str:
    """The alert with the labels of its rule that tell it from others of its name."""
    labels = {key: value for key, value in outcome.rule.labels.items() if key not in ("severity", "unit")}
    return series_text({"__name__": outcome.rule.alert, **labels})


def _rows(outcome: Outcome, result: Result) -> list[list[str]]:
    count, last = len(outcome.firings), outcome.firings[-1]
    whole = sum(_lasted(one, result) for one in outcome.firings)
    row = [
        name(outcome),
        f"{count} time{'s' * (count != 1)}",
        format_duration(round(longest(outcome, result), 3)),
        format_duration(round(whole, 3)),
        str(outcome.short or ""),
        _last(last),
    ]
    by_labels: dict[Any, list[Firing]] = {}
    for one in outcome.firings:
        by_labels.setdefault(one.labels, []).append(one)
    rows = [row]
    if len(by_labels) > 1:
        known = outcome.rule.labels
        for labels, firings in sorted(by_labels.items(), key=lambda each: -len(each[1]))[:SHOWN]:
            own = {key: value for key, value in labels if known.get(key) != value and key != "alertname"}
            part = Outcome(outcome.rule, outcome.group, firings)
            rows.append([f"  {series_text(own)}", *_rows(part, result)[0][1:]])
        if len(by_labels) > SHOWN:
            rows.append([f"  … and {len(by_labels) - SHOWN} more", "", "", "", "", ""])
    return rows


def _short(outcome: Outcome) -> str:
    if not outcome.short:
        return ""
    return f" ({outcome.short} over before its for of {format_duration(outcome.rule.hold)})"


def _missing(outcome: Outcome) -> str:
    names = ", ".join(outcome.missing[:5]) + (", …" if len(outcome.missing) > 5 else "")
    return f"history has no {names}"


def _last(firing: Firing) -> str:
    return _moment(firing.fired) + (" (still)" if firing.ended is None else "")


def _lasted(firing: Firing, result: Result) -> float:
    """Seconds of what was looked at."""
    return (result.end if firing.ended is None else firing.ended) - max(firing.fired, result.start)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(sep=" ", timespec="seconds")
