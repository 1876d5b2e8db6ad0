"""One quiet thread a process that brings to the page what nobody records by itself.

Observable instruments, gauges with a function and the OpenTelemetry SDK's own sums know their values only when they are
asked. The thread asks every few seconds, and before this worker answers a scrape (:meth:`Publisher.flush`). It begins
with the process's page, not at import, and only where there is something to ask. A fork stops it after a last round,
so that no lock is held by a thread that the child does not have, and begins it again on both sides.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Final

from .recorder import Recorder

logger = logging.getLogger("anvil_monitor.exporter")
EVERY_SECONDS: Final = 5.0
# How long a scrape, a fork or the end of the process waits for a callback of the user's.
PATIENCE_SECONDS: Final = 1.0


class Publisher:
    """Calls what was added, in one thread. ``every``: seconds between two rounds. Thread-safe."""

    def __init__(self, every: float = EVERY_SECONDS, patience: float = PATIENCE_SECONDS) -> None:
        self._every, self._patience = every, patience
        self._calls: list[tuple[Recorder, Callable[[], None]]] = []
        self._complained: set[int] = set()
        self._held = False
        self._renew()

    def _renew(self) -> None:
        """What a forked child must not share with a thread that it does not have."""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._asked = self._answered = 0
        self._began: float | None = None

    def add(self, recorder: Recorder, call: Callable[[], None]) -> None:
        """From the first series of ``recorder`` on, have ``call`` bring its page up to date."""
        with self._changed:
            self._calls.append((recorder, call))
        recorder.when_open(self.start)

    def start(self) -> None:
        """Begin, unless it has begun, was stopped, or there is nothing to do."""
        with self._changed:
            if self._calls and self._thread is None and not self._held:
                _guard(self)
                self._thread = threading.Thread(target=self._run, name="anvil-monitor publisher", daemon=True)
                self._thread.start()

    def flush(self) -> bool:
        """Have everything asked now; whether it was done in time. A callback that hangs delays nobody twice."""
        self.start()
        with self._changed:
            thread = self._thread
            if thread is None or thread is threading.current_thread():
                return not self._calls
            if self._began is not None and monotonic() - self._began > self._patience:
                return False
            self._asked += 1
            number = self._asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._answered >= number or self._thread is not thread, self._patience)
            return self._answered >= number

    @property
    def held(self) -> bool:
        """Whether it was stopped."""
        return self._held

    def stop(self) -> None:
        """End after a last round, until :meth:`resume`."""
        with self._changed:
            self._held = True
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._patience)

    def resume(self) -> None:
        with self._changed:
            self._held = False
        self.start()

    def _run(self) -> None:
        thread = threading.current_thread()
        while True:
            with self._changed:
                number = self._asked
                self._began = monotonic()
                last = self._thread is not thread
            self._round()
            with self._changed:
                self._began = None
                self._answered = max(self._answered, number)
                self._changed.notify_all()
                if last:
                    return
                self._changed.wait_for(partial(self._needed, thread, number), self._every)

    def _needed(self, thread: threading.Thread, number: int) -> bool:
        return self._asked > number or self._thread is not thread

    def _round(self) -> None:
        # A recorder that was given up (at the end of a test) is nobody's any more.
        for each in [each for each in self._calls if each[0].closed]:
            self._calls.remove(each)
        for _, call in list(self._calls):
            try:
                call()
            except Exception:
                if id(call) not in self._complained:
                    self._complained.add(id(call))
                    logger.exception("what %r publishes is missing from /metrics", call)


publisher: Final = Publisher()
_guarded: list[Publisher] = []


def _guard(one: Publisher) -> None:
    """See to it that forks and the end of this process find ``one``."""
    if one in _guarded:
        return
    if not _guarded:
        os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
        atexit.register(_at_exit)
    _guarded.append(one)


_stopped: list[Publisher] = []


def _before_fork() -> None:
    _stopped[:] = [one for one in _guarded if not one.held]
    for one in _stopped:
        one.stop()


def _in_parent() -> None:
    while _stopped:
        _stopped.pop().resume()


def _in_child() -> None:
    for one in _guarded:
        one._renew()
    _in_parent()


def _at_exit() -> None:
    for one in _guarded:
        one.stop()
