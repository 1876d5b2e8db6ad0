"""Whether two answers of the API say the same: the same series at the same times, values within a relative bound."""

from __future__ import annotations

import json
import math
from typing import Any

WITHIN = 1e-9
Answer = dict[tuple[tuple[str, str], ...], dict[float, float]]


def read(body: bytes) -> Answer:
    """Values by time by label set. ``SystemExit`` for what is neither vector nor matrix."""
    data = json.loads(body)["data"]
    if data["resultType"] not in ("vector", "matrix"):
        raise SystemExit(f"bench: a query gives a {data['resultType']}, which is not compared")
    return {tuple(sorted(each["metric"].items())): _points(each) for each in data["result"]}


def _points(element: dict[str, Any]) -> dict[float, float]:
    pairs = element["values"] if "values" in element else [element["value"]]
    return {at: float(text) for at, text in pairs}


def difference(ours: Answer, theirs: Answer) -> float:
    """The largest relative difference of two values; infinite where one has a series or a time that the other lacks."""
    if ours.keys() != theirs.keys():
        return math.inf
    worst = 0.0
    for labels, points in ours.items():
        others = theirs[labels]
        if points.keys() != others.keys():
            return math.inf
        for at, value in points.items():
            worst = max(worst, _apart(value, others[at]))
    return worst


def _apart(one: float, other: float) -> float:
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    if not (math.isfinite(one) and math.isfinite(other)):
        return math.inf
    return abs(one - other) / max(abs(one), abs(other))
