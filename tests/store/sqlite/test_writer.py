from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from mcp_tap.model import (
    Batch,
    Body,
    Codec,
    ConnectionState,
    ConnectionStatus,
    EndReason,
    Era,
    Side,
    Status,
    StoreError,
    ToolSeen,
    hash_session_id,
)
from mcp_tap.store import open_writer

from ..recording import T0, connection, event, reading, record, run, select, writing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tap.db"


def test_a_later_write_updates_the_row_and_takes_the_next_change(path: Path) -> None:
    one = connection()
    call = event(one, status=Status.WAITING)
    seen: list[object] = []

    async def work() -> None:
        async with writing(path) as writer, reading(path) as reader:
            await writer.write(Batch([one], [call]))
            rows, cursor = await reader.changes(0)
            seen.append([(row["pk"], row["status"]) for row in rows])
            call.status, call.duration_us, one.calls = Status.SUCCEEDED, 4211, 1
            await writer.write(Batch([one], [call]))
            rows, after = await reader.changes(cursor)
            seen.append([(row["pk"], row["status"], row["latency_ms"]) for row in rows])
            assert after > cursor
            assert await reader.changes(after) == ([], after)
            assert call.change == after

    run(work())
    assert seen == [[(1, "waiting_for_response")], [(1, "succeeded", 4.211)]]
    assert select(path, "SELECT count(*) FROM timeline") == [(1,)]
    assert select(path, "SELECT calls, change FROM connection") == [(1, 3)]


def test_what_is_written_is_the_state_at_the_call(path: Path) -> None:
    one = connection()
    call = event(one, name="before")

    async def work() -> None:
        async with writing(path) as writer:
            task = asyncio.create_task(writer.write(Batch([one], [call])))
            await asyncio.sleep(0)  # the task has begun and waits for the thread
            call.name = "after"
            await task

    run(work())
    assert select(path, "SELECT name FROM timeline") == [("before",)]


def test_a_row_that_another_points_to_is_written_with_it(path: Path) -> None:
    one = connection()
    first, parent, sampling = event(one, name="first"), event(one, name="parent"), event(one, name="sampling")
    sampling.operation, sampling.parent = first, parent
    body = Body(event(one, name="only its body"), Side.REQUEST, Codec.AS_SEEN, "{}")
    record(path, Batch(events=[sampling], bodies=[body]))
    rows = select(path, "SELECT pk, name, operation, parent, connection FROM timeline ORDER BY pk")
    assert rows == [
        (1, "sampling", 3, 4, 1),
        (2, "only its body", None, None, 1),
        (3, "first", None, None, 1),
        (4, "parent", None, None, 1),
    ]
    assert select(path, "SELECT id FROM connection") == [(one.id,)]
    assert select(path, "SELECT timeline, side FROM body") == [(2, "request")]


def test_a_failed_batch_leaves_nothing_and_can_be_written_again(path: Path) -> None:
    one = connection(client_name="c", client_version="1")
    call = event(one)
    body = Body(call, Side.RESPONSE, Codec.AS_SEEN, "{}")
    batch = Batch([one], [call], [body], [ToolSeen(one, T0, "pay", "h1", "{}")])

    async def work() -> None:
        async with writing(path) as writer:
            blocker = sqlite3.connect(path, isolation_level=None)
            blocker.execute("CREATE TRIGGER full BEFORE INSERT ON tool_seen BEGIN SELECT RAISE(ABORT, 'full'); END")
            with pytest.raises(StoreError, match="full"):
                await writer.write(batch)
            counts = "SELECT (SELECT count(*) FROM {}) + (SELECT count(*) FROM {}) + (SELECT count(*) FROM {})"
            assert blocker.execute(counts.format("connection", "timeline", "body")).fetchone() == (0,)
            assert blocker.execute(counts.format("session", "provider", "participant")).fetchone() == (0,)
            blocker.execute("DROP TRIGGER full")
            blocker.close()
            await writer.write(batch)

    run(work())
    assert select(path, "SELECT count(*), max(times) FROM tool_seen") == [(1, 1)]
    assert select(path, "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM sessions)") == [(1, 1)]


