"""``anvil-monitor silence`` and ``ack``: what a person holds back or looks after, written into the outbox file.

The file, not the HTTP API: it needs no token and no monitor that runs, and is for its owner alone. A monitor that runs
reads it in every round. Another machine's monitor is told over HTTP (``/api/v1/silences``) or on its page.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from anvil_monitor.alerts import acks, matchers, silences
from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.notifier import OUTBOX_FILE
from anvil_monitor.alerts.outbox import Outbox, OutboxError
from anvil_monitor.targets import Configuration

from .asking import Command, Load, aligned, printable, wrong

Run = Callable[[argparse.Namespace, Outbox], int]

EXAMPLES: Final = """\
  anvil-monitor silence add service=shop target=memory --for 2h --reason "moving the cache"
  anvil-monitor silence add 'alertname=~"Target(Drifting|Trending)"' --for 1d --reason "load test"
  anvil-monitor silence list
  anvil-monitor silence end 3
matchers: LABEL=VALUE, LABEL!=VALUE, LABEL=~PATTERN, LABEL!~PATTERN; all of them have to hold.
Who was told of an alert before still hears of its end."""

ACK_EXAMPLES: Final = """\
  anvil-monitor ack                          show the open alerts with their IDs
  anvil-monitor ack 3f2a                     the beginning of an ID is enough
  anvil-monitor ack service=shop --reason "restarting it"
  anvil-monitor ack 3f2a --undo
What is acknowledged is not repeated, and not escalated, until it ends."""


def add(command: Command, config: Callable[[argparse.ArgumentParser], None], load: Load) -> None:
    """Add the commands. ``load`` gives the configuration that the options name."""

    def common(sub: argparse.ArgumentParser, run: Run) -> None:
        config(sub)
        sub.add_argument("--data", type=Path, metavar="DIR", help="folder of the outbox (default: [monitor] data)")
        sub.set_defaults(run=lambda options: _with_outbox(run, options, load))

    def part(parts: Any, name: str, run: Run, help_: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = parts.add_parser(name, help=help_, description=f"{help_[0].upper()}{help_[1:]}.")
        common(sub, run)
        return sub

    silence = command("silence", lambda options: 2, "hold back alerts for a while", EXAMPLES)
    parts = silence.add_subparsers(title="commands", metavar="COMMAND", required=True)
    make = part(parts, "add", _add, "hold back the alerts that bear these labels")
    make.add_argument("matchers", nargs="+", metavar="MATCHER", help="as in service=shop")
    make.add_argument("--for", dest="lasting", required=True, metavar="DURATION", help="as in 30m, 2h or 1d")
    make.add_argument("--reason", required=True, metavar="TEXT", help="why: others must be able to ask")
    make.add_argument("--author", metavar="NAME", help="who (default: the login name)")
    part(parts, "list", _list, "show the silences that have not ended")
    part(parts, "end", _end, "end a silence now").add_argument("number", type=int, metavar="NUMBER")
    ack = command(
        "ack", lambda _: 2, "say that you look after an alert, or show what people were told of", ACK_EXAMPLES
    )
    ack.add_argument("alerts", nargs="*", metavar="ID|MATCHER", help="the ID that is shown, its beginning, or matchers")
    ack.add_argument("--reason", default="", metavar="TEXT", help="what you do about it")
    ack.add_argument("--author", metavar="NAME", help="who (default: the login name)")
    ack.add_argument("--undo", action="store_true", help="take it back")
    common(ack, _ack)


def login() -> str:
    """The name that a person is logged in under; empty where the system has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


@contextlib.contextmanager
def opened(configuration: Configuration) -> Iterator[Outbox]:
    """The outbox of a monitor that has run. Raises ``ConfigurationError`` where there is none, or none to be used."""
    path = configuration.monitor.data.expanduser() / OUTBOX_FILE
    if not path.exists():
        raise wrong(f"no monitor has run with the folder {path.parent}", "name its file with --config, or --data")
    try:
        with contextlib.closing(Outbox(path)) as outbox:
            yield outbox
    except OutboxError as error:
        raise wrong(str(error)) from None


def _with_outbox(run: Run, options: argparse.Namespace, load: Load) -> int:
    with opened(load(options)) as outbox:
        return run(options, outbox)


def chosen(words: Sequence[str]) -> tuple[matchers.Matcher, ...]:
    try:
        return matchers.chosen([matchers.parse(word) for word in words])
    except matchers.MatcherError as error:
        raise wrong(str(error)) from None


def _add(options: argparse.Namespace, outbox: Outbox) -> int:
    author = login() if options.author is None else options.author
    now = time.time()
    try:
        ends = now + silences.lasting(options.lasting)
        made = silences.add(
            outbox, chosen(options.matchers), author=author, reason=options.reason, starts=now, ends=ends
        )
    except ValueError as error:
        raise wrong(str(error)) from None
    said = " ".join(map(str, made.matchers))
    print(f"silence {made.id}: {said} until {moment(made.ends)}. End it with: anvil-monitor silence end {made.id}")
    return 0


def _list(_: argparse.Namespace, outbox: Outbox) -> int:
    found = silences.since(outbox, time.time())
    rows = [["number", "alerts", "author", "reason", "until"]]
    rows += [[str(s.id), " ".join(map(str, s.matchers)), s.author, s.reason, moment(s.ends)] for s in found]
    print("\n".join(aligned(rows, numbers=False)) or "nothing is silenced")
    return 0


def _end(options: argparse.Namespace, outbox: Outbox) -> int:
    if not silences.end(outbox, options.number, time.time()):
        raise wrong(f"there is no silence {options.number}", "anvil-monitor silence list shows them")
    print(f"silence {options.number} has ended")
    return 0


def _ack(options: argparse.Namespace, outbox: Outbox) -> int:
    told = {alert.fingerprint: alert for known in outbox.told().values() for alert in known.values()}
    if not options.alerts:
        rows = aligned(_open(told.values(), acks.current(outbox)), numbers=False)
        print("\n".join(rows) or "nothing that people were told of is open")
        return 0
    try:
        found = acks.find(told.values(), options.alerts)
        if not options.undo:
            author = login() if options.author is None else options.author
            acks.add(outbox, found, author=author, reason=options.reason, at=time.time())
    except ValueError as error:
        raise wrong(str(error), "anvil-monitor ack shows what is open") from None
    for alert in found:
        missing = options.undo and not acks.remove(outbox, alert.fingerprint)
        what = "was not acknowledged" if missing else "is no longer acknowledged" if options.undo else "is acknowledged"
        print(printable(f"{alert.fingerprint[:8]} {_about(alert)} {what}"))
    return 0


def _open(alerts: Iterable[Alert], seen: Mapping[str, acks.Ack]) -> list[list[str]]:
    rows = [["id", "alert", "seen by", "reason", "since"]]
    for alert in sorted(alerts, key=lambda alert: alert.starts_at):
        ack = seen.get(alert.fingerprint)
        by = [ack.author, ack.reason] if ack else ["", ""]
        rows.append([alert.fingerprint[:8], _about(alert), *by, moment(alert.starts_at)])
    return rows


def _about(alert: Alert) -> str:
    return " ".join(part for part in (alert.name, alert.service, alert.labels.get("target", "")) if part)


def moment(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
