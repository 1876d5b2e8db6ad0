"""Kills a process again and again while it appends and evaluates, and looks at what is left: ``python -m … ROUNDS``.

One process imports everything once and forks the victims, which is what makes hundreds of rounds affordable. A victim
tells its parent through a pipe what it was acknowledged (an ``append`` that returned) and since when its alert holds;
after SIGKILL the parent opens the folder and compares. Prints what is missing and exits 1, or prints a summary.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path

from anvil_monitor.alerts.rulefile import Alerting, Group, Recording
from anvil_monitor.monitoring.history.blocks import HOUR
from anvil_monitor.monitoring.history.history import History
from anvil_monitor.monitoring.history.joined import HistoryStore
from anvil_monitor.monitoring.promql import Engine
from anvil_monitor.monitoring.restore import restore
from anvil_monitor.monitoring.rulemanager import GroupState, evaluate
from anvil_monitor.monitoring.samples import Labels, Matcher, labels_of, series_of

TOLD = struct.Struct("<qdd")  # the time of a batch (ms), its value, since when the alert holds (s; 0: not known yet)
STEP = 5_000
HOLD = 1e9  # the alert only ever waits
START = 1_700_000_000_000 // HOUR * HOUR
GROUP = Group("g", 5.0, (Recording("double", "metric * 2"), Alerting("Held", "metric > 0", hold=HOLD)))


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def label(number: int) -> Labels:
    return labels_of(__name__="metric" if number == 0 else f"other_{number}", instance=str(number))


def victim(folder: Path, begin: int, pipe: int, seed: int) -> None:
    """Lives as ``up`` does, from ``begin`` on, a step every few milliseconds, until it is killed."""
    clock = Clock(begin / 1000)
    history = History(folder, 1e9, 1e12, clock)
    store = HistoryStore(history, clock=clock, memory_seconds=3600)
    engine, state = Engine(store), GroupState.of(GROUP)
    for memory in state.rules:
        memory.restored = False
    chance = random.Random(seed)
    at, evaluations = begin, 0
    while True:
        clock.now = at / 1000
        value = float(at // STEP)
        # Series come and go, so that layouts and label sets are written again and again.
        batch = [(label(number), value) for number in range(20) if number == 0 or chance.random() < 0.97]
        if store.append(at, batch) != len(batch):
            os._exit(3)
        evaluate(GROUP, state, at / 1000, engine.instant, store.append, lambda text, data: text)
        evaluations += 1
        if evaluations == 2:
            restore(GROUP, state, at / 1000, store.select)
            for memory in state.rules:
                memory.restored = True
        alert = next(iter(state.rules[1].alerts.values()), None)
        since = alert.active_at if alert is not None and evaluations > 2 else 0.0
        os.write(pipe, TOLD.pack(at, value, since))
        if chance.random() < 0.2:
            store.maintain()
        # Hours go by within a round now and then, so that blocks are written and the log is dropped.
        at += STEP if chance.random() < 0.9 else chance.randrange(1, 200) * STEP


def told(pipe: int) -> list[tuple[int, float, float]]:
    data = bytearray()
    while chunk := os.read(pipe, 1 << 16):
        data += chunk
    whole = len(data) // TOLD.size * TOLD.size
    return list(TOLD.iter_unpack(bytes(data[:whole])))


def round_(folder: Path, begin: int, chance: random.Random) -> list[tuple[int, float, float]]:
    """One victim's life; what it was acknowledged."""
    out, into = os.pipe()
    seed = chance.randrange(1 << 30)
    child = os.fork()
    if child == 0:
        os.close(out)
        try:
            victim(folder, begin, into, seed)
        finally:
            os._exit(4)
    os.close(into)
    time.sleep(chance.random() ** 2 * 0.3)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    acknowledged = told(out)
    os.close(out)
    if not os.WIFSIGNALED(status):
        raise SystemExit(f"a victim ended by itself: {os.waitstatus_to_exitcode(status)}")
    return acknowledged


def main(rounds: int, seed: int) -> int:
    chance = random.Random(seed)
    wrong: list[str] = []
    acknowledged: dict[int, float] = {}
    held = blocks = 0
    begin = START
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(rounds):
            told_ = round_(folder, begin, chance)
            acknowledged |= {at: value for at, value, _ in told_}
            # The batch in flight may be there, too, and lie some minutes ahead.
            end = max([begin, *acknowledged]) + 300 * STEP
            clock = Clock(end / 1000)
            history = History(folder, 1e9, 1e12, clock)
            store = HistoryStore(history, clock=clock)
            (series,) = series_of(store.select([Matcher("__name__", "=", "metric")], 0, end)) or (None,)
            found = dict(zip(series.timestamps.tolist(), series.values.tolist(), strict=True)) if series else {}
            missing = [at for at, value in acknowledged.items() if found.get(at) != value]
            if missing:
                wrong.append(f"round {number}: {len(missing)} acknowledged samples are missing, first {missing[0]}")
            extra = len(found.keys() - acknowledged.keys())
            if extra > number + 1:
                wrong.append(f"round {number}: {extra} samples that nobody acknowledged")
            if history.blocks.damaged:
                wrong.append(f"round {number}: damaged blocks")
            blocks = len(history.blocks)
            history.close()
            # The time that an alert is held grows by what each life lasted, and is never begun anew.
            for at, _, active in told_:
                if active:
                    if at / 1000 - active < held:
                        wrong.append(f"round {number}: the alert was held for {held} s, now for {at / 1000 - active}")
                    held = int(at / 1000 - active)
            if wrong:
                break
            begin = max([begin, *acknowledged, *found]) + chance.randrange(1, 60) * STEP
    print(*wrong, sep="\n")
    print(f"{rounds} kills, {len(acknowledged)} batches acknowledged, {blocks} blocks, the alert held for {held} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
