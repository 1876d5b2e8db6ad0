"""YAML with places: reading that names the line of every mistake, writing that is stable byte for byte."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from anvil_monitor.targets import ConfigurationError, Problem

LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times as fast; both give places
DURATION: Final = re.compile(
    r"(?:(?P<y>\d+)y)?(?:(?P<w>\d+)w)?(?:(?P<d>\d+)d)?(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+)s)?(?:(?P<ms>\d+)ms)?",
    re.ASCII,
)
# Prometheus counts nanoseconds in 64 bits: 292 years.
LONGEST: Final = 2**63 // 10**9
SECONDS: Final = {"y": 31_536_000, "w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}


class TooLongError(ValueError):
    """A duration that Prometheus could not count."""


def parse_duration(text: str) -> float:
    """A Prometheus duration (``1m30s``, ``0``) in seconds. Raises ``ValueError``."""
    match = DURATION.fullmatch(text)
    if not text or match is None:
        if text == "0":
            return 0.0
        raise ValueError(f"{text!r} is no duration")
    whole = sum(int(match[unit]) * size for unit, size in SECONDS.items() if match[unit])
    milliseconds = int(match["ms"] or 0)
    if whole + milliseconds // 1000 > LONGEST:
        raise TooLongError("a duration of more than 292 years is out of range")
    return whole + milliseconds / 1000


class Dumper(yaml.SafeDumper):
    """Keys in the order given, lists indented, several lines as a literal block, no anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, _string)


def dump(document: Any, comment: str) -> str:
    """``document`` as YAML under a ``# comment``. The same document gives the same bytes."""
    text = yaml.dump(document, Dumper=Dumper, sort_keys=False, width=10**9, allow_unicode=True)
    return "".join(f"# {line}\n" for line in comment.splitlines()) + text


class Node:
    """One value of a YAML text that knows its line. Mistakes are added to ``problems``, reading goes on."""

    def __init__(self, node: yaml.Node | None, path: Path, problems: list[Problem], what: str) -> None:
        self.node, self.path, self.problems, self.what = node, path, problems, what

    @property
    def line(self) -> int:
        return self.node.start_mark.line + 1 if self.node is not None else 1

    def problem(self, what: str, todo: str = "") -> None:
        self.problems.append(Problem(what, self.path, self.line, todo))

    @property
    def empty(self) -> bool:
        return self.node is None or self.node.tag == "tag:yaml.org,2002:null"

    def fields(self) -> dict[str, Node]:
        """The entries of a mapping; a key given twice is a problem, as it is for Prometheus."""
        if self.empty:
            return {}
        if not isinstance(self.node, yaml.MappingNode):
            self.problem(f"{self.what} must be a mapping (key: value)")
            return {}
        found: dict[str, Node] = {}
        for key, value in self.node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            child = Node(value, self.path, self.problems, f"{name} of {self.what}")
            if name in found:
                Node(key, self.path, self.problems, name).problem(f"{name!r} is given twice in {self.what}", "keep one")
            found[name] = child
        return found

    def known(self, allowed: Iterable[str], unsupported: dict[str, str] | None = None) -> dict[str, Node]:
        """:meth:`fields`, every other name refused; ``unsupported`` says why for names that exist elsewhere."""
        fields, names = self.fields(), tuple(allowed)
        for name, child in fields.items():
            if unsupported and name in unsupported:
                child.problem(f"{name!r} in {self.what} is not supported here", unsupported[name])
            elif name not in names:
                near = difflib.get_close_matches(name, names, 1)
                todo = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(names)}"
                child.problem(f"{name!r} is not known in {self.what}", todo)
        return {name: child for name, child in fields.items() if name in names}

    def items(self) -> Iterator[Node]:
        """The elements of a list."""
        if self.empty:
            return
        if not isinstance(self.node, yaml.SequenceNode):
            self.problem(f"{self.what} must be a list (- …)")
            return
        for number, value in enumerate(self.node.value, 1):
            yield Node(value, self.path, self.problems, f"{self.what} {number}")

    def text(self) -> str:
        """A scalar as it was written (``severity: 1`` is the text ``1``); an empty one is ``""``."""
        if self.empty:
            return ""
        if not isinstance(self.node, yaml.ScalarNode):
            self.problem(f"{self.what} must be one value, not a list or a mapping")
            return ""
        return str(self.node.value)

    def duration(self) -> float:
        """Seconds; 0 when it is no duration (and a problem) or nothing is said."""
        if self.empty:
            return 0.0
        text = self.text()
        try:
            return parse_duration(text)
        except ValueError as error:
            self.problem(f"{self.what}: {error}", 'a number with a unit, as in "30s" or "1m30s"')
            return 0.0

    def texts(self) -> dict[str, str]:
        """A mapping of names to text."""
        return {name: child.text() for name, child in self.fields().items()}


def read(text: str, path: Path, what: str) -> tuple[Node, list[Problem]]:
    """The root of the one document in ``text``. Raises :class:`ConfigurationError` where it is not YAML."""
    problems: list[Problem] = []
    try:
        root = yaml.compose(text, Loader=LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
        line = mark.line + 1 if mark else 0
        raise ConfigurationError([Problem(f"is not valid YAML: {reason}", path, line)]) from None
    except RecursionError:
        raise ConfigurationError([Problem("is nested too deeply", path, 1)]) from None
    return Node(root, path, problems, what), problems
