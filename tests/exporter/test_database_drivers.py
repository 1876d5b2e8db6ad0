"""Databases without an engine above them, on a real PostgreSQL and a real Redis."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import postgres_binary

BEGIN = """
import asyncio, os
from pathlib import Path
from starlette.applications import Starlette
from anvil_monitor.exporter import instrument, instrument_engine
from anvil_monitor.targets import load
made = instrument(Starlette(), configuration=load(None, {}), directory=Path("pages"))
port = int(os.environ["PORT"])
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = monotonic() + 30
    while monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            sleep(0.05)
    raise AssertionError("the server does not listen")


@pytest.fixture(scope="module")
def postgres() -> Iterator[int]:
    """A PostgreSQL of our own; the server refuses to run as root."""
    user = "nobody" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="anvil-postgres-"))
    if user:
        shutil.chown(folder, user)
    initdb, server = postgres_binary("initdb"), postgres_binary("postgres")
    assert initdb is not None
    assert server is not None
    data, port = folder / "data", free_port()
    make = [initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8"]
    subprocess.run(make, user=user, check=True, capture_output=True, cwd=folder, timeout=60)
    start = [server, "-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c",
             "unix_socket_directories=", "-c", "fsync=off", "-c", "shared_buffers=8MB"]  # fmt: skip
    process = subprocess.Popen(start, user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[int]:
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def run(code: str, folder: Path, port: int) -> list[tuple[str, dict[str, str], float]]:
    """The samples of /metrics that ``code`` prints."""
    environ = {**os.environ, "PORT": str(port)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGIN + code + "\nprint(made.metrics())"],
        cwd=folder, env=environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout
    families = text_string_to_metric_families(done.stdout)
    return [(each.name, each.labels, each.value) for family in families for each in family.samples]


def queries(samples: list[tuple[str, dict[str, str], float]]) -> dict[tuple[str, str], float]:
    return {
        (labels["db_operation_name"], labels.get("db_collection_name", "")): value
        for name, labels, value in samples
        if name == "db_client_operation_duration_seconds_count" and labels["db_system_name"] == "postgresql"
    }


def pool(samples: list[tuple[str, dict[str, str], float]]) -> dict[str, float]:
    return {
        labels.get("db_client_connection_state", name.rpartition("_")[2]): value
        for name, labels, value in samples
        if name in ("db_client_connection_count", "db_client_connection_max")
    }


@pytest.mark.needs("postgres")
def test_asyncpg(postgres: int, tmp_path: Path) -> None:
    """Every query of a pool's connections, those open before too, and the pool itself; failed ones as well."""
    code = """
import asyncpg
async def main():
    options = dict(host="127.0.0.1", port=port, user="postgres", database="postgres", min_size=1, max_size=3)
    pool = await asyncpg.create_pool(**options)
    for _ in range(2):
        instrument_engine(pool, configuration=load(None, {}), directory=Path("pages"))
    async with pool.acquire() as one, pool.acquire() as other:
        await one.execute("CREATE TABLE IF NOT EXISTS things (name text)")
        await one.execute("INSERT INTO things VALUES ($1)", "secret")
        await other.executemany("INSERT INTO things VALUES ($1)", [("secret",), ("b",)])
        await other.fetch("SELECT * FROM things WHERE name = 'secret'")
        try:
            await one.fetch("SELECT * FROM missing")
        except asyncpg.PostgresError:
            pass
        await asyncio.sleep(0)
        text = made.metrics()
        assert 'state="used"} 2' in text, text
    await pool.fetchval("SELECT 1")
    await asyncio.sleep(0)
    globals()["kept"] = pool
    made.metrics()
asyncio.run(main())
"""
    found = run(code, tmp_path, postgres)
    assert queries(found) == {
        ("CREATE", "things"): 1, ("INSERT", "things"): 2, ("SELECT", "things"): 1, ("SELECT", "missing"): 1,
        ("SELECT", ""): 1,
    }  # fmt: skip
    assert pool(found)["max"] == 3


@pytest.mark.needs("postgres")
def test_psycopg(postgres: int, tmp_path: Path) -> None:
    """Cursors of every kind and both worlds, composed queries too; each query once, and the pool itself."""
    code = """
import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool
where = f"host=127.0.0.1 port={port} user=postgres"
instrument_engine(psycopg, configuration=load(None, {}), directory=Path("pages"))
with ConnectionPool(where, min_size=2, max_size=4, open=True, name="shop") as pool:
    for _ in range(2):
        instrument_engine(pool, configuration=load(None, {}), directory=Path("pages"))
    pool.wait()
    with pool.connection() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS items (name text)")
        connection.execute(b"INSERT INTO items VALUES (%s)", ["secret"])
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO items VALUES (%s)", [["a"], ["b"]])
            cursor.execute(sql.SQL("SELECT * FROM {} WHERE name = {}").format(sql.Identifier("items"), "secret"))
        with connection.cursor(name="server") as cursor:
            cursor.execute("SELECT * FROM items")
        with psycopg.ClientCursor(connection) as cursor:
            cursor.execute("SELECT * FROM items WHERE name = %s", ["secret"])
        text = made.metrics()
    try:
        with pool.connection() as connection:
            connection.execute("SELECT * FROM missing")
    except psycopg.Error:
        pass
    async def main():
        async with await psycopg.AsyncConnection.connect(where) as connection:
            await connection.execute("UPDATE items SET name = 'secret'")
    asyncio.run(main())
    made.metrics()
"""
    found = run(code, tmp_path, postgres)
    assert queries(found) == {
        ("CREATE", "items"): 1, ("INSERT", "items"): 2, ("SELECT", "items"): 3, ("SELECT", "missing"): 1,
        ("UPDATE", "items"): 1,
    }  # fmt: skip
    assert pool(found)["max"] == 4


@pytest.mark.needs("redis-server")
def test_redis(redis: int, tmp_path: Path) -> None:
    """redis-py's own OpenTelemetry meters, without the SDK's readers: durations by command, with our edges."""
    code = """
import redis
from redis.observability import OTelConfig, get_observability_instance
from redis.observability.config import MetricGroup
get_observability_instance().init(OTelConfig(metric_groups=[MetricGroup.COMMAND, MetricGroup.CONNECTION_BASIC]))
client = redis.Redis(host="127.0.0.1", port=port)
for _ in range(3):
    client.set("secret", "1")
client.get("secret")
"""
    found = run(code, tmp_path, redis)
    durations = {
        labels["db_operation_name"]: (value, frozenset(labels))
        for name, labels, value in found
        if name == "db_client_operation_duration_seconds_count" and labels["db_system_name"] == "redis"
    }
    labels = frozenset(("db_system_name", "db_operation_name"))
    assert durations["SET"] == (3, labels)
    assert durations["GET"] == (1, labels)
    edges = {labels["le"] for name, labels, _ in found if name == "db_client_operation_duration_seconds_bucket"}
    assert "0.05" in edges
    assert [value for name, labels, value in found if name == "db_client_connection_count"]


def test_an_instrumentation_of_opentelemetry(tmp_path: Path) -> None:
    """Its duration of queries comes out of our /metrics under the same name, without the SDK."""
    code = """
os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "database"
import sqlite3, sys
from opentelemetry.instrumentation.dbapi import trace_integration
trace_integration(sqlite3, "connect", "sqlite")
cursor = sqlite3.connect(":memory:").cursor()
cursor.execute("CREATE TABLE items (name)")
for _ in range(2):
    cursor.execute("SELECT * FROM items WHERE name = 'secret'")
assert "opentelemetry.sdk" not in sys.modules
"""
    found = run(code, tmp_path, 0)
    counts = {
        tuple(sorted(labels.items())): value
        for name, labels, value in found
        if name == "db_client_operation_duration_seconds_count"
    }
    assert counts[("db_operation_name", "SELECT"), ("db_system_name", "sqlite")] == 2
