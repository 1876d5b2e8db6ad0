"""Query times through SQLAlchemy, on a real SQLite."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from starlette.applications import Starlette

from anvil_monitor.exporter import Instrument, instrument, instrument_engine
from anvil_monitor.exporter.database import describe
from anvil_monitor.targets import load


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def counts(made: Instrument, suffix: str = "_count") -> dict[tuple[str, str], float]:
    name = "db_client_operation_duration_seconds" + suffix
    families = text_string_to_metric_families(made.metrics())
    return {
        (sample.labels["db_operation_name"], sample.labels.get("db_collection_name", "")): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and sample.labels["db_system_name"] == "sqlite"
    }


def connections(made: Instrument) -> dict[str, float]:
    families = text_string_to_metric_families(made.metrics())
    return {
        sample.labels["db_client_connection_state"]: sample.value
        for family in families
        for sample in family.samples
        if sample.name == "db_client_connection_count"
    }


def test_queries_by_operation_and_table(tmp_path: Path) -> None:
    """ORM and text queries, and one that fails, by operation and table; the time is the query's own."""
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    made = instrument(Starlette(), configuration=load(None, {}), engine=engine, directory=tmp_path / "pages")
    instrument_engine(engine, configuration=load(None, {}), directory=tmp_path / "pages")  # a second time: no doubling

    @event.listens_for(engine, "connect")
    def add_sleep(connection: Any, _record: object) -> None:
        connection.create_function("nap", 1, lambda seconds: __import__("time").sleep(seconds))

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Item(name=str(number)) for number in range(3)])
        session.commit()
        assert len(session.scalars(select(Item)).all()) == 3
        session.execute(text("SELECT nap(0.1) FROM items LIMIT 1"))
    with engine.connect() as connection, pytest.raises(OperationalError):
        connection.execute(text("SELECT * FROM missing"))
    engine.dispose()
    found = counts(made)
    assert found["CREATE", "items"] == 1
    assert found["INSERT", "items"] >= 1
    assert found["SELECT", "items"] == 2
    assert found["SELECT", "missing"] == 1
    assert 0.1 <= counts(made, "_sum")["SELECT", "items"] < 2


def test_connections_of_the_pool(tmp_path: Path) -> None:
    """Used and idle, as the pool itself says, whatever happened to a connection."""
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}", pool_size=2, max_overflow=2)
    made = instrument(Starlette(), configuration=load(None, {}), engine=engine, directory=tmp_path / "pages")
    assert not (tmp_path / "pages").exists()  # importing an application makes nothing
    open_ones = [engine.connect() for _ in range(3)]
    assert connections(made) == {"used": 3, "idle": 0}
    open_ones.pop().close()
    assert connections(made) == {"used": 2, "idle": 1}
    open_ones.pop().invalidate()
    for connection in open_ones:
        connection.close()
    assert connections(made)["used"] == 0
    engine.dispose()
    assert connections(made) == {"used": 0, "idle": 0}


def test_an_async_engine(tmp_path: Path) -> None:
    """The queries of an AsyncEngine are timed like any other."""
    from sqlalchemy.ext.asyncio import create_async_engine

    async def scenario() -> Instrument:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}")
        made = instrument(Starlette(), configuration=load(None, {}), engine=engine, directory=tmp_path / "pages")
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        await engine.dispose()
        return made

    assert counts(asyncio.run(scenario())) == {("SELECT", ""): 1}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT * FROM items", ("SELECT", "items")),
        ("  select id\nfrom public.items i join other o", ("SELECT", "items")),
        ('INSERT INTO "Items" VALUES (1)', ("INSERT", "Items")),
        ("UPDATE ONLY items SET a = 1", ("UPDATE", "items")),
        ("DELETE FROM [items]", ("DELETE", "items")),
        ("/* who */ -- why\n SELECT 1", ("SELECT", "")),
        ("(SELECT 1 FROM a) UNION (SELECT 1 FROM b)", ("SELECT", "a")),
        ("WITH x AS (SELECT * FROM a) UPDATE b SET c = 1", ("UPDATE", "b")),
        ("WITH x AS (SELECT * FROM a) SELECT * FROM x", ("SELECT", "x")),
        ("CREATE TABLE IF NOT EXISTS items (id)", ("CREATE", "items")),
        ("VACUUM", ("_OTHER", "")),
        ("", ("_OTHER", "")),
    ],
)
def test_what_a_statement_is(statement: str, expected: tuple[str, str]) -> None:
    """Operation and first table of what it does; comments and common table expressions are seen through."""
    assert describe(statement) == expected


def test_a_hostile_statement_takes_no_time() -> None:
    """Megabytes of text, or comments without an end, are looked at briefly."""
    import time

    began = time.perf_counter()
    for statement in ("INSERT INTO a VALUES " + "(1)," * 1_000_000, "/*" * 100_000, "-- x\n" * 100_000, "( " * 100_000):
        describe(statement)
    assert time.perf_counter() - began < 1
