"""The live stream over a real socket: in order, without gaps, and no more than a reader can take."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent

from mcp_tap.api import live
from mcp_tap.api.desk import Desk, Recording
from mcp_tap.app import _Server, application
from mcp_tap.model import Batch, Status
from mcp_tap.store import Writer
from mcp_tap.store.filters import Filter
from tests.api.asking import run
from tests.store.plausible import Scene, scene
from tests.store.recording import reading, writing


class Live:
    """A desk on a socket, and the writer of its recording."""

    def __init__(self, desk: Desk, writer: Writer, http: httpx.AsyncClient) -> None:
        self.desk = desk
        self.writer = writer
        self.http = http

    async def write(self, *told: Scene) -> None:
        """Write what is new of scenes."""
        for each in told:
            batch, each.batch = each.batch, Batch(connections=[each.connection])
            await self.writer.write(batch)

    @asynccontextmanager
    async def stream(self, query: str = "", **headers: str) -> AsyncIterator[Stream]:
        async with self.http.stream("GET", f"/api/live{query}", headers=headers) as answer:
            assert answer.status_code == 200, await answer.aread()
            yield Stream(answer)


class Stream:
    """One reader of a stream. ``id`` is that of the last message that had one."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.id = ""
        self._events = EventSource(answer).aiter_sse()

    async def next(self, *kinds: str) -> ServerSentEvent:
        """Return the next message, of these kinds where any are given."""
        while True:
            told = await asyncio.wait_for(anext(self._events), 20)
            self.id = told.id or self.id
            if not kinds or told.event in kinds:
                return told

    async def until(self, fits: Callable[[dict[str, Any]], bool], *kinds: str) -> list[dict[str, Any]]:
        """Return what is told up to the first thing that fits."""
        found = []
        while True:
            found.append((await self.next(*(kinds or ("event",)))).json())
            if fits(found[-1]):
                return found


@asynccontextmanager
async def living(path: Path, recording: Callable[[], Recording] = lambda: Recording(on=True)) -> AsyncIterator[Live]:
    async with writing(path) as writer, reading(path) as reader:
        desk = Desk(reader=reader, recording=recording)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = _Server(application(desk))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            try:
                async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as http:
                    yield Live(desk, writer, http)
            finally:
                desk.ending.set()
                server.should_exit = True
                await asyncio.wait_for(serving, 10)


def robot(number: int = 1, client: str = "robot") -> Scene:
    return scene(number, f"09:{number:02d}:00", client, "1")


def test_a_pending_call_turns_into_its_outcome(tmp_path: Path) -> None:
    async def work() -> None:
        async with living(tmp_path / "tap.db") as tap:
            told = robot()
            await tap.write(told)
            async with tap.stream("?of=events") as stream:
                assert (await stream.next()).event == "status"
                call = told.call("tools/call", "09:01:02", None, "search")
                await tap.write(told)
                pending = (await stream.next("event")).json()
                assert (pending["object"], pending["type"], pending["target"]) == (
                    "session.event", "message_created", "search",
                )  # fmt: skip
                assert pending["client"] == "robot 1"
                call.status, call.duration_us = Status.SUCCEEDED, 42_000
                told.batch.events.append(call)
                await tap.write(told)
                done = (await stream.next("event")).json()
                assert (done["id"], done["type"], done["latency_ms"]) == (pending["id"], "message_processed", 42)
                assert int(stream.id) == done["change"] > pending["change"]

    run(work())


def test_who_was_cut_off_goes_on_without_a_gap(tmp_path: Path) -> None:
    async def work() -> None:
        async with living(tmp_path / "tap.db") as tap:
            told = robot()
            told.call("tools/call", "09:01:01", 1, "a")
            waiting = told.call("tools/call", "09:01:02", None, "b")
            await tap.write(told)
            async with tap.stream("?change=0") as stream:
                seen = await stream.until(lambda event: event["target"] == "b")
                last = stream.id or (await stream.next()).id
                assert [event["name"] for event in seen] == ["session_start", "tools/call", "tools/call"]
            waiting.status, waiting.duration_us = Status.SUCCEEDED, 1000
            told.batch.events.append(waiting)
            for number in range(30):
                told.call("tools/call", f"09:02:{number:02d}", 1, f"c{number}")
            await tap.write(told)
            everything = ["b", *(f"c{number}" for number in range(30))]
            for query, headers in (
                (f"?change={last}", {}),
                (f"?after={last}", {}),
                ("?change=0", {"last-event-id": last}),
            ):
                async with tap.stream(query, **headers) as stream:
                    again = await stream.until(lambda event: event["target"] == "c29")
                    by_id = {event["id"]: event for event in again}  # a row may come twice, as it is now
                    assert {event["target"] for event in by_id.values()} >= set(everything)
                    assert len(by_id) <= len(everything) + 2
                    assert next(e for e in by_id.values() if e["target"] == "b")["status"] == "succeeded"

    run(work())


