"""The tables of ``scripts/bench engine``: for each what is measured, how long, and against which goal."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.engine import asked, disk, living, opening, queries, scraped, server
from bench.machine import Progress, pinned
from bench.report import Table, spread, verdict

# Goals of the design: times less CPU than Prometheus, seconds of CPU for one query, bytes, percent of a core.
LESS, LESS_RATE, COLD = 1.0, 5.0, 0.15
SIX_HOURS = (1_000, 21_600)
RSS, SHARE = 120e6, 3.0
DISK = {"histogram counters": 0.8, "all that servers and rules give": 2.0}
LIVING, SCRAPED = 2_000, 2_000
# Days and series of a history that is opened, and the seconds that it may take.
DAYS, OPENED, OPENING = 15, 2_000, 2.0
MISSING_DISK = "This version of anvil-monitor keeps no history on disk (monitoring/history): ours is missing."


@dataclass
class Run:
    """How one run is made. ``wrong`` takes what must not be: it makes the exit status 1."""

    quick: bool
    rounds: int | None
    minutes: float | None
    folder: Path
    progress: Progress
    wrong: list[str] = field(default_factory=list)


def missing() -> list[str]:
    programs = [name for name in (server.PROMETHEUS,) if not shutil.which(name)]
    return programs + ([] if disk.encoder() else ["anvil-monitor's history on disk"])


def few(run: Run) -> Table:
    return _queries(run, (1_000, 900) if run.quick else SIX_HOURS, 7)


def many(run: Run) -> Table:
    return _queries(run, (10_000, 300) if run.quick else (10_000, 3_600), 5)


def _queries(run: Run, size: tuple[int, int], usual: int) -> Table:
    rounds, turns = run.rounds or (2 if run.quick else usual), 5 if run.quick else 20
    folder = run.folder / f"queries{size[0]}"
    found = asked.measure(size, rounds, turns, folder, pinned(1), run.progress)
    run.wrong += [f"{found.series:,} series, {text}" for text in found.wrong]
    table = Table(
        f"Queries over {found.series:,} series, {_span(size[1])} at 5 s: CPU ms of one",
        (
            "Prometheus",
            "anvil-monitor",
            "times less",
            "without HTTP",
            "points",
            "largest difference",
            "goal",
            "verdict",
        ),
    )
    for one in found.asked:
        less = [theirs / ours for theirs, ours in zip(one.theirs, one.ours, strict=True)]
        goal = LESS_RATE if one.name in (queries.RATE, queries.QUANTILE) else LESS
        kept = median(less) >= goal if goal > 1 else median(less) > goal
        table.rows.append([
            one.name + (", range" if one.path == "query_range" else ", instant"), _ms(one.theirs), _ms(one.ours),
            spread(less, 1), _ms(one.inside), f"{one.points:,}", f"{one.apart:.1g}",
            f"{'≥' if goal > 1 else '>'} {goal:g}",
            verdict(kept) if one.apart <= asked.compare.WITHIN else "WRONG",
        ])  # fmt: skip
    if size == SIX_HOURS:
        first = next(one.first for one in found.asked if one.name == queries.QUANTILE)
        row = [f"**{queries.QUANTILE}, asked for the first time**", "", f"{first * 1e3:.1f}", "", "", "", ""]
        table.rows.append([*row, f"≤ {COLD * 1e3:g}", verdict(first <= COLD)])
        kept = asked.measure_kept(size, rounds, run.folder / "kept", pinned(1), run.progress)
        run.wrong += [f"history on disk and memory: {kept.apart:.2g}"] if not kept.apart <= asked.compare.WITHIN else []
        for name, taken in {"first after a start": [kept.first], "again": kept.again}.items():
            row = [f"**the same with 4 of 6 h on disk, {name}**", "", _ms(taken), "", "", "", f"{kept.apart:.1g}"]
            table.rows.append([*row, f"≤ {COLD * 1e3:g}", verdict(median(taken) <= COLD)])
        table.notes.append(
            f"With its log and hourly blocks anvil-monitor's store takes {kept.appended:.2f} CPU ms for 1,000 samples."
        )
    table.notes += [
        f"{rounds} interleaved rounds, median [quartiles]; range queries with a step of {asked.STEP} s over all of it, "
        f"instant ones are rules as generated, {turns} times a round. CPU of the whole process, HTTP and JSON "
        "included, by the kernel's count. Difference: relative, of any two values; over 1e-9 the run fails.",
        f"Taking it in, CPU ms for 1,000 samples: Prometheus by remote write {found.written:.2f}, anvil-monitor's "
        f"store, which appends what is decoded already, {found.appended:.2f}.",
    ]
    return table


def _ms(seconds: list[float]) -> str:
    digits = 1 if median(seconds) > 0.01 else 2
    return spread([each * 1e3 for each in seconds], digits)


def _span(seconds: int) -> str:
    return f"{seconds // 3600} h" if seconds >= 3600 else f"{seconds // 60} min"


def ingest(run: Run) -> Table:
    rounds, seconds = (2, 2.0) if run.quick else (7, 4.0)
    taken = scraped.measure(
        SCRAPED, 0.25, run.rounds or rounds, seconds, run.folder / "ingest", (pinned(1), pinned(0)), run.progress
    )
    table = Table("Taking in scrapes, CPU ms for 1,000 samples", ("Prometheus", "anvil-monitor", "times less"))
    less = [theirs / ours for theirs, ours in zip(taken["theirs"], taken["ours"], strict=True)]
    table.rows.append(["fetch, parse, store", spread(taken["theirs"], 2), spread(taken["ours"], 2), spread(less, 1)])
    table.notes.append(
        f"Both scrape the same server of {SCRAPED:,} series four times a second over HTTP, at the same time; whole "
        f"processes, {len(less)} rounds of {seconds:g} s. Prometheus writes its log to disk meanwhile, our store is "
        "in memory."
    )
    return table


def bytes_kept(run: Run) -> Table:
    size = (1_000, 3_600) if run.quick else SIX_HOURS
    table = Table("Bytes a sample on disk", ("Prometheus", "anvil-monitor", "goal", "verdict"))
    for name, (ours, theirs) in disk.measure(size, run.folder, pinned(1), run.progress).items():
        kept = verdict(ours <= DISK[name]) if ours is not None else "missing"
        table.rows.append([name, f"{theirs:.2f}", "–" if ours is None else f"{ours:.2f}", f"≤ {DISK[name]:g}", kept])
    table.notes.append(
        f"{size[0]:,} series, {_span(size[1])} at 5 s, with labels and index; no log counted on either side."
    )
    if not disk.encoder():
        table.notes.append(MISSING_DISK)
    return table


def opened(run: Run) -> Table:
    days = 1 if run.quick else DAYS
    found = opening.measure(
        OPENED, days * 24, run.rounds or (2 if run.quick else 7), run.folder / "opening", run.progress
    )
    table = Table(f"Opening a history of {days} days", ("seconds", "goal", "verdict", "series", "MB on disk"))
    kept = verdict(median(found.seconds) <= OPENING)
    table.rows.append(
        [
            "anvil-monitor",
            spread(found.seconds, 2),
            f"≤ {OPENING:g}",
            kept,
            f"{found.series:,}",
            f"{found.size / 1e6:.0f}",
        ]
    )
    table.notes.append("From the folder to a store that has listed all its series; the files are in the page cache.")
    return table


def alive(run: Run) -> Table:
    seconds = 60 * (run.minutes or (1 if run.quick else 10))
    both = living.measure(LIVING, seconds, run.folder / "up", (pinned(1), pinned(0)), run.progress)
    table = Table(
        f"Running for {seconds / 60:g} min, {LIVING:,} series every 5 s",
        ("RSS MB at the end", "most", "goal", "verdict", "% of a core", "goal", "verdict", "series scraped"),
    )
    for one in both:
        ours = one.name.startswith("anvil")
        memory = [f"≤ {RSS / 1e6:g}", verdict(max(one.rss) <= RSS)] if ours else ["", ""]
        cpu = [f"≤ {SHARE:g}", verdict(one.share <= SHARE)] if ours else ["", ""]
        each = spread(one.cpu, 1)
        shown = f"{one.share:.1f}, of 5 s: {each}"
        rss = [f"{number / 1e6:.0f}" for number in (one.rss[-1], max(one.rss))]
        table.rows.append([one.name, *rss, *memory, shown, *cpu, f"{one.series:,}"])
    table.notes.append(
        "Both at the same time over the same server, with the same generated rules every 5 s; all processes, the start "
        "left out. anvil-monitor up also collects the host, serves its page and would deliver alerts; Prometheus needs "
        "node_exporter and Alertmanager for that, which are not counted. Later there are more samples: 8 bytes each "
        "while they are in memory."
    )
    return table


TABLES: dict[str, Callable[[Run], Table]] = {
    "few": few,
    "many": many,
    "ingest": ingest,
    "bytes": bytes_kept,
    "opening": opened,
    "up": alive,
}
