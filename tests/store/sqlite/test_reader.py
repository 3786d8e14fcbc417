from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from mcp_tap.model import Batch, Body, Codec, Event, Kind, NotFoundError, Side, StoreError, UsageError, hash_session_id
from mcp_tap.store import ALL, Paging, Reader, Row, Summary, queries
from mcp_tap.store.filters import Filter
from mcp_tap.store.rows import iso
from mcp_tap.store.sqlite.migrations import LATEST

from ..plausible import at, morning
from ..recording import T0, connection, event, reading, record, run, select, writing


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reader") / "tap.db"
    record(path, *morning())
    return path


def replica(path: Path) -> str:
    return str(select(path, "SELECT replica FROM store")[0][0])


# ----------------------------------------------------------------------------------------------------------- lists


def test_summary_counts(path: Path) -> None:
    async def work() -> Summary:
        async with reading(path) as reader:
            return await reader.summary()

    summary = run(work())
    assert (summary.sessions, summary.active, summary.events) == (4, 1, 25)
    assert summary.file_bytes >= path.stat().st_size > 0


def since(clock: str) -> Filter:
    return ALL.plus("from", iso(at(clock)))


async def rows(reader: Reader, where: Filter, **paging: Any) -> list[Row]:
    return (await reader.list_events(where, Paging(**paging))).rows


def test_sessions_come_newest_first(path: Path) -> None:
    async def work() -> None:
        async with reading(path) as reader:
            names = [row["client_name"] for row in (await reader.list_sessions()).rows]
            assert names == ["night-agent", "Visual Studio Code", "claude-desktop", "cursor"]
            # since means in use since: cursor began before ten and was used until 10:11
            used = [row["client_name"] for row in (await reader.list_sessions(since("10:10:00"))).rows]
            assert used == ["night-agent", "Visual Studio Code", "cursor"]

    run(work())


def test_events_of_a_session_come_in_order_from_either_end(path: Path) -> None:
    async def work() -> None:
        async with reading(path) as reader:
            session = (await reader.session("#2"))["connection_id"]
            first = await rows(reader, ALL.plus("conn", session), limit=2, order="asc")
            assert [(row["seq"], row["type"]) for row in first] == [(1, "session_start"), (2, "initialize")]
            last = (await rows(reader, ALL.plus("conn", session), limit=2))[::-1]
            assert [(row["seq"], row["type"]) for row in last] == [(7, "tools/call"), (8, "session_end")]
            later = await rows(reader, since("10:09:00").plus("conn", session), order="asc")
            assert [row["seq"] for row in later] == [7, 8]
            assert await rows(reader, ALL.plus("conn", "scn_unknown")) == []

    run(work())


def test_all_events_come_in_the_order_of_time(path: Path) -> None:
    async def work() -> None:
        async with reading(path) as reader:
            found = await rows(reader, since("11:05:33"), order="asc")
            assert [row["type"] for row in found] == ["tools/call", "session_end", "http"]
            newest = await rows(reader, ALL, limit=2)
            assert [row["type"] for row in newest] == ["http", "session_end"]
            assert [row["pk"] for row in await rows(reader, ALL, limit=3, order="asc")] == [1, 2, 3]

    run(work())


def test_changes_come_in_pages_and_end(path: Path) -> None:
    async def work() -> None:
        async with reading(path) as reader:
            cursor, pks = 0, []
            while True:
                rows, after = await reader.changes(cursor, limit=7)
                if not rows:
                    break
                pks += [row["pk"] for row in rows]
                cursor = after
            assert pks == list(range(1, 26))
            assert after == cursor

    run(work())


# ------------------------------------------------------------------------------------------------------ one by one


