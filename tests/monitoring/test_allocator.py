"""Arrays that come and go cost the kernel no new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

COUNTED = """
import resource, sys
import numpy as np
from anvil_monitor.monitoring import allocator
if sys.argv[1] == "kept":
    assert allocator.keep_freed_pages()
np.ones(500_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    np.ones(500_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_pages_are_used_again() -> None:
    """Fifty arrays of 4 MB: without it the kernel clears pages for each of them, with it for the first alone."""
    faults = [
        int(subprocess.run([sys.executable, "-c", COUNTED, how], capture_output=True, text=True, check=True).stdout)
        for how in ("default", "kept")
    ]
    assert faults[1] < 1000
    assert faults[1] < faults[0]


GIVES = """
import threading
import numpy as np
from anvil_monitor.monitoring import allocator

def megabytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

def use():
    used = [np.ones(20_000) for _ in range(600)]  # 96 MB, as an export or the packing of an hour does
    kept.append(np.ones(20_000))  # at its end there is something that goes on
    del used

allocator.keep_freed_pages()
kept, began = [], megabytes()
threads = [threading.Thread(target=use) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
after = megabytes() - began
allocator.give_back()
print(after, megabytes() - began)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_what_threads_have_freed_is_given_back() -> None:
    """Freed memory of other threads stays theirs by itself; asked for, all but a little goes back."""
    command = [sys.executable, "-c", GIVES]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    after, given_back = map(float, found)
    assert after > 60
    assert given_back < 30
