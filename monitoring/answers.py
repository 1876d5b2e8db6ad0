"""JSON of answers, as Prometheus' HTTP API writes it: numbers are texts, times are seconds with up to three decimals.

A dashboard's answer is tens of thousands of numbers. Written one by one in Python they take longer than the query that
found them, so whole arrays go through orjson, whose shortest digits are those of ``repr``; what Prometheus writes
otherwise (exponents, NaN, infinities) is put right afterwards. ``number_text`` is the norm of every text.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from .promql import number_text
from .samples import Floats, Integers, Series

# Between these, and at 0, orjson and Prometheus write a number alike but for a trailing ".0".
LEAST, MOST = 1e-5, 1e16


def encode(value: Any) -> bytes:
    """Any answer as JSON. ``NaN`` and infinities have no JSON: as numbers they become ``null``."""
    return orjson.dumps(value)


def number_texts(values: Floats) -> list[bytes]:
    """``number_text`` of each value."""
    if not len(values):
        return []
    text = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    texts = (text + b",").replace(b".0,", b",")[:-1].split(b",")
    size = np.abs(values)
    alike = ((size >= LEAST) & (size < MOST)) | (size == 0)
    if not alike.all():
        for place in np.flatnonzero(~alike).tolist():
            texts[place] = number_text(float(values[place])).encode()
    return texts


def time_texts(times: Integers) -> list[bytes]:
    """Milliseconds as seconds."""
    return number_texts(times / 1000.0)


class Pairs:
    """``[[seconds, "number"], …]`` of series; complete series share their times, which are written once."""

    def __init__(self) -> None:
        self._heads: dict[int, tuple[Integers, list[bytes]]] = {}

    def of(self, series: Series) -> orjson.Fragment:
        times = series.timestamps
        found = self._heads.get(id(times))
        if found is None:
            heads = [b'"],[' + text + b',"' for text in time_texts(times)]
            if heads:
                heads[0] = heads[0][3:]
            found = self._heads[id(times)] = (times, heads)  # held, so that no other array gets its identity
        parts = [b""] * (2 * len(times))
        parts[0::2], parts[1::2] = found[1], number_texts(series.values)
        return orjson.Fragment(b"".join([b"[", *parts, b'"]]']) if parts else b"[]")
