"""The pages of all workers, read together; what a dead worker counted is folded into one retired page.

Folding happens under the lock file, in this order: write the new retired page beside the old one, rename it over, remove
the dead worker's page. The retired page names the pages that are in it, so that a process killed between the last two
steps counts nothing twice. Totals never go down, and the number of files stays bounded by the number of live workers.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from . import layout
from .layout import Key, PageError
from .page import MAX_SIZE, PREFIX, SUFFIX
from .users import union

logger = logging.getLogger(__name__)
RETIRED: Final = "retired"
# How long a collection waits for another one; a healthy one takes milliseconds.
PATIENCE: Final = 2.0
# Unfinished files of a maker that was killed are removed after this many seconds.
UNFINISHED: Final = 60.0


class FolderBusy(OSError):
    """Another process holds the lock and does not let go (it was stopped, or its disk is)."""


@dataclass(slots=True)
class Totals:
    """What the pages say together: ``lasting`` over all workers that ever were, ``levels`` of the living."""

    lasting: dict[Key, list[float]] = field(default_factory=dict)
    levels: dict[Key, list[float]] = field(default_factory=dict)
    users: int = 0
    workers: int = 0
    refused: int = 0

    def add(self, content: Content, *, living: bool, window: int) -> None:
        for key, values in content.records:
            if key.kind in layout.LASTING:
                _sum_into(self.lasting, key, values)
            elif key.kind == "users":
                # A client of the last minute was served, also when the worker that served it has died since.
                self.users |= union(memoryview(struct.pack(f"={len(values)}d", *values)).cast("Q"), window)
            elif living:
                self.levels.setdefault(key, []).append(values[0])
        self.workers += living


@dataclass(frozen=True, slots=True)
class Content:
    """One page's records."""

    page_id: str
    records: list[tuple[Key, Sequence[float]]]


def parse(data: bytes, size: int | None = None) -> Content:
    """The records of a page's bytes. Raises :class:`~.layout.PageError`."""
    header = layout.read_header(data, len(data) if size is None else size)
    words = memoryview(data[: header.used])
    if len(words) < header.used:
        raise PageError(f"cut short: {len(data)} bytes of {header.used}")
    cells = words.cast("d")
    records = layout.read_records(data[: header.used])
    return Content(header.page_id, [(key, cells[first : first + count]) for key, first, count in records])


def collect(folder: Path, window: int) -> Totals:
    """Read every page; fold those of dead workers. Raises ``OSError``."""
    with _locked(folder):
        retired = _read_retired(folder)
        folded = {each for key, _ in retired.records if key.kind == "folded" for each in key.labels}
        totals = Totals()
        totals.add(retired, living=False, window=window)
        dead: dict[Path, Content] = {}
        for path in sorted(folder.glob(f"{PREFIX}*{SUFFIX}")):
            try:
                content, is_dead = _read(path)
            except (OSError, PageError) as error:
                totals.refused += 1
                logger.debug("%s is left out: %s", path, error)
                continue
            if content.page_id in folded:  # counted already; whoever was to remove it was killed
                path.unlink(missing_ok=True)
                continue
            totals.add(content, living=not is_dead, window=window)
            if is_dead:
                dead[path] = content
        if dead:
            _fold(folder, retired, dead)
        _remove_unfinished(folder)
        return totals


def _read(path: Path) -> tuple[Content, bool]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise PageError("another user's file")
        if status.st_size > MAX_SIZE:
            raise PageError(f"{status.st_size} bytes, a page has at most {MAX_SIZE}")
        # Liveness first, numbers second: what a worker wrote before it died is in a copy taken after its death.
        dead = False
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            dead = True
        with open(descriptor, "rb", closefd=False) as file:
            header = layout.read_header(head := file.read(layout.HEADER_SIZE), status.st_size)
            return parse(head + file.read(header.used - layout.HEADER_SIZE)), dead
    finally:
        os.close(descriptor)


def _read_retired(folder: Path) -> Content:
    path = folder / RETIRED
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return Content("", [])
    except PageError as error:
        aside = path.with_name("retired.damaged")
        path.replace(aside)
        logger.warning("anvil-monitor set %s aside (%s): totals of ended workers start anew", aside, error)
        return Content("", [])


def _fold(folder: Path, retired: Content, dead: dict[Path, Content]) -> None:
    totals = Totals()
    for content in (retired, *dead.values()):
        totals.add(content, living=False, window=0)
    ids = tuple(content.page_id for content in dead.values())
    body = layout.record(Key("folded", "", ids).encode(), 0)
    for key, values in totals.lasting.items():
        empty = layout.record(key.encode(), len(values))
        body += empty[: -8 * len(values)] + struct.pack(f"={len(values)}d", *values)
    header = layout.pack_header(layout.HEADER_SIZE + len(body), os.urandom(16), time.time(), os.getpid())
    new = folder / f".new-{RETIRED}"
    try:
        new.write_bytes(header + body)
        new.replace(folder / RETIRED)
    except OSError as error:  # a full disk: the pages stay and are folded another time
        logger.warning("anvil-monitor cannot fold %d ended workers in %s: %s", len(dead), folder, error.strerror)
        new.unlink(missing_ok=True)
        return
    for path in dead:
        path.unlink(missing_ok=True)


def _sum_into(sums: dict[Key, list[float]], key: Key, values: Sequence[float]) -> None:
    known = sums.get(key)
    sums[key] = list(values) if known is None else [a + b for a, b in zip(known, values, strict=True)]


def _remove_unfinished(folder: Path) -> None:
    for path in folder.glob(".new-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > UNFINISHED:
                path.unlink()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise FolderBusy(f"{folder} is held by another process") from None
                time.sleep(0.002)
        yield
    finally:
        os.close(descriptor)
