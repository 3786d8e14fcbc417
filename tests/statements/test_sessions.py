"""What the record says of a session: statements 17 to 27 of the transport session's contract, on the whole tap.

Where the contract speaks of an event that an API will show, the record has a line of the timeline: `session_end` with
its reason for `connection_disabled`, `session_reopened` for `connection_connected`, a failed message for
`error_occurred`. 21 is kept as a transparent tap has to: it never closes a stream of its own accord.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.sdk.harness import sample_server
from tests.statements.bench import Bench, bench, client, in_session, tool
from tests.statements.server import Asked, Reply, Server, serving
from tests.tap import HEADERS, call, initialize, rpc

MODERN = {"mcp-protocol-version": "2026-07-28", "mcp-method": "no/such"}


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    with sample_server() as url:
        yield url


@pytest.fixture(scope="module")
def tap(shop: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A tap in front of the sample server."""
    with bench(shop, tmp_path_factory.mktemp("shop") / "tap.db") as tapped:
        yield tapped


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as scripted:
        yield scripted


@pytest.fixture(scope="module")
def scripted(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A tap in front of the scripted server."""
    with bench(server.url, tmp_path_factory.mktemp("scripted") / "tap.db") as tapped:
        yield tapped


def test_03_another_id_changes_no_row(server: Server, scripted: Bench) -> None:
    async def other(asked: Asked, reply: Reply) -> None:
        await reply.result(asked, **{"mcp-session-id": "another-" + asked.headers["mcp-session-id"]})

    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        answer = await http.post(scripted.url, json=tool(1), headers=headers)
        assert answer.headers["mcp-session-id"] == "another-" + headers["mcp-session-id"]

    server.play = other
    session_id = in_session(scripted.url, converse)
    scripted.settle()
    assert scripted.connection(session_id)["calls"] == 2
    assert scripted.connections("another-" + session_id) == []


def test_03_another_id_is_a_line_of_the_timeline(server: Server, scripted: Bench) -> None:
    async def other(asked: Asked, reply: Reply) -> None:
        await reply.result(asked, **{"mcp-session-id": "other-" + asked.headers["mcp-session-id"]})

    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        for number in (1, 2):
            await http.post(scripted.url, json=tool(number), headers=headers)

    server.play = other
    session_id = in_session(scripted.url, converse)
    scripted.settle()
    (line,) = scripted.timeline(scripted.connection(session_id), "session_id_changed")
    assert (line["kind"], line["status"]) == ("lifecycle", None)
    assert f"other-{session_id}" in f"{line['name']} {line['note']}"  # the first one stands in the row


def test_03_who_goes_on_under_another_id_stays_in_the_row(server: Server, scripted: Bench) -> None:
    async def other(asked: Asked, reply: Reply) -> None:
        await reply.result(asked, **{"mcp-session-id": "next-" + asked.headers["mcp-session-id"][-32:]})

    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        answer = await http.post(scripted.url, json=tool(1), headers=headers)
        changed = headers | {"mcp-session-id": answer.headers["mcp-session-id"]}  # as the TypeScript SDK does
        await http.post(scripted.url, json=tool(2), headers=changed)

    server.play = other
    session_id = in_session(scripted.url, converse)
    scripted.settle()
    assert scripted.connections("next-" + session_id) == []
    assert scripted.connection(session_id)["calls"] == 3


def test_17_an_id_is_one_row_however_many_use_it_at_once(tap: Bench) -> None:
    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        await asyncio.gather(*(call(http, tap.url, headers, n, "search_products", query="x") for n in range(1, 21)))

    session_id = in_session(tap.url, converse)
    tap.settle()
    row = tap.connection(session_id)
    assert (row["calls"], row["errors"], row["origin"]) == (21, 0, "header")
    assert len({line["stream"] for line in tap.timeline(row, "tools/call")}) > 1


def test_17_an_unknown_id_is_one_row_however_many_use_it_at_once(shop: str, tap: Bench) -> None:
    async def converse() -> str:
        async with client() as http:
            headers = await initialize(http, shop)
            await asyncio.gather(*(call(http, tap.url, headers, n, "search_products", query="x") for n in range(1, 21)))
            return headers["mcp-session-id"]

    session_id = asyncio.run(converse())
    tap.settle()
    assert tap.connection(session_id)["calls"] == 20


def test_17_the_id_reaches_the_client_as_the_server_wrote_it(server: Server, scripted: Bench) -> None:
    async def converse() -> list[tuple[bytes, bytes]]:
        async with client() as http:
            return (await http.post(scripted.url, json=rpc("initialize", 0), headers=HEADERS)).headers.raw

    odd = "A!~ odd-but-visible%20id=" + uuid.uuid4().hex
    server.session_id = odd
    try:
        raw = asyncio.run(converse())
    finally:
        server.session_id = "new"
    assert (b"mcp-session-id", odd.encode()) in raw
    scripted.settle()
    assert scripted.connection(odd)["origin"] == "header"


def test_18_a_server_without_ids_gets_none(server: Server, scripted: Bench) -> None:
    heads: list[list[tuple[bytes, bytes]]] = []

    async def converse(url: str, agent: str) -> None:
        async with client(agent) as http:
            messages = rpc("initialize", 0), rpc("notifications/initialized"), tool(1)
            heads.extend([(await http.post(url, json=each, headers=HEADERS)).headers.raw for each in messages])

    async def play(asked: Asked, reply: Reply) -> None:
        await reply.result(asked)

    server.play, server.session_id = play, None
    try:
        asyncio.run(converse(server.url, "directly"))
        asyncio.run(converse(scripted.url, "stateless"))
    finally:
        server.session_id = "new"
    assert heads[:3] == heads[3:]
    scripted.settle()
    (row,) = scripted.tap.rows("SELECT * FROM connection WHERE user_agent = 'stateless'")
    assert (row["mcp_session_id"], row["origin"], row["calls"]) == (None, "derived", 2)


def test_21_a_delete_that_is_granted_ends_the_session_and_no_stream(server: Server, scripted: Bench) -> None:
    gate = server.gate()

    async def play(asked: Asked, reply: Reply) -> None:
        if asked.method == "GET":
            await reply.open()
            await reply.event(rpc("notifications/message", level="info", data="before"))
            await gate.wait()
            await reply.event(rpc("notifications/message", level="info", data="after"))
            await reply.end()
        else:
            await reply.answer(204)

    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        async with http.stream("GET", scripted.url, headers=headers) as stream:
            lines = stream.aiter_lines()
            assert "before" in await anext(lines)
            assert (await http.delete(scripted.url, headers=headers)).status_code == 204
            scripted.settle()
            assert scripted.connection(headers["mcp-session-id"])["open_streams"] == 1
            gate.open()
            assert any(["after" in line async for line in lines])

    server.play = play
    session_id = in_session(scripted.url, converse)
    scripted.settle()
    row = scripted.connection(session_id)
    assert (row["status"], row["state"], row["end_reason"]) == ("ended", "disconnected", "client_delete")
    assert row["open_streams"] == 0
    (end,) = scripted.timeline(row, "session_end")
    assert (end["at_us"], end["note"]) == (row["ended_us"], "client_delete")


@pytest.mark.parametrize("status", [405, 400, 500])
def test_21_a_delete_that_is_refused_ends_nothing(server: Server, scripted: Bench, status: int) -> None:
    async def play(asked: Asked, reply: Reply) -> None:
        await reply.answer(status)

    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        assert (await http.delete(scripted.url, headers=headers)).status_code == status

    server.play = play
    session_id = in_session(scripted.url, converse)
    scripted.settle()
    row = scripted.connection(session_id)
    assert (row["status"], row["state"], row["ended_us"], row["end_reason"]) == ("active", "connected", None, None)
    assert scripted.timeline(row, "session_end") == []
    assert row["errors"] == (0 if status == 405 else 1)  # 405 says that clients may not end sessions (2025-11-25)


def test_22_a_404_ends_the_session_and_passes_as_it_is(shop: str, tap: Bench) -> None:
    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        await http.delete(shop, headers=headers)  # past the tap: the server forgets the session by itself
        answers = [await http.post(url, json=tool(1), headers=headers) for url in (tap.url, shop)]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].content == answers[1].content

    session_id = in_session(tap.url, converse)
    tap.settle()
    row = tap.connection(session_id)
    assert (row["status"], row["end_reason"], row["errors"]) == ("ended", "session_not_found", 1)
    (failed,) = [line for line in tap.timeline(row) if line["status"] == "failed"]
    assert (failed["type"], failed["http_status"]) == ("tools/call", 404)
    assert len(tap.timeline(row, "session_end")) == 1


def test_22_no_other_404_and_no_other_refusal_ends_a_session(tap: Bench) -> None:
    """Deviation: in the model 400 does too, and there is one era only."""

    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        bad = await http.post(tap.url, content=b"[", headers=headers | {"content-type": "application/json"})
        elsewhere = await http.get(httpx.URL(tap.url).copy_with(path="/favicon.ico"))
        unknown = await http.post(tap.url, json=modern("no/such", 1), headers=headers | MODERN)
        assert [bad.status_code, elsewhere.status_code, unknown.status_code] == [400, 404, 404]

    session_id = in_session(tap.url, converse)
    tap.settle()
    row = tap.connection(session_id)
    assert (row["status"], row["end_reason"]) == ("active", None)
    assert tap.timeline(row, "no/such") == []  # the modern era knows no session ids (2026-07-28)


def modern(method: str, id: int) -> dict[str, object]:  # noqa: A002
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "tester", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return rpc(method, id, _meta=meta)


@pytest.mark.parametrize("status", [200, 204, 404, 405])
def test_23_a_delete_after_the_404_changes_nothing(server: Server, scripted: Bench, status: int) -> None:
    async def play(asked: Asked, reply: Reply) -> None:
        await reply.answer(404 if asked.method == "POST" else status)

    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        assert (await http.post(scripted.url, json=tool(1), headers=headers)).status_code == 404
        scripted.settle()
        ends.append(scripted.connection(headers["mcp-session-id"])["ended_us"])
        assert (await http.delete(scripted.url, headers=headers)).status_code == status

    ends: list[int] = []
    server.play = play
    session_id = in_session(scripted.url, converse)
    scripted.settle()
    row = scripted.connection(session_id)
    assert (row["end_reason"], row["ended_us"], row["errors"]) == ("session_not_found", ends[0], 1)
    assert (row["status"], row["state"]) == ("ended", "disconnected")
    assert len(scripted.timeline(row, "session_end")) == 1
    assert scripted.timeline(row, "session_reopened") == []


def test_24_a_new_initialize_continues_the_session(shop: str, tap: Bench) -> None:
    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        await http.delete(shop, headers=headers)
        assert (await http.post(tap.url, json=tool(1), headers=headers)).status_code == 404
        again.update(await initialize(http, tap.url))

    again: dict[str, str] = {}
    before = in_session(tap.url, converse)
    tap.settle()
    old, new = tap.connection(before), tap.connection(again["mcp-session-id"])
    assert (new["replaces"], new["session"]) == (old["id"], old["session"])
    assert (new["status"], old["end_reason"]) == ("active", "session_not_found")


def test_24_a_new_initialize_of_somebody_else_does_not(shop: str, tap: Bench) -> None:
    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        await http.delete(shop, headers=headers)
        assert (await http.post(tap.url, json=tool(1), headers=headers)).status_code == 404
        async with client("somebody else") as other:
            again.update(await initialize(other, tap.url))

    again: dict[str, str] = {}
    before = in_session(tap.url, converse)
    tap.settle()
    new = tap.connection(again["mcp-session-id"])
    assert new["replaces"] is None
    assert new["session"] != tap.connection(before)["session"]


def test_24_one_client_does_not_continue_what_another_like_it_began(shop: str, tap: Bench) -> None:
    """A server that is started anew in front of several agents with one identity: each has its own TCP connection."""

    async def converse() -> None:
        clients = [client("alike"), client("alike")]
        old = [await initialize(http, tap.url) for http in clients]
        for http, headers in zip(clients, old, strict=True):
            await http.delete(shop, headers=headers)
            assert (await http.post(tap.url, json=tool(1), headers=headers)).status_code == 404
        for http, headers in zip(clients, old, strict=True):
            again = await initialize(http, tap.url)
            pairs.append((headers["mcp-session-id"], again["mcp-session-id"]))
            await http.aclose()

    pairs: list[tuple[str, str]] = []
    asyncio.run(converse())
    tap.settle()
    for before, after in pairs:
        assert tap.connection(after)["replaces"] in (tap.connection(before)["id"], None)


def test_24_a_new_initialize_continues_an_adopted_session(shop: str, tap: Bench) -> None:
    """A tap and a server that are started anew together: the most usual 404 of all."""

    async def converse() -> None:
        async with client("adopted") as http:
            headers = await initialize(http, shop)
            await call(http, tap.url, headers, 1, "search_products", query="x")
            await http.delete(shop, headers=headers)
            assert (await http.post(tap.url, json=tool(2), headers=headers)).status_code == 404
            ids.append(headers["mcp-session-id"])
            ids.append((await initialize(http, tap.url))["mcp-session-id"])

    ids: list[str] = []
    asyncio.run(converse())
    tap.settle()
    old, new = (tap.connection(session_id) for session_id in ids)
    assert (new["replaces"], new["session"]) == (old["id"], old["session"])


def test_25_a_get_that_is_not_offered_is_no_error(server: Server, scripted: Bench) -> None:
    async def play(asked: Asked, reply: Reply) -> None:
        await reply.answer(405)

    async def converse(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        assert (await http.get(scripted.url, headers=headers)).status_code == 405

    server.play = play
    session_id = in_session(scripted.url, converse)
    scripted.settle()
    row = scripted.connection(session_id)
    assert (row["errors"], row["status"], row["open_streams"]) == (0, "active", 0)
    (get,) = scripted.timeline(row, "http")
    assert (get["http_status"], get["status"], get["failure_reason"]) == (405, "succeeded", None)


def test_26_a_session_that_was_idle_goes_on(shop: str, tmp_path: Path) -> None:
    async def converse(tap: Bench) -> str:
        async with client() as http:
            headers = await initialize(http, tap.url)
            session_id = headers["mcp-session-id"]
            row = tap.until(session_id, status="ended")
            assert (row["end_reason"], row["state"]) == ("idle_timeout", "disconnected")
            assert row["ended_us"] == row["last_active_us"]
            await call(http, tap.url, headers, 1, "search_products", query="x")
            tap.settle()
            return session_id

    with bench(shop, tmp_path / "tap.db", MCP_TAP_RECORD_SESSION_IDLE="1s") as tap:
        row = tap.connection(asyncio.run(converse(tap)))
    assert (row["status"], row["state"], row["end_reason"], row["ended_us"]) == ("active", "connected", None, None)
    types = [line["type"] for line in tap.timeline(row)]
    assert types[-4:-1] == ["session_end", "session_reopened", "tools/call"]  # then the end of the recording


def test_26_a_session_goes_on_when_the_tap_is_started_anew(shop: str, tmp_path: Path) -> None:
    async def again(http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        kept.update(headers)

    async def later(tap: Bench) -> None:
        async with client() as http:
            await call(http, tap.url, kept, 1, "search_products", query="x")

    kept: dict[str, str] = {}
    with bench(shop, tmp_path / "tap.db") as tap:
        session_id = in_session(tap.url, again)
    with bench(shop, tmp_path / "tap.db") as tap:
        ended = tap.connection(session_id)
        assert (ended["status"], ended["end_reason"]) == ("ended", "shutdown")
        asyncio.run(later(tap))
        tap.settle()
        row = tap.connection(session_id)
        assert (row["pk"], row["status"], row["state"], row["calls"]) == (ended["pk"], "active", "connected", 2)
        assert len(tap.timeline(row, "session_reopened")) == 1


def test_27_a_session_older_than_the_tap_is_adopted(shop: str, tap: Bench) -> None:
    async def converse() -> str:
        async with client() as http:
            headers = await initialize(http, shop)
            answer = await call(http, tap.url, headers, 1, "search_products", query="boots")
            assert "boots" in str(answer["result"]).lower()
            return headers["mcp-session-id"]

    session_id = asyncio.run(converse())
    tap.settle()
    row = tap.connection(session_id)
    assert row["origin_note"].startswith("adopted")
    unknown = ("started_us", "client_name", "client_version", "server_name", "server_version", "server_capabilities")
    assert [row[name] for name in unknown] == [None] * len(unknown)
    assert [line["type"] for line in tap.timeline(row)] == ["tools/call"]
