"""The C library's allocator, told that this process makes large arrays and frees them again at once.

By default glibc gives the pages of a freed array back, and the kernel clears new ones for the next array: a fifth of
the time of a query over hours. mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.

What is kept is kept for each thread's own arena and never shrinks by itself there: after an export, or an hour that was
packed, it was tens of megabytes for ever. So it is given back now and then. malloc_trim(3).
"""

from __future__ import annotations

import ctypes
from typing import Final

# malloc.h of glibc
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
KEPT: Final = 8 << 20
"""Bytes of freed memory that are kept for what comes next."""
LARGE: Final = 64 << 20
"""Bytes from which an array has pages of its own, which go back when it is freed."""


def keep_freed_pages() -> bool:
    """Whether it could be told; other C libraries keep their own ways."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(M_TRIM_THRESHOLD, KEPT)) and bool(mallopt(M_MMAP_THRESHOLD, LARGE))
    except (AttributeError, OSError, TypeError):
        return False


def give_back() -> bool:
    """Whether freed memory went back to the system; :data:`KEPT` of it stays. Half a millisecond where it is little."""
    try:
        return bool(ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(KEPT)))
    except (AttributeError, OSError, TypeError):
        return False
