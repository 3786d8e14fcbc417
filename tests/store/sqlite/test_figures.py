"""Figures of a small month, beside what plain SQL and sorted lists say, with and without what is counted ahead."""

from __future__ import annotations

import asyncio
import math
import random
import shutil
import sqlite3
import statistics
from pathlib import Path
from typing import Any

import pytest

from benchmarks.recording import DAY, HOUR, NOW_US, month
from mcp_tap.model import Batch, Direction, FailureReason, Kind, NotFoundError, Status
from mcp_tap.store import ALL, Reader, Row, open_pruner
from mcp_tap.store.filters import Filter, parse
from mcp_tap.store.rows import iso
from mcp_tap.store.sqlite import folding, histogram
from mcp_tap.store.sqlite.tallies import Range, bounds

from ..recording import T0, connection, event, reading, record, run, select, writing

RANGES = ("", "since:1h", "since:24h", "since:7d", "since:30d", "from:2026-04-10T03:17 to:2026-04-14T05:00:00.123")
FILTERS = (*RANGES, "since:7d tool:search_*", "since:7d client:cursor", "-client:cursor", "since:7d status:failed")

CALLS = "kind = 'request' AND direction = 'client_to_server' AND status IN ('succeeded', 'failed')"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("figures") / "plain.db"
    record(path, *month(events=6000, sessions=120, busy=0))
    return path


@pytest.fixture(scope="module")
def folded(plain: Path) -> Path:
    path = plain.with_name("folded.db")
    shutil.copy(plain, path)
    assert run(fold(path)) > 700
    return path


async def fold(path: Path, now_us: int = NOW_US) -> int:
    spans = 0
    async with writing(path) as writer:
        while made := await writer.fold(now_us):
            spans += made
    return spans


def where(text: str) -> Filter:
    return parse(text, now_us=NOW_US)


def nearest(durations: list[float], percent: int) -> float:
    return sorted(durations)[max(0, math.ceil(len(durations) * percent / 100) - 1)]


def calls(path: Path, text: str) -> list[tuple[Any, ...]]:
    """Return the calls of a range of time by plain SQL: type, name, status, milliseconds, when."""
    asked = where(text)
    since, until = iso(asked.since_us or 0), iso(asked.until_us or NOW_US)
    sql = (
        f"SELECT type, name, status, duration_us / 1000.0, at_us FROM timeline WHERE {CALLS} AND time >= ? AND time < ?"
    )
    return select(path, sql, since, until)


@pytest.mark.parametrize("text", RANGES)
def test_totals_are_those_of_plain_sql(plain: Path, text: str) -> None:
    expected = calls(plain, text)

    async def work() -> Row:
        async with reading(plain) as reader:
            return await reader.totals(where(text))

    totals = run(work())
    assert totals["calls"] == len(expected)
    assert expected or text == "since:1h"
    if not expected:
        return
    assert totals["tool_calls"] == sum(row[0] == "tools/call" for row in expected)
    assert totals["errors"] == sum(row[2] == "failed" for row in expected)
    assert [totals[f"p{q}_ms"] for q in (50, 95, 99)] == [
        nearest([row[3] for row in expected], q) for q in (50, 95, 99)
    ]
    assert totals["exact"]


@pytest.mark.parametrize("text", RANGES)
def test_tools_are_those_of_plain_sql(plain: Path, text: str) -> None:
    by_name: dict[str, list[tuple[Any, ...]]] = {}
    for row in sorted(calls(plain, text), key=lambda row: row[4]):
        if row[0] == "tools/call":
            by_name.setdefault(row[1], []).append(row)

    async def work() -> list[dict[str, Any]]:
        async with reading(plain) as reader:
            return await reader.tools(where(text))

    tools = {row["name"]: row for row in run(work())}
    assert len(tools) == 25  # listed ones that nobody called are there, too
    for name, tool in tools.items():
        own = by_name.get(name, [])
        assert (tool["calls"], tool["errors"]) == (len(own), sum(each[2] == "failed" for each in own))
        assert sum(tool["spark"]) == tool["calls"]
        assert tool["last_called"] == (iso(own[-1][4]) if own else None)
        assert tool["p95_ms"] == (nearest([each[3] for each in own], 95) if own else None)
        assert (tool["health"] == "inactive") is not bool(own)
        assert tool["versions"] == (2 if name.startswith("create") else 1)
        assert bool(tool["changed"]) is name.startswith("create")


