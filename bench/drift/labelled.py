"""Labelled series of real servers in a folder: ``windows.json`` and ``data/*/*.csv`` (timestamp, value).

The form is that of the Numenta Anomaly Benchmark (https://github.com/numenta/NAB), whose series they may be: a window
is where somebody said that something is wrong.
"""

from __future__ import annotations

import csv
import datetime
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anvil_monitor.monitoring.samples import Floats

MINUTES = 5
"""Distance of the samples."""
PROBATION = 0.15
"""The part of a series that nobody is judged by, at most of 5,000 rows: as in the benchmark."""


@dataclass(frozen=True)
class Labelled:
    """``values`` five minutes apart from ``start`` (Unix seconds) on, NaN where there is none; ``windows`` in s."""

    name: str
    start: float
    values: Floats
    windows: tuple[tuple[float, float], ...]

    @property
    def judged(self) -> float:
        """From here on (s) alarms count."""
        return self.start + 60 * MINUTES * int(PROBATION * min(len(self.values), 5_000))

    @property
    def end(self) -> float:
        return self.start + 60 * MINUTES * (len(self.values) - 1)


def read(folder: Path) -> list[Labelled]:
    """Every series of ``folder``. Raises ``SystemExit`` where it is not such a folder."""
    try:
        windows = json.loads((folder / "windows.json").read_text(encoding="utf-8"))
        paths = sorted((folder / "data").glob("*/*.csv"))
        found = [_one(path, windows) for path in paths]
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(
            f"bench: {folder} holds no labelled series ({type(error).__name__}: {error}); "
            "it needs windows.json and data/*/*.csv with timestamp,value"
        ) from None
    if not found:
        raise SystemExit(f"bench: there is no data/*/*.csv in {folder}")
    return found


def _one(path: Path, windows: dict[str, list[list[str]]]) -> Labelled:
    name = f"{path.parent.name}/{path.name}"
    with path.open(encoding="utf-8", newline="") as lines:
        rows = [(_seconds(row["timestamp"]), float(row["value"])) for row in csv.DictReader(lines)]
    start, step = rows[0][0], 60 * MINUTES
    places = [round((at - start) / step) for at, _ in rows]
    values = np.full(max(places) + 1, np.nan)
    values[places] = [value for _, value in rows]
    return Labelled(name, start, values, tuple((_seconds(low), _seconds(high)) for low, high in windows[name]))


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()