def test_what_is_written_while_a_reader_catches_up_is_not_missed(tmp_path: Path) -> None:
    async def work() -> None:
        async with living(tmp_path / "tap.db") as tap:
            told = robot()
            await tap.write(told)

            async def write() -> None:
                for number in range(60):
                    told.call("tools/call", "09:01:01", 1, f"c{number}")
                    await tap.write(told)

            async def follow() -> set[str]:
                async with tap.stream("?change=0&of=events") as stream:
                    return {event["target"] for event in await stream.until(lambda event: event["target"] == "c59")}

            *found, _ = await asyncio.gather(follow(), follow(), follow(), write())
            for each in found:
                assert each == {None, *(f"c{number}" for number in range(60))}

    run(work())


def test_a_stream_is_of_what_its_filter_says(tmp_path: Path) -> None:
    async def work() -> None:
        async with living(tmp_path / "tap.db") as tap:
            one, other = robot(1, "one"), robot(2, "other")
            await tap.write(one, other)
            async with tap.stream("?client=one&tool=a") as events, tap.stream("?of=sessions&client=one") as sessions:
                for stream in (events, sessions):
                    await stream.next("status")
                for told in (other, one):
                    for name in ("a", "b"):
                        told.call("tools/call", "09:05:00", 1, name)
                await tap.write(other, one)
                told_event = (await events.next("event")).json()
                assert (told_event["client"], told_event["target"]) == ("one 1", "a")
                told_session = (await sessions.next("event", "connection")).json()
                assert (told_session["object"], told_session["calls"]) == ("session.connection", 2)
                assert told_session["mcp"]["client"]["name"] == "one"
                assert told_session["mcp_session_id"] == "1f3a9c52…"

    run(work())


def test_of_a_flood_the_newest_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    async def work() -> None:
        async with living(tmp_path / "tap.db") as tap:
            told = robot()
            await tap.write(told)
            async with tap.stream("?of=events") as stream:
                await stream.next("status")
                for number in range(live.TOLD + 30):
                    told.call("tools/call", "09:05:00", 1, f"c{number}")
                await tap.write(told)
                assert (await stream.next("event", "skipped")).json() == {"count": 30}
                found = await stream.until(lambda event: event["target"] == f"c{live.TOLD + 29}")
                assert len(found) == live.TOLD
            async with tap.stream("?of=events&change=0") as stream:  # who asks for them gets them all
                assert len(await stream.until(lambda event: event["target"] == f"c{live.TOLD + 29}")) == live.TOLD + 31

    run(work())


def test_too_much_to_be_told_again_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MISSED", 20)

    async def work() -> None:
        async with living(tmp_path / "tap.db") as tap:
            told = robot()
            for number in range(50):
                told.call("tools/call", "09:05:00", 1, f"c{number}")
            await tap.write(told)
            async with tap.stream("?of=events&change=0") as stream:
                skipped = (await stream.next("skipped")).json()["count"]
                assert skipped >= 30
                assert len(await stream.until(lambda event: event["target"] == "c49")) <= 20

    run(work())


def test_many_readers_of_one_filter_are_one_question(tmp_path: Path) -> None:
    async def work() -> None:
        async with living(tmp_path / "tap.db") as tap:
            told = robot()
            await tap.write(told)
            asked: list[int] = []
            changes = tap.desk.reader.changes

            async def counting(*args: Any, **options: Any) -> Any:
                asked.append(args[0])
                return await changes(*args, **options)

            tap.desk.reader.changes = counting  # type: ignore[method-assign]
            async with (
                tap.stream("?of=events") as one,
                tap.stream("?of=events") as two,
                tap.stream("?of=events") as three,
            ):
                for stream in (one, two, three):
                    await stream.next("status")
                asked.clear()
                told.call("tools/call", "09:05:00", 1, "a")
                await tap.write(told)
                for stream in (one, two, three):
                    assert (await stream.next("event")).json()["target"] == "a"
                assert len(asked) == len(set(asked)) + asked.count(asked[0]) - 1  # nobody asked the same news twice
                assert len([after for after in asked if after != asked[0]]) <= 1

    run(work())


def test_nobody_listens_nothing_is_asked(tmp_path: Path) -> None:
    async def work() -> None:
        async with living(tmp_path / "tap.db") as tap:
            await tap.write(robot())
            async with tap.stream() as stream:
                await stream.next("status")
            assert (await tap.http.head("/api/live")).status_code == 200
            names = {"Hub._beat"}
            for _ in range(200):
                running = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
                if not names & running:
                    break
                await asyncio.sleep(0.02)
            assert not names & running

    run(work())


