"""Expressions that would end the process: promql-parser's recursion has no limit of its own.

Every text is looked at here before that parser sees it.
"""

from __future__ import annotations

import re
from typing import Final

# Nested brackets plus operators; the parser's own stack ends near 2,500, Python's near 1,000.
DEEPEST: Final = 200
LONGEST: Final = 100_000  # characters

_STRINGS: Final = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`|#[^\n]*", re.DOTALL)
_OPERATORS: Final = re.compile(r"[-+*/%^]|[<>=!]=?|\b(?:and|or|unless|atan2)\b", re.IGNORECASE)
_INNER: Final = re.compile(r"\{[^}]*\}|\[[^\]]*\]")


def too_much(expr: str) -> str:
    """Why ``expr`` must not be parsed; ``""`` where it may."""
    if len(expr) > LONGEST:
        return f"a query of {len(expr)} characters; at most {LONGEST} are read"
    bare = _STRINGS.sub('""', expr)
    depth = deepest = 0
    for character in bare:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    operators = len(_OPERATORS.findall(_INNER.sub("", bare)))
    if deepest + operators > DEEPEST:
        return f"{deepest} nested brackets and {operators} operators; at most {DEEPEST} together are read"
    return ""
