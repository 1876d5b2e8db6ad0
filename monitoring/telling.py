"""``anvil-monitor notify`` and ``notifications``: does a channel work, what is sent, what was sent."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from anvil_monitor.alerts.letters import Letter, Writer
from anvil_monitor.alerts.model import Message
from anvil_monitor.alerts.notifier import OUTBOX_FILE
from anvil_monitor.alerts.outbox import Outbox, OutboxError
from anvil_monitor.alerts.outcomes import Outcome
from anvil_monitor.alerts.sender import Senders
from anvil_monitor.targets import Channel, Configuration
from anvil_monitor.targets.settings import FORMATS

from . import previewing
from .asking import Command, Load, aligned, duration, wrong

TIMEOUT: Final = 30.0
NOTIFY_EXAMPLES: Final = """\
  anvil-monitor notify team                     send a test to one channel
  anvil-monitor notify                          … to all of them
  anvil-monitor notify --preview                what would be sent, for an example of each alert
  anvil-monitor notify on-call --preview        … in the form and with the template of that channel
  anvil-monitor notify --preview --form html --out preview.html
exit status: 0 it arrived, 1 it did not, 2 there is no such channel"""
NOTIFICATIONS_EXAMPLES: Final = """\
  anvil-monitor notifications                   what was sent, to whom, and did it arrive
  anvil-monitor notifications --since 12h --channel on-call --service shop
  anvil-monitor notifications show 17           one of them in full
  anvil-monitor notifications resend 17         a dead letter once more; --dead: all of them