def same(one: Any, other: Any, tolerance: float = 0.03) -> bool:
    """Whether two answers are the same but for latencies, which may be within 3 %, and for the mark that says so."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            key == "exact"
            or (close(one[key], other[key], tolerance) if key.endswith("_ms") else same(one[key], other[key]))
            for key in one
        )
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def close(one: float | None, other: float | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=tolerance)


async def everything(reader: Reader, text: str) -> dict[str, Any]:
    asked = where(text)
    by_name = {row["name"]: row for row in await reader.tools(asked)}
    for row in by_name.values():
        row.pop("health")  # looks at percentiles that may be 3 % apart
    return {
        "totals": await reader.totals(asked),
        "series": await reader.series(asked),
        "heatmap": await reader.heatmap(asked),
        "matrix": await reader.matrix(asked),
        "tools": by_name,
        "clients": await reader.clients(asked),
        "usage": [*await reader.usage(asked)],
    }


@pytest.mark.parametrize("text", FILTERS)
def test_one_reading_says_what_two_say(folded: Path, text: str) -> None:
    async def work() -> None:
        async with reading(folded) as reader:
            asked = where(text)
            assert await reader.course(asked) == (await reader.series(asked), await reader.heatmap(asked))
            assert await reader.usage(asked) == (await reader.clients(asked), await reader.matrix(asked))

    asyncio.run(work())


@pytest.mark.parametrize("text", FILTERS)
def test_what_is_counted_ahead_changes_no_count(plain: Path, folded: Path, text: str) -> None:
    async def work() -> tuple[dict[str, Any], dict[str, Any]]:
        async with reading(plain) as one, reading(folded) as other:
            return await everything(one, text), await everything(other, text)

    exact, counted = run(work())
    for name in exact:
        assert same(exact[name], counted[name]), name
    # short ranges, and words that are not counted ahead, are read line by line
    assert counted["totals"]["exact"] is (text in {"since:1h", "since:7d status:failed"})


def test_series_and_heatmap_hold_every_call_once(folded: Path) -> None:
    async def work() -> None:
        async with reading(folded) as reader:
            for text in RANGES:
                asked = where(text)
                whole = (await reader.totals(asked))["calls"]
                series = await reader.series(asked)
                assert sum(row["calls"] for row in series) == whole
                assert len(series) <= 60
                lengths = {row["end"] - row["start"] for row in series}
                assert len(lengths) == 1
                assert all(row["start"] % lengths.copy().pop() == 0 for row in series)
                assert [row["start"] for row in series][1:] == [row["end"] for row in series][:-1]
                heat = await reader.heatmap(asked)
                assert sum(row["calls"] for row in heat) == whole
                assert sum(row["errors"] for row in heat) == sum(row["errors"] for row in series)
                assert all(row["high_ms"] == 2 * row["low_ms"] for row in heat)

    run(work())


def test_only_what_is_over_is_counted_ahead(folded: Path) -> None:
    last = select(folded, "SELECT span, max(start_us) FROM folded GROUP BY span ORDER BY span")
    newest = select(folded, "SELECT max(at_us) FROM timeline")[0][0]
    over = min(newest, NOW_US - folding.GRACE_US)
    day, hour = over // DAY * DAY - DAY, over // HOUR * HOUR - HOUR
    assert last == [("client", day), ("client day", day), ("client hour", hour), ("day", day), ("hour", hour)]
    for span in ("hour", "day", "client day", "client"):
        counted = select(folded, "SELECT sum(calls), sum(errors) FROM tally WHERE span = ?", span)
        end = dict(last)[span] + (HOUR if span == "hour" else DAY)
        real = f"SELECT count(*), sum(status = 'failed') FROM timeline WHERE {CALLS} AND at_us < ?"
        assert counted == select(folded, real, end)
    # the hours of each client are needed until their day is over
    assert select(folded, "SELECT min(start_us) FROM folded WHERE span = 'client hour'") == [(day + DAY,)]
    assert select(folded, "SELECT min(start_us) >= ? FROM tally WHERE span = 'client hour'", day + DAY) == [(1,)]


TALLIES = """
SELECT span, start_us, type, name, client_name, client_version, calls, errors, last_us, latency, latency_failed,
    CASE WHEN span <> 'client' THEN streak END
