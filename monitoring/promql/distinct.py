"""Which values, and which columns, are the same. As numpy.unique, which brings in all of numpy.ma for it."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..samples import Booleans, Integers

Number = TypeVar("Number", bound=np.generic)

FACTOR = np.uint64(0x9E3779B97F4A7C15)


def distinct(values: NDArray[Number]) -> tuple[NDArray[Number], Integers]:
    """The distinct values in rising order, and for each value which of them it is. NaN is not expected."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    new = np.ones(len(values), dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    which = np.empty(len(values), dtype=np.int64)
    which[order] = np.cumsum(new) - 1
    return ordered[new], which


def alike(columns: Booleans) -> Integers:
    """A number for each column; columns with the same number are the same."""
    packed = np.packbits(columns, axis=0)
    powers = np.multiply.accumulate(np.full(len(packed), FACTOR, dtype=np.uint64))
    hashes: NDArray[Any] = (packed * powers[:, None]).sum(axis=0)
    which = distinct(hashes)[1]
    first = np.zeros(len(which), dtype=np.int64)
    first[which[::-1]] = np.arange(len(which))[::-1]  # of each number, its first column
    wrong = (packed != packed[:, first[which]]).any(axis=0)
    if wrong.any():  # a hash may lie: such columns stand for themselves
        which[wrong] = which.max() + 1 + np.arange(int(wrong.sum()))
    return which
