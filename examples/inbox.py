"""What the demo's sinks have recorded, read back: who was told what, and when."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

News = Literal["missed", "recovered"]


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it arrived: ``at`` in seconds since the epoch, ``sink`` where."""

    at: float
    sink: str
    title: str
    text: str

    def tells(self, target: str, news: News) -> bool:
        """Whether it says that ``target`` (its title) is missed, or has recovered; a reminder says neither."""
        start = f"{target} recovered" if news == "recovered" else f"{target} "
        other = f"{target} recovered" if news == "missed" else None
        return any(line.startswith(start) and not (other and line.startswith(other)) for line in self.text.splitlines())


class Inbox:
    """The record of the sinks."""

    def __init__(self, record: Path) -> None:
        self.record = record
        self._shown = 0
        self._texts: dict[str, float] = {}

    def read(self) -> list[Received]:
        """Everything that came, in order. A line that is still being written is left for the next time."""
        if not self.record.exists():
            return []
        lines = self.record.read_text(encoding="utf-8").splitlines(keepends=True)
        return [Received(**json.loads(line)) for line in lines if line.endswith("\n")]

    def first(self, sink: str, target: str, news: News, since: float) -> Received | None:
        """The first message after ``since`` by which ``sink`` was told that of ``target``."""
        found = (message for message in self.read() if message.sink == sink and message.at >= since)
        return next((message for message in found if message.tells(target, news)), None)

    def told(self, sink: str, targets: Sequence[str], news: News, since: float) -> int:
        """Of how many of ``targets`` the sink was told that since then."""
        return sum(self.first(sink, target, news, since) is not None for target in targets)

    def news(self, since: float) -> Iterator[tuple[str, list[str]]]:
        """What came since the last call, for the narration; a text that another sink had already is not repeated."""
        messages = self.read()
        for message in messages[self._shown :]:
            clock = time.strftime("%H:%M:%S", time.localtime(message.at))
            head = f"{message.sink.upper()} at {clock}, {message.at - since:.1f} s later: {message.title}"
            content = " ".join(message.text.split())
            known = content in self._texts
            self._texts[content] = message.at
            yield head, [] if known else [line for line in message.text.strip().splitlines() if line.strip()]
        self._shown = len(messages)