FROM tally ORDER BY span, start_us, type, name, client_name, client_version
"""


def test_counting_holds_a_few_lines_at_a_time(folded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the slices, the figures are the same; and so they are when hours have to be counted again."""
    path = tmp_path / "tap.db"
    shutil.copy(folded, path)
    monkeypatch.setattr(folding, "_SLICE", 7)
    monkeypatch.setattr(folding, "_MANY", 3)
    for span in ("WHERE 1", "WHERE span LIKE '%day'", "WHERE span IN ('client', 'hour') AND start_us % 7 < 3"):
        db = sqlite3.connect(path, isolation_level=None)
        db.executescript(f"DELETE FROM tally {span}; DELETE FROM folded {span}")
        db.close()
        assert select(path, TALLIES) != select(folded, TALLIES)
        assert run(fold(path))
        assert select(path, TALLIES) == select(folded, TALLIES)


def test_a_late_answer_takes_its_hour_away_and_it_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    one = connection()
    lines = [
        event(one, T0 + n * HOUR, direction=Direction.TO_SERVER, status=Status.SUCCEEDED, duration_us=1000, name="t")
        for n in range(30)
    ]
    late = event(one, T0 + HOUR, direction=Direction.TO_SERVER, status=Status.WAITING, name="t")
    now = T0 + 40 * HOUR

    async def work() -> None:
        async with writing(path) as writer, reading(path) as reader:
            await writer.write(Batch([one], [*lines, late]))
            made = 0
            while spans := await writer.fold(now):
                made += spans
            assert made >= 29

            async def counted() -> tuple[int, int]:
                row = await reader.totals(parse("since:40h", now_us=now))
                return row["calls"], row["errors"]

            assert await counted() == (30, 0)
            before = select(path, "SELECT count(*) FROM folded")
            late.status, late.failure_reason, late.duration_us = Status.FAILED, FailureReason.TIMEOUT, 5 * HOUR
            await writer.write(Batch(events=[late]))
            assert select(path, "SELECT count(*) FROM folded") != before
            assert await counted() == (31, 1)
            while await writer.fold(now):
                pass
            assert select(path, "SELECT count(*) FROM folded") == before
            assert await counted() == (31, 1)

    run(work())


