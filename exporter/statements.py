"""What an SQL statement does, in two words: its operation and its table, never anything of its text.

Literals and comments are stepped over, so that no value of a query can come out as the name of a table. Only the head
of a statement is looked at, each character once: a statement of megabytes costs what a short one costs.
"""

from __future__ import annotations

import re
from typing import Final

OPERATIONS: Final = frozenset(
    ("ALTER", "BEGIN", "CALL", "COMMIT", "CREATE", "DELETE", "DROP", "EXPLAIN", "INSERT", "MERGE", "PRAGMA", "REPLACE",
     "SELECT", "SET", "SHOW", "TRUNCATE", "UPDATE"))  # fmt: skip
OTHER: Final = "_OTHER"
MAIN: Final = frozenset(("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE"))
BEFORE_TABLE: Final = frozenset(("FROM", "INTO", "UPDATE", "TABLE", "JOIN"))
BETWEEN: Final = frozenset(("ONLY", "IF", "NOT", "EXISTS", "LATERAL"))
# What is looked at of a statement: a bulk INSERT may be megabytes long.
HEAD: Final = 4000
MAX_TEXT: Final = 64

# A quote that is escaped with a backslash ends a literal for some databases and not for others: nothing is read there.
AMBIGUOUS: Final = re.compile(r"\\['\"`]")
TOKEN: Final = re.compile(
    r"""'(?:[^']|'')*+(?:'|\Z)                            # a literal
    | --[^\n]*+ | /\*(?>.*?(?:\*/|\Z))                    # a comment
    | \$(?P<tag>[A-Za-z_]*+)\$(?>.*?(?:\$(?P=tag)\$|\Z))  # a literal of PostgreSQL
    | (?P<quoted>"(?:[^"]|"")*+(?:"|\Z) | `[^`]*+(?:`|\Z) | \[[^\]]*+(?:\]|\Z))
    | (?P<word>[^\W\d][\w$]*+)
    | (?P<mark>[().])
    | \d[\w.]*+ | (?P<rest>[^\s\w])""",
    re.DOTALL | re.VERBOSE,
)


def describe(statement: str) -> tuple[str, str]:
    """Operation and first table: ``("SELECT", "items")``; ``_OTHER`` and empty where there is none to be seen."""
    operation = table = ""
    expected = dotted = False  # a table's name may come now; more of it comes after a dot
    reads = [False]  # for each open parenthesis, whether a FROM in it is one of tables (and not of EXTRACT)
    for token in TOKEN.finditer(_head(statement)):
        mark, word, quoted = token["mark"], token["word"], token["quoted"]
        if table:
            if mark == "." and not dotted:
                dotted = True
                continue
            if not dotted or mark:
                break
            table, dotted = _identifier(word, quoted) or table, False
        elif mark == "(":
            reads.append(False)
            expected = False
        elif mark == ")":
            if len(reads) > 1:
                reads.pop()
        elif word:
            upper = word.upper()
            if not operation or (operation == "WITH" and len(reads) == 1 and upper in MAIN):
                operation = upper
            if upper in MAIN:
                reads[-1] = True
            if operation == "WITH":
                continue
            if upper in BEFORE_TABLE:
                expected = upper != "FROM" or reads[-1]
            elif expected and upper not in BETWEEN:
                table = word[:MAX_TEXT]
        elif quoted and expected:
            table, expected = _identifier(word, quoted), False
        elif token["rest"]:
            expected = False
    return _operation(operation), table


def _head(statement: str) -> str:
    head = statement[:HEAD]
    doubtful = AMBIGUOUS.search(head)
    return head[: doubtful.start()] if doubtful else head


def _operation(word: str) -> str:
    return "SELECT" if word == "WITH" else word if word in OPERATIONS else OTHER


def _identifier(word: str | None, quoted: str | None) -> str:
    """A name without its quotes; empty for a quoted text that is no plain name."""
    name = word or (quoted or "")[1:-1]
    return name[:MAX_TEXT] if re.fullmatch(r"[^\W\d][\w$ -]{0,255}", name) else ""
