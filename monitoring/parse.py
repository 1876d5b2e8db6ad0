"""The text that a target answers with, to samples: the Prometheus text format 0.0.4, tolerant of OpenMetrics.

A repeated scrape is nearly all known series, so the path that counts is ``line.rpartition(" ")`` and one look-up of
the series text; a line is taken apart only the first time. Time stamps and exemplars in the text are checked and not
used (as with Prometheus's ``honor_timestamps: false``): a sample's time is the time of its scrape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .samples import Labels

SAMPLE_LIMIT = 50_000
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SERIES = re.compile(rf"[ \t]*({NAME})?[ \t]*(?:(\{{)|(?=[ \t]))")
LABEL = re.compile(r'[ \t]*(?:([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*)?"((?:[^"\\\n]|\\.)*)"[ \t]*(,|(?=\}))')
AFTER = re.compile(r"[ \t]+(\S+)(?:[ \t]+([-+.0-9eE]+))?[ \t]*(?:# \{.*)?$")
NO_NUMBER = "has a value that is no number"
ESCAPE = re.compile(r"\\(.)")
ESCAPES = {"n": "\n", '"': '"', "\\": "\\"}


class ExpositionError(ValueError):
    """The text is no exposition, or too large a one. The message names the line; nothing of the text may be used."""


class Parser:
    """Reads the texts of one target, one after the other, and remembers its series between them.

    ``target_labels`` are put on every sample; a label of the same name in the text is kept as ``exported_<name>``, as
    Prometheus does (``honor_labels: false``). More than ``sample_limit`` samples are refused.
    """

    def __init__(self, target_labels: Mapping[str, str], sample_limit: int = SAMPLE_LIMIT) -> None:
        self._target_labels = dict(target_labels)
        self._sample_limit = sample_limit
        self._known: dict[str, Labels] = {}
        self.comments: set[str] = set()  # the lines that say what a metric is (# HELP, # TYPE, # UNIT)

    def parse(self, text: str) -> tuple[list[Labels], list[float]]:
        """The series of ``text`` and their values, in its order (two lists: a pair for each would cost as much again).

        Raises :class:`ExpositionError` at the first bad line, for all of it.

        A series that was in an earlier text comes with the very same label tuple, so callers may compare by identity.
        """
        known = self._known.get
        fresh: dict[str, Labels] = {}
        present: list[Labels] = []
        values: list[float] = []
        keep_series, keep_value = present.append, values.append
        line = ""
        try:
            for line in text.split("\n"):
                series, _, value = line.rpartition(" ")
                labels = known(series)
                if labels is None:
                    bare = line.strip()
                    if not bare or bare[0] == "#":
                        if len(self.comments) < self._sample_limit:
                            self.comments.add(bare)
                        continue
                    labels, value, plain = self._read(line.rstrip("\r"))
                    if plain:
                        fresh[series] = labels
                if "_" in value:  # Python would read 1_000 as a number
                    raise ValueError(NO_NUMBER)
                keep_value(float(value))
                keep_series(labels)
        except ValueError as error:
            number = text.split("\n").index(line) + 1
            reason = NO_NUMBER if str(error).startswith("could not convert") else str(error)
            raise ExpositionError(f"line {number} {reason}: {_show(line)}") from None
        if len(present) > self._sample_limit:
            raise ExpositionError(f"more than {self._sample_limit} samples")
        self._known.update(fresh)
        if len(self._known) > 2 * len(present) + 1000:  # series that come and go must not fill the memory
            now = {id(labels) for labels in present}
            self._known = {series: labels for series, labels in self._known.items() if id(labels) in now}
        return present, values

    def _read(self, line: str) -> tuple[Labels, str, bool]:
        """One line: its labels, the text of its value, and whether it is just ``series value``."""
        head = SERIES.match(line)
        if head is None:
            raise ValueError("is no sample (expected a metric name, labels and a number)")
        name, position = head.group(1), head.end()
        labels: dict[str, str] = {}
        if head.group(2):
            while line[position : position + 1] != "}":
                match = LABEL.match(line, position)
                if match is None:
                    if line[position:].strip() == "}" or line[position:].lstrip().startswith("}"):
                        position = line.index("}", position)
                        break
                    raise ValueError("has a label that cannot be read")
                key, text = match.group(1), ESCAPE.sub(_unescape, match.group(2))
                if key is None:  # the quoted metric name of Prometheus 3: {"my.metric", …}
                    if name is not None or labels:
                        raise ValueError("has a label without a name")
                    name = text
                elif key in labels:
                    raise ValueError(f"has the label {key} twice")
                else:
                    labels[key] = text
                position = match.end()
            position += 1
        if not name:
            raise ValueError("has no metric name")
        rest = AFTER.match(line, position)
        if rest is None:
            raise ValueError("has no value after the series")
        value = rest.group(1)
        plain = line == f"{line[:position]} {value}"
        return merge(labels, self._target_labels, name), value, plain


def merge(labels: Mapping[str, str], target_labels: Mapping[str, str], name: str) -> Labels:
    """A series' full label set: the target's labels win, what they displace is kept as ``exported_<name>``."""
    merged = {key: value for key, value in labels.items() if value and key not in target_labels}
    for key in target_labels:
        if labels.get(key):
            exported = f"exported_{key}"
            while exported in merged or exported in target_labels:
                exported = f"exported_{exported}"
            merged[exported] = labels[key]
    merged.update(target_labels)
    merged["__name__"] = name
    return tuple(sorted(merged.items()))


def _unescape(match: re.Match[str]) -> str:
    return ESCAPES.get(match.group(1), match.group(0))


def _show(line: str) -> str:
    return repr(line if len(line) <= 80 else f"{line[:79]}…")
