"""In which line of a TOML text a key stands: ``tomllib`` gives values only, and an error must name its line."""

from __future__ import annotations

import re

HEADER = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")


class Lines:
    """Line numbers (from 1) by dotted path; the n-th ``[[name]]`` is ``name.n`` (from 0)."""

    def __init__(self, text: str) -> None:
        self._at: dict[str, int] = {}
        counts: dict[str, int] = {}
        table, closing = "", ""
        for number, line in enumerate(text.splitlines(), 1):
            if closing:  # inside a multi-line string nothing is a key
                closing = "" if closing in line else closing
                continue
            if header := HEADER.match(line):
                table = _plain(header.group(1))
                if line.lstrip().startswith("[["):
                    index = counts.get(table, 0)
                    counts[table] = index + 1
                    self._at.setdefault(table, number)
                    table = f"{table}.{index}"
                self._at.setdefault(table, number)
            elif key := KEY.match(line):
                path = f"{table}.{_plain(key.group(1))}" if table else _plain(key.group(1))
                self._at.setdefault(path, number)
                for inner in re.finditer(r"[{,]\s*([A-Za-z0-9_-]+)\s*=", line[key.end() :]):
                    self._at.setdefault(f"{path}.{inner.group(1)}", number)
            for mark in ('"""', "'''"):
                if line.count(mark) % 2:
                    closing = mark

    def of(self, path: str) -> int:
        """The line of ``path``, else of the nearest table round it, else 0."""
        while path:
            if path in self._at:
                return self._at[path]
            path = path.rpartition(".")[0]
        return 0


def _plain(dotted: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in dotted.split("."))
