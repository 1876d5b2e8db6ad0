"""What an SQL statement is called: its operation and its table, and never anything of its text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anvil_monitor.exporter.statements import MAX_TEXT, OPERATIONS, describe

PIECES = st.sampled_from(
    ["SELECT ", "WITH ", "FROM ", "INTO ", "UPDATE ", "JOIN ", "TABLE ", "items", "(", ")", ".", ",", "'", '"', "`",
     "[", "]", "/*", "*/", "--", "\n", "$$", "$a$", "\\", " ", "1", ";", "%s", "é", "\0", "\ud800"])  # fmt: skip


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
        ('INSERT INTO "public"."Items" VALUES (1)', ("INSERT", "Items")),
        ("SELECT * FROM shop.public.items WHERE x", ("SELECT", "items")),
        ("SELECT EXTRACT(EPOCH FROM sold_at) FROM items", ("SELECT", "items")),
        ("SELECT * FROM (SELECT * FROM a) x JOIN b", ("SELECT", "a")),
        ("SELECT 'FROM secret' FROM items", ("SELECT", "items")),
        ("SELECT 'it''s FROM secret'", ("SELECT", "")),
        ("SELECT $$ FROM secret $$, $a$ FROM secret $a$", ("SELECT", "")),
        ("/* FROM secret */ SELECT 1 -- FROM secret", ("SELECT", "")),
        ('SELECT "from secret" FROM items', ("SELECT", "items")),
        (r"SELECT 'it\'s FROM secret'", ("SELECT", "")),
        ("SELECT $1, %s FROM items WHERE id=$1", ("SELECT", "items")),
        ("WITH RECURSIVE t(n) AS (VALUES (1)) SELECT sum(n) FROM t", ("SELECT", "t")),
        ("SELECT * FROM `shop`.`items` LIMIT 1", ("SELECT", "items")),
        ("select 1 from a, b", ("SELECT", "a")),
        ("MERGE INTO items USING b", ("MERGE", "items")),
    ],
)
def test_what_a_statement_is(statement: str, expected: tuple[str, str]) -> None:
    """Operation and first table, through schemas, functions and subqueries; not what stands in a literal."""
    assert describe(statement) == expected


@given(st.one_of(st.text(), st.lists(PIECES).map("".join), st.text().map(lambda text: f"SELECT 1 FROM {text}")))
@settings(deadline=None)
def test_any_text(statement: str) -> None:
    """Never raises; a known operation and a short table that stands in the statement."""
    operation, table = describe(statement)
    assert operation in {*OPERATIONS, "_OTHER"}
    assert len(table) <= MAX_TEXT
    assert table in statement
    assert not re.search(r"['\"`\\\n]", table)


@given(st.text())
@settings(deadline=None)
def test_no_value_becomes_a_table(value: str) -> None:
    """Whatever stands in a literal or a comment, as each database writes it."""
    quoted = value.replace("'", "''")
    assert describe(f"SELECT ' FROM x {quoted}'")[1] == ""
    assert describe(f"UPDATE items SET a = ' FROM x {quoted}'") == ("UPDATE", "items")
    assert describe(f"SELECT 1 /* FROM x {value.replace('*/', '')} */")[1] == ""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    assert describe(f"SELECT ' FROM x {escaped}'")[1] == ""


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO a VALUES " + "(1)," * 250_000, "/*" * 500_000, "/**/" * 250_000 + "1", "-- x\n" * 200_000,
     "( " * 500_000, ")" * 1_000_000, "WITH " + "a," * 500_000, "$a$" * 333_333, "'" * 999_999, '"' * 999_999,
     "FROM " * 200_000, "SELECT 1 FROM" + " " * 1_000_000 + "a", "SELECT 1 FROM " + "a." * 500_000],
    ids=lambda statement: statement[:12],
)  # fmt: skip
def test_a_megabyte(statement: str) -> None:
    """Hostile statements of a megabyte, twenty times each, within the test's seconds: no text makes it slow."""
    for _ in range(20):
        describe(statement)
