"""``anvil-monitor runbook``: what an alert means and what to do first, in the terminal; nothing has to run for it."""

from __future__ import annotations

import argparse
import difflib
import sys
from typing import Any, Final

from anvil_monitor.alerts import matchers, runbooks
from anvil_monitor.alerts.matchers import MatcherError

from .asking import Command, Load, wrong
from .remote import RemoteError

EXAMPLES: Final = """\
  anvil-monitor runbook                  which there are
  anvil-monitor runbook TargetMissed
  anvil-monitor runbook TargetMissed service=shop target=memory
exit status: 0 printed, 2 there is no such runbook"""
WIDEST: Final = 100


def add(command: Command, config: Any, load: Load) -> None:
    """Add the command. ``load`` gives the configuration that the options name."""
    sub = command("runbook", lambda options: _runbook(options, load), "print what to do about an alert", EXAMPLES)
    sub.add_argument("alert", metavar="ALERT", nargs="?", help="its name (default: list them)")
    sub.add_argument("labels", nargs="*", metavar="LABEL=VALUE", help="service and target for its commands")
    config(sub)


def _runbook(options: argparse.Namespace, load: Load) -> int:
    if options.alert is None:
        print("\n".join(runbooks.names()))
        return 0
    try:
        text = _filled(options, load)
    except RemoteError as error:
        print(error, file=sys.stderr)
        return 2
    if not sys.stdout.isatty():
        print(text, end="")
        return 0
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    console.print(Markdown(text, code_theme="ansi_light"), width=min(console.width, WIDEST))
    return 0


def _filled(options: argparse.Namespace, load: Load) -> str:
    """Raises :class:`RemoteError` for an alert without a runbook and for words that are no labels."""
    try:
        given = {each.name: each.value for each in map(matchers.parse, options.labels) if each.operator == "="}
    except MatcherError as error:
        raise wrong(str(error), "as in service=shop") from None
    monitor = load(options).monitor
    known = {name.lower(): name for name in runbooks.names()}
    name = known.get(options.alert.lower(), options.alert)
    text = runbooks.text(name, None, runbooks.asked_at(monitor), given.get("service", ""), given.get("target", ""))
    if text is None:
        near = difflib.get_close_matches(name, runbooks.names(), 3, 0.5)
        guess = f"did you mean {' or '.join(near)}? " if near else ""
        raise wrong(f"there is no runbook for {name!r}", f"{guess}there are: {', '.join(runbooks.names())}")
    own = monitor.runbooks.replace("{alert}", name)
    return text if not own else f"Yours: {own}\n\n{text}"
