"""All that separates Prometheus 2.42, which we compare with, from Prometheus 3, whose semantics we have.

Two kinds: what the random data and queries steer clear of (``AVOIDED``, the reason beside it), and what may differ
when a query of this shape does (``TOLERATED``). Anything else that differs is a fault of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

AVOIDED = {
    "a sample on the bound of a window or of the lookback": "closed on the left in 2.42, open in 3: no sample ever is",
    "a step of a subquery on its lower bound": "the same; times of queries end in half a second",
    "an increase near zero": "2.42 cuts at zero before it looks at the threshold: counters here are large",
    "atan2": "keeps the name in 2.42",
    "the deviation of one infinite value": "0 in 2.42, NaN in 3: aggregated deviations are of finite values",
    "a dot that meets a newline in a regular expression": "no label here has one",
    "holt_winters": "has another name in 3",
    "dates of NaN, infinity and huge values": "Go's integers wrap: dates are of seconds and counters",
    "sine and its kin of huge values": "differ by the C library: these are of small values",
    "functions, syntax and durations that 2.42 does not have": "not asked for",
    "metadata labels __type__ and __unit__": "2.42 keeps them: no series here has them",
}


@dataclass(frozen=True)
class Tolerated:
    """``applies`` says of a query and whether it is asked over a range if its answers may differ.

    ``refused``: only in that Prometheus 2.42 answers and we refuse.
    """

    what: str
    why: str
    applies: Callable[[str, bool], bool]
    refused: bool = False


def _has(pattern: str) -> Callable[[str, bool], bool]:
    search = re.compile(pattern, re.DOTALL).search
    return lambda query, ranged: search(query) is not None


TOLERATED = [
    Tolerated(
        "topk and bottomk with equal values",
        "which of them stays depends on the order in which the database hands out series",
        _has(r"\b(topk|bottomk)\b"),
    ),
    Tolerated(
        "predict_linear with @ in a range query or subquery",
        "2.42 lets the window slide",
        lambda query, ranged: (ranged or ":" in query) and re.search(r"predict_linear.*@", query) is not None,
    ),
    Tolerated("timestamp of a selector with @ and offset", "2.42 ignores the offset", _has(r"timestamp\(.*(@|offset)")),
    Tolerated(
        "count_values of results that differ in the last digit", "the digits become a label", _has(r"\bcount_values\b")
    ),
    Tolerated(
        "deviations where squares overflow or an infinite value is among them",
        "2.42 has other sums",
        _has(r"\bstd(dev|var)"),
    ),
    Tolerated(
        "pairs that a comparison filters out",
        "2.42 does not count them when it looks for duplicates; 3 refuses the query",
        _has(r"\) (!=|==|>=?|<=?)(?! bool)"),
        refused=True,
    ),
    Tolerated("the remainder of results that differ in the last digit", "rounding decides on its size", _has(r"\) %")),
]


def tolerated(query: str, *, ranged: bool, refused: bool) -> str:
    """Why the answers to a query may differ; empty if they may not. ``refused``: we refuse what 2.42 answers."""
    fitting = (one for one in TOLERATED if one.refused == refused and one.applies(query, ranged))
    return next((one.what for one in fitting), "")
