"""Prometheus' ``.test`` format: loads of series and the cases that ask for them, read into plain values."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from anvil_monitor.monitoring.samples import STALE_NAN, Labels

UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000, "y": 31_536_000_000}
Points = list[float | None]
Line = tuple[Labels, Points]


@dataclass
class Case:
    """One ``eval``: times in ms; for an instant case ``start`` only."""

    where: str
    query: str
    start: int
    end: int | None = None
    step: int = 0
    fail: bool = False
    ordered: bool = False
    histograms: bool = False
    scalar: float | None = None
    text: str | None = None
    matrix: tuple[int, int, int] | None = None
    lines: list[Line] = field(default_factory=list)
    notes: list[tuple[str, str, str]] = field(default_factory=list)
    """Expected annotations: kind (warn, info, no_warn, no_info), how to compare (msg, regex or nothing), text."""


def milliseconds(text: str) -> int:
    """A duration (``1m30s``), or seconds without a unit."""
    sign = -1 if text.startswith("-") else 1
    bare = text.lstrip("+-")
    parts = re.findall(r"(\d+)(ms|[smhdwy])", bare)
    if parts and "".join(a + b for a, b in parts) == bare:
        return sign * sum(int(count) * UNITS[unit] for count, unit in parts)
    return round(sign * float(bare) * 1000)


def number(text: str) -> float:
    return STALE_NAN if text == "stale" else float(text)


def labels_in(text: str) -> Labels:
    """``name{a="b"}``, ``{"name", a="b"}`` or ``name``."""
    name, _, rest = text.partition("{")
    pairs = {"__name__": name.strip()} if name.strip() else {}
    string = r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`"
    for key, _, value in re.findall(rf"({string}|[\w.:]+)\s*(=\s*({string}))?", rest):
        label = unquoted(key) if key[0] in "\"'`" else key
        if value:
            pairs[label] = unquoted(value)
        else:
            pairs["__name__"] = label
    return tuple(sorted((label, value) for label, value in pairs.items() if value))


def unquoted(text: str) -> str:
    return text[1:-1] if text[0] == "`" else str(ast.literal_eval(text))


def series_in(line: str) -> tuple[Labels, Points, bool]:
    """Labels, values by step, and whether a native histogram is among them."""
    head = re.match(
        r"[^\s{@]*(?:\s*\{(?!\{)(?:\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`|[^\"'`}])*\})?(@st)?", line
    )
    assert head is not None
    points: Points = []
    histogram = False
    if head[1]:  # start timestamps of the next line's samples; an engine of the default mode ignores them
        return labels_in(head[0].removesuffix("@st")), points, True
    for token in re.findall(r"(?:[+-]?\{\{.*?\}\})+(?:x\d+)?|\S+", line[head.end() :]):
        if "{{" in token:
            histogram = True
            points.extend([None] * (int((re.search(r"\}\}x(\d+)$", token) or [0, -1])[1]) + 1))
        elif token.startswith("_"):
            points.extend([None] * int(token[2:] or 1))
        else:
            points.extend(expanded(token))
    return labels_in(head[0]), points, histogram


def expanded(token: str) -> Iterator[float]:
    body, times, count = token.partition("x")
    steps = re.fullmatch(r"(.*[^eE+-])([+-].+)", body) if times else None
    if not times:
        yield number(token)
    elif steps is None:
        yield from [number(body)] * (int(count) + 1)
    else:
        value, change = number(steps[1]), float(steps[2])
        for _ in range(int(count) + 1):
            yield value
            value += change


def case_in(where: str, head: str, body: list[str]) -> Case:
    word, kind, rest = head.split(None, 2)
    if kind == "instant":
        _, at, query = rest.split(None, 2)
        case = Case(where, query, milliseconds(at))
    else:
        found = re.match(r"from\s+(\S+)\s+to\s+(\S+)\s+step\s+(\S+)\s+(.*)", rest)
        assert found is not None
        start, end, step = map(milliseconds, found.groups()[:3])
        case = Case(where, found[4], start, end, step)
    case.fail = word == "eval_fail"
    case.ordered = word == "eval_ordered"
    if word in ("eval_warn", "eval_info"):
        case.notes.append((word.removeprefix("eval_"), "", ""))
    for line in body:
        expect(case, line)
    return case


def expect(case: Case, line: str) -> None:
    words = line.split()
    if words[0] == "expect":
        if words[1] == "fail":
            case.fail = True
        elif words[1] == "ordered":
            case.ordered = True
        elif words[1] == "string":
            case.text = unquoted(line.split("string", 1)[1].strip())
        elif words[1] in ("warn", "info", "no_warn", "no_info"):
            how, _, text = line.split(words[1], 1)[1].strip().partition(":")
            case.notes.append((words[1], how.strip(), text.strip()))
        elif words[1:3] == ["range", "vector"]:
            case.matrix = (milliseconds(words[4]), milliseconds(words[6]), milliseconds(words[8]))
    elif words[0].startswith("expected_fail"):
        case.fail = True
    elif len(words) == 1 and re.fullmatch(r"[-+]?(?:[\d.]|inf|nan)[\w.+-]*", line, re.IGNORECASE):
        case.scalar = float(line)
    else:
        labels, points, histogram = series_in(line)
        case.histograms |= histogram
        case.lines.append((labels, points))
