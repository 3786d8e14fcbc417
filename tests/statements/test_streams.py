"""What the record says of streams: statements 19, 20, 28, 29, 30 and 32 of the transport session's contract.

31 speaks of sessions that the tap itself holds with servers, and comes with the gateway. The reasons of 32 are those of
the record: what a request came to whose stream was cut says who cut it. A stream of the legacy era that ended after
handing out an event id may go on by a GET, so what was asked on it waits as long as its session lasts. At a stop nobody
is accepted any more; the 503 of 30 is for who was accepted and waits for the server: `tests/relay/test_listener.py`.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.statements.bench import Bench, bench, client, in_session, tool
from tests.statements.server import Asked, Gate, Reply, Server, result, serving
from tests.tap import PATIENCE, initialize, rpc


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as scripted:
        yield scripted


@pytest.fixture(scope="module")
def tap(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(server.url, tmp_path_factory.mktemp("streams") / "tap.db") as tapped:
        yield tapped


def behind(gate: Gate) -> Callable[[Asked, Reply], Awaitable[None]]:
    """Open a stream at once and end it when the gate opens: a POST's with the answer."""

    async def play(asked: Asked, reply: Reply) -> None:
        await reply.open()
        await gate.wait()
        if asked.method == "POST":
            await reply.event(result(asked.id))
        await reply.end()

    return play


def test_19_open_streams_are_counted_up_and_down(server: Server, tap: Bench) -> None:
    posts, gate = 5, server.gate()

    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        async def get() -> None:
            await http.get(tap.url, headers=headers)

        async def post(number: int) -> None:
            answer = await http.post(tap.url, json=tool(number), headers=headers)
            assert json.loads(answer.text.removeprefix("data: ")) == result(number)

        calls = [asyncio.create_task(each) for each in (get(), *(post(number) for number in range(1, posts + 1)))]
        await asyncio.to_thread(tap.until, headers["mcp-session-id"], open_streams=posts + 1, open_calls=posts)
        gate.open()
        await asyncio.gather(*calls)

    server.play = behind(gate)
    session_id = in_session(tap.url, converse)
    row = tap.until(session_id, open_streams=0, open_calls=0)
    assert (row["calls"], row["errors"], row["status"]) == (posts + 1, 0, "active")


def test_20_a_client_that_leaves_a_stream_leaves_that_stream_only(server: Server, tap: Bench) -> None:
    gate, left = server.gate(), threading.Event()

    async def play(asked: Asked, reply: Reply) -> None:
        await reply.open()
        if asked.method == "GET":
            await gate.wait()
            await reply.end()
        else:
            await reply.until_left()
            left.set()

    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        async with http.stream("GET", tap.url, headers=headers):
            async with http.stream("POST", tap.url, json=tool(1), headers=headers):
                tap.until(headers["mcp-session-id"], open_streams=2)
            row = await asyncio.to_thread(tap.until, headers["mcp-session-id"], open_streams=1)
            assert left.is_set()
            assert (row["status"], row["state"]) == ("active", "connected")
            gate.open()

    server.play = play
    session_id = in_session(tap.url, converse)
    row = tap.until(session_id, open_streams=0)
    (call,) = tap.timeline(row, "tools/call")
    assert (call["status"], call["failure_reason"], call["code"]) == ("failed", "cancelled", "client_disconnected")
    (get,) = tap.timeline(row, "http")
    assert (get["status"], get["failure_reason"]) == ("succeeded", None)
    assert row["status"] == "active"


async def resumable(asked: Asked, reply: Reply) -> None:
    """Cut the stream of a POST after an event id, and answer on the GET that resumes it."""
    await reply.open()
    if asked.method == "POST":
        await reply.event(None, id="ev/1")
        reply.close()
    else:
        await reply.event(result(1), id="ev/2")
        await reply.end()


async def cut_and_resume(http: httpx.AsyncClient, url: str, headers: dict[str, str], got: list[bytes]) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await read(http, "POST", url, headers, got, json=tool(1))
    await read(http, "GET", url, headers | {"last-event-id": "ev/1"}, got)


async def read(
    http: httpx.AsyncClient, method: str, url: str, headers: dict[str, str], got: list[bytes], **body: Any
) -> None:
    """Collect the pieces of an answer's body."""
    async with http.stream(method, url, headers=headers, **body) as stream:
        async for piece in stream.aiter_raw():
            got.append(piece)  # noqa: PERF401  the pieces before an error count


def test_28_a_stream_that_is_resumed_belongs_to_the_same_row(server: Server, tap: Bench) -> None:
    got: list[bytes] = []

    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        await cut_and_resume(http, tap.url, headers, got)

    server.play = resumable
    session_id = in_session(tap.url, converse)
    assert server.asked[-1].headers["last-event-id"] == "ev/1"
    assert b"".join(got) == b"id: ev/1\ndata: \n\nid: ev/2\ndata: " + json.dumps(result(1)).encode() + b"\n\n"
    row = tap.until(session_id, open_streams=0, open_calls=0)
    (call,) = tap.timeline(row, "tools/call")
    (get,) = tap.timeline(row, "http")
    assert (call["status"], call["failure_reason"], get["status"]) == ("succeeded", None, "succeeded")
    assert call["at_us"] + call["duration_us"] >= get["at_us"]  # its answer came on the second stream
    assert row["errors"] == 0


