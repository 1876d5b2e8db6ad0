"""The notifier's rounds: what Alertmanager said last goes through the pipeline, after each post and every second.

So what depends on time (hours, maintenance, escalation, repeats) happens although nothing is posted. A post is only
written down before it is answered; what is posted while a round runs is told by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from .model import Alert
from .pipeline import Pipeline
from .posted import Posted

logger = logging.getLogger(__name__)

EVERY: Final = 1.0  # seconds

# Which of these alerts fire, as far as it can be known: by fingerprint, ``None`` for what nobody can say.
Fires = Callable[[Sequence[Alert]], dict[str, bool | None]]


class Rounds:
    """Runs them. Its methods may be called by any thread."""

    def __init__(self, pipeline: Pipeline, posted: Posted, clock: Callable[[], float], fires: Fires) -> None:
        self._pipeline, self._posted, self._clock, self._fires = pipeline, posted, clock, fires
        self._lock = threading.Lock()
        self._wake = asyncio.Event()
        self._closed = False

    def take(self, alerts: Sequence[Alert], origin: str, whole: bool) -> bool:
        """Write down what was posted, for :meth:`round` to tell; see :meth:`Posted.take`."""
        with self._lock:
            return self._posted.take(alerts, origin, whole)

    def wake(self) -> None:
        """Begin a round now. For the thread of :meth:`run`."""
        self._wake.set()

    def round(self) -> None:
        """Ask after what is doubtful, then tell of what is due."""
        with self._lock:
            doubtful = self._posted.doubtful(self._clock()) if not self._closed else []
        answers = self._fires(doubtful) if doubtful else {}  # it may take seconds: a post must not wait for it
        with self._lock:
            if self._closed:
                return
            self._posted.judge(answers, self._clock())
            self._pipeline.update(self._posted.alerts(), self._posted.held())
            if self._pipeline.problem is None:
                self._posted.settle(self._pipeline.knows)

    async def run(self) -> None:
        """Rounds for ever."""
        while True:
            try:
                await asyncio.to_thread(self.round)
            except Exception:
                logger.exception("a round failed and begins again")
                await asyncio.sleep(EVERY)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await self._wake.wait()
            self._wake.clear()

    def close(self) -> None:
        """No round begins any more; one that is under way ends first."""
        with self._lock:
            self._closed = True
