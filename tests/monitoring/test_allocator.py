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
