"""The dead man's switch: a URL that is called while the monitor lives and can tell people, and not otherwise.

Whoever waits for the calls (healthchecks.io, Uptime Kuma's push monitor, any other of that kind) tells of a monitor
that has died, hangs or cannot write: the one thing that it cannot tell itself. The URL is a secret: whoever knows it
can pretend that all is well. It is in no log, no error and no metric.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from anvil_monitor.exporter.exposition import Family, Sample
from anvil_monitor.exporter.names import HEARTBEATS
from anvil_monitor.targets import Monitor, Secret, format_duration

from .outcomes import describe

logger = logging.getLogger(__name__)

# Seconds for one call, and until one that failed or was withheld is tried again: well before whoever waits gives up.
TIMEOUT: Final = 10.0
AGAIN: Final = 10.0
OUTCOMES: Final = ("sent", "failed", "withheld")
# They write the URL of every request into their log.
TALKATIVE: Final = ("httpx", "httpcore")


def refused(url: str) -> str:
    """Why ``url`` cannot be called, without a word of it; empty where it can."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    return "" if good else "is no URL that can be called: write https://HOST/PATH"


class Heartbeat:
    """Calls the URL. ``counts`` says what became of the beats since the start."""

    def __init__(self, url: Secret, interval: float, environ: Mapping[str, str]) -> None:
        self._url, self._interval, self._environ = url, interval, dict(environ)
        self._trouble = ""
        self.counts = dict.fromkeys(OUTCOMES, 0)

    @classmethod
    def of(cls, monitor: Monitor, environ: Mapping[str, str]) -> Heartbeat | None:
        """The one that is configured, if one is."""
        return cls(monitor.heartbeat, monitor.heartbeat_interval, environ) if monitor.heartbeat else None

    async def run(self, ailing: Callable[[], Awaitable[str]]) -> None:
        """Beat for ever, while ``ailing`` says nothing; what it says is why there is none."""
        loop = asyncio.get_running_loop()
        soon = min(AGAIN, self._interval)
        await asyncio.sleep(soon)  # what has just been started has proved nothing
        while True:
            begin = loop.time()
            if reason := await self._ailing(ailing):
                self._count("withheld", f"withheld: {reason}")
                pause = soon
            else:
                pause = self._interval if await self.beat() else soon
            await asyncio.sleep(max(0.0, pause - (loop.time() - begin)))

    async def _ailing(self, ailing: Callable[[], Awaitable[str]]) -> str:
        """What takes as long as a whole interval hangs."""
        try:
            async with asyncio.timeout(max(1.0, self._interval)):
                return await ailing()
        except TimeoutError:
            return f"no answer from the monitor's own parts within {format_duration(max(1.0, self._interval))}"

    async def beat(self) -> bool:
        """Call the URL once; whether that was answered with success."""
        import httpx

        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            url = self._url.reveal(self._environ)
            if reason := refused(url):
                raise LookupError(f"what {self._url.origin} holds {reason}")
            async with (
                asyncio.timeout(TIMEOUT),
                httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=TIMEOUT) as client,
                client.stream("GET", url, headers={"User-Agent": "anvil-monitor"}) as answer,
            ):  # the body is never read
                problem = "" if answer.is_success else f"answered HTTP {answer.status_code}"
        except LookupError as error:
            problem = str(error.args[0])
        except TimeoutError:
            problem = f"no answer within {format_duration(TIMEOUT)}"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            problem = describe(error)
        self._count("failed" if problem else "sent", problem)
        return not problem

    def _count(self, outcome: str, trouble: str) -> None:
        """Count, and tell what is new."""
        self.counts[outcome] += 1
        if trouble and trouble != self._trouble:
            logger.warning("heartbeat: %s", trouble)
        elif self._trouble and not trouble:
            logger.info("heartbeat: sent again")
        self._trouble = trouble

    def families(self) -> list[Family]:
        """What it tells about itself on ``/metrics``."""
        return [Family(HEARTBEATS, [Sample("", (("outcome", name),), count) for name, count in self.counts.items()])]


class Switch:
    """Beats once for each sign of life, in the background: for the notifier, whose Alertmanager posts the Watchdog."""

    def __init__(self, heartbeat: Heartbeat | None) -> None:
        self._heartbeat = heartbeat
        self._beating: asyncio.Task[bool] | None = None

    def alive(self) -> None:
        """One beat, unless one is under way."""
        if self._heartbeat is not None and (self._beating is None or self._beating.done()):
            self._beating = asyncio.create_task(self._heartbeat.beat())

    async def close(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._beating

    def families(self) -> list[Family]:
        return self._heartbeat.families() if self._heartbeat is not None else []