works whether the monitor runs or not; exit status: 0 done, 1 there is none, or the outbox cannot be used"""


def add(command: Command, config: Callable[[argparse.ArgumentParser], None], load: Load) -> None:
    """Add both commands. ``load`` gives the configuration that the options name."""
    notify = command(
        "notify", lambda options: _notify(options, load(options)), "send a test to a channel, or preview messages",
        NOTIFY_EXAMPLES,
    )  # fmt: skip
    notify.add_argument("channel", nargs="?", metavar="CHANNEL", help="its name in monitor.toml (default: all)")
    notify.add_argument("--preview", action="store_true", help="send nothing; show an example of each alert")
    notify.add_argument("--form", choices=FORMATS, help="the form to preview (default: the channel's, else text)")
    notify.add_argument("--out", type=Path, metavar="FILE", help="write the preview there")
    notifications = command(
        "notifications", lambda options: _notifications(options, load(options)),
        "list, show and resend what was sent", NOTIFICATIONS_EXAMPLES,
    )  # fmt: skip
    notifications.add_argument("action", nargs="?", choices=("list", "show", "resend"), default="list")
    notifications.add_argument("numbers", nargs="*", type=int, metavar="N", help="the number that the list shows")
    notifications.add_argument("--dead", action="store_true", help="only dead letters; with resend: all of them")
    notifications.add_argument("--channel", default="", metavar="NAME", help="list only what was for this channel")
    notifications.add_argument("--service", default="", metavar="NAME", help="list only what was about this service")
    notifications.add_argument("--since", metavar="DURATION", help="list only what was written so long ago at most")
    notifications.add_argument("--limit", type=int, default=50, metavar="COUNT", help="how many to list (default: 50)")
    notifications.add_argument("--json", action="store_true", help="as JSON")
    notifications.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the outbox (default: [monitor] data)"
    )
    for sub in (notify, notifications):
        config(sub)


def _notify(options: argparse.Namespace, configuration: Configuration) -> int:
    channels = configuration.channels
    if options.channel is not None:
        channels = tuple(one for one in channels if one.name == options.channel)
        if not channels:
            names = ", ".join(one.name for one in configuration.channels) or "none"
            raise wrong(f"there is no channel {options.channel!r}", f"the channels are: {names}")
    if options.preview:
        channel = channels[0] if options.channel is not None else None
        return previewing.preview(configuration, channel, options.form or "", options.out, dict(os.environ))
    if options.form or options.out:
        raise wrong("--form and --out ask for --preview", "a test is sent in the channel's own form")
    if not channels:
        raise wrong("no channel is configured", "add a [channels.NAME] table")
    outcomes = asyncio.run(_test(channels, configuration, dict(os.environ)))
    for channel, (outcome, took) in zip(channels, outcomes, strict=True):
        if outcome.delivered:
            print(f"{channel.name}: the service took it, after {took:.1f} s")
        else:
            again = (
                " (a message would be tried again)" if outcome.retryable else " (a message would not be tried again)"
            )
            print(f"{channel.name}: not delivered: {outcome.reason}{again}", file=sys.stderr)
    return 0 if all(outcome.delivered for outcome, _ in outcomes) else 1


async def _test(
    channels: Sequence[Channel], configuration: Configuration, environ: dict[str, str]
) -> list[tuple[Outcome, float]]:
    """Send a test to each, at the same time; what became of it and the seconds that it took."""
    writer, senders = Writer(configuration), Senders(environ)

    async def one(channel: Channel) -> tuple[Outcome, float]:
        started = time.monotonic()
        try:
            letter = _letter(writer, channel)
            async with asyncio.timeout(TIMEOUT):
                outcome = await senders.send(channel, channel.url.reveal(environ), letter)
        except LookupError as error:
            outcome = Outcome(False, True, f"its URL is not to be had: {error}")
        except TimeoutError:
            outcome = Outcome(False, True, f"no answer within {TIMEOUT:g} s")
        return outcome, time.monotonic() - started

    try:
        return await asyncio.gather(*map(one, channels))
    finally:
        await senders.close()


def _letter(writer: Writer, channel: Channel) -> Letter:
    now = time.time()
    title = f"anvil-monitor: a test of channel {channel.name}"
    whose = f" of {', '.join(channel.services)}" if channel.services else ""
    body = (
        f"If you can read this, the channel works. It is told of {', '.join(channel.severities)} alerts{whose}.\n"
        "Nothing is wrong; somebody ran: anvil-monitor notify"
    )
    message = Message(0, channel.name, "", "info", title, body, "test", now, now, 0, "queued", "", None)
    return writer.write(channel, message)


def _notifications(options: argparse.Namespace, configuration: Configuration) -> int:
    path = configuration.monitor.data.expanduser() / OUTBOX_FILE
    if options.action != "list" and not options.numbers and not (options.dead and options.action == "resend"):
        raise wrong(f"notifications {options.action} asks for a number", "see: anvil-monitor notifications")
    if not path.exists():
        print(f"nothing was sent yet: there is no {path}" if not options.json else "[]")
        return 0 if options.action == "list" else 1
    try:
        outbox = Outbox(path)
        try:
            act = {"list": _list, "show": _show, "resend": _resend}[options.action]
            return act(outbox, options)
        finally:
            outbox.close()
    except OutboxError as error:
        print(error, file=sys.stderr)
        return 1


def _list(outbox: Outbox, options: argparse.Namespace) -> int:
    since = time.time() - duration("--since", options.since) if options.since else 0.0
    wanted = {"channel": options.channel, "topic": options.service, "state": "dead" if options.dead else ""}
    found = outbox.ledger(max(1, options.limit), since=since, **wanted)
    if options.json:
        print(json.dumps([one.ledger_entry() for one in found], ensure_ascii=False))
        return 0
    width = shutil.get_terminal_size((120, 24)).columns
    head = ["id", "written", "channel", "title", "tries", "state"]
    rows = [[str(one.id), _moment(one.created), one.channel, one.title, str(one.attempts), one.state] for one in found]
    other = sum(max(len(row[at]) for row in [head, *rows]) + 2 for at in range(len(head)) if at != 3)
    for row in rows:
        row[3] = _cut(row[3], max(20, width - other))
    none = "no such notification" if since or any(wanted.values()) else "no notification yet"
    print("\n".join(aligned([head, *rows])) if rows else none)
    return 0


def _show(outbox: Outbox, options: argparse.Namespace) -> int:
    missing = 0
    for number in options.numbers:
        message = outbox.get(number)
        if message is None:
            missing += 1
            print(f"there is no notification {number}", file=sys.stderr)
        elif options.json:
            print(json.dumps(message.ledger_entry(), ensure_ascii=False))
        else:
            print("\n".join(_shown(message)))
    return 1 if missing else 0


def _shown(message: Message) -> list[str]:
    finished = _moment(message.finished) if message.finished is not None else ""
    due = _moment(message.due) if message.state == "queued" and message.attempts else ""
    rows = [
        ("notification", str(message.id)), ("channel", message.channel), ("service", message.topic),
        ("kind", message.kind), ("why", message.cause), ("written", _moment(message.created)),
        ("state", message.state), ("tries", str(message.attempts)), ("last failure", message.reason),
        ("next try", due), ("finished", finished), ("title", message.title),
    ]  # fmt: skip
    clean = [f"{name:<13} {_printable(text)}" for name, text in rows if text]
    return [*clean, "", *(_printable(line) for line in message.body.splitlines())]


def _resend(outbox: Outbox, options: argparse.Namespace) -> int:
    numbers = options.numbers
    if options.dead:
        numbers = sorted(one.id for one in outbox.ledger(-1, state="dead"))
    failed = 0
    for number in numbers:
        if outbox.resend(number, time.time()):
            print(f"notification {number} is queued again")
        else:
            failed += 1
            print(f"notification {number} is no dead letter", file=sys.stderr)
    if not numbers:
        print("no notification is dead")
    return 1 if failed else 0


def _moment(at: float) -> str:
    try:
        return datetime.fromtimestamp(at).astimezone().isoformat(" ", timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return "?"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
