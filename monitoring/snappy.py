"""Snappy's block format, unpacked: what a remote write body is packed in.

Forty lines instead of a dependency with a compiled part; the size is known, and bounded, before anything is made.
https://github.com/google/snappy/blob/main/format_description.txt
"""

from __future__ import annotations


class SnappyError(ValueError):
    """The bytes are no snappy block."""


class TooLargeError(ValueError):
    """The block says that it is larger than allowed."""


def unpack(data: bytes, most: int) -> bytes:
    """The bytes that were packed. Raises :class:`SnappyError`, and :class:`TooLargeError` beyond ``most`` bytes."""
    try:
        return _unpack(data, most)
    except IndexError:
        raise SnappyError("the snappy block ends early") from None


def _unpack(data: bytes, most: int) -> bytes:
    length, at = _length(data)
    if length > most:
        raise TooLargeError(f"the body is {length} bytes unpacked; at most {most} are taken")
    out, end = bytearray(), len(data)
    while at < end:
        tag = data[at]
        at += 1
        if tag & 3 == 0:
            size = (tag >> 2) + 1
            if size > 60:
                wide = size - 60
                size = int.from_bytes(data[at : at + wide], "little") + 1
                at += wide
            if at + size > end:
                raise SnappyError("a literal of the snappy block ends early")
            out += data[at : at + size]
            at += size
        else:
            if tag & 3 == 1:
                size, offset = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[at]
                at += 1
            else:
                wide = 2 if tag & 3 == 2 else 4
                size, offset = (tag >> 2) + 1, int.from_bytes(data[at : at + wide], "little")
                at += wide
            begin = len(out) - offset
            if offset == 0 or begin < 0:
                raise SnappyError("the snappy block copies from outside itself")
            piece = out[begin : begin + size]
            out += piece if offset >= size else (piece * (size // offset + 1))[:size]
        if len(out) > length:
            raise SnappyError("the snappy block is longer than it says")
    if len(out) != length:
        raise SnappyError("the snappy block is shorter than it says")
    return bytes(out)


def _length(data: bytes) -> tuple[int, int]:
    value = 0
    for at in range(5):
        value |= (data[at] & 127) << 7 * at
        if data[at] < 128:
            return value, at + 1
    raise SnappyError("the snappy block has no length")
