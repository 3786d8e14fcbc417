"""The scripted clients of the demonstration: raw MCP over httpx, so that every byte on the wire is written here.

One round plays three clients: an assistant that is refused twice before its payment works, that changes a tool's
definition and ends its session, an editor on an older revision that just goes away, and an agent of the modern era
that is asked for input and gives up on a slow call.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpx
from httpx_sse import EventSource

from mcp_tap.model import UpstreamError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Json = dict[str, Any]

ACCEPT: Final = {"accept": "application/json, text/event-stream"}
META: Final = "io.modelcontextprotocol/"
MODERN: Final = "2026-07-28"
NAMED_BY: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}

#: Seconds between two rounds.
PAUSE: Final = 3.0

#: Seconds after which an impatient client gives up on a call that takes 1.5.
PATIENCE: Final = 0.4


class Played(NamedTuple):
    """What the clients did. ``calls`` are requests of the clients; ``errors`` those that were answered by one."""

    sessions: int = 0
    calls: int = 0
    errors: int = 0
    cancelled: int = 0

    def plus(self, other: Played) -> Played:
        """Add up two rounds."""
        return Played(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Client:
    """What both eras have in common: numbered requests, and answers that come as JSON or as an event stream."""

    def __init__(self, http: httpx.AsyncClient, url: str, info: Json) -> None:
        self.url = url
        self.info = info
        self.calls = self.errors = self.cancelled = 0
        self._http = http
        self._id = 0

    def _headers(self, message: Json) -> Json:
        raise NotImplementedError

    def _prepare(self, method: str, params: Json) -> Json:
        self._id += 1
        self.calls += 1
        return {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}

    async def call(self, method: str, params: Json | None = None) -> Json:
        """Send one request and return the whole JSON-RPC response. Counts errors, raises none of them."""
        message = self._prepare(method, params or {})
        async with self._post(message) as (response, messages):
            answer: Json = {}
            async for received in messages:
                if "method" not in received:
                    answer = received
                elif "id" in received:
                    await self._reply(received)
            if "error" in answer or answer.get("result", {}).get("isError"):
                self.errors += 1
            self._opened(response)
        return answer

    async def tool(self, name: str, **arguments: Any) -> Json:
        """Call a tool and return the whole JSON-RPC response."""
        return await self.call("tools/call", {"name": name, "arguments": arguments})

    @contextlib.asynccontextmanager
    async def _post(self, message: Json) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[Json]]]:
        headers = ACCEPT | self._headers(message)
        async with self._http.stream("POST", self.url, json=message, headers=headers) as response:
            yield response, _messages(response)

    def _opened(self, response: httpx.Response) -> None:
        """Look at the head of an answer, for a session id."""

    async def _reply(self, request: Json) -> None:
        """Answer a request of the server's."""
        raise NotImplementedError


class LegacyClient(Client):
    """A client of the revisions that open with `initialize`."""

    def __init__(self, http: httpx.AsyncClient, url: str, info: Json, revision: str) -> None:
        super().__init__(http, url, info)
        self._revision = revision
        self._session: Json = {}  # the headers that every request after `initialize` carries

    def _headers(self, message: Json) -> Json:
        return self._session

    def _opened(self, response: httpx.Response) -> None:
        if not self._session and (session := response.headers.get("mcp-session-id")):
            self._session = {"mcp-session-id": session, "mcp-protocol-version": self._revision}

    async def open(self) -> None:
        """Shake hands."""
        params = {
            "protocolVersion": self._revision,
            "capabilities": {"elicitation": {}},
            "clientInfo": self.info,
        }
        await self.call("initialize", params)
        await self._send({"method": "notifications/initialized"})

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Hold the session's GET stream open, reading what comes."""
        headers = {"accept": "text/event-stream"} | self._session
        async with self._http.stream("GET", self.url, headers=headers) as response:
            reading = asyncio.create_task(_drain(response))
            try:
                yield
            finally:
                reading.cancel()
                await asyncio.wait([reading])

    async def close(self) -> None:
        """End the session as the specification wants it: most clients in the field do not."""
        await self._http.delete(self.url, headers=self._session)

    async def _reply(self, request: Json) -> None:
        result = {"action": "accept", "content": {"day": "Tuesday"}}
        await self._send({"id": request["id"], "result": result})

    async def _send(self, message: Json) -> None:
        headers = ACCEPT | self._session
        await self._http.post(self.url, json={"jsonrpc": "2.0"} | message, headers=headers)


