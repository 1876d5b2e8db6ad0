"""The in-memory head: samples of series that come together lie together, one row an instant, one column a series.

A *sheet* is what one source appends: a scrape target, a rule. Its rows are kept in *segments* of at most ``ROWS``, so
that trimming drops whole segments and nothing is copied. A series belongs to one sheet. Rows that were handed out are
never written again: what must change in them (a sample that comes late) changes in a copy of the last segment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .samples import ABSENT, Floats, Integers, Labels, Panel, as_slice, is_absent

ROWS = 512
"""Rows of a full segment; the first ones of a sheet are smaller."""

FIRST = 32

CELLS = 4_000_000
"""Cells that a segment has at most (32 MB), as long as that leaves it ``FIRST`` rows."""

SPARSE = 8
"""Columns that are appended without the rest get a sheet of their own when they are less than this part of it."""

NEVER = np.iinfo(np.int64).min


class Entry:
    """One series: its labels, the sheet it lives in, and its column in that sheet's last segment (-1: in none)."""

    __slots__ = ("column", "labels", "last", "sheet")

    def __init__(self, labels: Labels, sheet: Sheet) -> None:
        self.labels = labels
        self.sheet = sheet
        self.column = -1
        self.last = int(NEVER)  # of a series without a column; the others' last times are with the sheet


class Layout:
    """Which series the columns of a segment belong to. Compared by identity."""

    __slots__ = ("columns", "entries")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = tuple(entries)
        self.columns = {entry: column for column, entry in enumerate(self.entries)}


class Segment:
    """Some rows: ``start:end`` of the arrays are filled. ``counts`` tells how many samples a row has."""

    __slots__ = ("counts", "end", "layout", "start", "times", "values")

    def __init__(self, layout: Layout, rows: int) -> None:
        self.layout = layout
        self.times: Integers = np.empty(rows, dtype=np.int64)
        self.values: Floats = np.empty((rows, len(layout.entries)), dtype=np.float64)
        self.counts: Integers = np.zeros(rows, dtype=np.int64)
        self.start = self.end = 0

    @property
    def rows(self) -> int:
        return self.end - self.start

    @property
    def room(self) -> int:
        return len(self.times)

    def filled(self) -> tuple[Integers, Floats]:
        return self.times[self.start : self.end], self.values[self.start : self.end]

    def between(self, first: int, last: int) -> tuple[Integers, Floats] | None:
        """Views of the rows with ``first <= t <= last``."""
        times, values = self.filled()
        low, high = int(times.searchsorted(first)), int(times.searchsorted(last, side="right"))
        return None if low >= high else (times[low:high], values[low:high])

    def copied(self, layout: Layout, at: int | None = None) -> Segment:
        """The same rows in new arrays; ``layout`` may have more columns. With ``at``, an empty row there besides."""
        times, values = self.filled()
        counts = self.counts[self.start : self.end]
        if at is not None:
            times, counts = np.insert(times, at, 0), np.insert(counts, at, 0)
            values = np.insert(values, at, ABSENT, axis=0)
        new = Segment(layout, self.room)
        end = new.end = len(times)
        new.times[:end], new.counts[:end] = times, counts
        new.values[:end, : values.shape[1]] = values
        new.values[:end, values.shape[1] :] = ABSENT
        return new


