"""How long queries take, through SQLAlchemy's own events: grouped by operation and table, never by text.

OpenTelemetry's SQLAlchemy instrumentation has no query duration and does nothing on SQLAlchemy 2.1; these events are
the stable interface of 2.0 and 2.1 alike. https://docs.sqlalchemy.org/en/20/core/events.html
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from . import names
from .cells import Histogram
from .names import DATABASE_EDGES
from .publisher import publisher
from .recorder import Recorder
from .statements import HEAD, MAX_TEXT, describe

# SQLAlchemy's names of dialects to semconv db.system.name; others are the same.
SYSTEMS: Final = {"mssql": "microsoft.sql_server", "oracle": "oracle.db"}
# Texts of statements repeat; the series of this many are kept at hand.
MAX_STATEMENTS: Final = 1000


class Database:
    """Times the queries of any number of engines into one recorder."""

    def __init__(self, recorder: Recorder, edges: tuple[float, ...]) -> None:
        self._recorder, self._edges = recorder, edges
        self._series: dict[tuple[str, str], Histogram] = {}

    def watch(self, engine: Any) -> None:
        """Listen to ``engine``; once however often it is asked.

        ``engine``: a SQLAlchemy ``Engine`` or ``AsyncEngine``; the module ``asyncpg`` or ``psycopg``, for every
        connection of it in this process; or a pool of theirs, for that and the pool's connections. Not a driver and an
        engine on it: its queries would be counted twice. Raises ``TypeError`` for anything else.
        """
        engine = getattr(engine, "sync_engine", engine)
        if not hasattr(engine, "dialect"):
            from .drivers import watch

            watch(engine, self)
            return
        from sqlalchemy import event

        if getattr(engine, "_anvil_monitor", None) is not None:
            return
        engine._anvil_monitor = self
        system = SYSTEMS.get(engine.dialect.name, engine.dialect.name)

        def before(_c: object, _cursor: object, _statement: str, _p: object, context: Any, _many: bool) -> None:
            context._anvil_monitor_began = perf_counter()

        def after(_c: object, _cursor: object, statement: str, _p: object, context: Any, _many: bool) -> None:
            self.record(system, statement, perf_counter() - context._anvil_monitor_began)

        def failed(error: Any) -> None:
            began = getattr(error.execution_context, "_anvil_monitor_began", None)
            if began is not None and error.statement is not None:
                self.record(system, error.statement, perf_counter() - began)

        event.listen(engine, "before_cursor_execute", before)
        event.listen(engine, "after_cursor_execute", after)
        event.listen(engine, "handle_error", failed)
        self._watch_pool(engine)

    def record(self, system: str, statement: str, took: float) -> None:
        """Count one query that took ``took`` seconds."""
        series = self._series.get((system, statement))
        if series is None:
            series = self._recorder.histogram(names.DB_DURATION, (system, *describe(statement)), self._edges)
            if len(self._series) >= MAX_STATEMENTS:
                self._series.clear()
            if len(statement) <= HEAD:
                self._series[system, statement] = series
        series.record(took)

    def pool(self, name: str, ask: Callable[[], dict[str, float]]) -> None:
        """Show the pool ``name`` as ``ask`` tells it: connections by state, and ``max`` and ``pending`` requests."""
        name = name[:MAX_TEXT]

        def tell() -> None:
            for what, value in ask().items():
                if what == "max":
                    self._recorder.gauge(names.DB_CONNECTIONS_MAX, (name,)).set(value)
                elif what == "pending":
                    self._recorder.gauge(names.DB_CONNECTIONS_PENDING, (name,)).set(value)
                else:
                    self._recorder.gauge(names.DB_CONNECTIONS, (what, name)).set(value)

        publisher.add(self._recorder, tell)

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
        event.listen(engine, "engine_disposed", lambda _engine: self._watch_waiting(engine, pool))
        self._watch_waiting(engine, pool)

    def _watch_waiting(self, engine: Any, name: str) -> None:
        """How many connections the pool may have, how many requests wait for one, how long, and which gave up."""
        from sqlalchemy.exc import TimeoutError as PoolTimeoutError

        pool = engine.pool
        connect = pool.connect
        bound = getattr(pool, "_max_overflow", None)  # private; -1: no bound
        limit = float(pool.size() + bound) if bound is not None and bound >= 0 else None
        waiting: set[object] = set()

        @functools.wraps(connect)
        def timed() -> Any:
            recorder, token, began = self._recorder, object(), perf_counter()
            pending = recorder.gauge(names.DB_CONNECTIONS_PENDING, (name,))
            waiting.add(token)
            pending.set(float(len(waiting)))
            try:
                return connect()
            except PoolTimeoutError:
                recorder.counter(names.DB_CONNECTION_TIMEOUTS, (name,)).add(1.0)
                raise
            finally:
                waiting.discard(token)
                pending.set(float(len(waiting)))
                recorder.histogram(names.DB_CONNECTION_WAIT, (name,), DATABASE_EDGES).record(perf_counter() - began)
                if limit is not None:
                    recorder.gauge(names.DB_CONNECTIONS_MAX, (name,)).set(limit)

        pool.connect = timed
