"""How long queries take, through SQLAlchemy's own events: grouped by operation and table, never by text.

OpenTelemetry's SQLAlchemy instrumentation has no query duration and does nothing on SQLAlchemy 2.1; these events are
the stable interface of 2.0 and 2.1 alike. https://docs.sqlalchemy.org/en/20/core/events.html
"""

from __future__ import annotations

import re
from time import perf_counter
from typing import Any, Final

from . import names
from .recorder import Histogram, Recorder

# SQLAlchemy's names of dialects to semconv db.system.name; others are the same.
SYSTEMS: Final = {"mssql": "microsoft.sql_server", "oracle": "oracle.db"}
OPERATIONS: Final = frozenset(
    ("ALTER", "BEGIN", "CALL", "COMMIT", "CREATE", "DELETE", "DROP", "EXPLAIN", "INSERT", "MERGE", "PRAGMA", "REPLACE",
     "SELECT", "SET", "SHOW", "TRUNCATE", "UPDATE"))  # fmt: skip
SPACE: Final = r"(?:\s|/\*.*?\*/|--[^\n]*\n)*"
FIRST_WORD: Final = re.compile(rf"{SPACE}\(*{SPACE}([A-Za-z]+)", re.DOTALL)
# A statement WITH common table expressions is what stands after their last closing parenthesis.
AFTER_WITH: Final = re.compile(r"\)\s*(SELECT|INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)
IDENTIFIER: Final = r'["`\[]?([A-Za-z_][\w$]*)["`\]]?'
TABLE: Final = re.compile(
    rf"\b(?:FROM|INTO|UPDATE|TABLE|JOIN)\s+(?:ONLY\s+|IF\s+(?:NOT\s+)?EXISTS\s+)?{IDENTIFIER}(?:\.{IDENTIFIER})?",
    re.IGNORECASE)  # fmt: skip
# What is looked at of a statement: a bulk INSERT may be megabytes long.
HEAD: Final = 4000
# Texts of statements repeat; the series of this many are kept at hand.
MAX_STATEMENTS: Final = 1000
MAX_TEXT: Final = 64


def describe(statement: str) -> tuple[str, str]:
    """Operation and table of an SQL statement: ``("SELECT", "items")``; empty where there is none to be seen."""
    head = statement[:HEAD]
    word = FIRST_WORD.match(head)
    operation = word.group(1).upper() if word else ""
    start = 0
    if operation == "WITH":
        last = next(reversed(list(AFTER_WITH.finditer(head))), None)
        operation, start = (last.group(1).upper(), last.start(1)) if last else ("SELECT", 0)
    table = TABLE.search(head, start)
    name = (table.group(2) or table.group(1)) if table else ""
    return operation if operation in OPERATIONS else "_OTHER", name[:MAX_TEXT]


class Database:
    """Times the queries of any number of engines into one recorder."""

    def __init__(self, recorder: Recorder, edges: tuple[float, ...]) -> None:
        self._recorder, self._edges = recorder, edges
        self._series: dict[tuple[str, str], Histogram] = {}

    def watch(self, engine: Any) -> None:
        """Listen to ``engine``, a SQLAlchemy ``Engine`` or ``AsyncEngine``; once however often it is asked."""
        from sqlalchemy import event

        engine = getattr(engine, "sync_engine", engine)
        if getattr(engine, "_anvil_monitor", None) is not None:
            return
        engine._anvil_monitor = self
        system = SYSTEMS.get(engine.dialect.name, engine.dialect.name)

        def before(_c: object, _cursor: object, _statement: str, _p: object, context: Any, _many: bool) -> None:
            context._anvil_monitor_began = perf_counter()

        def after(_c: object, _cursor: object, statement: str, _p: object, context: Any, _many: bool) -> None:
            self._record(system, statement, perf_counter() - context._anvil_monitor_began)

        def failed(error: Any) -> None:
            began = getattr(error.execution_context, "_anvil_monitor_began", None)
            if began is not None and error.statement is not None:
                self._record(system, error.statement, perf_counter() - began)

        event.listen(engine, "before_cursor_execute", before)
        event.listen(engine, "after_cursor_execute", after)
        event.listen(engine, "handle_error", failed)
        self._watch_pool(engine)

    def _record(self, system: str, statement: str, took: float) -> None:
        series = self._series.get((system, statement))
        if series is None:
            series = self._recorder.histogram(names.DB_DURATION, (system, *describe(statement)), self._edges)
            if len(self._series) >= MAX_STATEMENTS:
                self._series.clear()
            if len(statement) <= HEAD:
                self._series[system, statement] = series
        series.record(took)

    def _watch_pool(self, engine: Any) -> None:
        """Count connections by state. Sets and not steps: whatever order the pool reports in, none is counted twice."""
        from sqlalchemy import event

        pool = (engine.pool.logging_name or engine.url.database or engine.dialect.name).rpartition("/")[2][:MAX_TEXT]
        there: set[int] = set()
        out: set[int] = set()

        def tell() -> None:
            self._recorder.gauge(names.DB_CONNECTIONS, ("used", pool)).set(float(len(out)))
            self._recorder.gauge(names.DB_CONNECTIONS, ("idle", pool)).set(float(len(there) - len(out)))

        def connect(_connection: object, record: object) -> None:
            there.add(id(record))
            tell()

        def checkout(_connection: object, record: object, _proxy: object) -> None:
            there.add(id(record))
            out.add(id(record))
            tell()

        def checkin(_connection: object, record: object) -> None:
            out.discard(id(record))
            tell()

        def close(_connection: object, record: object) -> None:
            out.discard(id(record))
            there.discard(id(record))
            tell()

        event.listen(engine, "connect", connect)
        event.listen(engine, "checkout", checkout)
        event.listen(engine, "checkin", checkin)
        event.listen(engine, "close", close)
