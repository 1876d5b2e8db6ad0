"""The picture of the last hour: a PNG that holds what was measured."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anvil_monitor.alerts.plotting import BOTTOM, HEIGHT, LEFT, LIMIT, LINE, PAPER, RIGHT, WIDTH, plot


def pixels(png: bytes) -> list[bytes]:
    """The rows of a PNG of ours; checks every checksum on the way."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, data, size = 8, b"", (0, 0)
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        name, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length) == (zlib.crc32(name + body),)
        size = struct.unpack_from(">II", body) if name == b"IHDR" else size
        data += body if name == b"IDAT" else b""
        at += 12 + length
    rows = zlib.decompress(data)
    width, height = size
    assert len(rows) == (width + 1) * height
    return [rows[row * (width + 1) + 1 : (row + 1) * (width + 1)] for row in range(height)]


def drawn(points: list[tuple[float, float]], limit: float | None = 0.2) -> list[bytes]:
    return pixels(plot(points, 0.0, 3600.0, limit, lambda value: f"{value * 1000:.0f} ms"))


def columns(rows: list[bytes], colour: int) -> set[int]:
    return {x for row in rows for x, pixel in enumerate(row) if pixel == colour}


def test_it_has_the_line_and_the_limit() -> None:
    """Values are a line over the whole width; above the limit it runs above the dashes."""
    rows = drawn([(30.0 * number, 0.3 if number > 60 else 0.1) for number in range(121)])
    assert len(columns(rows, LINE)) > 0.9 * (WIDTH - LEFT - RIGHT)
    dashes = next(y for y, row in enumerate(rows) if row.count(LIMIT) > 100)
    assert LINE in {row[LEFT + 100] for row in rows[dashes + 1 :]}
    assert LINE in {row[WIDTH - RIGHT - 100] for row in rows[:dashes]}


def test_a_gap_stays_a_gap() -> None:
    """Where nothing was measured no line is drawn, for NaN neither."""
    points = [(30.0 * number, 0.1) for number in range(121) if not 40 < number < 80]
    middle = set(range(LEFT + 220, LEFT + 280))
    assert not columns(drawn(points, None), LINE) & middle
    nans = [(at, float("nan") if 1300 < at < 2300 else value) for at, value in points]
    assert not columns(drawn(nans, None), LINE) & middle


def test_labels_are_written() -> None:
    """Left of the axis and below it there is text."""
    rows = drawn([(0.0, 0.1), (3600.0, 0.2)])
    assert any(pixel != PAPER for row in rows for pixel in row[: LEFT - 6])
    assert any(pixel != PAPER for row in rows[HEIGHT - BOTTOM + 6 :] for pixel in row)


@pytest.mark.parametrize("points", [[], [(0.0, float("nan"))], [(9999.0, 1.0)]])
def test_nothing_to_draw(points: list[tuple[float, float]]) -> None:
    """Without values there is no picture."""
    assert plot(points, 0.0, 3600.0, 0.2, str) == b""


@given(
    st.lists(st.tuples(st.floats(0, 3600), st.floats(allow_nan=True, allow_infinity=True)), max_size=30),
    st.none() | st.floats(allow_nan=True, allow_infinity=True),
)
def test_any_values_can_be_drawn(points: list[tuple[float, float]], limit: float | None) -> None:
    """Whatever the history holds, there is a whole picture or none."""
    made = plot(sorted(points, key=lambda point: point[0]), 0.0, 3600.0, limit, lambda value: f"{value:g}")
    assert made == b"" or len(pixels(made)) == HEIGHT