def test_an_event_has_its_bodies_and_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    call = event(None, http_method="POST", http_status=200, path="/mcp", peer="127.0.0.1:5000", stream=7)
    call.headers_us, call.first_event_us, call.sse_events = 1500, 2500, [2500, 4000]
    call.jsonrpc_id, call.trace_id, call.note = '"a"', "4bf9", "guessed"
    bodies = [
        Body(call, Side.REQUEST, Codec.AS_SEEN, '{"a":1}'),
        Body(call, Side.RESPONSE, Codec.MASKED, '{"b":"•"}', masked=1),
    ]
    record(path, Batch(events=[call, event(None)], bodies=bodies))

    async def work() -> None:
        async with reading(path) as reader:
            row = await reader.event("1")
            assert row["request_body"] == {"codec": "json", "data": '{"a":1}', "masked": 0}
            assert row["response_body"] == {"codec": "json-masked", "data": '{"b":"•"}', "masked": 1}
            assert (row["headers_ms"], row["first_event_ms"], row["sse_events"]) == (1.5, 2.5, [2500, 4000])
            assert (row["http_method"], row["http_status"], row["path"]) == ("POST", 200, "/mcp")
            assert (row["peer"], row["stream"], row["jsonrpc_id"]) == ("127.0.0.1:5000", 7, '"a"')
            assert (row["trace_id"], row["note"]) == ("4bf9", "guessed")
            bare = await reader.event("2")
            assert (bare["request_body"], bare["response_body"], bare["sse_events"]) == (None, None, [])

    run(work())


@pytest.mark.parametrize("ref", ["12", "#12", "sev_{replica}000000000012", "smg_{replica}000000000012"])
def test_an_event_is_found_by_number_and_by_id(path: Path, ref: str) -> None:
    async def work() -> int:
        async with reading(path) as reader:
            return int((await reader.event(ref.format(replica=replica(path))))["pk"])

    assert run(work()) == 12


@pytest.mark.parametrize(
    "ref", ["", "0", "999", "x", "sev_", "sev_zzzzz000000000012", "sev_{replica}x", "sev_{replica}9", "9" * 40]
)
def test_an_event_that_is_not_there(path: Path, ref: str) -> None:
    async def work() -> None:
        async with reading(path) as reader:
            with pytest.raises(NotFoundError):
                await reader.event(ref.format(replica=replica(path)))

    run(work())


def test_a_prefix_of_an_event_id_is_enough_when_it_is_unique(path: Path) -> None:
    async def work() -> None:
        async with reading(path) as reader:
            with pytest.raises(UsageError) as caught:
                await reader.event(f"sev_{reader.replica}00000000000")
            assert caught.value.hint.splitlines()[0] == f"sev_{reader.replica}000000000001"
            assert len(caught.value.hint.splitlines()) == 9

    run(work())


@pytest.mark.parametrize(
    "ref",
    [
        "2",
        "#2",
        "scn_00000000000000000000000002",
        "ses_00000000000000000000000002",
        "2f3a9c52-7d41-4c3e-9b7a-2f1f6f4f9a10",
        "2f3a9c52",
    ],
)
def test_a_session_is_found_by_everything_that_names_it(path: Path, ref: str) -> None:
    # The ids of the fixture have 26 characters after their prefix, whatever the number.
    async def work() -> str:
        async with reading(path) as reader:
            return str((await reader.session(ref))["client_name"])

    assert run(work()) == "claude-desktop"


@pytest.mark.parametrize("ref", ["", "#9", "99", "scn_9", "scn_%", "3f3a9c53", "nonsense"])
def test_a_session_that_is_not_there(path: Path, ref: str) -> None:
    async def work() -> None:
        async with reading(path) as reader:
            with pytest.raises(NotFoundError):
                await reader.session(ref)

    run(work())


def test_an_ambiguous_session_lists_what_it_could_be(path: Path) -> None:
    async def work() -> None:
        async with reading(path) as reader:
            with pytest.raises(UsageError) as caught:
                await reader.session("scn_")
            assert len(caught.value.hint.splitlines()) == 4
            assert caught.value.code == "ambiguous"

    run(work())