def test_what_is_written_while_an_hour_is_counted_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tap.db"
    one = connection()
    given: dict[str, Any] = {"direction": Direction.TO_SERVER, "status": Status.SUCCEEDED, "duration_us": 1000}
    now = T0 + 3 * HOUR
    real = folding.folds

    async def work() -> None:
        async with writing(path) as writer, reading(path) as reader:
            await writer.write(Batch([one], [event(one, T0, **given), event(one, T0 + 2 * HOUR, **given)]))
            counting, go_on = asyncio.Event(), asyncio.Event()
            loop = asyncio.get_running_loop()

            def slowly(*arguments: Any) -> list[folding.Fold]:
                made = real(*arguments)
                loop.call_soon_threadsafe(counting.set)
                asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
                return made

            monkeypatch.setattr(folding, "folds", slowly)
            folding_now = asyncio.create_task(writer.fold(now))
            await counting.wait()
            await writer.write(Batch(events=[event(one, T0 + 1, **given)]))
            go_on.set()
            await folding_now
            assert (await reader.totals(parse("since:4h", now_us=now)))["calls"] == 3
            assert not select(path, "SELECT 1 FROM folded WHERE start_us = ?", T0 // HOUR * HOUR)

    run(work())


def test_what_another_process_prunes_while_an_hour_is_counted_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tap.db"
    one = connection()
    given: dict[str, Any] = {"direction": Direction.TO_SERVER, "status": Status.SUCCEEDED, "duration_us": 1000}
    hour = T0 // HOUR * HOUR
    lines = [event(one, hour + minute * 60_000_000, **given) for minute in (10, 20, 30, 80, 90, 200)]
    real = folding.folds

    async def work() -> None:
        async with writing(path) as writer, reading(path) as reader:
            await writer.write(Batch([one], lines))
            pruner = await open_pruner(f"sqlite:///{path}")
            # two prunings to the same moment: the second one moves no mark
            for line in lines[:2]:
                assert await pruner.prune(line.at_us + 1000) == 1
            loop = asyncio.get_running_loop()

            def slowly(*arguments: Any) -> list[folding.Fold]:
                made = real(*arguments)
                asyncio.run_coroutine_threadsafe(pruner.prune(lines[3].at_us + 1000), loop).result()
                return made

            with monkeypatch.context() as patched:
                patched.setattr(folding, "folds", slowly)
                await writer.fold(hour + 6 * HOUR)
            await pruner.close()
            asked = parse("since:7h", now_us=hour + 6 * HOUR)
            assert (await reader.totals(asked))["calls"] == 2
            assert select(path, "SELECT start_us FROM folded WHERE span = 'hour'") == [(hour + 2 * HOUR,)]
            while await writer.fold(hour + 6 * HOUR):  # comes to an end
                pass
            assert (await reader.totals(asked))["calls"] == 2

    run(work())


def test_pruned_hours_are_not_counted_any_more(tmp_path: Path, folded: Path) -> None:
    path = tmp_path / "tap.db"
    shutil.copy(folded, path)
    before = NOW_US - 10 * DAY - 1234 * 1000

    async def work() -> None:
        async with writing(path) as writer, reading(path) as reader:
            while await writer.prune(before):
                pass
            left = select(path, f"SELECT count(*) FROM timeline WHERE {CALLS}")[0][0]
            assert (await reader.totals(where("since:30d")))["calls"] == left > 0
            assert (await reader.facts())["pruned_before"] == iso(before)
            assert not select(path, "SELECT 1 FROM tally WHERE start_us < ?", before)

    run(work())


def test_an_abandoned_call_counts_in_its_hour(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    one = connection()
    given: dict[str, Any] = {"direction": Direction.TO_SERVER}
    record(
        path,
        Batch(
            [one],
            [
                event(one, T0, status=Status.WAITING, **given),
                event(one, T0 + 30 * HOUR, status=Status.SUCCEEDED, duration_us=1, **given),
            ],
        ),
    )
    now = T0 + 40 * HOUR

    async def totals() -> tuple[int, int]:
        async with reading(path) as reader:
            row = await reader.totals(parse("since:41h", now_us=now))
            return row["calls"], row["errors"]

    # opening for writing closes what the recorder before left waiting, even where its hour was counted without it
    run(fold(path, now))
    assert run(totals()) == (2, 1)
    late = event(one, T0 + HOUR, status=Status.WAITING, pk=3, **given)
    record(path, Batch([one], [late]))
    run(fold(path, now))
    assert run(totals()) == (3, 2)


# ------------------------------------------------------------------------------------------------------- the rest


def test_errors_stand_together_whatever_their_numbers(plain: Path) -> None:
    async def work() -> None:
        async with reading(plain) as reader:
            groups = await reader.errors(where("since:30d"))
            failed = select(plain, "SELECT count(*) FROM timeline WHERE status = 'failed' AND time >= ?", _month_ago())
            assert sum(row["count"] for row in groups) == failed[0][0] > 100
            assert math.isclose(sum(row["share"] for row in groups), 1)
            assert [row["count"] for row in groups] == sorted((row["count"] for row in groups), reverse=True)
            assert {row["error_message"] for row in groups} == {
                "order … was not found",
                "unknown category: …",
                "missing argument customer at position …",
                "card processor busy",
                "upstream timeout after … ms",
                "no answer within … s",
                "the user changed their mind",
            }
            first = groups[0]
            assert sum(first["spark"]) == first["count"]
            group, page = await reader.error(first["group_id"], where("since:30d"))
            assert group == first
            assert page.matched == first["count"]
            assert {row["name"] for row in page.rows} == {first["name"]}
            assert page.rows[0]["message_id"] == first["message_id"]
            assert page.rows[0]["time"] == first["last"]
            with pytest.raises(NotFoundError):
                await reader.error("seg_nothing", where(""))

    run(work())


def _month_ago() -> str:
    return iso(NOW_US - 30 * DAY)


def test_a_tool_knows_its_definitions_and_its_neighbours_name(plain: Path) -> None:
    async def work() -> None:
        async with reading(plain) as reader:
            tool = await reader.tool("create_orders", where("since:30d"))
            listed = {row["name"]: row for row in await reader.tools(where("since:30d"))}["create_orders"]
            assert {key: tool[key] for key in listed} == listed
            hashes = {each["hash"] for each in tool["definitions"]}
            assert hashes == {"create_orders-1", "create_orders-2"}
            assert [each["version"] for each in tool["definitions"]] == [*range(1, len(tool["definitions"]) + 1)]
            newest = tool["definitions"][-1]
            assert newest["definition"]["name"] == "create_orders"
            assert newest["seen_by"][0].keys() == {
                "connection_id", "session_id", "client_name", "client_version", "first_seen", "last_seen",
            }  # fmt: skip
            assert {each["key"] for each in tool["arguments"]} == {"query", "limit"}
            with pytest.raises(NotFoundError) as caught:
                await reader.tool("create_order", where(""))
            assert "create_orders" in caught.value.hint

    run(work())


def test_clients_are_counted_by_name_and_version(plain: Path) -> None:
    async def work() -> None:
        async with reading(plain) as reader:
            rows = await reader.clients(where(""))
            sql = (
                "SELECT count(*) FROM timeline JOIN connection ON connection.pk = timeline.connection"
                f" WHERE {CALLS.replace('status', 'timeline.status')} AND client_name = ? AND client_version = ?"
            )
            for row in rows:
                assert row["client"] == f"{row['name']}@{row['version']}"
                assert row["calls"] == select(plain, sql, row["name"], row["version"])[0][0]
                assert row["tools"] <= 25
            matrix = await reader.matrix(where(""))
            assert sum(each["calls"] for each in matrix) == (await reader.totals(where("")))["tool_calls"]

    run(work())


def test_what_lasts_by_design_has_no_latency(tmp_path: Path) -> None:
    one = connection()
    given: dict[str, Any] = {"direction": Direction.TO_SERVER, "status": Status.SUCCEEDED}
    lines = [
        event(one, T0, **given, type="subscriptions/listen", duration_us=9_000_000),
        event(one, T0 + 1000, **given, duration_us=2000),
        event(one, T0 + 2000, direction=Direction.TO_CLIENT, status=Status.SUCCEEDED, duration_us=7000),
        event(one, T0 + 3000, kind=Kind.NOTIFICATION, direction=Direction.TO_SERVER),
    ]
    record(tmp_path / "tap.db", Batch([one], lines))

    async def work() -> None:
        async with reading(tmp_path / "tap.db") as reader:
            totals = await reader.totals(ALL)
            assert (totals["calls"], totals["p99_ms"]) == (2, 2.0)

    run(work())


def test_an_empty_recording_has_figures(tmp_path: Path) -> None:
    record(tmp_path / "tap.db")

    async def work() -> None:
        async with reading(tmp_path / "tap.db") as reader:
            for asked in (ALL, where("since:1h")):
                totals = await reader.totals(asked)
                assert (totals["calls"], totals["p95_ms"], totals["exact"]) == (0, None, True)
                assert sum(row["calls"] for row in await reader.series(asked)) == 0
                for rows in (reader.heatmap, reader.matrix, reader.tools, reader.clients, reader.errors):
                    assert await rows(asked) == []
            facts = await reader.facts()
            assert (facts["events"], facts["oldest"], facts["upstreams"]) == (0, None, [])

    run(work())


def test_a_histogram_is_within_three_percent() -> None:
    chance = random.Random(7)
    durations = [int(chance.lognormvariate(9, 2)) + 1 for _ in range(5000)]
    whole = histogram.histogram(durations)
    assert sum(calls for _, calls in histogram.buckets(whole)) == 5000
    for q, found in zip((1, 50, 95, 99), histogram.percentiles(whole, 1, 50, 95, 99), strict=True):
        assert found is not None
        assert math.isclose(found, nearest([float(each) for each in durations], q) / 1000, rel_tol=0.03)
    halves = histogram.histogram(durations[:2000]) + histogram.histogram(durations[2000:])
    assert halves == whole == histogram.unpack(histogram.pack(whole))
    assert histogram.percentiles(0, 50) == [None]
    assert (histogram.pack(0), histogram.unpack(None)) == (None, 0)
    assert statistics.fmean(map(histogram.bucket, (0, 1))) == 0
    assert histogram.bucket(2**62) < 700


def test_a_range_is_that_of_the_filter_else_of_the_recording(plain: Path) -> None:
    db = sqlite3.connect(plain)
    first, last = db.execute("SELECT min(at_us) / 1000 * 1000, max(at_us) / 1000 * 1000 FROM timeline").fetchone()
    assert bounds(db, ALL) == Range(first, last + 1000)
    assert bounds(db, where("since:1h")) == Range(NOW_US - HOUR, NOW_US)
    db.close()
