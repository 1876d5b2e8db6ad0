"""Templates made at random, of every function with arguments of every kind, most of them sensible enough to be read."""

from __future__ import annotations

import random

from anvil_monitor.alerts import templates
from anvil_monitor.alerts.templatefunctions import FUNCTIONS

# What promtool 2.42 does not have, or has no URL for.
NEWER = {"now", "toDuration", "urlQueryEscape", "externalURL", "pathPrefix"}
ARITY = {name: (each.least, min(each.most, 4)) for name, each in FUNCTIONS.items() if name not in NEWER}
ARITY |= {"and": (1, 3), "or": (1, 3)}
VALUES = (
    *("$value", "$labels.x", "$labels.host", "$labels.n", "$labels.e", "$labels.nope", "$labels", ".", "$", "$v"),
    *("0", "1", "3", "-2", "2.5", "1e3", '"a"', '"a:1"', '"0.5"', '"1h"', '""', "true", "false", ".Labels.x", ".Value"),
    *('"i"', '"x"', '"(a|b)+"', '"$1"', '(query "m" | sortByLabel "i" | first)', '(query "nothing")'),
)
FORMS = (
    "%v",
    "%s",
    "%d",
    "%q",
    "%.2f",
    "%5.1f",
    "%-8s|",
    "%08.3f",
    "%+d",
    "%e",
    "%g",
    "%t",
    "%%",
    "%.3v",
    "% d",
    "%03d",
)
FIELDS = (".Labels.x", ".Value", ".arg0", ".Unix")


class Maker:
    """Makes templates, the same ones for the same ``seed``."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def template(self) -> str:
        """One that we read; what we refuse is no case for a comparison."""
        while True:
            text = "{{ $v := 1 }}" + self._node(0) + self._body(1)
            try:
                templates.parse(text)
            except templates.TemplateError:
                continue
            return text

    def _operand(self, depth: int) -> str:
        if depth > 2 or self.chance.random() < 0.6:
            return self.chance.choice(VALUES)
        field = self.chance.choice(FIELDS) if self.chance.random() < 0.08 else ""
        return f"({self._pipeline(depth + 1)}){field}"

    def _call(self, depth: int, piped: bool) -> str:
        name = self.chance.choice(sorted(ARITY))
        if name == "query":
            return '"7"' if not piped else "print"
        least, most = ARITY[name]
        arguments = [self._operand(depth + 1) for _ in range(max(0, self.chance.randint(least, most) - piped))]
        if name == "printf" and arguments:
            arguments[0] = f'"{self.chance.choice(FORMS)} {self.chance.choice(FORMS)}"'
        return " ".join([name, *arguments])

    def _pipeline(self, depth: int) -> str:
        text = self._call(depth, False) if self.chance.random() < 0.75 else self.chance.choice(VALUES)
        while self.chance.random() < 0.25:
            text += f" | {self._call(depth, True)}"
        return text

    def _node(self, depth: int) -> str:
        kind = self.chance.random()
        if depth > 2 or kind < 0.6:
            return f"{{{{ {self._pipeline(0)} }}}}"
        if kind < 0.75:
            otherwise = f"{{{{ else }}}}{self._body(depth + 1)}" if self.chance.random() < 0.5 else ""
            return f"{{{{ if {self._pipeline(0)} }}}}{self._body(depth + 1)}{otherwise}{{{{ end }}}}"
        if kind < 0.85:
            return f"{{{{ with {self._pipeline(0)} }}}}{self._body(depth + 1)}{{{{ end }}}}"
        if kind < 0.95:
            ending = self.chance.choice(["", "{{ break }}", "{{ continue }}"])
            head = f"{{{{ range $i, $e := {self._pipeline(0)} }}}}{{{{ $i }}}}"
            return f"{head}{self._body(depth + 1)}{ending}{{{{ else }}}}none{{{{ end }}}}"
        return f"{{{{ $v = {self._pipeline(0)} }}}}"

    def _body(self, depth: int) -> str:
        text = "".join(self._node(depth) for _ in range(self.chance.randint(0, 2)))
        return text + self.chance.choice(["", "x", " "])