def test_28_the_id_from_which_a_stream_is_resumed_is_noted(server: Server, tap: Bench) -> None:
    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        await cut_and_resume(http, tap.url, headers, [])

    server.play = resumable
    session_id = in_session(tap.url, converse)
    tap.settle()
    (get,) = tap.timeline(tap.connection(session_id), "http")
    assert "ev/1" in (get["note"] or "")


def test_29_an_event_without_data_is_passed_on_and_no_message(server: Server, tap: Bench) -> None:
    got: list[bytes] = []

    async def play(asked: Asked, reply: Reply) -> None:
        await reply.open()
        await reply.event(None, id="0")
        await reply.send(b"a\r\nid: 1\ndata\r\n2\r\n\n\n\r\n")  # without even a colon
        await reply.event(result(asked.id))
        await reply.end()

    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        await read(http, "POST", tap.url, headers, got, json=tool(1))

    server.play = play
    session_id = in_session(tap.url, converse)
    assert b"".join(got).startswith(b"id: 0\ndata: \n\nid: 1\ndata\n\n")
    tap.settle()
    row = tap.connection(session_id)
    lines = tap.timeline(row)
    assert [line["type"] for line in lines] == [
        "session_start",
        "initialize",
        "notifications/initialized",
        "tools/call",
    ]
    assert (lines[-1]["status"], lines[-1]["outcome"], row["messages"]) == ("succeeded", None, 3)
    assert lines[-1]["note"] is None  # nothing that could not be read
    assert len(json.loads(lines[-1]["sse_events"])) == 3


def test_29_a_batch_is_one_message_each(server: Server, tap: Bench) -> None:
    batch = [tool(1, "first"), rpc("notifications/message", level="info", data="x"), tool("2", "second")]  # type: ignore[arg-type]
    answers = [result("2"), result(1) | {"result": {"isError": True}}, rpc("notifications/message", level="info")]
    got: list[bytes] = []

    async def play(asked: Asked, reply: Reply) -> None:
        await reply.answer(200, answers)

    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        await read(http, "POST", tap.url, headers, got, json=batch)

    server.play = play
    session_id = in_session(tap.url, converse)
    assert json.loads(b"".join(got)) == answers
    tap.settle()
    lines = tap.timeline(tap.connection(session_id))[3:]
    assert [(line["kind"], line["direction"], line["name"], line["jsonrpc_id"], line["status"]) for line in lines] == [
        ("request", "client_to_server", "first", "1", "failed"),
        ("notification", "client_to_server", "info", None, "succeeded"),
        ("request", "client_to_server", "second", '"2"', "succeeded"),
        ("notification", "server_to_client", "info", None, "succeeded"),
    ]


def test_30_a_stop_lets_calls_end_cuts_the_rest_and_deletes_nothing(server: Server, tmp_path: Path) -> None:
    short, never = server.gate(), server.gate()

    async def play(asked: Asked, reply: Reply) -> None:
        if asked.method == "GET":
            await reply.open()
            await reply.until_left()
        else:
            await behind(short if asked.id == 1 else never)(asked, reply)

    async def converse(tap: Bench) -> str:
        async with client() as http:
            headers = await initialize(http, tap.url)
            session_id = headers["mcp-session-id"]
            ends, cut, idle = (
                asyncio.create_task(read(http, method, tap.url, headers, got, **body))
                for method, body in (("POST", {"json": tool(1)}), ("POST", {"json": tool(2)}), ("GET", {}))
            )
            await asyncio.to_thread(tap.until, session_id, open_streams=3)
            tap.tap.process.terminate()
            with pytest.raises(httpx.RemoteProtocolError):
                await idle  # a stream without a call is not waited for
            assert not ends.done()
            with pytest.raises(httpx.ConnectError):
                await http.post(tap.url, json=tool(3), headers=headers)
            short.open()
            await ends
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                await cut
            return session_id

    server.play = play
    got: list[bytes] = []
    deletes = len(server.asked_for("DELETE"))
    with bench(server.url, tmp_path / "tap.db", MCP_TAP_PROXY_DRAIN="1s") as tap:
        session_id = asyncio.run(converse(tap))
        assert tap.tap.process.wait(PATIENCE) == 0
    row = tap.connection(session_id)
    assert (row["status"], row["state"], row["end_reason"]) == ("ended", "disconnected", "shutdown")
    assert (row["open_streams"], row["open_calls"]) == (0, 0)
    assert [
        (line["jsonrpc_id"], line["status"], line["failure_reason"]) for line in tap.timeline(row, "tools/call")
    ] == [
        ("1", "succeeded", None),
        ("2", "failed", "abandoned"),
    ]
    assert len(server.asked_for("DELETE")) == deletes