def test_a_reader_that_falls_behind_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "BEHIND", 3)

    async def work() -> None:
        reading_ = live.Reading()
        for _ in range(live.BEHIND):
            reading_.put(b"x")
        assert not reading_.behind.is_set()
        reading_.put(b"x")
        assert reading_.behind.is_set()
        async with living(tmp_path / "tap.db") as tap:
            told = robot()
            await tap.write(told)
            stuck, open_ = asyncio.Event(), []

            async def send(message: dict[str, Any]) -> None:
                open_.append(message)
                if message.get("more_body"):
                    stuck.set()
                    await asyncio.Event().wait()  # a peer that reads nothing

            async def receive() -> dict[str, Any]:
                await asyncio.Event().wait()
                return {}

            scope = {"type": "http", "method": "GET", "path": "/api/live", "query_string": b"of=events",
                     "headers": [(b"host", b"localhost")], "scheme": "http", "server": ("127.0.0.1", 1),
                     "root_path": ""}  # fmt: skip
            answering = asyncio.ensure_future(application(tap.desk)(scope, receive, send))  # type: ignore[arg-type]
            await stuck.wait()
            while not answering.done():
                told.call("tools/call", "09:05:00", 1, "a")
                await tap.write(told)
                await asyncio.wait([answering], timeout=live.PULSE)
            await answering
            assert "more_body" not in open_[-1]

    run(work())


async def plenty(tap: Live) -> Scene:
    """Write 400 calls: many parts of what a reader may have missed."""
    told = robot()
    for number in range(400):
        told.call("tools/call", "09:01:01", 1, f"old{number}")
    await tap.write(told)
    return told


def test_numbers_never_go_back_while_a_reader_catches_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # were news told before the rest of what was missed, a cut in between would lose that rest
    monkeypatch.setattr(live, "PULSE", 0.002)
    monkeypatch.setattr(live, "_ROWS", 20)

    async def work() -> None:
        async with living(tmp_path / "tap.db") as tap:
            told = await plenty(tap)

            async def write() -> None:
                for number in range(60):
                    told.call("tools/call", "09:01:01", 1, f"c{number}")
                    await tap.write(told)

            async def follow() -> tuple[list[int], set[str]]:
                numbers, names = [], set[str]()
                async with tap.stream("?change=0&of=events") as stream:
                    while "c59" not in names:
                        event = await stream.next("event")
                        names.add(event.json()["target"])
                        if event.id:
                            numbers.append(int(event.id))
                return numbers, names

            *found, _ = await asyncio.gather(follow(), follow(), write())
            everything = {None, *(f"old{number}" for number in range(400)), *(f"c{number}" for number in range(60))}
            for numbers, names in found:
                assert numbers == sorted(numbers)
                assert names == everything

    run(work())


def test_a_reader_that_stalls_while_it_catches_up_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "STALLED", 0.2)
    monkeypatch.setattr(live, "_ROWS", 20)

    async def work() -> None:
        async with living(tmp_path / "tap.db") as tap:
            await plenty(tap)
            reading_ = live.Reading()
            tail = live.Tail(tap.desk, live.Asked(Filter(), ("events",), revealed=False))
            beginning = asyncio.ensure_future(tail.begin(reading_, 0))
            await reading_.take()  # and never again
            await asyncio.wait_for(reading_.behind.wait(), 20)
            assert not reading_.present
            assert (await reading_.take()).count(b"event: event") <= 2 * 20  # what waited is no more than a part
            beginning.cancel()
            await asyncio.wait([beginning])

    run(work())


def test_how_recording_goes_is_told_when_it_changes(tmp_path: Path) -> None:
    now = [Recording(on=True)]

    async def work() -> None:
        async with living(tmp_path / "tap.db", lambda: now[0]) as tap, tap.stream() as stream:
            first = (await stream.next("status")).json()
            assert first == {
                "object": "status",
                "recording": True,
                "failing": None,
                "dropped": 0,
                "lost": 0,
                "streams": 0,
            }
            await asyncio.sleep(live.PULSE * 2)
            now[0] = Recording(on=True, failing="disk full", lost=7)
            second = (await stream.next("status")).json()
            assert (second["failing"], second["lost"]) == ("disk full", 7)

    run(work())


def test_a_quiet_stream_shows_that_it_lives_and_is_not_buffered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SIGN_OF_LIFE", 0.5)

    async def work() -> None:
        async with living(tmp_path / "tap.db") as tap, tap.http.stream("GET", "/api/live") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["x-accel-buffering"] == "no"
            assert answer.headers["cache-control"] == "no-store"
            assert "content-length" not in answer.headers
            lines = answer.aiter_lines()
            while not (await anext(lines)).startswith(":"):
                pass

    run(work())


def test_streams_end_with_the_desk(tmp_path: Path) -> None:
    async def work() -> None:
        async with living(tmp_path / "tap.db") as tap, tap.stream() as stream:
            await stream.next("status")
            tap.desk.ending.set()
            with pytest.raises(StopAsyncIteration):
                await stream.next("event")

    run(work())


@pytest.mark.parametrize("query", ["?of=rows", "?change=x", "?change=-1", "?clinet=x", "?q=statsu:failed", "?change=٣"])
def test_what_cannot_be_read_is_refused_before_the_stream(tmp_path: Path, query: str) -> None:
    async def work() -> None:
        async with living(tmp_path / "tap.db") as tap:
            answer = await tap.http.get(f"/api/live{query}")
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_data")

    run(work())
