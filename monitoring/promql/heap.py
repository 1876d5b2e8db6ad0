"""Which rows topk keeps when values are equal: those that Prometheus' own heap keeps.

Without ties at the edge any sort gives the answer; with them only Go's container/heap, step by step, does.
"""

from __future__ import annotations

import numpy as np

from ..samples import Floats, Integers


def largest(values: Floats, size: int, *, reverse: bool = False) -> Integers:
    """Positions of the ``size`` largest values, largest first (``reverse``: smallest); NaN counts as the worst."""
    if size < 1 or not len(values):
        return np.empty(0, dtype=np.int64)
    keys = np.where(np.isnan(values), np.inf, values if reverse else -values)
    order = np.lexsort((keys, np.isnan(values)))
    ranked = keys[order]
    if len(values) <= size or ranked[size - 1] != ranked[size]:
        return order[:size]
    kept = np.array(_heap([float(value) for value in (-values if reverse else values)], size), dtype=np.int64)
    return kept[np.lexsort((keys[kept], np.isnan(values[kept])))]


def _less(a: float, b: float) -> bool:
    return True if a != a else a < b  # NaN first


def _heap(values: list[float], size: int) -> list[int]:
    """Positions that a heap of ``size`` holds in the end, the least at its root."""
    heap: list[int] = []
    for position, value in enumerate(values):
        if len(heap) < size:
            heap.append(position)
            _up(heap, values, len(heap) - 1)
        else:
            root = values[heap[0]]
            if root < value or (root != root and value == value):
                heap[0] = position
                _down(heap, values, 0)
    return heap


def _up(heap: list[int], values: list[float], child: int) -> None:
    while child > 0:
        parent = (child - 1) // 2
        if not _less(values[heap[child]], values[heap[parent]]):
            break
        heap[parent], heap[child] = heap[child], heap[parent]
        child = parent


def _down(heap: list[int], values: list[float], parent: int) -> None:
    while (child := 2 * parent + 1) < len(heap):
        right = child + 1
        if right < len(heap) and _less(values[heap[right]], values[heap[child]]):
            child = right
        if not _less(values[heap[child]], values[heap[parent]]):
            break
        heap[parent], heap[child] = heap[child], heap[parent]
        parent = child
