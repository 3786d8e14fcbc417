from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from mcp_tap.demo.client import ACCEPT, META, MODERN, LegacyClient, ModernClient
from mcp_tap.demo.server import RunningServer, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

Json = dict[str, Any]

INFO = {"name": "tester", "version": "1"}
LEGACY = {"mcp-protocol-version": "2025-11-25"}
DISCOVER = {"mcp-protocol-version": MODERN, "mcp-method": "server/discover"}
META_MEMBERS = {META + "protocolVersion": MODERN, META + "clientCapabilities": {}}


def with_server(test: Callable[[RunningServer, httpx.AsyncClient], Awaitable[None]]) -> None:
    async def run() -> None:
        async with running() as (server, http):
            await test(server, http)

    asyncio.run(run())


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[tuple[RunningServer, httpx.AsyncClient]]:
    server = await serve(seconds=0.01)
    try:
        async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
            yield server, http
    finally:
        await server.stop()


def request(method: str, params: Json | None = None, meta: Json | None = None) -> Json:
    params = (params or {}) | {"_meta": META_MEMBERS if meta is None else meta}
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        pytest.param(LEGACY, request("tools/list"), 400, -32600, id="no session"),
        pytest.param(LEGACY | {"mcp-session-id": "x"}, request("tools/list"), 404, -32001, id="unknown session"),
        pytest.param({}, b"{", 400, -32700, id="no JSON"),
        pytest.param({}, [request("ping")], 400, -32600, id="a batch"),
        pytest.param({"accept": "application/json"}, request("ping"), 406, -32600, id="Accept lacks the event stream"),
        pytest.param(
            {"mcp-protocol-version": "2099-01-01"}, request("server/discover"), 400, -32022, id="unknown revision"
        ),
        pytest.param(DISCOVER, request("server/discover", meta={}), 400, -32602, id="no metadata"),
        pytest.param(
            DISCOVER,
            request("server/discover", meta=META_MEMBERS | {META + "protocolVersion": "2025-11-25"}),
            400,
            -32020,
            id="header and _meta differ",
        ),
        pytest.param(DISCOVER, request("tools/list"), 400, -32020, id="Mcp-Method differs"),
        pytest.param(
            DISCOVER | {"mcp-method": "tools/call", "mcp-name": "b"},
            request("tools/call", {"name": "a"}),
            400,
            -32020,
            id="Mcp-Name differs",
        ),
        pytest.param(DISCOVER | {"mcp-method": "ping"}, request("ping"), 404, -32601, id="a removed method"),
        pytest.param(DISCOVER, {"jsonrpc": "2.0", "id": 1, "result": {}}, 400, -32600, id="a response"),
    ],
)
def test_what_breaks_a_rule_is_refused(headers: Json, body: Any, status: int, code: int) -> None:
    async def test(server: RunningServer, http: httpx.AsyncClient) -> None:
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        answer = await http.post(server.url, headers=ACCEPT | headers, **content)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert "mcp-session-id" not in answer.headers

    with_server(test)


def test_a_foreign_origin_is_forbidden_and_our_own_is_not() -> None:
    async def test(server: RunningServer, http: httpx.AsyncClient) -> None:
        for origin, status in (("http://evil.example", 403), ("http://localhost:3000", 200)):
            answer = await http.post(
                server.url, headers=ACCEPT | DISCOVER | {"origin": origin}, json=request("server/discover")
            )
            assert answer.status_code == status

    with_server(test)


def test_a_session_lives_from_initialize_to_delete() -> None:
    async def test(server: RunningServer, http: httpx.AsyncClient) -> None:
        client = LegacyClient(http, server.url, INFO, "2025-06-18")
        await client.open()
        session = client._session
        stream = ACCEPT | session
        async with client.listening():
            assert (await http.get(server.url, headers=stream)).status_code == 409
            assert (await client.call("ping"))["result"] == {}
        await client.close()
        assert (await http.get(server.url, headers=stream)).status_code == 404
        assert (await http.put(server.url, headers=stream)).status_code == 405

    with_server(test)


def test_a_payment_is_refused_twice_and_then_taken() -> None:
    async def test(server: RunningServer, http: httpx.AsyncClient) -> None:
        client = LegacyClient(http, server.url, INFO, "2025-11-25")
        await client.open()
        answers = [await client.tool("create_payment", order="A-1", card_token="x") for _ in range(3)]
        assert [answer.get("error", {}).get("code") for answer in answers] == [-32000, -32000, None]
        receipt = json.loads(answers[2]["result"]["content"][0]["text"])
        assert (receipt["order"], receipt["paid"]) == ("A-1", True)
        assert client.errors == 2

    with_server(test)


def test_a_legacy_tool_asks_on_the_stream_of_its_call() -> None:
    async def test(server: RunningServer, http: httpx.AsyncClient) -> None:
        client = LegacyClient(http, server.url, INFO, "2025-11-25")
        await client.open()
        answer = await client.tool("book_delivery", order="A-1")
        assert answer["result"]["content"][0]["text"] == "order A-1 comes on Tuesday"

    with_server(test)


