"""Values over time as text: one series as a plot of dots, several as a line of blocks each, on one scale."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

Points = Sequence[tuple[float, float]]  # Unix seconds and value

BLOCKS: Final = "▁▂▃▄▅▆▇█"
PLAIN_BLOCKS: Final = "_.-=+*#@"
BRAILLE: Final = 0x2800
# Bits of a braille cell, by column and row from the top.
DOTS: Final = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def bounds(series: Sequence[Points]) -> tuple[float, float]:
    """The least and the greatest finite value; 0 and 0 where there is none."""
    values = [value for points in series for _, value in points if math.isfinite(value)]
    return (min(values), max(values)) if values else (0.0, 0.0)


def sparkline(points: Points, start: float, end: float, width: int, scale: tuple[float, float], *, plain: bool) -> str:
    """``points`` between ``start`` and ``end`` in ``width`` characters: the greatest value of each, else a gap."""
    blocks, cells = PLAIN_BLOCKS if plain else BLOCKS, [-math.inf] * width
    for at, value in points:
        if math.isfinite(value):
            place = _place(at, start, end, width)
            cells[place] = max(cells[place], value)
    low, high = scale
    return "".join(
        " " if value == -math.inf else blocks[_place(value, low, high, len(blocks)) if high > low else 0]
        for value in cells
    )


def plot(points: Points, start: float, end: float, width: int, height: int, *, plain: bool) -> list[str]:
    """Lines of a plot with its axes. A line joins neighbours; where there is no value, there is none."""
    low, high = bounds([points])
    across, up = (1, 1) if plain else (2, 4)
    labels = [short(high), short((high + low) / 2), short(low)]
    margin = max(map(len, labels)) + 2
    columns, rows = max(10, width - margin), max(3, height)
    cells = [[0] * columns for _ in range(rows)]
    for x, y in _path(points, start, end, columns * across, rows * up, (low, high)):
        cells[y // up][x // across] |= 1 if plain else DOTS[x % 2][y % 4]
    beside = {0: labels[0], rows // 2: labels[1], rows - 1: labels[2]}
    lines = [
        f"{beside.get(number, ''):>{margin - 2}} ┤{_row(row, plain)}".replace("┤", "|" if plain else "┤").rstrip()
        for number, row in enumerate(cells)
    ]
    first, last = clock(start, end), clock(end, start)
    corner, rule = ("+", "-") if plain else ("└", "─")
    lines.append(" " * (margin - 1) + corner + rule * columns)
    lines.append(" " * margin + first + last.rjust(max(1, columns - len(first))))
    return lines


def short(value: float) -> str:
    """Four digits, for an axis."""
    return f"{value:.4g}"


def clock(at: float, other: float) -> str:
    """A local time; with its date where the span is longer than a day."""
    form = "%H:%M:%S" if abs(at - other) < 86400 else "%m-%d %H:%M"
    return time.strftime(form, time.localtime(at))


def _row(row: Sequence[int], plain: bool) -> str:
    return "".join(("*" if cell else " ") if plain else (chr(BRAILLE + cell) if cell else " ") for cell in row)


def _path(
    points: Points, start: float, end: float, width: int, height: int, scale: tuple[float, float]
) -> list[tuple[int, int]]:
    """The dots, from the upper left: the points and what lies between neighbours that are one step apart."""
    low, high = scale
    span = high - low
    step = min((b[0] - a[0] for a, b in pairwise(points)), default=0.0)
    found: list[tuple[int, int]] = []
    before: tuple[float, int, int] | None = None
    for at, value in points:
        if not math.isfinite(value):
            before = None
            continue
        level = _place(value, low, high, height) if span > 0 else height // 2
        x, y = _place(at, start, end, width), height - 1 - level
        if before is not None and at - before[0] <= 1.5 * step:
            count = max(abs(x - before[1]), abs(y - before[2]), 1)
            dx, dy = (x - before[1]) / count, (y - before[2]) / count
            found += [(before[1] + round(dx * i), before[2] + round(dy * i)) for i in range(1, count)]
        found.append((x, y))
        before = (at, x, y)
    return found


def _place(value: float, low: float, high: float, count: int) -> int:
    """Which of ``count`` equal steps from ``low`` to ``high`` the value is on."""
    if high <= low:
        return 0
    # Halved, so that the distance of two huge numbers is no infinity.
    share = (value / 2 - low / 2) / (high / 2 - low / 2)
    return min(max(math.floor(share * (count - 1) + 0.5), 0), count - 1)
