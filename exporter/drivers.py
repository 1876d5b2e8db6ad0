"""Query times of database drivers without an engine above them: asyncpg and psycopg 3.

asyncpg tells every query to a logger that is added to a connection; psycopg has no such hook, so its cursors'
``execute`` and ``executemany`` are wrapped, for the whole process. What asyncpg does not tell (prepared statements,
cursors, COPY) and psycopg's COPY and ``stream`` are not timed.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .database import Database

SYSTEM: Final = "postgresql"
# What asyncpg's pools send by themselves when a connection comes back.
RESET: Final = "SELECT pg_advisory_unlock_all()"
_met: Final[dict[int, Any]] = {}  # pools and connections that are watched; they have no place for a mark
TAKES: Final = "a SQLAlchemy engine, the module asyncpg or psycopg, or a pool of theirs"


def watch(target: Any, database: Database) -> None:
    """Time the queries of ``target``. Raises ``TypeError`` for what is no database that is known here."""
    name = target.__name__ if isinstance(target, ModuleType) else type(target).__module__
    driver = name.partition(".")[0]
    if driver == "asyncpg":
        _watch_asyncpg(database)
    elif driver in ("psycopg", "psycopg_pool"):
        _watch_psycopg(database)
    else:
        raise TypeError(f"the queries of {target!r:.80} cannot be timed; what can be: {TAKES}")
    if isinstance(target, ModuleType) or id(target) in _met:
        return
    _met[id(target)] = target
    if driver == "asyncpg" and hasattr(target, "get_idle_size"):
        for holder in getattr(target, "_holders", ()):  # private: those that were open before
            _log(getattr(holder, "_con", None), database)
        database.pool(_database_of(target), functools.partial(_asyncpg_pool, target))
    elif driver == "asyncpg":
        _log(target, database)
    elif hasattr(target, "get_stats"):
        database.pool(target.name, functools.partial(_psycopg_pool, target))


def _watch_asyncpg(database: Database) -> None:
    from asyncpg.connection import Connection

    if getattr(Connection, "_anvil_monitor", None) is not None:
        return
    begin = Connection.__init__

    @functools.wraps(begin)
    def opened(connection: Any, *given: Any, **named: Any) -> None:
        begin(connection, *given, **named)
        _log(connection, database)

    Connection.__init__ = opened
    Connection._anvil_monitor = database


def _log(connection: Any, database: Database) -> None:
    if connection is not None and hasattr(connection, "add_query_logger"):
        connection.add_query_logger(functools.partial(_logged, database))


def _logged(database: Database, record: Any) -> None:
    if not record.query.startswith(RESET):
        database.record(SYSTEM, record.query, record.elapsed)


def _asyncpg_pool(pool: Any) -> dict[str, float]:
    idle = float(pool.get_idle_size())
    return {"used": pool.get_size() - idle, "idle": idle, "max": float(pool.get_max_size())}


def _watch_psycopg(database: Database) -> None:
    import psycopg

    first: Any = psycopg.Cursor
    if getattr(first, "_anvil_monitor", None) is not None:
        return
    first._anvil_monitor = database
    for cursor in (psycopg.Cursor, psycopg.ServerCursor, psycopg.AsyncCursor, psycopg.AsyncServerCursor):
        for method in ("execute", "executemany"):
            if method in vars(cursor):
                setattr(cursor, method, _timed(vars(cursor)[method], database))


def _timed(execute: Callable[..., Any], database: Database) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(execute):

        @functools.wraps(execute)
        async def waited(cursor: Any, query: Any, *given: Any, **named: Any) -> Any:
            began = perf_counter()
            try:
                return await execute(cursor, query, *given, **named)
            finally:
                database.record(SYSTEM, _text(query), perf_counter() - began)

        return waited

    @functools.wraps(execute)
    def done(cursor: Any, query: Any, *given: Any, **named: Any) -> Any:
        began = perf_counter()
        try:
            return execute(cursor, query, *given, **named)
        finally:
            database.record(SYSTEM, _text(query), perf_counter() - began)

    return done


def _text(query: Any) -> str:
    """A query of psycopg (text, bytes or a composed one) as text; empty where it cannot be told."""
    if isinstance(query, str):
        return query
    if isinstance(query, bytes):
        return query.decode(errors="replace")
    try:
        return str(query.as_string(None))
    except Exception:  # noqa: BLE001  whatever the user's own adapters raise: the query itself has been made by then
        return ""


def _psycopg_pool(pool: Any) -> dict[str, float]:
    told = pool.get_stats()
    idle, size = float(told.get("pool_available", 0)), float(told.get("pool_size", 0))
    return {
        "used": size - idle, "idle": idle, "max": float(told.get("pool_max", size)),
        "pending": float(told.get("requests_waiting", 0)),
    }  # fmt: skip


def _database_of(pool: Any) -> str:
    return str((getattr(pool, "_connect_kwargs", None) or {}).get("database") or "asyncpg")