def test_a_modern_tool_is_answered_by_a_second_request() -> None:
    async def test(server: RunningServer, http: httpx.AsyncClient) -> None:
        client = ModernClient(http, server.url, INFO)
        first = await client.tool("book_delivery", order="B-1")
        assert first["result"]["resultType"] == "input_required"
        (key,) = first["result"]["inputRequests"]
        answers = {key: {"action": "accept", "content": {"day": "Monday"}}}
        last = await client.tool_with_input("book_delivery", answers, order="B-1")
        assert last["result"]["resultType"] == "complete"
        assert last["result"]["content"][0]["text"] == "order B-1 comes on Monday"

    with_server(test)


def test_a_modern_client_without_elicitation_is_told_what_it_lacks() -> None:
    async def test(server: RunningServer, http: httpx.AsyncClient) -> None:
        headers = DISCOVER | {"mcp-method": "tools/call", "mcp-name": "=?base64?Ym9va19kZWxpdmVyeQ==?="}
        body = request("tools/call", {"name": "book_delivery", "arguments": {"order": "B-1"}})
        answer = await http.post(server.url, headers=ACCEPT | headers, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32021)

    with_server(test)


def test_the_first_import_changes_a_definition_and_says_so() -> None:
    async def test(server: RunningServer, http: httpx.AsyncClient) -> None:
        client = ModernClient(http, server.url, INFO)

        async def arguments() -> list[str]:
            tools = (await client.call("tools/list"))["result"]["tools"]
            return list(tools[0]["inputSchema"]["properties"])

        message = client._prepare("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        async with client._post(message) as (_, messages):
            acknowledged = await anext(messages)
            assert acknowledged["params"]["notifications"] == {"toolsListChanged": True}
            assert await arguments() == ["query"]
            for _ in range(2):
                await client.tool("import_catalog")
            assert await arguments() == ["query", "in_stock"]
            assert (await anext(messages))["method"] == "notifications/tools/list_changed"
            server._sample.close_streams()
            assert "result" in await anext(messages)  # nothing changed the second time
        found = (await client.tool("search_products", query="umbrella", in_stock=True))["result"]
        assert [product["sku"] for product in found["structuredContent"]["products"]] == ["UMB-01"]

    with_server(test)


def test_a_subscription_hears_of_the_import_and_ends_with_the_server() -> None:
    async def run() -> list[str]:
        heard = []
        async with running() as (server, http):
            client = ModernClient(http, server.url, INFO)
            message = client._prepare("subscriptions/listen", {"notifications": {"resourcesListChanged": True}})
            async with client._post(message) as (_, messages):
                heard.append(await anext(messages))
                await client.tool("import_catalog")
                heard.append(await anext(messages))
                server._sample.close_streams()
                heard.append(await anext(messages))
        assert heard[2]["id"] == message["id"]
        return [one.get("method", "result") for one in heard]

    kinds = ["notifications/subscriptions/acknowledged", "notifications/resources/list_changed", "result"]
    assert asyncio.run(run()) == kinds


@pytest.mark.parametrize("modern", [True, False])
def test_a_cancelled_call_ends_on_the_server(modern: bool) -> None:
    """The modern era cancels by closing the response stream, the legacy era by a notification."""

    async def test(server: RunningServer, http: httpx.AsyncClient) -> None:
        started, ended = asyncio.Event(), asyncio.Event()

        async def slow(_: Json, __: Any) -> Json:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return {}

        server._sample._shop.tools["slow_report"] = slow
        call = {"name": "slow_report", "arguments": {}}
        client = ModernClient(http, server.url, INFO) if modern else LegacyClient(http, server.url, INFO, "2025-11-25")
        if isinstance(client, LegacyClient):
            await client.open()
        message = client._prepare("tools/call", call)
        async with client._post(message) as (_, messages):
            await asyncio.wait_for(started.wait(), 5)
            if isinstance(client, LegacyClient):
                cancelled = {"method": "notifications/cancelled", "params": {"requestId": message["id"]}}
                await client._send(cancelled)
                assert [received async for received in messages] == []
        await asyncio.wait_for(ended.wait(), 5)

    with_server(test)


@pytest.mark.parametrize(
    ("asked", "agreed"),
    [
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2024-11-05", "2025-11-25"),
    ],
)
def test_a_session_speaks_the_revision_asked_for_or_the_latest(asked: str, agreed: str) -> None:
    async def test(server: RunningServer, http: httpx.AsyncClient) -> None:
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": asked}}
        answer = await http.post(server.url, headers=ACCEPT, json=body)
        assert answer.json()["result"]["protocolVersion"] == agreed

    with_server(test)


def test_an_unknown_resource_has_the_code_of_its_era() -> None:
    async def test(server: RunningServer, http: httpx.AsyncClient) -> None:
        legacy, modern = LegacyClient(http, server.url, INFO, "2025-11-25"), ModernClient(http, server.url, INFO)
        await legacy.open()
        for client, code in ((legacy, -32002), (modern, -32602)):
            assert (await client.call("resources/read", {"uri": "shop://cellar"}))["error"]["code"] == code
            known = await client.call("resources/read", {"uri": "shop://opening-hours"})
            assert known["result"]["contents"][0]["uri"] == "shop://opening-hours"

    with_server(test)