def test_after_a_batch_that_was_given_up_later_events_still_have_their_session(path: Path) -> None:
    one = connection()

    async def work() -> None:
        async with writing(path) as writer:
            blocker = sqlite3.connect(path, isolation_level=None)
            blocker.execute("CREATE TRIGGER full BEFORE INSERT ON timeline BEGIN SELECT RAISE(ABORT, 'full'); END")
            with pytest.raises(StoreError):
                await writer.write(Batch([one], [event(one)]))
            blocker.execute("DROP TRIGGER full")
            blocker.close()
            await writer.write(Batch(events=[event(one)]))

    run(work())
    assert select(path, "SELECT seq, connection_id, session_id FROM events") == [(2, one.id, one.session_id)]


def test_a_connection_that_moves_on_is_stored_as_it_is(path: Path) -> None:
    one, other = connection(1), connection(2)
    shown = "SELECT id, client_name, calls, status, end_reason, ended, tools, change FROM connection ORDER BY pk"

    async def work() -> None:
        async with writing(path) as writer:
            await writer.write(Batch([one, other]))
            one.calls, one.tools = 3, {"pay": 3}
            await writer.write(Batch([one, other]))
            one.client_name, one.client_version, other.calls = "acme", "1.0", 1
            await writer.write(Batch([one, other]))
            one.status, one.end_reason, one.ended_us = ConnectionStatus.ENDED, EndReason.CLIENT_DELETE, T0
            await writer.write(Batch([one]))

    run(work())
    assert select(path, shown) == [
        (one.id, "acme", 3, "ended", "client_delete", "2026-03-14T10:08:44.998Z", '{"pay":3}', 7),
        (other.id, None, 1, "active", None, None, "{}", 6),
    ]
    assert select(path, "SELECT identifier FROM participant WHERE type = 'mcp_client'") == [("acme@1.0",)]


def test_a_connection_that_somebody_took_away_is_stored_again(path: Path) -> None:
    one = connection()

    async def work() -> None:
        async with writing(path) as writer:
            await writer.write(Batch([one], [event(one)]))
            other = sqlite3.connect(path, isolation_level=None)
            other.executescript("DELETE FROM timeline; DELETE FROM connection; DELETE FROM session")
            other.close()
            one.calls = 2
            await writer.write(Batch([one], [event(one)]))

    run(work())
    assert select(path, "SELECT seq, connection_id, session_id FROM events") == [(2, one.id, one.session_id)]
    assert select(path, "SELECT calls FROM connection") == [(2,)]


def test_a_definition_that_somebody_took_away_is_stored_again(path: Path) -> None:
    one = connection()
    batch = Batch([one], tools=[ToolSeen(one, T0, "pay", "h1", "{}")])

    async def work() -> None:
        async with writing(path) as writer:
            await writer.write(batch)
            await writer.write(batch)
            assert select(path, "SELECT times FROM tool_seen") == [(2,)]
            other = sqlite3.connect(path, isolation_level=None)
            other.executescript("DELETE FROM tool_seen; DELETE FROM tool_definition")
            other.close()
            await writer.write(batch)

    run(work())
    seen = "SELECT name, times FROM tool_definition JOIN tool_seen ON tool_seen.definition = pk"
    assert select(path, seen) == [("pay", 1)]


def test_a_locked_file_is_an_error_and_the_batch_is_not_lost(path: Path) -> None:
    async def work() -> None:
        async with writing(path) as writer:
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            batch = Batch(events=[event(None)])
            with pytest.raises(StoreError, match="locked") as caught:
                await writer.write(batch)
            assert caught.value.code == "store_locked"
            other.execute("ROLLBACK")
            other.close()
            await writer.write(batch)

    run(work())
    assert select(path, "SELECT count(*) FROM timeline") == [(1,)]


def test_text_and_numbers_that_no_database_takes_do_not_cost_the_batch(path: Path) -> None:
    record(path, Batch(events=[event(None, name="bad \ud800", response_bytes=2**70), event(None, name="good")]))
    assert select(path, "SELECT name, response_bytes FROM timeline ORDER BY pk") == [("bad ?", 2**63 - 1), ("good", 0)]


