"""What ``up`` says: a live table in a terminal, else a timestamped line for each thing that happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from anvil_monitor.targets import format_duration

from .asking import printable

COLOURS: Final = {"ok": "green", "missed": "bold red", "idle": "cyan", "waiting": "dim", "no_data": "yellow"}
WORDS: Final = {"ok": "kept", "missed": "MISSED", "idle": "idle", "waiting": "waiting", "no_data": "NO DATA"}
BLOCKS: Final = "▁▂▃▄▅▆▇█"
EVENTS_SHOWN: Final = 8
SPARK_WIDTH: Final = 24


class View(Protocol):
    """Shows overviews, one after the other (:meth:`overview.Overview.to_json`)."""

    def show(self, overview: Mapping[str, Any]) -> None: ...

    def say(self, text: str) -> None: ...

    def close(self) -> None: ...


def view(stream: TextIO, url: str) -> View:
    """A live table on a terminal, plain lines elsewhere."""
    return LiveView(stream, url) if stream.isatty() else PlainView(stream)


class Events:
    """Finds what happened between two overviews, as sentences with a colour; remembers only what it needs for that."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], str] = {}
        self._alerts: dict[tuple[str, str, str], str] = {}
        self._collectors: dict[str, bool | None] = {}
        self._messages: dict[int, str] | None = None
        self._problems: set[str] = set()

    def of(self, overview: Mapping[str, Any]) -> list[tuple[str, str]]:
        """(sentence, colour), in the order of cause and effect."""
        found = [*self._of_collectors(overview), *self._of_targets(overview)]
        found += [*self._of_alerts(overview), *self._of_messages(overview)]
        problems = set(overview["problems"])
        found += [(f"problem: {text}", "yellow") for text in sorted(problems - self._problems)]
        self._problems = problems
        # Labels, and what a server answers, may be anybody's words: none of them moves the cursor or begins a line.
        return [(printable(text), colour) for text, colour in found]

    def _of_collectors(self, overview: Mapping[str, Any]) -> list[tuple[str, str]]:
        found = []
        for each in overview["collectors"]:
            before, now = self._collectors.get(each["url"]), each["up"]
            self._collectors[each["url"]] = now
            name = f"{each['job']} {each['service'] or each['instance']}".strip()
            if now is False and before is not False:
                found.append((f"{name} cannot be scraped: {each['error']}", "red"))
            elif now and before is not True:
                found.append((f"{name} is scraped: {each['samples']} samples from {each['url']}", "green"))
        return found

    def _of_targets(self, overview: Mapping[str, Any]) -> list[tuple[str, str]]:
        found = []
        for each in overview["targets"]:
            key, now = (each["service"], each["target"]), each["state"]
            before = self._states.get(key)
            self._states[key] = now
            if before == now or (before is None and now == "waiting"):
                continue
            note = f" ({each['note']})" if each["note"] else ""
            text = f"{each['title']} {each['text']}, target {each['promise']}: {WORDS[now]}{note}"
            found.append((text, COLOURS[now]))
        return found

    def _of_alerts(self, overview: Mapping[str, Any]) -> list[tuple[str, str]]:
        found = []
        alerts = {(each["name"], each["service"], each["target"]): each for each in overview["alerts"]}
        for key, each in alerts.items():
            if self._alerts.get(key) != each["state"]:
                said = each["summary"] or " ".join(filter(None, key[1:]))
                found.append(
                    (f"alert {each['name']} {each['state']}: {said}", "red" if each["state"] == "firing" else "yellow")
                )
        for key in self._alerts.keys() - alerts.keys():
            what = " ".join(filter(None, key[1:]))
            ended = "resolved" if self._alerts[key] == "firing" else "gone before it fired"
            found.append((f"alert {key[0]} {ended}: {what}", "green"))
        self._alerts = {key: each["state"] for key, each in alerts.items()}
        return found

    def _of_messages(self, overview: Mapping[str, Any]) -> list[tuple[str, str]]:
        now = {each["id"]: each["state"] for each in overview["notifications"]}
        if self._messages is None:  # what an earlier run sent is no news
            self._messages = {number: state for number, state in now.items() if state != "queued"}
        found = []
        for each in reversed(overview["notifications"]):
            if self._messages.get(each["id"]) == each["state"]:
                continue
            title = each["title"]
            if each["state"] == "sent":
                seconds = max(0.0, (each["finished"] or 0.0) - each["created"])
                found.append((f"sent to {each['channel']} in {format_duration(round(seconds, 2))}: {title}", "green"))
            elif each["state"] == "dead":
                found.append((f"could not be delivered to {each['channel']}: {title} ({each['reason']})", "red"))
            else:
                found.append((f"notification for {each['channel']}: {title}", "cyan"))
        self._messages = {**self._messages, **now}
        return found


