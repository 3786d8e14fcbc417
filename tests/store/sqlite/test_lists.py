from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_tap.model import Batch, Event, Kind, Status, UsageError
from mcp_tap.store import ALL, Page, Paging, Reader
from mcp_tap.store.filters import Filter, parse
from mcp_tap.store.rows import iso
from mcp_tap.store.sqlite import lists

from ..plausible import at, morning
from ..recording import T0, connection, event, reading, record, run, writing

NOW = at("11:30:00")

Order = Literal["asc", "desc"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lists") / "tap.db"
    record(path, *morning())
    return path


async def walked(reader: Reader, paging: Paging, *, backwards: bool = False, where: Filter = ALL) -> list[int]:
    """Return the numbers of all rows, page by page from one end."""
    found: list[int] = []
    if backwards:
        last = (await reader.list_events(where, paging._replace(limit=1, order=_other(paging)))).rows
        paging = paging._replace(before=last[0]["event_id"])
        found = [last[0]["pk"]]
    while True:
        page = await reader.list_events(where, paging)
        numbers = [row["pk"] for row in page.rows]
        found = [*numbers, *found] if backwards else [*found, *numbers]
        if not (page.more_before if backwards else page.more_after):
            return found
        if backwards:
            paging = paging._replace(before=page.rows[0]["event_id"])
        else:
            paging = paging._replace(after=page.rows[-1]["event_id"])


def _other(paging: Paging) -> Order:
    return "asc" if paging.order == "desc" else "desc"


@pytest.mark.parametrize("sort", ["", "time", "latency_ms", "size"])
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("text", ["", "conn:scn_00000000000000000000000002", "tool:*"])
def test_pages_in_both_directions_hold_the_same_rows(path: Path, sort: str, order: Order, text: str) -> None:
    async def work() -> None:
        where = parse(text, now_us=NOW)
        async with reading(path) as reader:
            paging = Paging(limit=100, order=order, sort=sort)
            whole = [row["pk"] for row in (await reader.list_events(where, paging)).rows]
            assert len(whole) == len({*whole}) > 0
            for limit in (1, 3, len(whole)):
                small = paging._replace(limit=limit)
                assert await walked(reader, small, where=where) == whole
                assert await walked(reader, small, where=where, backwards=True) == whole

    run(work())


def test_a_session_is_in_its_own_order(tmp_path: Path) -> None:
    one = connection()
    lines = [event(one, at_us=T0 - n * 1000) for n in range(5)]  # a clock that runs backwards
    record(tmp_path / "tap.db", Batch([one], lines))

    async def work() -> None:
        async with reading(tmp_path / "tap.db") as reader:
            ascending = Paging(order="asc")
            for text in (f"conn:{one.id}", f"session:{one.session_id}"):
                rows = (await reader.list_events(parse(text, now_us=NOW), ascending)).rows
                assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5]
            assert [row["seq"] for row in (await reader.list_events(ALL, ascending)).rows] == [5, 4, 3, 2, 1]

    run(work())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), order=st.sampled_from(["asc", "desc"]), limit=st.integers(1, 9))
