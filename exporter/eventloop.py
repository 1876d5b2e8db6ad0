"""How late the event loop wakes up: what a blocking call in one request costs all the others.

A timer of the loop itself, twice a second: no task, so that nothing holds a shutdown up, and one for each loop. A tick
that comes 300 ms late is a loop that ran nobody else's code for 300 ms.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from time import monotonic
from typing import Final
from weakref import WeakKeyDictionary, WeakSet

from . import names
from .cells import Histogram
from .recorder import Recorder

logger = logging.getLogger("anvil_monitor.exporter")
TICK_SECONDS: Final = 0.5
# How often requests look whether their loop has its timer: there may be a new loop.
LOOK_SECONDS: Final = 5.0


class LoopLag:
    """Records the lag of every loop it is shown. ``due``: the monotonic time from which to call :meth:`watch` again."""

    def __init__(self, recorder: Recorder, edges: tuple[float, ...]) -> None:
        self.due = 0.0
        self._recorder, self._edges = recorder, edges
        self._series: Histogram | None = None
        self._loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

    def watch(self) -> None:
        """See to it that the running loop has its timer. Where no asyncio loop runs (trio) nothing happens."""
        self.due = monotonic() + LOOK_SECONDS
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if loop not in self._loops:
            self._loops.add(loop)
            self._again(loop)

    def _again(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(TICK_SECONDS, self._tick, loop, monotonic() + TICK_SECONDS)

    def _tick(self, loop: asyncio.AbstractEventLoop, expected: float) -> None:
        try:
            if self._series is None:
                self._series = self._recorder.histogram(names.EVENT_LOOP_LAG, (), self._edges)
            self._series.record(max(0.0, monotonic() - expected))
        except Exception:
            logger.exception("anvil-monitor could not record the lag of the event loop, and no longer tries")
            return
        self._again(loop)


_by_recorder: WeakKeyDictionary[Recorder, LoopLag] = WeakKeyDictionary()
_making = threading.Lock()


def lag_of(recorder: Recorder, edges: tuple[float, ...]) -> LoopLag:
    """The one of ``recorder``: two applications of one service share their loop's timer."""
    with _making:
        if recorder not in _by_recorder:
            _by_recorder[recorder] = LoopLag(recorder, edges)
        return _by_recorder[recorder]
