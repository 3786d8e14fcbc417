from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from mcp_tap.model import Batch
from mcp_tap.store import ALL, Paging
from mcp_tap.store.sqlite.migrations import APPLICATION_ID, LATEST, MIGRATIONS, migrate

from ..recording import connection, event, reading, run, select, writing

#: A recording made by version 1 of the tables, as SQL: one session with one call that was still waiting.
V1 = Path(__file__).parent / "v1.sql"


def schema(db: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(db.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))


def test_a_new_database_has_every_version_and_the_project_s_mark() -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    assert migrate(db) == 0
    assert db.execute("PRAGMA user_version").fetchone() == (LATEST,)
    assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert APPLICATION_ID.to_bytes(4, "big") == b"mtap"
    assert migrate(db) == LATEST
    db.close()


def test_a_released_version_is_never_edited() -> None:
    db, released = (sqlite3.connect(":memory:", isolation_level=None) for _ in range(2))
    migrate(db, MIGRATIONS[:1])
    released.executescript(V1.read_text())
    assert schema(db) == schema(released)
    db.close()
    released.close()


def test_a_recording_of_version_1_goes_on_in_the_present_one(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    old = sqlite3.connect(path)
    old.executescript(V1.read_text())
    old.close()

    async def work() -> None:
        async with writing(path) as writer, reading(path) as reader:
            assert writer.replica == "v1v1v"
            assert writer.abandoned == 1
            later = connection(2)
            await writer.write(Batch([later], [event(later)]))
            first, second = (await reader.list_events(ALL, Paging(order="asc"))).rows
            assert (first["name"], first["status"], second["pk"]) == ("get_weather", "failed", 2)
            assert (await reader.session("raw-v1"))["tools"] == "get_weather"

    run(work())
    assert select(path, "PRAGMA user_version") == [(LATEST,)]


@pytest.mark.parametrize("version", range(LATEST))
def test_every_earlier_version_leads_to_the_same_tables(version: int) -> None:
    new, old = (sqlite3.connect(":memory:", isolation_level=None) for _ in range(2))
    migrate(new)
    migrate(old, MIGRATIONS[:version])
    assert old.execute("PRAGMA user_version").fetchone() == (version,)
    assert migrate(old) == version
    assert schema(old) == schema(new)
    new.close()
    old.close()


def test_a_step_that_fails_midway_leaves_the_version_before_it() -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    migrate(db)
    before = schema(db)
    good = "CREATE TABLE fine (a INTEGER) STRICT;"
    bad = "ALTER TABLE fine ADD COLUMN b TEXT; CREATE TABLE half (c INTEGER); INSERT INTO nowhere VALUES (1);"
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(db, (*MIGRATIONS, good, bad))
    assert not db.in_transaction
    assert db.execute("PRAGMA user_version").fetchone() == (LATEST + 1,)
    assert schema(db) - before == {("fine", "CREATE TABLE fine (a INTEGER) STRICT")}
    db.close()
