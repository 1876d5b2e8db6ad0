"""Columns of samples as bytes, bit by bit the same when they come back.

Most columns count something: they are stored as whole numbers (times a power of ten where that makes them whole), as
differences from row to row, in the least number of bytes that holds the greatest of them. Cells that are no number
(absent, stale, any other NaN, infinite, minus zero) are set apart. Columns that are not whole at any scale are stored
as the XOR with the row before. Then bytes of one rank are laid together and compressed with zlib at level 1.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..samples import Booleans, Floats, Integers

LEVEL: Final = 1
GROUP: Final = 32
"""Columns that are packed together, and so read together."""

WHOLE: Final = 2.0**53  # up to here every whole number is a float64
DECIMALS: Final = (3, 6, 9)
POWERS: Final = np.array([float(10**exponent) for exponent in range(10)])
MOST_ODD: Final = 255
MOST_CELLS: Final = 1 << 24
SCALED, XORED = 0, 1
HEADER: Final = struct.Struct("<BBHII")  # kind, bytes a difference, odd patterns, rows, columns

Bytes = NDArray[np.uint8]


class DamagedError(ValueError):
    """Bytes that are not what was written."""


def pack(values: Floats) -> Iterator[tuple[Integers, bytes]]:
    """Groups of columns (their places in ``values``, [time, series], one row at least) and their bytes; all columns."""
    columns = np.arange(values.shape[1])
    whole, exponents = _scales(values)
    size = max(1, min(GROUP, MOST_CELLS // len(values)))
    for members in (columns[whole], columns[~whole]):
        for at in range(0, len(members), size):
            group = members[at : at + size]
            own = np.ascontiguousarray(values[:, group].T)
            packed = _scaled(own, exponents[group]) if whole[group[0]] else None
            yield group, packed if packed is not None else _xored(own)


def unpack(data: bytes) -> Floats:
    """The columns of one group, [time, series] in C order. Raises DamagedError."""
    if len(data) < HEADER.size:
        raise DamagedError("a group of columns is cut off")
    kind, width, odd, rows, columns = HEADER.unpack_from(data)
    if kind not in (SCALED, XORED) or width not in (1, 2, 4, 8) or odd > MOST_ODD:
        raise DamagedError("the head of a group of columns makes no sense")
    if not 0 < rows * columns <= MOST_CELLS:
        raise DamagedError("the head of a group of columns makes no sense")
    cells = rows * columns
    if kind == XORED:
        bits = _unshuffled(inflate(data[HEADER.size :], 8 * cells), 8).reshape(columns, rows)
        bits = np.bitwise_xor.accumulate(bits, axis=1)
        return np.ascontiguousarray(bits.T).view(np.float64)
    sizes = (8 * columns, 8 * columns, columns, 8 * odd, cells if odd else 0, width * columns * max(0, rows - 1))
    raw = inflate(data[HEADER.size :], sum(sizes))
    ends = np.cumsum(sizes)
    bases, factors, exponents, patterns, codes, steps = (
        raw[end - size : end] for end, size in zip(ends.tolist(), sizes, strict=True)
    )
    return _unscaled(
        (rows, columns),
        _unshuffled(steps, width),
        np.frombuffer(bases, np.int64),
        np.frombuffer(factors, np.int64),
        np.frombuffer(exponents, np.uint8),
        np.frombuffer(patterns, np.uint64),
        np.frombuffer(codes, np.uint8),
    )


def pack_times(times: Integers) -> bytes:
    """Rising times as their differences; ``unpack_times`` is the way back."""
    steps = np.diff(times, prepend=0)
    return zlib.compress(_shuffled(np.diff(steps, prepend=0)), LEVEL)


def unpack_times(data: bytes, rows: int) -> Integers:
    """Raises DamagedError, also for times that do not rise."""
    seconds = _unshuffled(inflate(data, 8 * rows), 8).view(np.int64)
    times: Integers = seconds.cumsum().cumsum()
    if rows > 1 and not bool((np.diff(times) > 0).all()):
        raise DamagedError("times do not rise")
    return times


def inflate(data: bytes, size: int) -> bytes:
    """Decompress what must be ``size`` bytes, and never more than that. Raises DamagedError."""
    if size == 0:
        # zlib takes a limit of 0 for none
        return b""
    engine = zlib.decompressobj()
    try:
        raw = engine.decompress(data, size)
        whole = len(raw) == size and (engine.eof or not engine.decompress(engine.unconsumed_tail, 1))
    except zlib.error as error:
        raise DamagedError(f"compressed bytes are damaged: {error}") from None
    if not whole or not engine.eof or engine.unused_data:
        raise DamagedError("compressed bytes are of another length")
    return raw


def _scales(values: Floats) -> tuple[Booleans, Integers]:
    """Which columns are whole numbers at some power of ten, and at which."""
    exponents = np.zeros(values.shape[1], dtype=np.int64)
    with np.errstate(all="ignore"):
        fits: Booleans = np.isfinite(values)
        every = bool(fits.all())
        whole: Booleans = ((values == np.rint(values)) & (np.abs(values) <= WHOLE) | ~fits).all(axis=0)
        for exponent in DECIMALS:
            rest = np.flatnonzero(~whole)
            if not len(rest):
                break
            # A few rows tell nearly always.
            few = values[:: max(1, len(values) // 8), rest]
            rest = rest[(_decimal(few, exponent) | ~np.isfinite(few)).all(axis=0)]
            if len(rest):
                there = True if every else fits[:, rest]
                rest = rest[(_decimal(values[:, rest], exponent) | ~np.asarray(there)).all(axis=0)]
                whole[rest], exponents[rest] = True, exponent
    return whole, exponents


def _decimal(values: Floats, exponent: int) -> Booleans:
    scaled = np.rint(values * POWERS[exponent])
    good: Booleans = (scaled / POWERS[exponent] == values) & (np.abs(scaled) <= WHOLE)
    return good


def _scaled(values: Floats, exponents: Integers) -> bytes | None:
    """None where there are too many kinds of cells that are no number. ``values`` is [series, time]."""
    columns, rows = values.shape
    bits = values.view(np.uint64)
    odd = ~np.isfinite(values) | (bits == np.uint64(1 << 63))
    codes, patterns = np.zeros(0, dtype=np.uint8), np.zeros(0, dtype=np.uint64)
    if odd.any():
        patterns = np.unique(bits[odd])
        if len(patterns) > MOST_ODD:
            return None
        codes = np.where(odd, np.searchsorted(patterns, bits) + 1, 0).astype(np.uint8).ravel()
        values = _filled(values, odd)
    numbers = np.rint(values * POWERS[exponents][:, None]).astype(np.int64)
    factors = _factors(numbers)
    if (factors > 1).any():
        numbers //= factors[:, None]
    steps = np.diff(numbers, axis=1)
    steps = ((steps << 1) ^ (steps >> 63)).view(np.uint64)
    most = int(steps.max()) if steps.size else 0
    width = next(size for size in (1, 2, 4, 8) if most < 1 << 8 * size)
    head = HEADER.pack(SCALED, width, len(patterns), rows, columns)
    scale = exponents.astype(np.uint8).tobytes()
    parts = (np.ascontiguousarray(numbers[:, 0]).tobytes(), factors.tobytes(), scale, patterns.tobytes())
    body = b"".join((*parts, codes.tobytes(), _shuffled(steps.astype(f"<u{width}"))))
    return head + zlib.compress(body, LEVEL)


def _filled(values: Floats, odd: Booleans) -> Floats:
    """Cells that are no number take the number before them, or else the first of their column, or 0."""
    before = np.maximum.accumulate(np.where(odd, -1, np.arange(values.shape[1])), axis=1)
    first = np.argmin(odd, axis=1, keepdims=True)
    filled = np.take_along_axis(values, np.where(before < 0, first, before), axis=1)
    return np.where(odd.all(axis=1, keepdims=True), 0.0, filled)


def _factors(numbers: Integers) -> Integers:
    """What all numbers of a row are multiples of: memory comes in pages. A few numbers tell nearly always."""
    few = np.gcd.reduce(numbers[:, :: max(1, numbers.shape[1] // 8)], axis=1)
    factors = np.ones(len(numbers), dtype=np.int64)
    maybe = np.flatnonzero(few > 1)
    if len(maybe):
        factors[maybe] = np.gcd.reduce(numbers[maybe], axis=1)
    return factors


def _unscaled(
    shape: tuple[int, int],
    steps: NDArray[np.unsignedinteger],
    bases: Integers,
    factors: Integers,
    exponents: Bytes,
    patterns: NDArray[np.uint64],
    codes: Bytes,
) -> Floats:
    rows, columns = shape
    if len(exponents) and int(exponents.max()) >= len(POWERS):
        raise DamagedError("a scale makes no sense")
    whole = np.empty((columns, rows), dtype=np.int64)
    whole[:, 0] = bases
    zigzag = steps.reshape(columns, rows - 1).astype(np.uint64)
    whole[:, 1:] = (zigzag >> np.uint64(1)).view(np.int64) ^ -(zigzag & np.uint64(1)).view(np.int64)
    np.cumsum(whole, axis=1, out=whole)
    if (factors != 1).any():
        whole *= factors[:, None]
    values = whole.T.astype(np.float64, order="C")
    if exponents.any():
        values /= POWERS[exponents]
    if len(patterns):
        if len(codes) and int(codes.max()) > len(patterns):
            raise DamagedError("a cell is of no known kind")
        own = codes.reshape(columns, rows).T
        odd = own > 0
        values.view(np.uint64)[odd] = patterns[own[odd] - 1]
    return values


def _xored(values: Floats) -> bytes:
    columns, rows = values.shape
    bits = values.view(np.uint64).copy()
    bits[:, 1:] ^= values.view(np.uint64)[:, :-1]
    return HEADER.pack(XORED, 8, 0, rows, columns) + zlib.compress(_shuffled(bits), LEVEL)


def _shuffled(numbers: NDArray[np.generic]) -> bytes:
    flat = np.ascontiguousarray(numbers).reshape(-1)
    return flat.view(np.uint8).reshape(-1, flat.itemsize).T.tobytes()


def _unshuffled(data: bytes, width: int) -> NDArray[np.unsignedinteger]:
    planes = np.frombuffer(data, np.uint8).reshape(width, len(data) // width)
    found: NDArray[np.unsignedinteger] = np.ascontiguousarray(planes.T).reshape(-1).view(f"<u{width}")
    return found
