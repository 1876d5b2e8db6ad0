"""Tables of measurements, as text for the terminal and as Markdown for a page in ``docs/`` that a bench rewrites."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import TypeVar

from bench.machine import Progress

Run = TypeVar("Run")
PAGE = Path("docs/performance.md")


@dataclass
class Table:
    """``rows``: the first cell names the row. ``notes``: sentences below it."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        cells = [["", *self.columns], *self.rows]
        widths = [max(len(row[at]) for row in cells) for at in range(len(self.columns) + 1)]
        lines = [self.title]
        for row in cells:
            first, *others = (cell.ljust(width) if at == 0 else cell.rjust(width)
                              for at, (cell, width) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
            lines.append("  " + "   ".join([first, *others]).rstrip())
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", f"| | {' | '.join(self.columns)} |", f"|---|{'---:|' * len(self.columns)}"]
        lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in self.rows]
        return "\n".join([*lines, "", *self.notes]).rstrip() + "\n"


def spread(values: Sequence[float], digits: int, unit: str = "") -> str:
    """Median and quartiles."""
    if not values:
        return "–"
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return f"{median(values):.{digits}f} [{low:.{digits}f}..{high:.{digits}f}]{unit}"


def verdict(kept: bool) -> str:
    return "kept" if kept else "SHORT"


def minus(ones: Iterable[float], others: Iterable[float]) -> list[float]:
    """What one costs more than another, round by round."""
    return [one - other for one, other in zip(ones, others, strict=True)]


def make(
    tables: Mapping[str, Callable[[Run], Table]], only: Sequence[str] | None, run: Run, progress: Progress
) -> tuple[list[Table], bool]:
    """Make and show ``tables`` (``only`` these), and whether all could be made: one that fails is told, and costs none
    of the others."""
    shown, whole = [], True
    for name, of in tables.items():
        if only and name not in only:
            continue
        try:
            table = of(run)
        except SystemExit as error:
            progress.clear()
            print(f"{error}\nbench: table {name!r} is left out", file=sys.stderr, flush=True)
            whole = False
            continue
        progress.clear()
        print(f"\n{table.text()}", flush=True)
        shown.append(table)
    return shown, whole


def publish(bench: str, quick: bool, header: Sequence[str], tables: Sequence[Table]) -> None:
    """Put ``tables`` into the page's block of this bench."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    kind = " A quick run, which says little." if quick else ""
    first = f"Measured on {today} by `scripts/bench {bench}`.{kind} {' '.join(header)}"
    rewrite(PAGE, f"bench:{bench}", "\n\n".join([first, *(table.markdown().strip() for table in tables)]))
    print(f"\nwritten into {PAGE}")


def rewrite(page: Path, mark: str, text: str) -> None:
    """Put ``text`` between ``<!-- mark -->`` and ``<!-- /mark -->``; ``SystemExit`` where the page lacks them."""
    start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"bench: {page} has no block {start} … {end} to rewrite")
    page.write_text(f"{before}{start}\n{text.strip()}\n{end}{after}", encoding="utf-8")
