"""Kills a monitor's telling half again and again in a storm of alerts, and looks at who was told what:
``python crash.py ROUNDS SEED [apprise]``.

One process imports everything once and forks the victims, which is what makes hundreds of rounds affordable; four
lanes of them, each with an outbox of its own, share the rounds. A victim runs pipeline, outbox and delivery as ``up``
does, and posts to a sink in its parent. With ``apprise``, it sends through delivery processes, and in most rounds some
of those are killed before the victim is; they are forked, too (:mod:`forked`), but for one round in twenty. At the end
of a lane a last life sends what is left. Prints what is wrong and exits 1, or prints a summary of each lane.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import forked

from anvil_monitor.alerts.delivery import Delivery, Patience
from anvil_monitor.alerts.model import Alert
from anvil_monitor.alerts.outbox import Outbox
from anvil_monitor.alerts.pipeline import Pipeline
from anvil_monitor.targets import Channel, Configuration, Secret, load

SERVICES = 6
CHANNELS = ("one", "two", "three")
LANES = 4
STEP = 0.004  # seconds of a victim's life between two evaluations
BEAT = 40.0  # seconds that go by for the pipeline meanwhile: more than its group_interval


class Sink:
    """Counts what it is posted, by channel and message."""

    def __init__(self) -> None:
        self.got: dict[str, Counter[str]] = {name: Counter() for name in CHANNELS}
        self.order: dict[tuple[str, str], list[str]] = {}
        self.lock = threading.Lock()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                channel = self.path.strip("/")
                mark = body["id"].partition("-")[0] if "id" in body else body["title"]
                with sink.lock:
                    sink.got[channel][mark] += 1
                    found = re.search(r"\bs\d+\b", body["title"])
                    sink.order.setdefault((channel, found.group() if found else ""), []).append(mark)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who is killed hangs up
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


def configured(folder: Path, scheme: str, port: int) -> Configuration:
    shipped = load(None, {})
    channels = tuple(Channel(name, Secret("env:X", f"{scheme}://127.0.0.1:{port}/{name}")) for name in CHANNELS)
    monitor = replace(shipped.monitor, data=folder, group_wait=0.0)
    return replace(shipped, channels=channels, monitor=monitor)


class Clock:
    """The pipeline's time; it goes on where the last life ended."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def stormy(chance: random.Random, firing: dict[int, Alert], at: float) -> list[Alert]:
    """What the rules say now: alerts begin and end by chance. Each beginning has a number of its own in its words."""
    over: list[Alert] = []
    for number in range(SERVICES):
        alert = firing.get(number)
        if alert is None and chance.random() < 0.3:
            labels = {"alertname": f"Storm{number}", "service": f"s{number}", "severity": "critical"}
            firing[number] = Alert(labels, {"summary": f"s{number} began {chance.randrange(1 << 40)}"}, at)
        elif alert is not None and chance.random() < 0.3:
            over.append(replace(firing.pop(number), ends_at=at))
    return [*firing.values(), *over]


async def live(configuration: Configuration, pipe: int, seed: int, begin: float, forks: bool) -> None:
    """A victim's life, until it is killed. Through the pipe go the time and how many messages are on disk."""
    if forks:
        asyncio.create_subprocess_exec = forked.fork
    chance, clock = random.Random(seed), Clock(begin)
    outbox = Outbox(configuration.monitor.data / "outbox.sqlite3")
    delivery = Delivery(
        configuration, outbox, dict(os.environ), patience=Patience(timeout=5.0, first=0.02, longest=0.1)
    )
    pipeline = Pipeline(configuration, outbox, clock)
    known = {alert.fingerprint: alert for alerts in outbox.told().values() for alert in alerts.values()}
    firing = {int(alert.name.removeprefix("Storm")): alert for alert in known.values()}
    running = asyncio.create_task(delivery.run())
    while True:
        clock.now += BEAT
        pipeline.update(stormy(chance, firing, clock.now))
        # What is acknowledged: record() has returned.
        written = outbox.rows("SELECT coalesce(max(id), 0) AS n FROM messages")[0]["n"]
        pids = list(delivery._own.pids().values())  # type: ignore[union-attr]
        line = json.dumps({"at": clock.now, "written": written, "pids": pids}) + "\n"
        os.write(pipe, line.encode())
        await asyncio.sleep(STEP * chance.random() * 2)
        if running.done():
            os._exit(5)