# How a stream can end under a request.


async def resets(asked: Asked, reply: Reply) -> None:
    await reply.open()
    await reply.event(rpc("notifications/progress", progressToken=1, progress=1))
    reply.reset()


async def closes_early(asked: Asked, reply: Reply) -> None:
    await reply.open()
    await reply.event(rpc("notifications/progress", progressToken=1, progress=1))
    reply.close()


async def closes_without_a_word(asked: Asked, reply: Reply) -> None:
    reply.close()


async def ends_without_an_answer(asked: Asked, reply: Reply) -> None:
    await reply.open()
    await reply.end()


async def says_504(asked: Asked, reply: Reply) -> None:
    await reply.answer(504)


async def says_502(asked: Asked, reply: Reply) -> None:
    await reply.answer(502)


@pytest.mark.parametrize(
    ("play", "reason", "code"),
    [
        (resets, "transport_error", "connection_lost"),
        (closes_early, "transport_error", "connection_lost"),
        (closes_without_a_word, "transport_error", "connection_lost"),
        (ends_without_an_answer, "no_response", "no_response"),
        (says_504, "timeout", "504"),
        (says_502, "http_error", "502"),
    ],
)
def test_32_a_request_without_an_answer_has_failed(
    server: Server, tap: Bench, play: Callable[[Asked, Reply], Awaitable[None]], reason: str, code: str
) -> None:
    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        try:
            await http.post(tap.url, json=tool(1), headers=headers)
        except (httpx.RemoteProtocolError, httpx.ReadError):
            pass

    server.play = play
    session_id = in_session(tap.url, converse)
    row = tap.until(session_id, open_streams=0, calls=2)
    (call,) = tap.timeline(row, "tools/call")
    assert (call["status"], call["failure_reason"], call["code"]) == ("failed", reason, code)
    assert (row["errors"], row["open_calls"], row["status"]) == (1, 0, "active")


def test_32_what_the_server_asked_waits_as_long_as_the_session(server: Server, tap: Bench) -> None:
    """Its answer would come by a POST of its own, so that the end of the stream is no end of it."""

    async def play(asked: Asked, reply: Reply) -> None:
        if asked.method == "DELETE":
            await reply.answer(200)
        else:
            await reply.open()
            await reply.event(rpc("elicitation/create", 1, mode="form"))
            reply.reset()

    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await read(http, "POST", tap.url, headers, [], json=tool(1))
        row = await asyncio.to_thread(tap.until, headers["mcp-session-id"], open_streams=0, errors=1)
        (question,) = tap.timeline(row, "elicitation/create")
        assert (question["status"], question["direction"]) == ("waiting_for_response", "server_to_client")
        await http.delete(tap.url, headers=headers)

    server.play = play
    session_id = in_session(tap.url, converse)
    tap.settle()
    row = tap.connection(session_id)
    lines = [line for line in tap.timeline(row) if line["type"] in ("tools/call", "elicitation/create")]
    assert [(line["status"], line["failure_reason"], line["code"]) for line in lines] == [
        ("failed", "transport_error", "connection_lost"),
        ("failed", "abandoned", "client_delete"),
    ]
    assert row["open_calls"] == 0


async def deletes(tap: Bench, http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    await http.delete(tap.url, headers=headers)


async def is_gone(tap: Bench, http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    await http.post(tap.url, json=rpc("ping", 9), headers=headers)


@pytest.mark.parametrize(("end", "reason"), [(deletes, "client_delete"), (is_gone, "session_not_found")])
@pytest.mark.parametrize("leave", [False, True], ids=["the server closes", "the client leaves"])
def test_32_what_may_be_resumed_waits_as_long_as_its_session(
    server: Server,
    tap: Bench,
    end: Callable[[Bench, httpx.AsyncClient, dict[str, str]], Awaitable[None]],
    reason: str,
    leave: bool,
) -> None:
    async def play(asked: Asked, reply: Reply) -> None:
        if asked.method == "DELETE":
            await reply.answer(200)
        elif asked.rpc == "ping":
            await reply.answer(404)
        else:
            await reply.open()
            await reply.event(None, id="ev/1")
            if leave:
                await reply.until_left()
            else:
                await reply.end()

    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        session_id = headers["mcp-session-id"]
        async with http.stream("POST", tap.url, json=tool(1), headers=headers) as stream:
            async for _ in stream.aiter_raw():
                if leave:
                    break
        row = await asyncio.to_thread(tap.until, session_id, open_streams=0, open_calls=1)
        (call,) = tap.timeline(row, "tools/call")
        assert (call["status"], call["duration_us"]) == ("waiting_for_response", None)
        await end(tap, http, headers)

    server.play = play
    session_id = in_session(tap.url, converse)
    tap.settle()
    row = tap.connection(session_id)
    (call,) = tap.timeline(row, "tools/call")
    assert (call["status"], call["failure_reason"], call["code"]) == ("failed", "abandoned", reason)
    assert (row["status"], row["end_reason"], row["open_calls"]) == ("ended", reason, 0)
