"""The tables of ``scripts/bench alerts``: how fast, how independent, how large."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

from anvil_monitor.alerts import forms, letters, plotting
from anvil_monitor.alerts.delivery import Delivery, Patience
from anvil_monitor.alerts.messages import story
from anvil_monitor.alerts.model import Alert, Draft, Notification
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.pipeline import Pipeline
from anvil_monitor.alerts.posted import Posted
from anvil_monitor.targets import Channel, Configuration, Secret, load
from bench import machine, report
from bench.alerts.sink import Sink
from bench.alerts.starting import starting
from bench.report import Table

HANGING: Final = 30
# The budgets: of a hanging channel's effect on another, of what is accepted, and of a storm's memory.
DELAY_MS: Final = 50.0
ACCEPTED: Final = 500.0
STORM: Final = 10_000
STORM_MB: Final = 50.0


@dataclass
class Run:
    quick: bool
    folder: Path
    progress: machine.Progress

    def outbox(self, name: str) -> Outbox:
        return Outbox(self.folder / name / "outbox.sqlite3")


def alert(number: int, service: str = "app", at: float | None = None) -> Alert:
    labels = {"alertname": "TargetMissed", "service": service, "target": f"target_{number}", "severity": "critical"}
    annotations = {
        "title": f"Target {number}", "measure": "p95 over 1 min", "value": "0.312", "limit": "0.2", "unit": "seconds",
        "description": "The API answers slowly, and this is one sentence about it.", "baseline": "0.14",
        "routes": "GET /orders 840 ms\nGET /items 410 ms", "dashboard": "https://example.test/d/1",
        "runbook_url": "https://example.test/runbooks/TargetMissed",
    }  # fmt: skip
    return Alert(labels, annotations, time.time() - 80 if at is None else at)


def configured(folder: Path, channels: dict[str, str]) -> Configuration:
    shipped = load(None, {})
    found = tuple(Channel(name, Secret("env:X", url)) for name, url in channels.items())
    return replace(shipped, channels=found, monitor=replace(shipped.monitor, data=folder, group_wait=0.0))


def accepted(run: Run) -> Table:
    """Notifications a second that are on disk, synced, when they count as taken in."""
    table = Table("Notifications accepted a second, each on disk before it counts", ("a second", "budget"))
    count = 300 if run.quick else 3000
    outbox = run.outbox("record")
    draft = Draft("team", "app", "failure", "Title", "Body " * 60, "new alerts", "x" * 800)
    rates = []
    for _ in range(3 if run.quick else 7):
        run.progress("accepted")
        started = time.perf_counter()
        for _ in range(count // 5):
            outbox.record([draft], [], time.time())
        rates.append(count // 5 / (time.perf_counter() - started))
        outbox.execute("DELETE FROM messages")
    outbox.close()
    table.rows.append(
        ["the outbox", report.spread(rates, 0), f"{ACCEPTED:.0f}: {report.verdict(median(rates) >= ACCEPTED)}"]
    )
    table.rows.append(_in_one_round(run))
    outbox = run.outbox("posted")
    monitor = configured(run.folder / "posted", {"team": "json://127.0.0.1:9"}).monitor
    rates = []
    for turn in range(3 if run.quick else 7):
        run.progress("accepted, posted by Alertmanager")
        posted = Posted(outbox, monitor, time.time())
        started = time.perf_counter()
        for number in range(count // 5):
            posted.take([alert(number, f"s{turn}-{number}")], f"{turn} {number}")
        rates.append(count // 5 / (time.perf_counter() - started))
        outbox.execute("DELETE FROM posted")
    outbox.close()
    table.rows.append(["posts of Alertmanager to the notifier", report.spread(rates, 0),
                       f"{ACCEPTED:.0f}: {report.verdict(median(rates) >= ACCEPTED)}"])  # fmt: skip
    table.notes.append("The first and the last: one notification or post, one fsync; so they are what the disk gives.")
    return table


def _in_one_round(run: Run) -> list[str]:
    """Every service breaks in the same round of the rules: a notification each, one transaction."""
    count, rates = 100 if run.quick else 500, []
    for turn in range(3 if run.quick else 7):
        run.progress("accepted, in one round")
        outbox = run.outbox(f"round{turn}")
        pipeline = Pipeline(configured(run.folder / f"round{turn}", {"team": "json://127.0.0.1:9"}), outbox)
        made = [alert(0, f"s{number}") for number in range(count)]
        started = time.perf_counter()
        pipeline.update(made)
        rates.append(sum(outbox.counts().values()) / (time.perf_counter() - started))
        outbox.close()
    kept = report.verdict(median(rates) >= ACCEPTED)
    return [f"{count} services in one round of the rules", report.spread(rates, 0), f"{ACCEPTED:.0f}: {kept}"]


def independent(run: Run) -> Table:
    """From written to arrived at a healthy channel: alone, and while thirty calls of others hang."""
    columns = ("ms, median [quartiles]", "ms, slowest", "budget")
    table = Table("A healthy channel, from written to arrived", columns)
    count = 50 if run.quick else 500
    alone = asyncio.run(_arrivals(run, count, 0))
    beside = asyncio.run(_arrivals(run, count, HANGING))
    more = median(beside) - median(alone)
    table.rows += [
        ["alone", report.spread(alone, 1), f"{max(alone):.1f}", ""],
        [f"beside {HANGING} channels that hang", report.spread(beside, 1), f"{max(beside):.1f}",
         f"{DELAY_MS:.0f} ms more: {report.verdict(more <= DELAY_MS)}"],
    ]  # fmt: skip
    peer = _apprise_alone(run)
    if peer is not None:
        table.rows.append([f"Apprise alone, {HANGING} hanging URLs and then the healthy one", f"{peer:.0f}", "", ""])
        table.notes.append("Apprise alone: one call of notify() for all; the hanging services are given up after 4 s.")
    table.notes.append(
        "Plain webhooks on loopback, one message every 5 ms; the hanging ones take the post and never answer."
    )
    return table


async def _arrivals(run: Run, count: int, hanging: int) -> list[float]:
    """Milliseconds from ``record`` to the post, of each message."""
    with Sink() as sink:
        channels = {"healthy": sink.url("healthy", "webhook+http")}
        channels |= {f"hanging{number}": sink.url(f"hang{number}", "webhook+http") for number in range(hanging)}
        outbox = run.outbox(f"arrivals{hanging}")
        delivery = Delivery(
            configured(run.folder, channels), outbox, dict(os.environ), patience=Patience(timeout=600.0)
        )
        running = asyncio.create_task(delivery.run())
        outbox.record([Draft(f"hanging{n}", "app", "failure", "T", "B") for n in range(hanging)], [], time.time())
        await _until(lambda: len(sink.hung) == hanging)
        written: dict[str, float] = {}
        for number in range(count):
            run.progress(f"one message after another, beside {hanging} that hang", number + 1, count)
            written[str(number)] = time.perf_counter()
            await asyncio.to_thread(
                outbox.record, [Draft("healthy", "app", "failure", str(number), "B")], [], time.time()
            )
            await asyncio.sleep(0.005)
        await _until(lambda: len(sink.arrived) == count)
        await delivery.close(0)
        await running
        outbox.close()
        return [1000 * (at - written[title]) for title, at in sink.arrived.items()]


async def _until(what: Callable[[], bool]) -> None:
    for _ in range(12_000):
        if what():
            return
        await asyncio.sleep(0.01)
    raise SystemExit("bench: it did not happen within two minutes")


PEER: Final = """
import sys, time, apprise, logging
logging.disable(logging.CRITICAL)
all_ = apprise.Apprise()
for number in range(int(sys.argv[2])):
    all_.add(f"json://127.0.0.1:{sys.argv[1]}/hang{number}?rto=4&cto=4")
