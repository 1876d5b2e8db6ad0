"""promtool's notation of a series: ``up{job="a"}`` and the values ``0+10x5 _x3 stale 7``."""

from __future__ import annotations

import ast
import re
from typing import Final, TypeAlias

Labels: TypeAlias = tuple[tuple[str, str], ...]

GAP: Final = None


class Stale:
    """The end of a series (``stale``): what a scrape leaves that no longer finds it."""

    def __repr__(self) -> str:
        return "stale"


STALE: Final = Stale()
Item: TypeAlias = float | Stale | None

NAME: Final = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)?\s*")
LABEL: Final = re.compile(
    r"""\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`[^`]*`)\s*(,|(?=\}))"""
)
NUMBER: Final = r"(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[iI][nN][fF]|[nN][aA][nN])"
VALUES: Final = re.compile(
    rf"(?P<first>[+-]?{NUMBER})(?:(?P<sign>[+-])(?P<step>{NUMBER}))?(?:x(?P<times>\d+))?", re.ASCII
)
GAPS: Final = re.compile(r"_(?:x(?P<times>\d+))?", re.ASCII)
MOST: Final = 10_000_000  # a typing mistake must not fill the memory


def parse_labels(text: str) -> Labels:
    """``name{label="value", …}`` as sorted pairs, the name as ``__name__``. Raises ``ValueError``."""
    head = NAME.match(text)
    name, position = (head[1], head.end()) if head else (None, 0)
    labels = {"__name__": name} if name else {}
    if position < len(text):
        if text[position] != "{":
            raise ValueError(f"{text!r} is no series: expected '{{' at character {position + 1}")
        position += 1
        while match := LABEL.match(text, position):
            if match[1] in labels:
                raise ValueError(f"{text!r} is no series: {match[1]} is given twice")
            quoted = match[2]
            labels[match[1]] = quoted[1:-1] if quoted[0] == "`" else str(ast.literal_eval(quoted))
            position = match.end()
        if text[position:].strip() != "}":
            raise ValueError(f'{text!r} is no series: expected label="value" at character {position + 1}')
    return tuple(sorted((label, value) for label, value in labels.items() if value))


def parse_values(text: str) -> list[Item]:
    """The values one interval apart: a number, :data:`STALE`, or ``None`` where nothing came.

    ``vxN`` and ``a+bxN`` are N+1 values, made by repeated addition as promtool does (``0x10`` is eleven zeros);
    ``_xN`` is N gaps. Raises ``ValueError``; native histograms (``{{…}}``) are refused.
    """
    values: list[Item] = []
    for word in text.split():
        if word.startswith("{{"):
            raise ValueError("native histograms ({{…}}) are not supported here")
        if word == "stale":
            values.append(STALE)
            continue
        if gaps := GAPS.fullmatch(word):
            count = int(gaps["times"] if gaps["times"] is not None else 1)
            _bounded(len(values) + count)
            values += [GAP] * count
            continue
        match = VALUES.fullmatch(word)
        if match is None or (match["step"] and match["times"] is None):
            raise ValueError(f"{word!r} is no value; allowed: 5, 5x3, 0+10x3, _, _x3, stale")
        value, step = float(match["first"]), float(match["step"] or 0)
        step = -step if match["sign"] == "-" else step
        times = int(match["times"] or 0)
        _bounded(len(values) + times)
        values.append(value)
        for _ in range(times):
            value = value + step if match["step"] else value
            values.append(value)
    return values


def _bounded(count: int) -> None:
    if count > MOST:
        raise ValueError(f"more than {MOST:,} values in one series")
