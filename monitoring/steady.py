"""The time of the monitor: the clock of the machine, but it never goes back.

Series only take what is newer than what they have, windows end now, and what waits waits until an instant. A clock that
is set back by ten minutes (by NTP, or by hand) would make the monitor blind for ten minutes: every scrape would come
late. So this clock goes on instead, a little slower, until that of the machine has come up with it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from anvil_monitor.targets import format_duration

logger = logging.getLogger(__name__)

# By how much slower: of ten minutes nothing is left after eight hours, and a rate is read 2 % too high until then.
SLOWER: Final = 0.02
# Seconds. A clock that was further ahead was simply wrong (a machine without a battery, before its first NTP answer):
# then its times are worth less than what is lost, and this clock goes back, too.
FARTHEST: Final = 3600.0
# Seconds. By less than this clocks are put right all the time; it is not for the log.
WORTH_TELLING: Final = 1.0


class Steady:
    """Seconds since the epoch, from any thread. Where the machine's clock jumps ahead (it slept), so does this one."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._lock = threading.Lock()
        self._told, self._at = wall(), monotonic()
        self._behind = False

    def __call__(self) -> float:
        with self._lock:
            now, at = self._wall(), self._monotonic()
            passed, self._at = max(0.0, at - self._at), at
            goes_on = self._told + passed * (1 - SLOWER)
            back = goes_on - now
            far = back > FARTHEST
            self._told = now if far else max(now, goes_on)
            if back > WORTH_TELLING and not self._behind:
                then = "nothing is taken in until it is there again" if far else "times go on from where they were"
                logger.warning("the clock of this machine was set back by %s: %s", format_duration(back), then)
            self._behind = not far and back > 0
            return self._told