all_.add(f"json://127.0.0.1:{sys.argv[1]}/healthy")
print(time.perf_counter(), flush=True)
all_.notify(title="peer", body="Body")
"""


def _apprise_alone(run: Run) -> float | None:
    """Milliseconds until the healthy channel got its message from one ``notify`` for all."""
    run.progress("Apprise alone")
    with Sink() as sink:
        command = [sys.executable, "-c", PEER, str(sink.port), str(HANGING)]
        peer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert peer.stdout is not None
            started = float(peer.stdout.readline() or "nan")
            peer.wait(300)
        except (ValueError, subprocess.TimeoutExpired):
            peer.kill()
            return None
        # Both clocks are the machine's: perf_counter is CLOCK_MONOTONIC on Linux.
        return 1000 * (sink.arrived["peer"] - started) if "peer" in sink.arrived else None


STORM_CODE: Final = """
import sys, time, pathlib
from bench.alerts.tables import alert, configured, memory
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.pipeline import Pipeline
folder, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
now = [1_800_000_000.0]
outbox = Outbox(folder / "outbox.sqlite3")
pipeline = Pipeline(configured(folder, {"team": "json://127.0.0.1:9"}), outbox, lambda: now[0])
made = [alert(number, at=now[0]) for number in range(count)]
before, started = memory(), time.perf_counter()
pipeline.update(made)
first = time.perf_counter() - started
started = time.perf_counter()
for _ in range(5):
    now[0] += 5
    pipeline.update(made)
print(first, (time.perf_counter() - started) / 5, sum(outbox.counts().values()), memory() - before)
"""


def memory() -> float:
    """MB of this process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


def storm(run: Run) -> Table:
    """Ten thousand alerts of one service at once."""
    table = Table(
        f"A storm: {STORM} alerts of one service", ("first round, s", "each later round, s", "messages", "MB more")
    )
    count = 1000 if run.quick else STORM
    folder = run.folder / "storm"
    folder.mkdir(exist_ok=True)
    run.progress("storm")
    done = subprocess.run([sys.executable, "-c", STORM_CODE, str(folder), str(count)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench: the storm failed: {done.stderr[-500:]}")
    first, later, messages, more = map(float, done.stdout.split())
    one, small = report.verdict(messages == 1), report.verdict(more <= STORM_MB)
    cells = [f"{first:.2f}", f"{later:.2f}", f"{messages:.0f}: {one}", f"{more:.0f}: {small}"]
    table.rows.append([f"{count} alerts", *cells])
    return table


def written(run: Run) -> Table:
    """What the words cost."""
    table = Table("Words and picture of one message", ("µs",))
    told = Notification("app", time.time(), "new alerts", firing=tuple(alert(number) for number in range(3)))
    points = [(30.0 * number, 0.1 + number / 1000) for number in range(121)]
    parts: dict[str, Callable[[], object]] = {
        "the words of three alerts, in all four forms": lambda: forms.write(story(told)),
        "to the outbox and back": lambda: letters.Notification.from_json(told.to_json()),
        "a picture of the last hour": lambda: plotting.plot(points, 0.0, 3600.0, 0.2, lambda value: f"{value:g} s"),
    }
    for name, part in parts.items():
        run.progress(name)
        times = []
        for _ in range(20 if run.quick else 300):
            started = time.perf_counter()
            part()
            times.append(1e6 * (time.perf_counter() - started))
        table.rows.append([name, report.spread(times, 0)])
    return table


TABLES: Final[dict[str, Callable[[Run], Table]]] = {
    "accepted": accepted, "independent": independent, "starting": starting, "storm": storm, "written": written,
}  # fmt: skip