class PlainView:
    """One line for each event, with the time of day: for a log, a pipe, a service manager."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.time) -> None:
        self._stream, self._clock, self._events = stream, clock, Events()

    def show(self, overview: Mapping[str, Any]) -> None:
        for text, _ in self._events.of(overview):
            self.say(text)

    def say(self, text: str) -> None:
        print(f"{_time_of_day(self._clock())}  {text}", file=self._stream, flush=True)

    def close(self) -> None:
        pass


class LiveView:
    """A table of the targets that stays in place, and the last events below it."""

    def __init__(self, stream: TextIO, url: str, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._url, self._events = clock, url, Events()
        self._said: list[Text] = []
        self._overview: Mapping[str, Any] | None = None
        self._live = Live(console=Console(file=stream), auto_refresh=False, transient=False)
        self._live.start()

    def show(self, overview: Mapping[str, Any]) -> None:
        for text, colour in self._events.of(overview):
            self._remember(text, colour)
        self._overview = overview
        self._live.update(self._picture(), refresh=True)

    def say(self, text: str) -> None:
        self._remember(text, "")
        self._live.update(self._picture(), refresh=True)

    def close(self) -> None:
        self._live.stop()

    def _remember(self, text: str, colour: str) -> None:
        line = Text(f"{_time_of_day(self._clock())}  ", style="dim")
        self._said = [*self._said, line.append(text, style=colour or "default")][-EVENTS_SHOWN:]

    def _picture(self) -> RenderableType:
        parts: list[RenderableType] = [Text(f"anvil-monitor  {self._url}  (Ctrl-C ends it)", style="bold")]
        if self._overview is not None:
            parts.append(table(self._overview))
        return Group(*parts, *self._said)


def table(overview: Mapping[str, Any]) -> Table:
    """The targets of ``overview``, a row each."""
    made = Table(expand=False)
    several = len({each["service"] for each in overview["targets"]}) > 1
    for name in ("service", "target", "now", "promise", "read as", "history", "state"):
        if name != "service" or several:
            made.add_column(name, justify="right" if name in ("now", "promise") else "left", no_wrap=name != "state")
    for each in overview["targets"]:
        colour = COLOURS[each["state"]]
        lasted = format_duration(max(0, round(overview["now"] - each["since"])))
        note = f", {each['note']}" if each["note"] else ""
        row: list[RenderableType] = [
            each["title"],
            Text(each["text"], style=colour),
            each["promise"],
            each["measure"],
            spark([value for _, value in each["history"]]),
            Text(f"{WORDS[each['state']]} for {lasted}{note}", style=colour),
        ]
        made.add_row(*([each["service"], *row] if several else row))
    return made


def spark(values: list[float | None]) -> str:
    """The values as a row of blocks, the newest at the right; a gap where there is none."""
    size = max(1, -(-len(values) // SPARK_WIDTH))
    pieces = [values[i : i + size] for i in range(0, len(values), size)]
    known = [[value for value in piece if value is not None] for piece in pieces]
    highest = max((max(piece) for piece in known if piece), default=0.0)
    if highest <= 0:
        return "".join(BLOCKS[0] if piece else " " for piece in known)
    return "".join(BLOCKS[min(7, int(max(piece) / highest * 8))] if piece else " " for piece in known)


def _time_of_day(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
