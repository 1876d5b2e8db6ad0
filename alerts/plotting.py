"""A small picture of the last hour for a mail: a PNG, written with nothing but zlib.

Mail programs show no SVG, and a plotting library would weigh more than all the rest. The picture has a line of values,
a dashed line at the limit, and a few labels in a bitmap font.
"""

from __future__ import annotations

import itertools
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Final

WIDTH: Final = 560
HEIGHT: Final = 200
LEFT, RIGHT, TOP, BOTTOM = 74, 12, 12, 24
# The picture's colours, by number: paper, grid, ink, limit, values.
PAPER, GRID, INK, LIMIT, LINE = range(5)
PALETTE: Final = bytes.fromhex("ffffffe4e7ec475467d92d20175cd3")
# Points further apart than this many usual steps are not joined: nothing was measured there.
GAP: Final = 3.0
# Nothing that is measured is as large; NaN is not smaller than anything.
LARGEST: Final = 1e15

# Five columns of seven dots for a letter, the lowest bit on top: the font of small displays everywhere.
GLYPHS: Final = {
    letter: bytes.fromhex(columns)
    for letter, columns in (
        pair.split("=")
        for pair in (  # noqa: SIM905 (forty words in quotes of their own would be harder to read)
            "0=3e5149453e 1=00427f4000 2=4261514946 3=2141454b31 4=1814127f10 5=2745454539 6=3c4a494930 7=0171090503 "
            "8=3649494936 9=064949291e :=0036360000 .=0060600000 -=0808080808 +=08083e0808 %=2313086462 /=2010080402 "
            "B=7f49494936 G=3e41495172 K=7f08142241 M=7f020c027f T=01017f0101 a=2054545478 b=7f48444438 c=3844444420 "
            "d=384444487f e=3854545418 f=087e090102 g=0c5252523e h=7f08040478 i=00447d4000 k=7f10284400 l=00417f4000 "
            "m=7c04180478 n=7c08040478 o=3844444438 p=7c14141408 r=7c08040408 s=4854545420 t=043f444020 u=3c4040207c "
            "v=1c2040201c w=3c4030403c x=4428102844 y=0c5050503c z=4464544c44 µ=fe2020103e"
        ).split()
    )
}


class Canvas:
    """Pixels by colour number; what lies outside is not drawn."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._rows = [bytearray(width) for _ in range(height)]

    def dot(self, x: int, y: int, colour: int) -> None:
        if 0 <= x < self.width and 0 <= y < self.height:
            self._rows[y][x] = colour

    def line(self, x0: int, y0: int, x1: int, y1: int, colour: int, thick: int = 1) -> None:
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for step in range(steps + 1):
            x, y = x0 + (x1 - x0) * step // steps, y0 + (y1 - y0) * step // steps
            for more in range(thick):
                self.dot(x, y + more, colour)
                self.dot(x + more, y, colour)

    def text(self, x: int, y: int, text: str, colour: int) -> None:
        """``text`` with its upper left corner at ``x``, ``y``. A letter that the font lacks is left blank."""
        for letter in text:
            for column, dots in enumerate(GLYPHS.get(letter, b"")):
                for row in range(8):
                    if dots >> row & 1:
                        self.dot(x + column, y + row, colour)
            x += 6

    def png(self) -> bytes:
        """https://www.w3.org/TR/png-3/: indexed colours, eight bits a pixel, no filter."""
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 3, 0, 0, 0)
        data = zlib.compress(b"".join(b"\0" + row for row in self._rows), 9)
        chunks = ((b"IHDR", header), (b"PLTE", PALETTE), (b"IDAT", data), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in chunks
        )


def plot(
    points: Sequence[tuple[float, float]],
    start: float,
    end: float,
    limit: float | None,
    shown: Callable[[float], str],
) -> bytes:
    """A PNG of ``points`` (seconds since the epoch, value) from ``start`` to ``end``; empty if there are none.

    ``shown`` writes a value in human units for the labels. Values that are no number are gaps.
    """
    good = [(at, value) for at, value in points if abs(value) < LARGEST and start <= at <= end]
    if not good or end <= start:
        return b""
    bounds = [value for _, value in good] + ([limit] if limit is not None and abs(limit) < LARGEST else [])
    low, high = min(0.0, *bounds), max(bounds)
    high = high + 0.08 * (high - low) if high > low else low + 1.0
    canvas = Canvas(WIDTH, HEIGHT)
    bottom = HEIGHT - BOTTOM

    def column(at: float) -> int:
        return LEFT + round((at - start) / (end - start) * (WIDTH - LEFT - RIGHT - 1))

    def row(value: float) -> int:
        return bottom - round((value - low) / (high - low) * (bottom - TOP))

    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low) / 1.08
        canvas.line(LEFT, row(value), WIDTH - RIGHT, row(value), GRID)
        _label(canvas, row(value), shown(value), INK)
    for share in (0.0, 0.5, 1.0):
        text = time.strftime("%H:%M", time.localtime(start + share * (end - start)))
        x = column(start + share * (end - start))
        canvas.text(min(max(LEFT, x - 15), WIDTH - RIGHT - 30), bottom + 8, text, INK)
        canvas.line(x, bottom, x, bottom + 3, INK)
    canvas.line(LEFT, bottom, WIDTH - RIGHT, bottom, INK)
    if limit is not None and abs(limit) < LARGEST:
        for x in range(LEFT, WIDTH - RIGHT, 8):
            canvas.line(x, row(limit), min(x + 4, WIDTH - RIGHT), row(limit), LIMIT)
        canvas.text(LEFT + 4, row(limit) - 10 if row(limit) > TOP + 10 else row(limit) + 4, "limit", LIMIT)
    steps = sorted(later - earlier for (earlier, _), (later, _) in itertools.pairwise(good))
    usual = steps[len(steps) // 2] if steps else 0.0
    for number, (at, value) in enumerate(good):
        before = good[number - 1] if number and at - good[number - 1][0] <= GAP * usual else (at, value)
        canvas.line(column(before[0]), row(before[1]), column(at), row(value), LINE, thick=2)
    return canvas.png()


def _label(canvas: Canvas, y: int, text: str, colour: int) -> None:
    text = text[: (LEFT - 8) // 6]
    canvas.text(LEFT - 6 - 6 * len(text), y - 4, text, colour)