def round_(
    configuration: Configuration, begin: float, chance: random.Random, apprise: bool
) -> tuple[list[dict[str, Any]], int]:
    """One life; what it said of itself, and how many processes were killed."""
    forks, kills = apprise and chance.random() < 0.95, 1
    out, into = os.pipe()
    seed = chance.randrange(1 << 30)
    child = os.fork()
    if child == 0:
        os.close(out)
        try:
            asyncio.run(live(configuration, into, seed, begin, forks))
        finally:
            os._exit(4)
    os.close(into)
    said = bytearray()
    reader = threading.Thread(target=lambda: [said.extend(chunk) for chunk in iter(lambda: os.read(out, 65536), b"")])
    reader.start()

    def lives(steps: float) -> None:
        """Let the victim go through so many evaluations, on however busy a machine, and a part of the next."""
        wanted, deadline = said.count(b"\n") + int(steps), time.monotonic() + 20
        while said.count(b"\n") < wanted and reader.is_alive() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(chance.random() * 2 * STEP)

    lives(chance.random() ** 2 * 16)
    if apprise and chance.random() < 0.6:
        for _ in range(3):  # delivery processes die first, and the monitor goes on
            lines = bytes(said).rpartition(b"\n")[0].splitlines()
            pids = json.loads(lines[-1])["pids"] if lines else []
            if pids:
                kills += 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(pids), signal.SIGKILL)
            lives(chance.random() * 8)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    reader.join()
    os.close(out)
    if not os.WIFSIGNALED(status):
        raise SystemExit(f"a victim ended by itself: {os.waitstatus_to_exitcode(status)}")
    whole = bytes(said).rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines()], kills


async def drain(configuration: Configuration, begin: float) -> float:
    """A last life: everything ends, and what is left is sent. The time at its end."""
    clock = Clock(begin)
    outbox = Outbox(configuration.monitor.data / "outbox.sqlite3")
    delivery = Delivery(configuration, outbox, dict(os.environ), patience=Patience(first=0.02, longest=0.1))
    pipeline = Pipeline(configuration, outbox, clock)
    known = {alert.fingerprint: alert for alerts in outbox.told().values() for alert in alerts.values()}
    running = asyncio.create_task(delivery.run())
    over = list(known.values())
    for _ in range(400):
        clock.now += BEAT
        pipeline.update([replace(alert, ends_at=clock.now) for alert in over])
        over = []
        if not outbox.told():
            break
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if all(state != "queued" for _, state in outbox.counts()):
            break
        await asyncio.sleep(0.02)
    await delivery.close(0)
    await running
    outbox.close()
    return clock.now


def main(rounds: int, seed: int, apprise: bool) -> int:
    chance, sink, wrong = random.Random(seed), Sink(), []
    begin, written, kills = 1_800_000_000.0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        configuration = configured(Path(name), "json" if apprise else "webhook+http", sink.server.server_address[1])
        for number in range(rounds):
            said, killed = round_(configuration, begin, chance, apprise)
            kills += killed
            begin = max([begin, *(one["at"] for one in said)]) + chance.choice((0.0, BEAT, 10 * BEAT))
            written = max([written, *(one["written"] for one in said)])
            outbox = Outbox(configuration.monitor.data / "outbox.sqlite3")
            there = outbox.rows("SELECT coalesce(max(id), 0) AS n FROM messages")[0]["n"]
            outbox.close()
            if there < written:
                wrong.append(f"round {number}: {written} messages were acknowledged, {there} are there")
                break
        asyncio.run(drain(configuration, begin))
        outbox = Outbox(configuration.monitor.data / "outbox.sqlite3")
        ledger = outbox.rows("SELECT id, channel, title, state FROM messages ORDER BY id")
        told = outbox.told()
        outbox.close()
    if told:
        wrong.append(f"{len(told)} alerts were told and their end was not")
    wrong += [f"not sent: {one}" for one in ledger if one["state"] != "sent"][:3]
    repeats = 0
    for channel in CHANNELS:
        wanted = [one["title"] if apprise else str(one["id"]) for one in ledger if one["channel"] == channel]
        lost = Counter(wanted) - sink.got[channel]
        more = sink.got[channel] - Counter(wanted)
        repeats += more.total()
        if lost:
            wrong.append(f"{channel}: {lost.total()} lost, as {next(iter(lost))!r}")
        if more.total() > kills:
            wrong.append(f"{channel}: {more.total()} repeated in {kills} kills")
        if set(more) - set(wanted):
            wrong.append(f"{channel}: told what nobody wrote: {next(iter(set(more) - set(wanted)))!r}")
    numbers = {one["title"] if apprise else str(one["id"]): one["id"] for one in ledger}
    for (channel, service), marks in sink.order.items():
        # Of a beginning each title is its own; ends are worded alike, and known by their numbers alone.
        first = [numbers[mark] for mark in dict.fromkeys(marks) if not apprise or " began " in mark]
        if first != sorted(first):
            wrong.append(f"{channel}: told about {service} in another order than it was written")
    print(*wrong, sep="\n")
    print(f"{kills} kills, {len(ledger)} messages, {repeats} repeated")
    return 1 if wrong or len(ledger) < rounds else 0


def lanes(rounds: int, seed: int, apprise: bool) -> int:
    """The rounds in four processes at a time: most of a round is waiting."""
    forked.preload("json://127.0.0.1/" if apprise else "")
    pids = []
    for lane in range(LANES):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = main((rounds + lane) // LANES, seed * LANES + lane, apprise)
                sys.stdout.flush()
            finally:
                os._exit(status)
        pids.append(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)


if __name__ == "__main__":
    sys.exit(lanes(int(sys.argv[1]), int(sys.argv[2]), "apprise" in sys.argv[3:]))
