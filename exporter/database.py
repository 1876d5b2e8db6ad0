"""How long queries take, through SQLAlchemy's own events: grouped by operation and table, never by text.

OpenTelemetry's SQLAlchemy instrumentation has no query duration and does nothing on SQLAlchemy 2.1; these events are the
stable interface of both 2.0 and 2.1. https://docs.sqlalchemy.org/en/20/core/events.html
"""

from __future__ import annotations

import re
from time import perf_counter
from typing import Any, Final

from . import names
from .recorder import Gauge, Histogram, Recorder

# SQLAlchemy's dialect names to semconv db.system.name.
SYSTEMS: Final = {"postgresql": "postgresql", "mysql": "mysql", "mariadb": "mariadb", "sqlite": "sqlite",
                  "mssql": "microsoft.sql_server", "oracle": "oracle.db"}  # fmt: skip
OPERATIONS: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "MERGE", "CREATE", "DROP", "ALTER",
                               "PRAGMA", "BEGIN", "COMMIT", "CALL", "EXPLAIN", "TRUNCATE"})  # fmt: skip
FIRST_WORD: Final = re.compile(r"\s*(?:/\*.*?\*/\s*|--[^\n]*\n\s*)*([A-Za-z]+)", re.DOTALL)
TABLE: Final = re.compile(r'\b(?:FROM|INTO|UPDATE|TABLE|JOIN)\s+(?:ONLY\s+)?["`\[]?([A-Za-z_][\w$.]{0,62})', re.IGNORECASE)
# Texts of statements repeat; what they were found to be is kept for this many of them.
MOST_STATEMENTS: Final = 1000


class Database:
    """Times the queries of any number of engines into one recorder."""

    def __init__(self, recorder: Recorder, edges: tuple[float, ...]) -> None:
        self._duration = Histogram(recorder, names.DB_DURATION, edges)
        self._connections = Gauge(recorder, names.DB_CONNECTIONS)
        self._kinds: dict[str, tuple[str, str]] = {}
        self._engines: set[int] = set()

    def watch(self, engine: Any) -> None:
        """Listen to ``engine``, a SQLAlchemy ``Engine`` or ``AsyncEngine``; a second time changes nothing."""
        from sqlalchemy import event

        engine = getattr(engine, "sync_engine", engine)
        if id(engine) in self._engines:
            return
        self._engines.add(id(engine))
        system = SYSTEMS.get(engine.dialect.name, engine.dialect.name)

        def before(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
            context._anvil_monitor_started = perf_counter()

        def after(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
            self._duration.record(perf_counter() - context._anvil_monitor_started, (system, *self.kind(statement)))

        def failed(exception: Any) -> None:
            started = getattr(exception.execution_context, "_anvil_monitor_started", None)
            if started is not None and exception.statement is not None:
                self._duration.record(perf_counter() - started, (system, *self.kind(exception.statement)))

        event.listen(engine, "before_cursor_execute", before)
        event.listen(engine, "after_cursor_execute", after)
        event.listen(engine, "handle_error", failed)
        self._watch_pool(engine)

    def kind(self, statement: str) -> tuple[str, str]:
        """Operation and table of ``statement``: ``("SELECT", "items")``."""
        known = self._kinds.get(statement)
        if known is None:
            if len(self._kinds) >= MOST_STATEMENTS:
                self._kinds.clear()
            word = FIRST_WORD.match(statement)
            operation = word.group(1).upper() if word else ""
            table = TABLE.search(statement)
            known = (operation if operation in OPERATIONS else "_OTHER", table.group(1).lower() if table else "")
            self._kinds[statement] = known
        return known

    def _watch_pool(self, engine: Any) -> None:
        from sqlalchemy import event

        pool = str(engine.pool.logging_name or engine.url.database or engine.dialect.name)

        def level(state: str, amount: float) -> None:
            self._connections.add(amount, (state, pool))

        def connected(connection: Any, record: Any) -> None:
            level("idle", 1.0)

        def closed(connection: Any, record: Any) -> None:
            level("idle", -1.0)

        def out(connection: Any, record: Any, proxy: Any) -> None:
            level("idle", -1.0)
            level("used", 1.0)

        def back(connection: Any, record: Any) -> None:
            level("idle", 1.0)
            level("used", -1.0)

        for name, listener in (("connect", connected), ("close", closed), ("checkout", out), ("checkin", back)):
            event.listen(engine, name, listener)
