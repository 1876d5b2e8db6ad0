"""A small shop to watch: FastAPI, SQLite through SQLAlchemy, and a page with the browser beacon.

Run it with ``uvicorn examples.server:app --workers 2``. All that makes it a watched server is the one line
``instrument(app, engine=engine)`` at the end; everything else is the shop.

``POST /demo/slow`` makes it a bad server for real, in all its workers: queries take longer inside the database and
memory is taken and touched. ``POST /demo/recover`` undoes it. Both answer to this machine only.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import escape
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field
from sqlalchemy import create_engine, event, text

from anvil_monitor.exporter import instrument
from examples.slowness import Slowness, nap, this_machine

FOLDER = Path(os.environ.get("SHOP_DATA", ".anvil-monitor/shop"))
ITEMS = 300
COLOURS = ("crimson", "teal", "goldenrod", "slateblue", "olivedrab", "indigo")

FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
slowness = Slowness(FOLDER / "slow.json")
# As many connections as the worker has threads for handlers: a slow query must not show as a wait for the pool.
engine = create_engine(f"sqlite:///{FOLDER / 'shop.db'}", pool_size=40)


@event.listens_for(engine, "connect")
def _give_the_database_its_nap(connection: Any, _record: object) -> None:
    """Let SQL call ``nap()``: it sleeps inside the query for as long as the shop is slow, and returns 0."""
    connection.create_function("nap", 0, lambda: nap(slowness.now.seconds))


def fill() -> None:
    """Make the tables and their rows, once, however many workers start at the same moment."""
    connection = sqlite3.connect(FOLDER / "shop.db", timeout=30, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS item (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price_cents INTEGER NOT NULL)"
        )
        words = ("anvil", "hammer", "tongs", "bellows", "chisel", "file", "vise", "rivet", "swage", "flux")
        rows = [(n, f"{words[n % 10]} no. {n}", 500 + 137 * n % 9000) for n in range(1, ITEMS + 1)]
        connection.executemany("INSERT OR IGNORE INTO item VALUES (?, ?, ?)", rows)
        connection.execute("COMMIT")
    finally:
        connection.close()


def rows(query: str, **values: object) -> list[dict[str, Any]]:
    """Every row that the shop reads. SQLite evaluates ``(SELECT nap())`` once a query, a bare ``nap()`` once a row."""
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(query), values).mappings()]


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    fill()
    async with slowness.followed():
        yield
    engine.dispose()


app = FastAPI(title="Anvil shop", lifespan=lifespan)


class Item(BaseModel):
    id: int
    name: str
    price_cents: int


@app.get("/api/items")
def items(page: Annotated[int, Query(ge=0, le=1000)] = 0) -> list[Item]:
    found = rows("SELECT * FROM item WHERE (SELECT nap()) = 0 ORDER BY id LIMIT 20 OFFSET :skip", skip=20 * page)
    return [Item(**row) for row in found]


@app.get("/api/items/{number}")
def item(number: int) -> Item:
    found = rows("SELECT * FROM item WHERE id = :number AND (SELECT nap()) = 0", number=number)
    if not found:
        raise HTTPException(404, f"there is no item {number}")
    return Item(**found[0])


@app.get("/api/search")
def search(q: Annotated[str, Query(min_length=1, max_length=50)]) -> list[Item]:
    found = rows("SELECT * FROM item WHERE (SELECT nap()) = 0 AND instr(name, :q) > 0 ORDER BY name LIMIT 20", q=q)
    return [Item(**row) for row in found]


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    """The shop window. Its pictures delay the browser's load event, as they do on any page."""
    shown = rows("SELECT * FROM item WHERE (SELECT nap()) = 0 ORDER BY id LIMIT 6")
    count = rows("SELECT count(*) AS items FROM item WHERE (SELECT nap()) = 0")[0]["items"]
    figures = "".join(
        f'<figure><img src="/pictures/{row["id"]}.svg" alt="" width="80" height="60">'
        f"<figcaption>{escape(row['name'])}<br>{row['price_cents'] / 100:.2f}</figcaption></figure>"
        for row in shown
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Anvil shop</title>
<script src="/anvil-monitor/beacon.js" defer></script>
<style>body{{font:16px system-ui;margin:2rem auto;max-width:40rem}}main{{display:flex;flex-wrap:wrap}}</style>
<h1>Anvil shop</h1><p>{count} things for your smithy. <a href="/docs">API</a></p>
<main>{figures}</main>
"""


@app.get("/pictures/{number}.svg")
def picture(number: int) -> Response:
    name = rows("SELECT name FROM item WHERE id = :number AND (SELECT nap()) = 0", number=number)
    if not name:
        raise HTTPException(404, f"there is no item {number}")
    colour = COLOURS[number % len(COLOURS)]
    path = f'<path fill="{colour}" d="M0 1h4L3 3H1z"/>'
    drawing = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 3">{path}</svg>'
    return Response(drawing, media_type="image/svg+xml")


class Slow(BaseModel):
    """How bad: seconds that every query takes longer, and megabytes (10^6 bytes) that a worker takes."""

    seconds: float = Field(0.8, ge=0, le=30)
    memory_mb: int = Field(400, ge=0, le=4000)


@app.post("/demo/slow", dependencies=[Depends(this_machine)])
def slow(how: Slow) -> Slow:
    slowness.set(how.seconds, how.memory_mb)
    return how


@app.post("/demo/recover", dependencies=[Depends(this_machine)])
def recover() -> Slow:
    slowness.set(0, 0)
    return Slow(seconds=0, memory_mb=0)


instrument(app, engine=engine)