def test_sessions_providers_and_participants_are_made_once(path: Path) -> None:
    same = {"session_id": "ses_shared", "client_name": "claude", "client_version": "1"}
    anonymous = connection(3, upstream="http://127.0.0.1:9001/mcp")
    record(path, Batch([connection(1, **same)]), Batch([connection(2, **same), anonymous]))
    record(path, Batch([connection(4, client_name="claude", client_version="2"), connection(5, client_name="bare")]))
    assert select(path, "SELECT count(*) FROM session") == [(4,)]
    assert select(path, "SELECT count(*), count(DISTINCT id) FROM provider") == [(2, 2)]
    clients = select(path, "SELECT identifier, name, version FROM participant WHERE type = 'mcp_client' ORDER BY pk")
    assert clients == [("claude@1", "claude", "1"), ("claude@2", "claude", "2"), ("bare", "bare", None)]
    assert select(path, "SELECT count(*) FROM participant WHERE type = 'provider' AND provider IS NOT NULL") == [(2,)]
    of = "SELECT identifier FROM connection LEFT JOIN participant p ON p.pk = participant ORDER BY connection.pk"
    assert select(path, of) == [("claude@1",), ("claude@1",), (None,), ("claude@2",), ("bare",)]
    assert select(path, "SELECT id FROM session ORDER BY pk LIMIT 1") == [("ses_shared",)]


def test_a_client_that_is_named_later_gets_its_participant(path: Path) -> None:
    one = connection()

    async def work() -> None:
        async with writing(path) as writer:
            await writer.write(Batch([one]))
            one.client_name = "late"
            await writer.write(Batch([one]))

    run(work())
    assert select(path, "SELECT name FROM participant WHERE pk = (SELECT participant FROM connection)") == [("late",)]


def test_tool_definitions_are_kept_by_hash_and_counted_by_connection(path: Path) -> None:
    one, two = connection(1), connection(2)
    record(
        path,
        Batch([one, two], tools=[ToolSeen(one, T0, "pay", "h1", "{1}"), ToolSeen(two, T0 + 1000, "pay", "h1", "{1}")]),
        Batch(tools=[ToolSeen(one, T0 + 2000, "pay", "h1", "{1}"), ToolSeen(one, T0 + 3000, "pay", "h2", "{2}")]),
    )
    definitions = select(path, "SELECT pk, name, hash, definition, first_seen FROM tool_definition ORDER BY pk")
    assert definitions == [
        (1, "pay", "h1", "{1}", "2026-03-14T10:08:44.998Z"),
        (2, "pay", "h2", "{2}", "2026-03-14T10:08:45.001Z"),
    ]
    times = "substr(first_seen, 18), substr(last_seen, 18), times"
    assert sorted(select(path, f"SELECT definition, connection, {times} FROM tool_seen")) == [
        (1, 1, "44.998Z", "45.000Z", 2),
        (1, 2, "44.999Z", "44.999Z", 1),
        (2, 1, "45.001Z", "45.001Z", 1),
    ]


def test_a_body_that_comes_again_replaces_the_first(path: Path) -> None:
    call = event(None)
    record(
        path,
        Batch(events=[call], bodies=[Body(call, Side.REQUEST, Codec.CUT, "abc")]),
        Batch(bodies=[Body(call, Side.REQUEST, Codec.MASKED, "abcdef", masked=2)]),
    )
    assert select(path, "SELECT timeline, side, codec, data, masked FROM body") == [
        (1, "request", "json-masked", "abcdef", 2)
    ]


def test_numbers_go_on_where_the_last_run_stopped(path: Path) -> None:
    record(path, Batch([connection(1)], [event(None)]))
    later, line = connection(2), event(None)
    record(path, Batch([later], [line]))
    assert (later.pk, line.pk) == (2, 2)
    assert (later.change, line.change) == (3, 4)


