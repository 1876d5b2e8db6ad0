"""A drill: a synthetic service misses a target for real, and every step until people hear of it is timed.

It is the embedded monitor itself, with the user's channels, over a temporary folder and a service of its own
(``drill-NAME``): nothing of a monitor that runs beside it is touched. Times are shortened, every rule of the drill
bears the label ``drill="true"``, and every title begins with ``[DRILL]`` (:mod:`.drillstage`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from anvil_monitor.alerts.rules import RATIO
from anvil_monitor.targets import Channel, Configuration, Secret, Target, format_duration

from . import embedded
from .drillservice import Instrument, served
from .drillstage import BEAT, HOLD, PREFIX, WINDOW, Report, Step, marked, short, staged

# Seconds for a first value, and for all channels to answer; Apprise's own timeout is 20 s.
PATIENCE: Final = 30.0
# A channel that failed so often is waited for no longer.
TRIES: Final = 2
DRY: Final = "dry-run"

Say = Callable[[str], object]


class DrillError(Exception):
    """Why the drill did not come to its end."""


async def drill(
    configuration: Configuration,
    target: Target,
    channels: Sequence[Channel],
    environ: Mapping[str, str],
    data: Path,
    say: Say,
    *,
    patience: float = PATIENCE,
    clock: Callable[[], float] = time.time,
) -> Report:
    """Run the drill; ``data`` is an empty folder, no ``channels``: nobody is told.

    Raises :class:`DrillError`, :class:`~.drillnumbers.CannotDrillError` and what :func:`.embedded.run` raises.
    """
    instrument = Instrument(short(target, configuration), BEAT)
    received: list[bytes] = []
    with served(instrument, received) as url:
        told = channels or [Channel(DRY, Secret("the drill", url.replace("http", "json", 1)))]
        stage = staged(configuration, target, told, url, data)
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        monitor = asyncio.create_task(
            embedded.run(
                stage,
                environ=dict(environ),
                stop=stop,
                ready=ready.set_result,
                view=lambda _: _Silent(),
                revise=marked(target),
            )
        )
        try:
            either: list[asyncio.Future[Any]] = [monitor, ready]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if monitor.done():
                await monitor
            async with httpx.AsyncClient(base_url=ready.result(), trust_env=False, timeout=10) as http:
                return await _Play(stage, target, instrument, http, say, patience, clock).run()
        finally:
            stop.set()
            await asyncio.gather(monitor, return_exceptions=True)


class _Silent:
    """The monitor of the drill says nothing."""

    def show(self, overview: Mapping[str, Any]) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass(slots=True)
class _Play:
    stage: Configuration
    target: Target
    instrument: Instrument
    http: httpx.AsyncClient
    say: Say
    patience: float
    clock: Callable[[], float]
    lost: set[str] = field(default_factory=set)  # channels that the miss did not reach: its end waits behind it

    async def run(self) -> Report:
        name = f"{PREFIX}{self.target.service}"
        self.say(f"{name} keeps its target …")
        await self._until(self._measured, "no value of the target was recorded")
        breach = self.clock()
        self.instrument.missed = True
        self.say(f"{name} misses it …")
        await self._until(lambda: self._finished(breach), "not every channel was told", fatal=False)
        missed = await self._steps(breach, over=False)
        sent = [each["channel"] for each in (await self._messages(breach)).values() if each["state"] == "sent"]
        self.lost = {channel.name for channel in self.stage.channels} - set(sent)
        end = self.clock()
        self.instrument.missed = False
        self.say(f"{name} keeps it again …")
        await self._until(lambda: self._finished(end), "not every channel was told of the end", fatal=False)
        recovered = await self._steps(end, over=True)
        delivered = [step.seconds for step in missed if step.name.startswith("delivered")]
        arrived = [seconds for seconds in delivered if seconds is not None]
        beyond = max(arrived) - HOLD if arrived and len(arrived) == len(delivered) else None
        return Report(self.target, breach, end, missed, recovered, HOLD, 2 * BEAT + 1.0, beyond)

    async def _until(self, what: Callable[[], Any], problem: str, *, fatal: bool = True) -> None:
        deadline = time.monotonic() + self.patience
        while not await what():
            if time.monotonic() > deadline:
                if fatal:
                    raise DrillError(f"{problem} within {format_duration(self.patience)}")
                return
            await asyncio.sleep(0.05)

    async def _measured(self) -> bool:
        """A good value over a whole window: as many scrapes as there are in one."""
        values = await self._samples(RATIO)
        return self.instrument.scrapes > WINDOW / BEAT and bool(values) and values[-1][1] <= 1

    async def _finished(self, since: float) -> bool:
        found = await self._messages(since)
        wanted = {channel.name for channel in self.stage.channels} - self.lost
        settled = [
            name for name, each in found.items() if each["state"] in ("sent", "dead") or each["attempts"] >= TRIES
        ]
        return wanted <= set(settled)

    async def _messages(self, since: float) -> dict[str, dict[str, Any]]:
        """By channel, the first message that was written since then."""
        answer = await self.http.get("/api/v1/notifications", params={"limit": "1000"})
        entries = answer.raise_for_status().json()["data"]["notifications"]
        return {each["channel"]: each for each in entries if each["created"] >= since}  # the newest come first

    async def _samples(self, name: str, **labels: str) -> list[tuple[float, float]]:
        wanted = {"service": PREFIX + self.target.service, **labels}
        matchers = ",".join(f'{key}="{value}"' for key, value in wanted.items())
        answer = await self.http.get("/api/v1/query", params={"query": f"{name}{{{matchers}}}[10m]"})
        found = answer.raise_for_status().json()["data"]["result"]
        return [(float(at), float(value)) for one in found for at, value in one["values"]]

    async def _steps(self, since: float, *, over: bool) -> tuple[Step, ...]:
        """What happened after ``since``, when."""
        aim = {"target": self.target.name}
        scraped = await self._samples("up", job="server")
        ratio = await self._samples(RATIO, **aim)
        pending = await self._samples("ALERTS", alertstate="pending", **aim)
        firing = await self._samples("ALERTS", alertstate="firing", **aim)
        steps = [
            _first("scraped", since, (at for at, _ in scraped)),
            _first("recorded", since, (at for at, value in ratio if (value > 1) is not over)),
        ]
        if over:
            last = max((at for at, _ in firing), default=math.inf)
            steps.append(_first("resolved", since, [last + BEAT] if last < math.inf else []))
        else:
            steps.append(_first("pending", since, (at for at, _ in pending)))
            steps.append(_first("firing", since, (at for at, _ in firing), f"for {format_duration(HOLD)}"))
        messages = await self._messages(since)
        steps.append(_first("enqueued", since, (each["created"] for each in messages.values())))
        for channel in self.stage.channels:
            entry = messages.get(
                channel.name, {"state": "missing", "reason": "no message was written", "finished": None}
            )
            if entry["state"] == "sent":
                note = f"{entry['attempts']} attempts" if entry["attempts"] > 1 else ""
                steps.append(Step(f"delivered to {channel.name}", round(entry["finished"] - since, 3), note))
            else:
                steps.append(Step(f"delivered to {channel.name}", None, entry["reason"] or "waits"))
        return tuple(steps)


def _first(name: str, since: float, times: Any, note: str = "") -> Step:
    """The first of ``times`` after ``since``."""
    after = min((at - since for at in times if at > since), default=None)
    return Step(name, None if after is None else round(after, 3), note)
