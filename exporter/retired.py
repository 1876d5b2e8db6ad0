"""The ``retired`` page: what dead workers counted, and how a dead worker's page gets into it.

Folding is done by one process at a time (``fold.lock``) and may be killed at any instant: the new ``retired`` names the
pages that it took in, and replaces the old one in one step, before their files are removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from operator import add
from typing import Final

from . import layout
from .layout import Key
from .names import BY_NAME, OVERFLOW
from .totals import Reading, Totals

RETIRED: Final = "retired"
FOLD_LOCK: Final = "fold.lock"
# Dead workers may each have had other label sets: beyond this many series they share their metric's overflow series.
MAX_RETIRED_SERIES: Final = 8000
# Beyond this many metrics without room of their own, further ones are dropped.
MAX_RETIRED_OVERFLOW: Final = 1000
# Pages that one new retired page takes in, and the names that it holds at most, with those that could not be removed.
MAX_FOLD: Final = 1000
MAX_NAMES: Final = 10_000


@contextlib.contextmanager
def fold_lock(folder: int) -> Iterator[bool]:
    """Whether this process may fold now in the folder of this descriptor. Raises ``OSError``."""
    lock = os.open(
        FOLD_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=folder
    )
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # a child forked meanwhile has the lock file open, too
    finally:
        os.close(lock)


def retired_page(sums: Totals, taken: list[str]) -> bytes:
    """A retired page with the lasting values of ``sums``, which names the page files ``taken``."""
    lasting = _capped(sums)
    metrics = sorted({key.name for key in lasting} & set(sums.metrics))
    parts = [layout.record(Key("folded", "", tuple(("page", name) for name in taken)).encode(), [])]
    parts += [layout.record(layout.describe(sums.metrics[name]).encode(), []) for name in metrics]
    parts += [layout.record(key.encode(), values) for key, values in lasting.items()]
    body = b"".join(parts)
    return layout.pack_header(layout.HEADER_SIZE + len(body), time.time(), os.getpid()) + body


def folded(retired: Reading | None) -> frozenset[str]:
    """The names of the page files that ``retired`` has taken in."""
    if retired is None:
        return frozenset()
    return frozenset(name for key, _, _ in retired.records if key.kind == "folded" for _, name in key.labels)


def replace(folder: int, data: bytes) -> None:
    """Put a new retired page in the place of the old one, in one step. Raises ``OSError``."""
    new = f".new-{os.getpid()}-{secrets.token_hex(6)}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        os.rename(new, RETIRED, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new, dir_fd=folder)
        raise


def _capped(sums: Totals) -> dict[Key, list[float]]:
    result: dict[Key, list[float]] = {}
    for key, values in sums.lasting.items():
        if len(result) >= MAX_RETIRED_SERIES and key not in result:
            key = overflow(key)
            if len(result) >= MAX_RETIRED_SERIES + MAX_RETIRED_OVERFLOW and key not in result:
                continue
        known = result.get(key)
        result[key] = values if known is None else list(map(add, known, values))
    return result


# The overflow series of a metric that names.py does not have: the attribute is OpenTelemetry's own.
# https://opentelemetry.io/docs/specs/otel/metrics/sdk/#overflow-attribute
FOREIGN_OVERFLOW: Final[layout.Pairs] = (("otel_metric_overflow", "true"),)


def overflow(key: Key) -> Key:
    """The series of the same metric that takes what has no room of its own."""
    metric = BY_NAME.get(key.name)
    labels = FOREIGN_OVERFLOW
    if metric is not None:
        labels = tuple((label, OVERFLOW) for label in sorted(metric.labels))
    return Key(key.kind, key.name, labels, key.edges)