class ModernClient(Client):
    """A client of 2026-07-28: no session, everything a server needs to know is in each request."""

    def _prepare(self, method: str, params: Json) -> Json:
        meta = {
            META + "protocolVersion": MODERN,
            META + "clientCapabilities": {"elicitation": {}},
            META + "clientInfo": self.info,
        }
        return super()._prepare(method, params | {"_meta": meta})

    def _headers(self, message: Json) -> Json:
        headers = {"mcp-protocol-version": MODERN, "mcp-method": message["method"]}
        if named_by := NAMED_BY.get(message["method"]):
            headers["mcp-name"] = message["params"][named_by]
        return headers

    async def tool_with_input(self, name: str, answers: Json, **arguments: Any) -> Json:
        """Call a tool, and once more with the person's answers when it requires input."""
        params = {"name": name, "arguments": arguments}
        first = await self.call("tools/call", params)
        if first.get("result", {}).get("resultType") != "input_required":
            return first
        return await self.call("tools/call", params | {"inputResponses": answers})

    async def give_up(self, name: str, after: float) -> None:
        """Call a tool and close the response stream after some seconds, which cancels the call."""
        message = self._prepare("tools/call", {"name": name, "arguments": {}})
        async with self._post(message):
            await asyncio.sleep(after)
        self.cancelled += 1

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Hold a subscription open."""
        message = self._prepare("subscriptions/listen", {"notifications": {"resourcesListChanged": True}})
        async with self._post(message) as (_, messages):
            await anext(messages)  # the acknowledgement
            yield


async def _messages(response: httpx.Response) -> AsyncIterator[Json]:
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        async for event in EventSource(response).aiter_sse():
            if event.data:
                yield event.json()
    elif await response.aread():
        yield response.json()


async def _drain(response: httpx.Response) -> None:
    async for _ in response.aiter_raw():
        pass


# ----------------------------------------------------------------------------------------------------- the stories


async def _assistant(http: httpx.AsyncClient, url: str, number: int) -> Client:
    client = LegacyClient(http, url, {"name": "desk-assistant", "version": "1.4.2"}, "2025-11-25")
    order = f"A-{number}"
    await client.open()
    async with client.listening():
        await client.call("tools/list")
        await client.tool("search_products", query="umbrella")
        for _ in range(3):  # refused twice, then paid
            await client.tool("create_payment", order=order, card_token="tok_demo_4242")  # noqa: S106
            await asyncio.sleep(0.1)
        await client.tool("get_weather", city="Atlantis")
        await client.tool("get_weather", city="Hamburg")
        await client.tool("book_delivery", order=order)
        progress = {"_meta": {"progressToken": "import"}}
        await client.call("tools/call", {"name": "import_catalog", "arguments": {}} | progress)
        await client.call("tools/list")  # the first import gives search one argument more, and the server says so
    await client.close()
    return client


async def _editor(http: httpx.AsyncClient, url: str, number: int) -> Client:
    client = LegacyClient(http, url, {"name": "code-editor", "version": "0.9.0"}, "2025-06-18")
    await client.open()
    await client.call("tools/list")
    await client.call("resources/read", {"uri": "shop://opening-hours"})
    await client.call("prompts/get", {"name": "recommend_gear", "arguments": {"city": "Oslo"}})
    await client.tool("slow_report")
    await client.tool("refund_payment", order=f"A-{number}")  # there is no such tool
    return client


async def _agent(http: httpx.AsyncClient, url: str, number: int) -> Client:
    client = ModernClient(http, url, {"name": "travel-agent", "version": "2.0.1"})
    await client.call("server/discover")
    async with client.listening():
        await client.call("tools/list")
        await client.tool("get_weather", city="Lisbon")
        answers = {"day": {"action": "accept", "content": {"day": "Monday"}}}
        await client.tool_with_input("book_delivery", answers, order=f"B-{number}")
        await client.give_up("slow_report", after=PATIENCE)
        await client.tool("search_products", query="boots", in_stock=True)
    return client


async def _round(url: str, number: int) -> Played:
    origin = urlsplit(url)._replace(path="", query="").geturl()
    async with _http("curl/8.5.0") as http:
        # What a client does that looks for authorization first; this server wants none.
        await http.get(f"{origin}/.well-known/oauth-protected-resource/mcp")
    played = Played()
    for story, agent in ((_assistant, "desk-assistant/1.4.2"), (_editor, "code-editor/0.9.0"), (_agent, "python")):
        async with _http(agent) as http:
            client = await story(http, url, number)
        played = played.plus(Played(1, client.calls, client.errors, client.cancelled))
    return played


def _http(user_agent: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(headers={"user-agent": user_agent}, timeout=30, trust_env=False)


async def play(url: str, *, once: bool) -> Played:
    """Play the three clients against an MCP endpoint: one round, or rounds with pauses until cancelled.

    Raises UpstreamError when nothing answers there.
    """
    played, number = Played(), 1000
    while True:
        number += 1
        try:
            played = played.plus(await _round(url, number))
        except httpx.TransportError as error:
            raise UpstreamError(f"{url} does not answer: {error}", hint="is the sample server running?") from error
        if once:
            return played
        await asyncio.sleep(PAUSE)
