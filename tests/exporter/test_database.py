"""Query times through SQLAlchemy, on a real SQLite."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from starlette.applications import Starlette

from anvil_monitor.exporter import Instrument, instrument, instrument_engine
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


def test_a_pool_that_is_used_up(tmp_path: Path) -> None:
    """How many connections it may have, who waits for one, how long, and who got none; also after dispose()."""
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}", pool_size=1, max_overflow=1, pool_timeout=0.05)
    made = instrument(Starlette(), configuration=load(None, {}), engine=engine, directory=tmp_path / "pages")
    for expected in (1, 2):
        with engine.connect(), engine.connect(), pytest.raises(PoolTimeoutError):
            engine.connect()
        engine.dispose()
        found = {
            sample.name: sample.value
            for family in text_string_to_metric_families(made.metrics())
            for sample in family.samples
            if sample.labels.get("db_client_connection_pool_name") == "shop.db"
        }
        assert found["db_client_connection_max"] == 2
        assert found["db_client_connection_pending_requests"] == 0
        assert found["db_client_connection_timeouts_total"] == expected
        assert found["db_client_connection_wait_time_seconds_count"] == 3 * expected
        assert found["db_client_connection_wait_time_seconds_sum"] >= 0.05 * expected


def test_what_is_no_database(tmp_path: Path) -> None:
    """It is said what can be timed."""
    with pytest.raises(TypeError, match="what can be: a SQLAlchemy engine, the module asyncpg or psycopg"):
        instrument_engine(object(), configuration=load(None, {}), directory=tmp_path)


@pytest.mark.needs("sqlalchemy20")
def test_the_older_sqlalchemy() -> None:
    """All of this file on SQLAlchemy 2.0, too; it runs on a later one by itself."""
    assert not sqlalchemy.__version__.startswith("2.0.")
    environ = {**os.environ, "PYTHONPATH": os.environ["ANVIL_SQLALCHEMY20"]}
    version = subprocess.run(
        [sys.executable, "-c", "import sqlalchemy; print(sqlalchemy.__version__)"],
        env=environ, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert version.stdout.startswith("2.0.")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "not older"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout[-4000:]