def test_calls_left_waiting_by_a_recorder_that_died_are_closed(path: Path) -> None:
    script = """
import asyncio, sys
from mcp_tap.model import *
from mcp_tap.store import open_writer
async def main():
    writer = await open_writer(sys.argv[1])
    one = Connection(id="scn_1", session_id="ses_1", origin=Origin.HEADER, created_us=1, open_calls=1, open_streams=2)
    call = dict(connection=one, status=Status.WAITING)
    await writer.write(Batch([one], [
        Event(Kind.REQUEST, "tools/call", 5, seq=1, direction=Direction.TO_SERVER, **call),
        Event(Kind.REQUEST, "sampling/createMessage", 6, seq=2, direction=Direction.TO_CLIENT, **call),
        Event(Kind.REQUEST, "ping", 7, seq=3, connection=one, status=Status.SUCCEEDED),
    ]))
    print("written", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    child = subprocess.Popen([sys.executable, "-c", script, f"sqlite:///{path}"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == b"written\n"
        os.kill(child.pid, signal.SIGKILL)
    before = select(path, "SELECT max(change) FROM timeline")[0][0]

    async def work() -> None:
        async with writing(path) as writer, reading(path) as reader:
            assert writer.abandoned == 2
            rows, _ = await reader.changes(before)
            assert [(row["type"], row["status"], row["failure_reason"]) for row in rows] == [
                ("tools/call", "failed", "abandoned"),
                ("sampling/createMessage", "failed", "abandoned"),
            ]
            assert {row["error_message"] for row in rows} == {"the recording stopped before the answer was seen"}
            session = await reader.session("scn_1")
            assert (session["open_calls"], session["open_streams"], session["errors"]) == (0, 0, 0)
            assert session["change"] > before
            await writer.write(Batch(events=[event(None)]))  # the counters stand behind all of that
        async with writing(path) as writer:
            assert writer.abandoned == 0

    run(work())


def test_recent_gives_back_the_connections_that_can_go_on(path: Path) -> None:
    full = connection(
        1,
        origin_note="adopted",
        mcp_session_id="raw",
        era=Era.LEGACY,
        protocol_version="2025-11-25",
        transport="sse",
        client_name="c",
        client_version="1",
        client_capabilities="{}",
        client_address="::1",
        user_agent="ua",
        server_name="s",
        server_version="2",
        server_capabilities="[]",
        instructions="be kind",
        state=ConnectionState.DISCONNECTED,
        started_us=T0 + 3,
        last_active_us=T0 + 9_000_000,
        messages=1,
        calls=2,
        errors=3,
        dropped=4,
        truncated=5,
        request_bytes=6,
        response_bytes=7,
        tools={"b": 1, "a": 2},
        replaces="scn_0",
    )
    idle = connection(2, status=ConnectionStatus.ENDED, end_reason=EndReason.IDLE_TIMEOUT, ended_us=T0 + 2)
    stopped = connection(3, status=ConnectionStatus.ENDED, end_reason=EndReason.SHUTDOWN, ended_us=T0 + 2)
    deleted = connection(4, status=ConnectionStatus.ENDED, end_reason=EndReason.CLIENT_DELETE, ended_us=T0 + 2)
    old = connection(5, last_active_us=T0 - 1_000_000)
    line = event(full)
    full.seq = 0  # as if its row had been written before the line was
    record(path, Batch([full, idle, stopped, deleted, old], [line]))
    full.seq = 1

    async def work() -> None:
        async with writing(path) as writer:
            found = await writer.recent(T0, 10)
            assert [one.id for one in found] == [full.id, stopped.id, idle.id]
            names = [field.name for field in fields(full)]
            assert {name: getattr(found[0], name) for name in names} == {name: getattr(full, name) for name in names}
            assert list(found[0].tools) == ["b", "a"]
            assert found[1].end_reason is EndReason.SHUTDOWN
            assert len(await writer.recent(T0, 1)) == 1
            found[0].calls = 99
            await writer.write(Batch([found[0]]))
            assert await writer.end_idle(T0) == 1
            assert await writer.end_idle(T0) == 0

    run(work())
    assert select(path, "SELECT calls FROM connection WHERE pk = 1") == [(99,)]
    ended = select(path, "SELECT connection_id, ended, last_active FROM sessions WHERE pk = ?", old.pk)
    assert ended[0] == (old.id, "2026-03-14T10:08:43.998Z", "2026-03-14T10:08:43.998Z")


def test_closing_writes_the_log_back_and_twice_is_once(path: Path) -> None:
    async def work() -> None:
        writer = await open_writer(f"sqlite:///{path}")
        async with reading(path):
            await writer.write(Batch(events=[event(None)]))
            await writer.close()
            assert Path(f"{path}-wal").stat().st_size == 0
        await writer.close()
        with pytest.raises(StoreError, match="closed"):
            await writer.write(Batch(events=[event(None)]))

    run(work())


@pytest.mark.parametrize("pages", [0, 8000], ids=["long log", "short log"])
def test_a_checkpoint_follows_a_write_without_being_asked_for(
    path: Path, pages: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mcp_tap.store.sqlite.writer._LONG_LOG", pages)

    async def work() -> None:
        async with writing(path) as writer:
            await writer.write(Batch(events=[event(None)]))
            async with asyncio.timeout(20):
                while b"tools/call" not in path.read_bytes():
                    await asyncio.sleep(0.02)

    run(work())
    assert not caplog.records


def test_every_recording_has_a_name_and_a_key_of_its_own(tmp_path: Path) -> None:
    async def work() -> None:
        async with writing(tmp_path / "a.db") as one, writing(tmp_path / "b.db") as two:
            assert len(one.replica) == 5
            assert one.replica != two.replica
            assert len(one.session_key) == 32
            assert hash_session_id("raw", one.session_key) != hash_session_id("raw", two.session_key)
            assert hash_session_id("raw", one.session_key).startswith("hash:")
        name = one.replica
        async with writing(tmp_path / "a.db") as again:
            assert again.replica == name

    run(work())


def test_a_cancelled_write_is_still_all_or_nothing(path: Path) -> None:
    many = Batch([connection()], [event(None) for _ in range(2000)])

    async def work() -> None:
        async with writing(path) as writer:
            task = asyncio.create_task(writer.write(many))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await writer.write(Batch(events=[event(None)]))

    run(work())
    assert select(path, "SELECT count(*) FROM timeline") == [(2001,)]


def test_pruning_deletes_what_is_old_and_what_it_leaves_empty(path: Path) -> None:
    day = 86_400_000_000
    old, both, new = (connection(number, mcp_session_id=None) for number in (1, 2, 3))
    for one, at in ((old, T0), (both, T0 + 2 * day), (new, T0 + 2 * day)):
        one.created_us, one.last_active_us = T0, at
        one.status, one.ended_us = ConnectionStatus.ENDED, at
    lines = [event(old, at_us=T0 + n, seq=n) for n in range(1, 4)]
    lines += [event(both, at_us=T0 + 9, seq=1), event(both, at_us=T0 + 2 * day, seq=2), event(new, at_us=T0 + 2 * day)]
    waiting = event(both, at_us=T0 + 10, seq=3, status=Status.WAITING)
    bodies = [Body(line, Side.REQUEST, Codec.AS_SEEN, "{}") for line in lines]
    seen = [ToolSeen(one, T0, "add", "0" * 64, "{}") for one in (old, new)]

    async def work() -> None:
        async with writing(path) as writer:
            await writer.write(Batch([old, both, new], [*lines, waiting], bodies, seen))
            assert await writer.prune(T0) == 0
            assert await writer.prune(T0 + day) == 4
            assert await writer.prune(T0 + day) == 0

    run(work())
    assert select(path, "SELECT connection, count(*) FROM timeline GROUP BY connection") == [(2, 2), (3, 1)]
    assert select(path, "SELECT count(*) FROM body") == [(2,)]
    assert select(path, "SELECT pk FROM connection ORDER BY pk") == [(2,), (3,)]
    assert select(path, "SELECT count(*) FROM session") == [(2,)]
    assert select(path, "SELECT connection FROM tool_seen") == [(3,)]
    assert select(path, "SELECT name FROM tool_definition") == [("add",)]


def test_pruning_goes_in_parts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_tap.store.sqlite.pruning._PART", 4)

    async def work() -> list[int]:
        async with writing(path) as writer:
            await writer.write(Batch(events=[event(None, at_us=T0 + n) for n in range(10)]))
            return [await writer.prune(T0 + 1_000_000) for _ in range(4)]

    assert run(work()) == [4, 4, 2, 0]
