"""``anvil-monitor drill``: does an alert reach everybody, and how long does it take?"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import difflib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from anvil_monitor.targets import Channel, Configuration, Target, format_duration

from .asking import Command, Load, aligned, wrong

EXAMPLES: Final = """\
  anvil-monitor drill                            the first target, every channel
  anvil-monitor drill memory --channels team     only this channel is told
  anvil-monitor drill shop/api_response_time --dry-run
exit status: 0 everybody was told in time, 1 somebody was not, 2 the configuration or the options are wrong
The drill runs beside a monitor that runs, over a folder of its own; it takes about half a minute."""


def add(command: Command, config: Any, load: Load) -> None:
    """Add the command. ``load`` gives the configuration that the options name."""
    sub = command(
        "drill",
        lambda options: _drill(options, load),
        "let a synthetic service miss a target for real, and time every step until each channel was told",
        EXAMPLES,
    )
    sub.add_argument("target", nargs="?", metavar="TARGET", help="NAME or SERVICE/NAME (default: the first target)")
    config(sub)
    sub.add_argument("--channels", metavar="NAME,…", help="tell only these")
    sub.add_argument("--dry-run", action="store_true", help="tell nobody: messages end in this process")
    sub.add_argument("--json", action="store_true", help="the report for programs; seconds after breach and end")
    sub.add_argument("--yes", action="store_true", help="do not ask before people are told")


def _drill(options: argparse.Namespace, load: Load) -> int:
    from .drill import DrillError, drill
    from .drillnumbers import CannotDrillError

    configuration = load(options)
    target = chosen(configuration, options.target)
    channels = [] if options.dry_run else told(configuration, options.channels)
    if channels and not options.yes:
        _confirm(channels)
    try:
        with _quiet(), tempfile.TemporaryDirectory(prefix="anvil-monitor-drill-") as folder:
            report = asyncio.run(drill(configuration, target, channels, dict(os.environ), Path(folder), _say))
    except CannotDrillError as error:
        raise wrong(str(error)) from None
    except DrillError as error:
        print(f"the drill came to no end: {error}", file=sys.stderr)
        return 1
    print(json.dumps(as_json(report)) if options.json else "\n".join(lines(report, configuration)))
    return 0 if report.kept and all(step.seconds is not None for step in (*report.missed, *report.recovered)) else 1


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings meanwhile: what a channel answers stands in the report."""
    ours = logging.getLogger("anvil_monitor")
    level = ours.level
    ours.setLevel(logging.ERROR)
    try:
        yield
    finally:
        ours.setLevel(level)


def chosen(configuration: Configuration, text: str | None) -> Target:
    """The target that ``text`` names. Raises ``ConfigurationError``."""
    if not configuration.targets:
        raise wrong("no target is watched", "set enabled = true on one")
    if text is None:
        return configuration.targets[0]
    service, _, name = text.rpartition("/")
    found = [each for each in configuration.targets if each.name == name and service in ("", each.service)]
    if not found:
        names = [f"{each.service}/{each.name}" for each in configuration.targets]
        near = difflib.get_close_matches(text, [*names, *(each.name for each in configuration.targets)], 1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise wrong(f"there is no target {text!r}", f"{guess}there are: {', '.join(names)}")
    return found[0]


def told(configuration: Configuration, text: str | None) -> list[Channel]:
    """The channels that ``text`` names, or all. Raises ``ConfigurationError``."""
    known = {channel.name: channel for channel in configuration.channels}
    if not known:
        raise wrong("no channel is configured", "add a [channels.NAME] table, or say --dry-run")
    names = [name.strip() for name in text.split(",") if name.strip()] if text is not None else list(known)
    for name in names:
        if name not in known:
            raise wrong(f"there is no channel {name!r}", f"there are: {', '.join(known)}")
    if not names:
        raise wrong("--channels names nobody", f"there are: {', '.join(known)}; --dry-run tells none of them")
    return [known[name] for name in names]


def _confirm(channels: Sequence[Channel]) -> None:
    names = ", ".join(channel.name for channel in channels)
    if not sys.stdin.isatty():
        raise wrong(f"a drill tells {names}, and nobody can be asked here", "say --yes, or --dry-run")
    answer = input(f"This tells {names} of a drill, and of its end. Go on? [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise wrong("nobody was told", "--dry-run tells nobody")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def as_json(report: Any) -> dict[str, Any]:
    """The report: times in Unix seconds, everything else in seconds."""
    steps = {"missed": report.missed, "recovered": report.recovered}
    return {
        "drill": True,
        "service": report.target.service,
        "target": report.target.name,
        "breach": report.breach,
        "end": report.end,
        "for": report.hold,
        "beyondFor": report.slowest,
        "budget": report.budget,
        "kept": report.kept,
        **{
            name: [{"step": each.name, "seconds": each.seconds, "note": each.note} for each in found]
            for name, found in steps.items()
        },
    }


def lines(report: Any, configuration: Configuration) -> list[str]:
    """What a person reads."""
    from .drillstage import MARK, PREFIX, shortened

    target = report.target
    found = [
        f"{MARK} {target.title} of {PREFIX}{target.service}, promised {target.promise}",
        f"missed from {_clock(report.breach)} to {_clock(report.end)}",
        "",
        *_table("after the breach", report.missed),
        "",
        *_table("after its end", report.recovered),
        "",
    ]
    beyond = "not everybody was told of the miss"
    if report.slowest is not None:
        beyond = f"{_seconds(max(0.0, report.slowest))} from breach to the last channel, beyond the rule's own for"
    verdict = "kept" if report.kept else "MISSED"
    found.append(f"{beyond}; budget {_seconds(report.budget)} (one scrape + one evaluation + 1 s): {verdict}")
    changed = shortened(configuration, target)
    if changed:
        times = ", ".join(f"{name} {_length(given)} → {_length(short)}" for name, given, short in changed)
        found.append(f"shortened for the drill: {times}")
        monitor = configuration.monitor
        wait = format_duration(round(monitor.scrape_interval + monitor.evaluation_interval + target.hold + 1.0))
        found.append(f"as configured, a miss is told up to {wait} (scrape + evaluation + for + 1 s) after the")
        found[-1] += f" {format_duration(target.window)} of the window show it"
    return found


def _table(what: str, steps: Sequence[Any]) -> list[str]:
    rows = [["step", "", what]]
    rows += [[step.name, step.note, "never" if step.seconds is None else _seconds(step.seconds)] for step in steps]
    return aligned(rows)


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _length(seconds: float) -> str:
    return format_duration(seconds) if seconds else "0 s"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S")
