"""Problems are data: what is wrong, where, what is allowed, what to do. Printing them is somebody else's work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. ``line`` counts from 1; 0 where no line can be named. ``severity`` is error or warning."""

    what: str
    path: Path | None = None
    line: int = 0
    todo: str = ""
    severity: str = "error"

    def __str__(self) -> str:
        where = f"{self.path or 'monitor.toml'}:{self.line}: " if self.line else f"{self.path}: " if self.path else ""
        return f"{where}{self.what}{f' — {self.todo}' if self.todo else ''}"


class ConfigurationError(Exception):
    """A configuration that cannot be used, with every problem in it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