class Sheet:
    """The segments of one source, oldest first; the last one is written."""

    __slots__ = ("last", "segments", "time")

    def __init__(self) -> None:
        self.segments = [Segment(Layout(()), FIRST)]
        self.time = int(NEVER)
        self.last: Integers = np.empty(0, dtype=np.int64)
        """When each column of the last segment had its last sample."""

    @property
    def layout(self) -> Layout:
        return self.segments[-1].layout

    def last_of(self, entry: Entry) -> int:
        return entry.last if entry.column < 0 else int(self.last[entry.column])

    def add(self, entries: Sequence[Entry]) -> None:
        """Columns for series that have none in the last segment."""
        tail = self.segments[-1]
        self.last = np.concatenate((self.last, np.array([entry.last for entry in entries], dtype=np.int64)))
        for column, entry in enumerate(entries, start=len(tail.layout.entries)):
            entry.sheet, entry.column = self, column
        layout = Layout((*tail.layout.entries, *entries))
        if tail.rows <= tail.room // 2:  # copying little is better than many short segments
            self.segments[-1] = tail.copied(layout)
        else:
            self.segments.append(Segment(layout, self._rows(tail.room, len(layout.entries))))

    def append(self, time: int, columns: Integers | slice, values: Floats) -> None:
        """A row after the last one. There is always room for it."""
        tail = self.segments[-1]
        end = tail.end
        row = tail.values[end]
        if len(values) < len(row):
            row[:] = ABSENT
        row[columns] = values
        tail.times[end], tail.counts[end] = time, len(values)
        tail.end = end + 1
        self.last[columns] = time
        self.time = time
        if tail.end == tail.room:
            self._roll()

    def amend(self, time: int, columns: Integers, values: Floats) -> None:
        """Samples newer than their series' last, but not than the sheet's: a row in the last segment."""
        tail = self.segments[-1]
        at = int(tail.filled()[0].searchsorted(time))
        there = at < tail.rows and tail.times[tail.start + at] == time
        tail = self.segments[-1] = tail.copied(tail.layout, None if there else at)
        tail.times[at] = time
        tail.values[at, columns] = values
        tail.counts[at] += len(values)
        self.last[columns] = time
        if tail.end == tail.room:
            self._roll()

    def amendable(self, time: int) -> bool:
        """Whether a row at this time, not newer than the last, would lie inside the last segment."""
        tail = self.segments[-1]
        return tail.rows > 0 and time >= tail.times[tail.start]

    def _roll(self) -> None:
        """A new segment, for the series that had a sample in the full one."""
        full = self.segments[-1]
        last = self.last.tolist()
        first = int(full.times[full.start])
        alive: list[Entry] = []
        for entry in full.layout.entries:
            if entry.sheet is not self:
                continue
            entry.last = last[entry.column]
            if entry.last >= first:
                alive.append(entry)
            else:
                entry.column = -1
        # What a selector takes then lies side by side, mostly.
        alive.sort(key=lambda entry: entry.labels)
        for column, entry in enumerate(alive):
            entry.column = column
        self.last = np.array([entry.last for entry in alive], dtype=np.int64)
        layout = full.layout if tuple(alive) == full.layout.entries else Layout(alive)
        self.segments.append(Segment(layout, self._rows(full.room, len(alive))))

    @staticmethod
    def _rows(before: int, width: int) -> int:
        return max(FIRST, min(2 * before, ROWS, CELLS // max(1, width)))

    def trim(self, before: int) -> int:
        """Forget rows older than ``before``; how many samples they held."""
        gone = 0
        kept = []
        for segment in self.segments:
            start = segment.start + int(segment.filled()[0].searchsorted(before))
            gone += int(segment.counts[segment.start : start].sum())
            segment.start = start
            if segment.rows or segment is self.segments[-1]:
                kept.append(segment)
        self.segments = kept
        return gone

    def between(self, first: int, last: int) -> list[tuple[Layout, Integers, Floats]]:
        """Views of the rows with ``first <= t <= last``, oldest first."""
        parts = []
        for segment in reversed(self.segments):
            if not segment.rows:
                continue
            if segment.times[segment.end - 1] < first:
                break
            view = segment.between(first, last)
            if view is not None:
                parts.append((segment.layout, *view))
        return parts[::-1]

    def detach(self, entries: Sequence[Entry]) -> Sheet:
        """A sheet of their own for these series, with their samples."""
        sheet = Sheet()
        wanted = Columns(entries)
        parts = []
        for segment in self.segments:
            times, values = segment.filled()
            own = wanted.take(segment.layout, values)
            there = ~is_absent(own)
            segment.counts[segment.start : segment.end] -= there.sum(axis=1)
            rows = there.any(axis=1)
            parts.append((times[rows], own[rows], there[rows]))
        for entry in entries:
            entry.last = self.last_of(entry)
            entry.column = -1
        sheet.add(entries)
        for times, values, there in parts:
            segment = Segment(sheet.layout, max(FIRST, len(times) + 1))
            segment.end = len(times)
            segment.times[: segment.end], segment.values[: segment.end] = times, values
            segment.counts[: segment.end] = there.sum(axis=1)
            if segment.end:
                sheet.segments.insert(-1, segment)
                sheet.time = int(times[-1])
        return sheet


class Columns:
    """Some series of one sheet, and where they are in each layout of it: what a selector has matched."""

    __slots__ = ("_places", "entries", "labels")

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = tuple(entries)
        self.labels = tuple(entry.labels for entry in self.entries)
        self._places: dict[Layout, tuple[Integers | slice, Integers | None]] = {}

    def _place(self, layout: Layout) -> tuple[Integers | slice, Integers | None]:
        """The columns in the layout, and which of our series these are (None: all of them)."""
        found = self._places.get(layout)
        if found is None:
            columns = np.array([layout.columns.get(entry, -1) for entry in self.entries], dtype=np.int64)
            there = np.flatnonzero(columns >= 0)
            place = as_slice(columns[there])
            if len(self._places) > 64:
                self._places.clear()
            found = self._places[layout] = place, None if len(there) == len(columns) else there
        return found

    def take(self, layout: Layout, values: Floats) -> Floats:
        """Our columns of a segment's rows."""
        columns, there = self._place(layout)
        own: Floats = values[:, columns] if isinstance(columns, slice) else values.take(columns, axis=1)
        if there is None:
            return own
        whole = np.full((len(values), len(self.entries)), ABSENT)
        whole[:, there] = own
        return whole

    def panel(self, parts: Sequence[tuple[Layout, Integers, Floats]]) -> Panel:
        """One panel of rows from several segments, oldest first."""
        if len(parts) == 1:
            layout, times, values = parts[0]
            return Panel(self.labels, times, self.take(layout, values))
        joined = np.empty((sum(len(times) for _, times, _ in parts), len(self.entries)))
        at = 0
        for layout, times, values in parts:
            columns, there = self._place(layout)
            target = joined[at : at + len(times)]
            if there is not None:
                target[:] = self.take(layout, values)
            elif isinstance(columns, slice):
                target[:] = values[:, columns]
            else:
                values.take(columns, axis=1, out=target, mode="clip")  # out= is buffered, that is slow, without clip
            at += len(times)
        return Panel(self.labels, np.concatenate([times for _, times, _ in parts]), joined)
