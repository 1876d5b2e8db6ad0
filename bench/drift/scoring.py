"""The score of the Numenta Anomaly Benchmark, its standard profile: alarms early in a window are worth most, missed
windows and alarms outside cost.

A. Lavin, S. Ahmad: Evaluating Real-Time Anomaly Detection Algorithms, the Numenta Anomaly Benchmark (2015),
https://arxiv.org/abs/1510.03336; the details are those of its program (``nab/sweeper.py``). Here an alarm is one
detection, where it begins: it is told once, and no threshold is searched for that fits the series.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from bench.drift.labelled import MINUTES, Labelled

FOUND, MISSED, FALSE = 1.0, 1.0, 0.11
"""What a window found at its very beginning gives, one missed and an alarm far from any costs: the standard profile."""
FAR: Final = 3.0
"""Widths of the window before, from which on a false alarm costs all of it."""


def score(one: Labelled, begun: Iterable[float]) -> tuple[float, int]:
    """Points of alarms that have ``begun`` at these times (s), and how many windows there are to find."""
    windows = [(_row(one, low), _row(one, high)) for low, high in one.windows if high >= one.judged]
    found = dict.fromkeys(windows, -MISSED)
    false = 0.0
    for row in (_row(one, at) for at in begun if at >= one.judged):
        inside = next((window for window in windows if window[0] <= row <= window[1]), None)
        if inside:
            low, high = inside
            early = _sigmoid(-(high - row + 1) / (high - low + 1)) / _sigmoid(-1.0)
            found[inside] = max(found[inside], FOUND * early)
        else:
            before = [window for window in windows if window[1] < row]
            far = (row - before[-1][1]) / max(1, before[-1][1] - before[-1][0]) if before else math.inf
            false += FALSE * _sigmoid(far)
    return sum(found.values()) + false, len(windows)


def of_hundred(points: Sequence[tuple[float, int]]) -> float | None:
    """0 is what silence gets, 100 every window at its beginning and nothing else; None without a window."""
    windows = sum(there for _, there in points)
    if not windows:
        return None
    return 100 * (sum(each for each, _ in points) + MISSED * windows) / ((FOUND + MISSED) * windows)


def _row(one: Labelled, at: float) -> int:
    return round((at - one.start) / (60 * MINUTES))


def _sigmoid(place: float) -> float:
    """1 well before the end of a window, 0 at it, -1 well behind."""
    return -1.0 if place > FAR else 2 / (1 + math.exp(5 * place)) - 1
