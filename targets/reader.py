"""One table of ``monitor.toml`` being read: typed getters that note a problem and go on with a usable value."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from .lines import Lines
from .model import Secret
from .problems import Problem
from .settings import MOST_LISTED, NAME, NAME_RULE
from .units import SIZE, TIME, Unit, parse_quantity

EXAMPLES = {Unit.SECONDS: "200ms", Unit.BYTES: "500MB"}
# Seconds. A loop cannot turn faster, and PromQL's durations count milliseconds and end after 292 years.
SHORTEST: Final = 0.001
LONGEST: Final = 3650 * 86400.0
# Whole numbers are compared with floats, which are exact as far as this.
GREATEST: Final = 10**12


class Table:
    """A table at dotted ``place``. Getters return the default (or a harmless value) after noting a problem."""

    def __init__(self, place: str, values: Any, lines: Lines, path: Path | None, problems: list[Problem],
                 defaults: Mapping[str, Any] | None = None) -> None:  # fmt: skip
        self.place, self._lines, self._path, self._problems = place, lines, path, problems
        self._defaults = defaults or {}
        self.values: dict[str, Any] = values if isinstance(values, dict) else {}
        if not isinstance(values, dict):
            # Not what it is: where a channel is expected, it may be the channel's URL.
            given = " is a list, and" if isinstance(values, list) else ""
            self.problem("", f"{place}{given} must be a table", f"write it as [{place}], once")

    def problem(self, key: str, what: str, todo: str, severity: str = "error") -> None:
        place = ".".join(part for part in (self.place, key) if part)
        self._problems.append(Problem(_short(what), self._path, self._lines.of(place), todo, severity))

    def shown(self, key: str) -> str:
        return _show(self._get(key, None))

    def allow(self, keys: Iterable[str], kind: str = "key", todo: str = "") -> None:
        """Note every key that is none of ``keys``, with the nearest one as a guess, and what else could be meant."""
        allowed = [str(key) for key in keys]
        for key in self.values:
            if key not in allowed:
                near = difflib.get_close_matches(key, allowed, 1)
                guess = f"did you mean {near[0]!r}? " if near else ""
                where = f" in [{self.place}]" if self.place else ""
                said = f"{guess}allowed: {', '.join(allowed)}{todo}"
                self.problem(key, f"unknown {kind} {key!r}{where}", said)

    def table(self, key: str, defaults: Mapping[str, Any] | None = None) -> Table:
        place = f"{self.place}.{key}" if self.place else key
        values = self.values.get(key, {})
        return Table(
            place,
            values,
            self._lines,
            self._path,
            self._problems,
            defaults,
        )

    def tables(self, key: str) -> list[Table]:
        """The tables of an array ``[[key]]``; empty when ``key`` is no array."""
        values = self.values.get(key)
        if not isinstance(values, list):
            return []
        return [Table(f"{key}.{i}", each, self._lines, self._path, self._problems) for i, each in enumerate(values)]

    def text(self, key: str, default: str) -> str:
        value = self._get(key, default)
        if isinstance(value, str):
            return value
        self._wrong(key, value, 'must be text in quotes, as in "…"')
        return default

    def name_of(self, key: str, default: str) -> str:
        value = self.text(key, default)
        if NAME.fullmatch(value):
            return value
        self._wrong(key, value, f"is no name: {NAME_RULE}")
        return default

    def boolean(self, key: str, default: bool) -> bool:
        value = self._get(key, default)
        if isinstance(value, bool):
            return value
        self._wrong(key, value, "must be true or false")
        return default

    def number(self, key: str, least: float, most: float, default: float | None = None) -> float:
        value = self._get(key, default)
        if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
            return float(value)
        self._wrong(key, value, f"must be a number from {least:g} to {most:g}")
        return least

    def integer(self, key: str, default: int | None = None, least: int = 0, most: int = GREATEST) -> int:
        value = self._get(key, default)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole and least <= value <= most:
            return int(value)
        upward = most == GREATEST and not (whole and value > most)
        self._wrong(key, value, f"must be a whole number from {least} " + ("up" if upward else f"to {most}"))
        return least

    def duration(self, key: str, default: float | None = None, *, zero: bool = False) -> float:
        """Seconds, from text such as ``"90s"``."""
        value = self._get(key, default)
        if isinstance(value, float) and value is default:
            return value
        seconds = self._quantity(key, value, TIME, "30s", zero=zero)
        if seconds and not SHORTEST <= seconds <= LONGEST:
            self._wrong(key, value, "must be from 1ms to 3650d")
            return LONGEST
        return seconds

    def window(self, key: str, scrape_interval: float) -> float:
        """Seconds that one value looks back over: rate() needs two samples in every window, four may lose a scrape."""
        seconds = self.duration(key)
        if seconds < 4 * scrape_interval:
            todo = f"make it at least {4 * scrape_interval:g}s, or lower [monitor] scrape_interval"
            self.problem(key, f"{key} = {self.shown(key)} in [{self.place}] holds fewer than four scrapes", todo)
        return seconds

    def quantity(self, key: str, unit: Unit, default: str | None = None) -> float:
        """A limit in base units: a time, a size, or a plain whole number for counts."""
        value = self._get(key, default)
        if unit.is_count:
            return float(self.integer(key, least=1))
        return self._quantity(key, value, TIME if unit is Unit.SECONDS else SIZE, EXAMPLES[unit])

    def secret(self, key: str) -> Secret | None:
        """Where a secret is to be read from. The value given is never repeated: it may be the secret itself."""
        if key not in self.values:
            return None
        value = self.values[key]
        kind, _, where = value.partition(":") if isinstance(value, str) else ("", "", "")
        if kind == "env" and where.replace("_", "a").isalnum() and not where[0].isdigit():
            return Secret(value)
        if kind == "file" and where and not where.startswith("//"):
            path = self.path(key, where)
            base = self._path.parent if self._path else Path()
            return Secret(f"file:{path if path.is_absolute() else base / path}")
        self.problem(key, f"{key} in [{self.place}] must not stand in this file: it is a secret (not shown here)",
                     f'put it elsewhere and write {key} = "env:NAME" or {key} = "file:PATH"')  # fmt: skip
        return None

    def one_of(self, key: str, among: tuple[str, ...]) -> str:
        """One of these words; empty where nothing is given."""
        value = self._get(key, "")
        if value in ("", *among):
            return str(value)
        self._wrong(key, value, f"must be one of {', '.join(among)}")
        return ""

    def file(self, key: str) -> Path | None:
        """A path, relative to the file that names it; ``None`` where nothing is given."""
        value = self.text(key, "")
        if not value:
            return None
        path = self.path(key, value)
        return path if path.is_absolute() or self._path is None else self._path.parent / path

    def path(self, key: str, text: str) -> Path:
        """``text`` as a path, with ``~`` filled in."""
        if not text or "\0" in text:
            self.problem(key, f"{key} in [{self.place}] is no path", "name a file or a folder")
            return Path()
        try:
            return Path(text).expanduser()
        except RuntimeError:
            self.problem(key, f"{key} in [{self.place}]: there is no home folder for ~", "write the whole path")
            return Path()

    def names(self, key: str, among: tuple[str, ...], kind: str) -> tuple[str, ...]:
        value = self._get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self._wrong(key, value, f'must be a list, as in ["{among[0]}"]')
            return ()
        for each in value:
            if each not in among:
                near = difflib.get_close_matches(each, among, 1)
                guess = f"did you mean {near[0]!r}? " if near else ""
                self.problem(key, f"unknown {kind} {each!r} in [{self.place}]", f"{guess}allowed: {', '.join(among)}")
        return tuple(value)

    def matching(self, key: str, pattern: re.Pattern[str], rule: str) -> tuple[str, ...]:
        """A list of texts that each match ``pattern`` as a whole."""
        value = self._get(key, [])
        if not isinstance(value, list) or len(value) > MOST_LISTED:
            self._wrong(key, value, f"{rule}, at most {MOST_LISTED}")
            return ()
        good = [each for each in value if isinstance(each, str) and len(each) <= 500 and pattern.fullmatch(each)]
        if len(good) < len(value):
            self._wrong(key, next(each for each in value if each not in good), rule)
        return tuple(dict.fromkeys(good))

    def urls(self, key: str) -> tuple[str, ...]:
        value = self._get(key, [])
        if not isinstance(value, list) or len(value) > MOST_LISTED:
            self._wrong(key, value, f'must be a list, as in ["http://127.0.0.1:8000/health"], at most {MOST_LISTED}')
            return ()
        return tuple(dict.fromkeys(self._url(key, each, "") for each in value))

    def url(self, key: str, default: str) -> str:
        return self._url(key, self.text(key, default), default)

    def _url(self, key: str, value: Any, default: str) -> str:
        try:
            if not isinstance(value, str):
                raise ValueError
            parts = urlsplit(value)
            valid = (
                parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
            )
        except ValueError:
            valid = False
        if isinstance(value, str) and "@" in value.partition("?")[0]:
            self.problem(key, f"{key} in [{self.place}] holds a user name or password (not shown here)", "take it out")
            return default
        if not valid:
            self._wrong(key, value, 'must be a URL with a host, as in "http://127.0.0.1:8000"')
            return default
        return str(value)

    def address(self, key: str, default: str) -> tuple[str, int]:
        value = self.text(key, default)
        host, _, port = value.rpartition(":")
        if host and port.isdecimal() and len(port) < 6 and int(port) < 65536:
            return host.strip("[]"), int(port)
        self._wrong(key, value, 'must be HOST:PORT, as in "127.0.0.1:9109"')
        return "127.0.0.1", 0

    def _quantity(self, key: str, value: Any, units: dict[str, Any], example: str, *, zero: bool = False) -> float:
        kind = "time" if units is TIME else "size"
        if isinstance(value, int | float) and not isinstance(value, bool):
            given = f"{value:g}" if abs(value) < GREATEST else "30"
            self._wrong(key, value, f'a {kind} needs a unit, as in "{given}{"ms" if units is TIME else "MB"}"')
            return 1.0
        if not isinstance(value, str):
            self._wrong(key, value, f'must be a {kind}, as in "{example}"')
            return 1.0
        try:
            number = parse_quantity(value, units)
        except ValueError as error:
            self._wrong(key, value, f'{error}, as in "{value.strip()}{"ms" if units is TIME else "MB"}"'
                        if value.strip().replace(".", "").isdecimal() else f'{error}, as in "{example}"')  # fmt: skip
            return 1.0
        if number <= 0 and not (zero and number == 0):
            self._wrong(key, value, "must be more than 0")
            return 1.0
        return number

    def _get(self, key: str, default: Any) -> Any:
        return self.values.get(key, self._defaults.get(key, default))

    def _wrong(self, key: str, value: Any, rule: str) -> None:
        place = f" in [{self.place}]" if self.place else ""
        self.problem(key, f"{key} = {_show(value)}{place}: {rule}", "")


def _short(text: str) -> str:
    return text if len(text) <= 500 else f"{text[:499]}…"


def _show(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"