def test_an_exact_id_wins_over_what_begins_with_it(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    record(path, Batch([connection(1, mcp_session_id="abc"), connection(2, mcp_session_id="abcd")]))

    async def work() -> None:
        async with reading(path) as reader:
            assert (await reader.session("abc"))["pk"] == 1
            with pytest.raises(UsageError):
                await reader.session("ab")

    run(work())


def test_a_hashed_session_id_is_found_by_the_raw_one(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"

    async def work() -> None:
        async with writing(path) as writer, reading(path) as reader:
            await writer.write(Batch([connection(mcp_session_id=hash_session_id("raw-id", writer.session_key))]))
            assert (await reader.session("raw-id"))["pk"] == 1
            with pytest.raises(NotFoundError):
                await reader.session("raw-i")

    run(work())


# ----------------------------------------------------------------------------------------------------------- plans


@pytest.mark.parametrize(
    ("sql", "plan"),
    [
        ("SELECT * FROM events WHERE time >= '2026-03-14T10:08'", ["timeline USING INDEX timeline_time (time>?)"]),
        (
            "SELECT * FROM events WHERE connection_id = 'scn_1' ORDER BY seq",
            ["connection USING INDEX sqlite_autoindex_connection_1 (id=?)", "timeline_connection (connection=?)"],
        ),
        ("SELECT * FROM events WHERE pk = 5", ["timeline USING INTEGER PRIMARY KEY"]),
        ("SELECT * FROM sessions WHERE connection_id = 'scn_1'", ["sqlite_autoindex_connection_1 (id=?)"]),
        ("SELECT * FROM sessions WHERE started >= '2026' ORDER BY started", ["connection_started (started>?)"]),
        (
            "SELECT * FROM events JOIN sessions USING (connection_id) WHERE time >= '2026-03-14'",
            ["timeline_time (time>?)", "sqlite_autoindex_connection_1 (id=?)"],
        ),
        (queries.CHANGES, ["timeline_change (change>?)"]),
        (queries.RECENT, ["connection_last_active (last_active>?)"]),
    ],
)
def test_a_query_walks_an_index_and_sorts_nothing(path: Path, sql: str, plan: list[str]) -> None:
    db = sqlite3.connect(path)
    values = dict.fromkeys(("limit", "since", "after", "session"), 1)
    steps = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    db.close()
    for wanted in plan:
        assert any(wanted in step for step in steps), steps
    assert not [step for step in steps if "TEMP B-TREE" in step or step == "SCAN timeline"], steps


# ------------------------------------------------------------------------------------------------- queries of users


def ask(
    path: Path, sql: str, *, limit: int = 1000, seconds: float = 5.0
) -> tuple[list[str], list[tuple[object, ...]], bool]:
    async def work() -> tuple[list[str], list[tuple[object, ...]], bool]:
        async with reading(path) as reader:
            return await reader.query(sql, limit=limit, seconds=seconds)

    return run(work())


def test_a_query_gives_columns_rows_and_whether_there_is_more(path: Path) -> None:
    sql = "SELECT pk, type AS what FROM events ORDER BY pk"
    assert ask(path, sql, limit=2) == (["pk", "what"], [(1, "session_start"), (2, "initialize")], True)
    assert ask(path, sql, limit=25)[2] is False
    assert ask(path, "SELECT pk FROM events WHERE pk < 0") == (["pk"], [], False)
    assert ask(path, "-- a comment\nWITH n AS (SELECT 1 AS a) SELECT a FROM n;") == (["a"], [(1,)], False)
    assert ask(path, "PRAGMA user_version")[1] == [(LATEST,)]
    assert len(ask(path, "PRAGMA table_info(events)")[1]) > 20
    assert ask(path, "EXPLAIN QUERY PLAN SELECT * FROM events")[1]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM timeline",
        "INSERT INTO store VALUES (2, '', '', x'')",
        "CREATE TABLE x (y)",
        "CREATE TEMP TABLE x (y)",
        "DROP VIEW events",
        "ATTACH DATABASE ':memory:' AS other",
        "ATTACH DATABASE '/etc/passwd' AS other",
        "VACUUM INTO '/tmp/never-written.db'",
        "PRAGMA user_version = 9",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA writable_schema = 1",
        "BEGIN IMMEDIATE",
        "SAVEPOINT x",
        "SELECT load_extension('x')",
        "REINDEX",
    ],
)
def test_nothing_but_reading_is_possible(path: Path, sql: str) -> None:
    before = path.read_bytes()
    with pytest.raises(UsageError) as caught:
        ask(path, sql)
    assert caught.value.code == "query_readonly"
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("sql", "message", "hint"),
    [
        ("SELECT *\nFORM events", 'near "FORM": syntax error', "line 2: FORM events"),
        ("SELECT tyme FROM events", "no such column: tyme", "did you mean type or time?"),
        ("SELECT * FROM event", "no such table: event", "did you mean events"),
        ("SELECT 1; SELECT 2", "only one statement", "one after the other"),
        ("", "no statement", "SELECT * FROM sessions"),
        ("-- nothing", "no statement", "SELECT * FROM sessions"),
        ("SELECT", "incomplete input", "mcp-tap sql"),
        ("SELECT ?", "Incorrect number of bindings", "mcp-tap sql"),
        ("SELECT nosuch(1)", "no such function: nosuch", "line 1"),
        ("SELECT json('{')", "malformed JSON", "mcp-tap sql"),
        ("SELECT length(zeroblob(900000000))", "too big", "mcp-tap sql"),
    ],
)
def test_a_wrong_statement_says_what_where_and_what_now(path: Path, sql: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        ask(path, sql)
    assert message in str(caught.value)
    assert hint in caught.value.hint


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


def test_a_query_is_stopped_when_its_time_is_up(path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        ask(path, ENDLESS, seconds=0.05)
    assert caught.value.code == "query_timeout"


def test_a_slow_query_delays_no_page(path: Path) -> None:
    async def work() -> None:
        async with reading(path) as reader:
            slow = asyncio.create_task(reader.query(ENDLESS, seconds=2))
            await asyncio.sleep(0)
            for _ in range(5):
                await reader.list_sessions()
            assert not slow.done()
            with pytest.raises(StoreError):
                await slow

    run(work())


# --------------------------------------------------------------------------------------------- beside a live writer


def test_a_reader_sees_what_a_writer_writes_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"

    async def work() -> None:
        async with writing(path) as writer, reading(path) as reader:
            for number in range(1, 6):
                await writer.write(Batch(events=[Event(Kind.LIFECYCLE, "tick", T0)]))
                assert (await reader.summary()).events == number
                assert (await reader.query("SELECT count(*) FROM events")).rows == [(number,)]

    run(work())


def test_a_closed_reader_says_so(path: Path) -> None:
    async def work() -> None:
        async with reading(path) as reader:
            pass
        with pytest.raises(StoreError, match="closed"):
            await reader.list_sessions()
        await reader.close()

    run(work())


def test_lines_are_counted_on_from_the_last_time(tmp_path: Path) -> None:
    path, one = tmp_path / "tap.db", connection()

    async def work() -> None:
        async with writing(path) as writer, reading(path) as reader:
            counts = []

            async def count() -> None:
                counts.append((await reader.facts())["events"])

            await count()
            await writer.write(Batch([one], [event(one, T0 + n) for n in range(20)]))
            await count()
            await writer.write(Batch([one], [event(one, T0 + 3600 * 1_000_000 + n) for n in range(3)]))
            await count()
            await count()
            assert await writer.prune(T0 + 3600 * 1_000_000) == 20
            await count()
            await writer.write(Batch([one], [event(one, T0 + 3600 * 1_000_000)]))
            await count()
            assert counts == [0, 20, 23, 23, 3, 4]

    run(work())


def test_lines_are_counted_anew_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was written with an older number, or deleted without a mark, is seen then."""
    path = tmp_path / "tap.db"
    record(path, Batch(events=[event(None), event(None)]))

    async def work() -> None:
        async with reading(path) as reader:
            assert (await reader.facts())["events"] == 2
            db = sqlite3.connect(path, isolation_level=None)
            db.execute("DELETE FROM timeline WHERE pk = 1")
            db.close()
            assert (await reader.facts())["events"] == 2
        monkeypatch.setattr("mcp_tap.store.sqlite.reader._RECOUNT", -1)
        async with reading(path) as reader:
            assert (await reader.facts())["events"] == 1
            db = sqlite3.connect(path, isolation_level=None)
            db.execute("DELETE FROM timeline")
            db.close()
            assert (await reader.facts())["events"] == 0

    run(work())
