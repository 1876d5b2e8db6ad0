"""``anvil-monitor query`` and ``export``: what a person asks a monitor that runs."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from anvil_monitor.alerts.yamltext import parse_duration
from anvil_monitor.targets import Configuration, ConfigurationError, Problem, Secret

from . import plot

if TYPE_CHECKING:
    from .remote import Remote

Command = Callable[[str, Callable[[argparse.Namespace], int], str, str], argparse.ArgumentParser]
Load = Callable[[argparse.Namespace], Configuration]

PLOT_HEIGHT: Final = 14
COLOURS: Final = ("36", "33", "35", "32", "34", "31")
PLACE: Final = re.compile(r"\b(\d+):(\d+): parse error")
QUOTED: Final = re.compile(r"'([^']+)'")
QUERY_EXAMPLES: Final = """\
  anvil-monitor query 'target:value'
  anvil-monitor query 'rate(http_server_request_duration_seconds_count[5m])' --range 1h
  anvil-monitor query up --at 2026-01-31T12:00:00Z --json
  anvil-monitor query up --url http://127.0.0.1:9090
exit status: 0 something was found, 1 nothing was, or no monitor answers, 2 the question is wrong"""
EXPORT_EXAMPLES: Final = """\
  anvil-monitor export --openmetrics history.om --since 15d
  promtool tsdb create-blocks-from openmetrics history.om /var/lib/prometheus/data"""


def add(command: Command, config: Callable[[argparse.ArgumentParser], None], load: Load) -> None:
    """Add both commands. ``load`` gives the configuration that the options name."""
    query = command(
        "query", lambda options: _query(options, load), "ask PromQL; a table, or a plot over time", QUERY_EXAMPLES
    )
    query.add_argument("expr", metavar="EXPR", help="a PromQL expression")
    query.add_argument("--at", metavar="TIME", help="Unix seconds, RFC 3339, or how long ago, as in 5m (default: now)")
    query.add_argument("--range", metavar="DURATION", help="the values over so long a time, up to --at")
    query.add_argument("--step", metavar="DURATION", help="how far apart (default: as many as the plot is wide)")
    query.add_argument("--json", action="store_true", help="the API's answer as it is")
    export = command(
        "export",
        lambda options: _export(options, load),
        "write the history as OpenMetrics text, of which promtool makes blocks for a Prometheus",
        EXPORT_EXAMPLES,
    )
    export.add_argument(
        "--openmetrics", type=Path, required=True, metavar="FILE", help="the file to write; - for stdout"
    )
    export.add_argument(
        "--since", default="15d", metavar="DURATION", help="how far back (default: 15d, or all there is)"
    )
    for sub in (query, export):
        config(sub)
        add_remote(sub)


def add_remote(sub: argparse.ArgumentParser) -> None:
    """The options that :func:`connect` reads."""
    sub.add_argument("--url", metavar="URL", help="a monitor or a Prometheus (default: [monitor] listen)")
    sub.add_argument("--token", metavar="env:NAME", help="its token, from a variable or file:PATH, if it asks for one")


def wrong(what: str, todo: str = "") -> ConfigurationError:
    return ConfigurationError([Problem(what, todo=todo)])


def connect(options: argparse.Namespace, load: Load) -> Remote:
    """Who answers: ``--url``, or the configured monitor. Raises :class:`RemoteError` and ``ConfigurationError``."""
    from .remote import Remote, own_token

    configuration = load(options)
    url = options.url or configuration.monitor.address
    token = None
    if options.token:
        if not options.token.startswith(("env:", "file:")):
            raise wrong("--token takes env:NAME or file:PATH", "a token on the command line is seen by everybody")
        try:
            token = Secret(options.token).reveal(dict(os.environ))
        except LookupError as error:
            raise wrong(f"--token: {error}") from None
    elif url.rstrip("/") == configuration.monitor.address:  # nobody else is told our token
        token = own_token(configuration, dict(os.environ))
    return Remote(url, token)


def _query(options: argparse.Namespace, load: Load) -> int:
    from .remote import RemoteError

    width = shutil.get_terminal_size((100, 24)).columns
    at = _time(options.at)
    parameters = {"query": options.expr, "time": f"{at:.3f}"}
    span = duration("--range", options.range)
    if options.step and not span:
        raise wrong("--step asks for --range", "say how long, as in --range 1h")
    if span:
        step = duration("--step", options.step) or max(1.0, float(math.ceil(span / max(20, 2 * (width - 12)))))
        start = at - span
        parameters = {"query": options.expr, "start": f"{start:.3f}", "end": f"{at:.3f}", "step": f"{step:g}"}
    try:
        with connect(options, load) as remote:
            answer = remote.ask("query_range" if span else "query", **parameters)
    except RemoteError as error:
        if not error.wrong:
            print(printable(str(error)), file=sys.stderr)
            return 1
        raise wrong(explain(options.expr, str(error))) from None
    if options.json:
        print(json.dumps(answer, ensure_ascii=False))
    else:
        for kind in ("warnings", "infos"):
            for text in answer.get(kind, ()):
                print(printable(f"{kind[:-1]}: {text}"), file=sys.stderr)
        result = answer["data"]["result"]
        if span:
            lines = over_time(result, at - span, at, width, plain=_plain(sys.stdout), colour=_colour(sys.stdout))
        else:
            lines = table(answer["data"]["resultType"], result)
        print("\n".join(lines) if lines else "nothing found")
    return 0 if answer["data"]["result"] else 1


def explain(expr: str, reason: str) -> str:
    """The reason, with the expression and a caret below it where the place is known for certain.

    Prometheus tells line and column; promql-parser does not, but names what it stumbled over: that is shown where it
    stands only once in the expression.
    """
    text = re.sub(r'^invalid parameter "query": ', "", reason)
    text = re.sub(r"^invalid query '.*?': (?=[^:]+$)|^invalid query (?:'.*'|\".*\"): ", "", text, flags=re.DOTALL)
    place = _place(expr, text)
    lines = expr.split("\n")
    if place is None or place[0] >= len(lines):
        return f"{text}\n  {expr}"
    shown = [f"  {line}" for line in lines]
    shown.insert(place[0] + 1, "  " + " " * place[1] + "^")
    return "\n".join([PLACE.sub("parse error", text), *shown])


def _place(expr: str, reason: str) -> tuple[int, int] | None:
    """Line and column, from 0."""
    if match := PLACE.search(reason):
        return int(match[1]) - 1, int(match[2]) - 1
    at = -1
    if "unclosed left parenthesis" in reason:
        at = _unclosed(expr)
    elif (found := QUOTED.findall(reason)) and expr.count(found[0]) == 1:
        at = expr.index(found[0])
    return (expr.count("\n", 0, at), at - (expr.rfind("\n", 0, at) + 1)) if at >= 0 else None


def _unclosed(expr: str) -> int:
    """Where the innermost parenthesis opens that is never closed."""
    bare = re.sub(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`', lambda each: "·" * len(each[0]), expr)
    opened: list[int] = []
    for at, letter in enumerate(bare):
        if letter == "(":
            opened.append(at)
        elif letter == ")" and opened:
            opened.pop()
    return opened[-1] if opened else -1


def table(kind: str, result: Any) -> list[str]:
    """An instant answer: a row an element, a column a label; a scalar or a text as it is."""
    if kind in ("scalar", "string"):
        return [str(result[1])]
    if kind == "matrix":
        return [line for one in result for line in (series_text(one["metric"]), *_points(one["values"]))]
    names = sorted({name for one in result for name in one["metric"]} - {"__name__"})
    if any("__name__" in one["metric"] for one in result):
        names.insert(0, "__name__")
    head = [*("metric" if name == "__name__" else name for name in names), "value"]
    return aligned([head, *([*(one["metric"].get(name, "") for name in names), one["value"][1]] for one in result)])


def _points(values: Sequence[tuple[float, str]]) -> list[str]:
    return [f"  {_moment(at)}  {value}" for at, value in values]


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(timespec="milliseconds")


def aligned(rows: Sequence[Sequence[str]], *, numbers: bool = True) -> list[str]:
    """Columns two spaces apart, the last one to the right where it holds ``numbers``; no control character of a label
    reaches the terminal."""
    if len(rows) < 2:
        return []
    clean = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if numbers and number == len(widths) - 1 else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in clean
    ]


def printable(text: str) -> str:
    """``text`` without what a label could do to a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def over_time(result: Any, start: float, end: float, width: int, *, plain: bool, colour: bool) -> list[str]:
    """One series as a plot, several as a line each, on one scale."""
    series = [(series_text(one["metric"]), [(at, float(value)) for at, value in one["values"]]) for one in result]
    if not series:
        return []
    if len(series) == 1:
        name, points = series[0]
        drawn = plot.plot(points, start, end, min(width, 120), PLOT_HEIGHT, plain=plain)
        return [name, *(_coloured(line, 0) if colour else line for line in drawn)]
    scale = plot.bounds([points for _, points in series])
    names = aligned([["series", "last"], *([name, plot.short(points[-1][1])] for name, points in series)])[1:]
    room = max(20, min(120, width) - max(map(len, names)) - 2)
    lines = [
        f"{name}  {_coloured(drawn, number) if colour else drawn}".rstrip()
        for number, (name, (_, points)) in enumerate(zip(names, series, strict=True))
        for drawn in (plot.sparkline(points, start, end, room, scale, plain=plain),)
    ]
    said = (
        f"{plot.clock(start, end)} to {plot.clock(end, start)}, from {plot.short(scale[0])} to {plot.short(scale[1])}"
    )
    return [*lines, said]


