"""Is the host's clock right? What the kernel believes, asked with ``adjtimex`` (nothing is changed, no right needed).

A wrong clock makes alerts late and histories overlap. https://man7.org/linux/man-pages/man2/adjtimex.2.html
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from . import names
from .exposition import Family, Sample

# struct timex: modes, offset, frequency, maxerror, esterror, status; the rest is not read.
_TIMEX = struct.Struct("@I l l l l i")
_SIZE = 512  # more than the whole struct on any platform
_UNSYNCHRONIZED, _NANOSECONDS = 0x0040, 0x2000


class Clock(NamedTuple):
    """Seconds; ``error``: the most it may be off."""

    synchronized: bool
    offset: float
    error: float


def read() -> Clock | None:
    """``None`` where there is no such call, or it is forbidden (a container's seccomp profile)."""
    adjtimex = _adjtimex()
    buffer = ctypes.create_string_buffer(_SIZE)  # all zero: ask, set nothing
    if adjtimex is None or adjtimex(buffer) < 0:
        return None
    _, offset, _, error, _, status = _TIMEX.unpack_from(buffer)
    return Clock(not status & _UNSYNCHRONIZED, offset / (1e9 if status & _NANOSECONDS else 1e6), error / 1e6)


def collect() -> Iterator[Family]:
    """``system_clock_*``."""
    clock = read()
    if clock is not None:
        yield Family(names.SYSTEM_CLOCK_SYNCHRONIZED, (Sample("", (), float(clock.synchronized)),))
        yield Family(names.SYSTEM_CLOCK_OFFSET, (Sample("", (), clock.offset),))
        yield Family(names.SYSTEM_CLOCK_ERROR, (Sample("", (), clock.error),))


@cache
def _adjtimex() -> Any:
    return getattr(ctypes.CDLL(None), "adjtimex", None)
