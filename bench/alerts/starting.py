"""What the first message to a channel costs: a delivery process that begins for it, and one that is ready."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from anvil_monitor.alerts import forms
from bench import report
from bench.alerts.sink import Sink
from bench.report import Table

if TYPE_CHECKING:
    from bench.alerts.tables import Run

OURS: Final = ("-P", "-m", "anvil_monitor.alerts.delivery_process")
# The same with every plugin of Apprise's loaded, as Apprise does by itself.
WHOLE: Final = """
from apprise.manager_plugins import NotificationManager
from anvil_monitor.alerts import delivery_process, plugins
plugins.load = lambda url: NotificationManager().load_modules()
delivery_process.main()
"""


def starting(run: Run) -> Table:
    """From asked to delivered, and how large the process is then."""
    table = Table(
        "The first message to a channel through Apprise", ("ms, median [quartiles]", "of the first row", "MB")
    )
    rounds = 2 if run.quick else 15
    whole: list[float] = []
    one: list[float] = []
    ready: list[float] = []
    sizes: dict[str, list[float]] = {"whole": [], "one": []}
    with Sink() as sink:
        for number in range(rounds):  # in turns, so that what else the machine does is in both
            run.progress("the first message to a channel", number + 1, rounds)
            first, _, size = _begun(("-P", "-c", WHOLE), sink)
            whole.append(first)
            sizes["whole"].append(size)
            first, second, size = _begun(OURS, sink)
            one.append(first)
            ready.append(second)
            sizes["one"].append(size)
    for name, times, size in (
        ("a process begins, and loads all of Apprise's plugins", whole, median(sizes["whole"])),
        ("a process begins, and loads the one that the URL needs", one, median(sizes["one"])),
        ("a process that is ready, as while an alert was pending", ready, median(sizes["one"])),
    ):
        share = median(times) / median(whole)
        table.rows.append([name, report.spread(times, 0), f"{share:.2f}", f"{size:.0f}"])
    return table


def _begun(arguments: tuple[str, ...], sink: Sink) -> tuple[float, float, float]:
    """Milliseconds for the first message, begin of the process included, and for the second; MB of the process."""
    written = {form: asdict(text) for form, text in forms.as_it_is("Title", "Body").items()}
    request = {"url": sink.url("starting", "json"), "title": "Title", "kind": "failure", "forms": written}
    line = json.dumps({**request, "chosen": "", "picture": ""}).encode() + b"\n"
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        times = []
        answers = iter(process.stdout.readline, b"")
        for ready in (False, True):
            began = time.perf_counter() if ready else started
            process.stdin.write(line)
            process.stdin.flush()
            said = [json.loads(next(answers)) for _ in range(1 if ready else 2)][-1]
            if not said.get("delivered"):
                raise SystemExit(f"bench: the message was not delivered: {said}")
            times.append(1000 * (time.perf_counter() - began))
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        return times[0], times[1], int(status.partition("VmRSS:")[2].split()[0]) / 1000
    finally:
        process.kill()
        process.communicate()