def series_text(metric: dict[str, str]) -> str:
    pairs = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in sorted(metric.items())
                      if name != "__name__")  # fmt: skip
    return metric.get("__name__", "") + (f"{{{pairs}}}" if pairs or "__name__" not in metric else "")


def _coloured(text: str, number: int) -> str:
    return f"\x1b[{COLOURS[number % len(COLOURS)]}m{text}\x1b[0m"


def _colour(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _plain(stream: TextIO) -> bool:
    try:
        f"{plot.BLOCKS}⣿┤─".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return True
    return False


def _time(text: str | None) -> float:
    if not text:
        return time.time()
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise wrong(
            f"--at {text!r} is no time", "Unix seconds, 2026-01-31T12:00:00Z, or how long ago, as in 5m"
        ) from None


def duration(option: str, text: str | None) -> float:
    """Seconds; 0 where nothing is given."""
    if not text:
        return 0.0
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise wrong(f"{option} {text!r} is no duration", "as in 15s, 5m, 1h or 15d")
    return seconds


def _export(options: argparse.Namespace, load: Load) -> int:
    from . import export
    from .remote import RemoteError

    now, path = time.time(), options.openmetrics
    since = now - duration("--since", options.since)
    if str(path) != "-" and path.exists():
        raise wrong(f"{path} exists already", "name another file")
    try:
        with connect(options, load) as remote:
            if str(path) == "-":
                export.write(remote, sys.stdout, since, now)
                return 0
            written = export.export(remote, path, since, now)
    except RemoteError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2 if error.wrong else 1
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise wrong(f"{path} cannot be written: {error.strerror}") from None
    print(f"wrote {written.samples} samples of {written.series} series to {path}. Next:")
    print(f"  promtool tsdb create-blocks-from openmetrics {path} PROMETHEUS_DATA_FOLDER")
    return 0