def test_what_is_written_meanwhile_neither_shifts_nor_repeats_a_row(
    tmp_path_factory: pytest.TempPathFactory, seed: int, order: Order, limit: int
) -> None:
    path = tmp_path_factory.mktemp("live") / "tap.db"
    chance = random.Random(seed)
    one = connection()

    def line(at_us: int) -> Event:
        return event(one, at_us=at_us, status=Status.SUCCEEDED)

    async def work() -> None:
        async with writing(path) as writer, reading(path) as reader:
            now_us = T0
            there = [line(now_us + chance.randrange(3) * 1000) for _ in range(chance.randrange(1, 30))]
            await writer.write(Batch([one], there))
            seen: list[int] = []
            paging = Paging(limit=limit, order=order)
            while True:
                page = await reader.list_events(ALL, paging)
                seen += [row["pk"] for row in page.rows]
                if not page.more_after:
                    break
                paging = paging._replace(after=page.rows[-1]["event_id"])
                if len(there) < 60:
                    now_us += 10_000
                    new = [line(now_us) for _ in range(chance.randrange(3))]
                    changed = chance.sample(there, min(2, len(there)))  # an update moves no row
                    there += new
                    await writer.write(Batch([one], [*new, *changed]))
            assert len(seen) == len({*seen})
            written = sorted(there, key=lambda each: (each.at_us // 1000, each.pk), reverse=order == "desc")
            numbers = [each.pk for each in written]
            if order == "asc":
                assert seen == numbers[: len(seen)]
                assert len(seen) >= len([each for each in there if each.at_us < T0 + 10_000])
            else:
                assert seen == numbers[len(numbers) - len(seen) :]

    run(work())


def test_a_row_that_is_gone_is_still_a_place(tmp_path: Path) -> None:
    path = tmp_path / "tap.db"
    ones = [connection(number) for number in range(1, 6)]
    record(path, Batch(ones, [event(one, at_us=T0 + number * 1000) for number, one in enumerate(ones)]))

    async def work() -> None:
        async with reading(path) as reader:
            lines = (await reader.list_events(ALL, Paging(order="asc"))).rows
            sessions = (await reader.list_sessions(ALL, Paging(order="asc"))).rows
            _delete(path, "DELETE FROM timeline WHERE pk IN (1, 3)")
            _delete(path, "DELETE FROM connection WHERE pk IN (1, 3)")
            cases: list[tuple[int, Order, list[int], list[int]]] = [
                (0, "asc", [2, 4, 5], []),
                (0, "desc", [], [5, 4, 2]),
                (2, "asc", [4, 5], [2]),
                (2, "desc", [2], [5, 4]),
            ]
            for gone, order, after, before in cases:
                for listed, name in (
                    (reader.list_events, lines[gone]["event_id"]),
                    (reader.list_sessions, sessions[gone]["connection_id"]),
                ):
                    page = await listed(ALL, Paging(order=order, after=name))
                    assert ([row["pk"] for row in page.rows], page.more_before) == (after, bool(before))
                    page = await listed(ALL, Paging(order=order, before=name))
                    assert ([row["pk"] for row in page.rows], page.more_after) == (before, bool(after))
            contexts = await reader.session_ids(ALL, Paging(order="asc", after=f"ses_{3:026d}"))
            assert [row["session_id"] for row in contexts.rows] == [f"ses_{4:026d}", f"ses_{5:026d}"]
            with pytest.raises(UsageError, match="gone") as caught:
                await reader.list_events(ALL, Paging(sort="latency_ms", after=lines[2]["event_id"]))
            assert (caught.value.code, bool(caught.value.hint)) == ("cursor", True)

    run(work())


def _delete(path: Path, sql: str) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute(sql)
    db.close()


def test_a_page_beyond_the_end_is_empty(path: Path) -> None:
    async def work() -> None:
        async with reading(path) as reader:
            for page in (
                await reader.list_events(ALL, Paging(order="asc", after=f"sev_{reader.replica}{25:012d}")),
                await reader.list_events(ALL, Paging(order="asc", after=f"sev_{reader.replica}{999999999999}")),
                await reader.list_sessions(ALL, Paging(order="asc", after="scn_zzzzzzzzzzzzzzzzzzzzzzzzzz")),
                await reader.session_ids(ALL, Paging(order="asc", after="ses_zzzzzzzzzzzzzzzzzzzzzzzzzz")),
            ):
                assert (page.rows, page.more_before, page.more_after) == ([], True, False)
                assert page.matched > 0
            nothing = await reader.list_events(parse("tool:nobody", now_us=NOW))
            assert nothing == Page([], more_before=False, more_after=False, matched=0)

    run(work())


@pytest.mark.parametrize(
    ("paging", "code"),
    [
        (Paging(after="12"), "cursor"),
        (Paging(after="scn_1"), "cursor"),
        (Paging(before="smg_x"), "cursor"),
        (Paging(after="'; DROP TABLE timeline"), "cursor"),
        (Paging(sort="name"), "sort"),
        (Paging(sort="time; DROP TABLE timeline"), "sort"),
    ],
)
def test_a_bad_place_or_order_is_refused(path: Path, paging: Paging, code: str) -> None:
    async def work() -> None:
        async with reading(path) as reader:
            await reader.list_events(ALL, paging)

    with pytest.raises(UsageError) as caught:
        run(work())
    assert caught.value.code == code
    assert caught.value.hint


@pytest.mark.parametrize(
    ("sort", "ascending"),
    [
        ("", [1, 2, 3, 4]),
        ("started", [1, 2, 3, 4]),
        ("client_name", [2, 1, 4, 3]),
        ("duration_ms", [4, 2, 3, 1]),
        ("calls", [4, 3, 1, 2]),
        ("errors", [3, 4, 1, 2]),
        ("last_active", [2, 1, 3, 4]),
    ],
)
def test_sessions_are_sorted_by_any_column(path: Path, sort: str, ascending: list[int]) -> None:
    async def work() -> None:
        async with reading(path) as reader:
            rows = (await reader.list_sessions(ALL, Paging(order="asc", sort=sort))).rows
            if sort in {"calls", "errors"}:  # two of them are equal, and then their numbers decide
                assert [row[sort] for row in rows] == sorted(row[sort] for row in rows)
            else:
                assert [row["pk"] for row in rows] == ascending
            descending = (await reader.list_sessions(ALL, Paging(order="desc", sort=sort))).rows
            assert descending == rows[::-1]
            second = await reader.list_sessions(ALL, Paging(2, "asc", sort, after=rows[0]["connection_id"]))
            assert second.rows == rows[1:3]

    run(work())


def test_a_session_says_more_about_itself(path: Path) -> None:
    async def work() -> None:
        async with reading(path) as reader:
            row = (await reader.list_sessions(parse("client:claude", now_us=NOW))).rows[0]
            assert row.keys() >= (await reader.session(row["connection_id"])).keys()
            assert (row["created"], row["updated"]) == ("2026-03-14T10:08:44.998Z", "2026-03-14T10:09:31.877Z")
            assert row["tool_calls"] == {"search_products": 1, "create_payment": 3}
            assert row["provider_id"].startswith("pde_")
            who = await reader.participants(row["session_id"])
            assert [(each["type"], each["name"], each["version"]) for each in who] == [
                ("mcp_client", "claude-desktop", "1.2.3"),
                ("provider", "shop", "2.1.0"),
            ]
            assert who[0]["id"] == row["participant_id"]
            assert [each["connection_ids"] for each in who] == [[row["connection_id"]]] * 2

    run(work())


def test_lines_are_kept_by_kind_and_know_their_client(path: Path) -> None:
    async def work() -> None:
        async with reading(path) as reader:
            page = await reader.list_events(ALL, Paging(100), kinds=frozenset({Kind.REQUEST.value}))
            assert {row["kind"] for row in page.rows} == {"request"}
            assert page.matched == 16 + 1  # one still waits
            row = page.rows[-1]
            assert (row["client_name"], row["client_version"]) == ("cursor", "0.50.1")
            assert row["mcp_session_id"] == "1f3a9c52-7d41-4c3e-9b7a-2f1f6f4f9a10"

    run(work())


def test_counting_stops_somewhere(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "COUNTED", 7)

    async def work() -> None:
        async with reading(path) as reader:
            assert (await reader.list_events(ALL, Paging(5))).matched == 7
            assert (await reader.list_events(parse("status:failed", now_us=NOW), Paging(1))).matched == 3

    run(work())


def test_changes_go_on_past_what_does_not_fit(path: Path) -> None:
    async def work() -> None:
        async with reading(path) as reader:
            where = parse("status:failed", now_us=NOW)
            found, after = [], 0
            while True:
                rows, following = await reader.changes(after, 4, where=where)
                found += [row["pk"] for row in rows]
                if following == after:
                    break
                after = following
            assert found == [5, 11, 12]
            assert after == (await reader.facts())["change"]
            rows, last = await reader.session_changes(0, 3)
            assert [row["pk"] for row in rows] == [1, 2, 3]
            assert [row["pk"] for row in (await reader.session_changes(last))[0]] == [4]
            assert await reader.session_changes(after) == ([], after)

    run(work())


@pytest.mark.parametrize("word", ["text:needle", "is:retry", "method:nothing"])
def test_what_only_looking_finds_is_looked_for_in_the_newest_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    path = tmp_path / "tap.db"
    one, two = connection(), connection(2)
    old = event(one, T0, kind=Kind.NOTIFICATION, note="a needle", attempt=2)
    new = event(two, T0 + 50_000_000, kind=Kind.NOTIFICATION, note="a needle", attempt=2)
    others = [event(two, T0 + n * 1_000_000, kind=Kind.NOTIFICATION) for n in range(1, 50)]
    record(path, Batch([one, two], [old, *others, new]))
    found = not word.startswith("method")

    async def work() -> None:
        async with reading(path) as reader:
            whole = await reader.list_events(parse(word, now_us=NOW))
            assert (len(whole.rows), whole.searched_until) == (2 * found, None)
            monkeypatch.setattr("mcp_tap.store.sqlite.lists.SEARCHED", 20)
            seen = []
            until: str | None = ""
            pages = 0
            while until is not None:
                asked = parse(f"{word} to:{until}" if until else word, now_us=NOW)
                page = await reader.list_events(asked)
                sessions = await reader.list_sessions(asked)
                assert {row["connection_id"] for row in sessions.rows} == {row["connection_id"] for row in page.rows}
                assert sessions.searched_until == page.searched_until
                seen += page.rows
                until = page.searched_until
                pages += 1
            assert seen == whole.rows
            assert pages == 3
            # within a range of few lines all of it is searched; what an index finds is found however old it is
            few = parse(f"{word} from:{iso(T0 + 40_000_000)}", now_us=NOW)
            assert (await reader.list_events(few)).searched_until is None
            named = parse(f"{word} conn:{one.id}", now_us=NOW)
            assert len((await reader.list_events(named)).rows) == found
            # nobody can say of a part of the lines which sessions have none
            assert (await reader.list_sessions(parse(f"-{word}", now_us=NOW))).searched_until is None

    run(work())


def test_what_is_everywhere_needs_no_end_of_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tap.db"
    one = connection()
    record(path, Batch([one], [event(one, T0 + n * 1_000_000, kind=Kind.NOTIFICATION, type="t") for n in range(50)]))
    monkeypatch.setattr("mcp_tap.store.sqlite.lists.SEARCHED", 20)
    for module in ("lists", "reader"):
        monkeypatch.setattr(f"mcp_tap.store.sqlite.{module}.COUNTED", 10)

    async def work() -> None:
        async with reading(path) as reader:
            asked, seen = parse("method:t", now_us=NOW), 0
            page = await reader.list_events(asked, Paging(15))
            while page.rows:
                assert page.searched_until is None
                seen += len(page.rows)
                page = await reader.list_events(asked, Paging(15, after=page.rows[-1]["event_id"]))
            assert seen == 50

    run(work())
