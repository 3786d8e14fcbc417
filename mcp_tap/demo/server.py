"""The sample MCP server: one endpoint, `/mcp`, that speaks both eras of streamable HTTP.

`python -m mcp_tap.demo.server [PORT]` serves it on loopback and prints the port. Which era a request belongs to is
decided by its `MCP-Protocol-Version` header alone: one of the legacy revisions, or none, is a session that opens with
`initialize`; anything else stands for itself (revision 2026-07-28, "Streamable HTTP").
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import signal
import socket
import sys
import uuid
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from mcp_tap.demo import shop
from mcp_tap.demo.shop import INVALID_PARAMS, Json, RpcError, Shop, ToolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator

    from starlette.requests import Request

SERVER_INFO: Final = {"name": "weather-shop", "version": "1.0.0"}
INSTRUCTIONS: Final = "A sample shop. Payments are refused twice before they work."
CAPABILITIES: Final = {"tools": {"listChanged": True}, "resources": {"listChanged": True}, "prompts": {}}

LEGACY: Final = ("2025-11-25", "2025-06-18", "2025-03-26")
MODERN: Final = "2026-07-28"

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
SESSION_NOT_FOUND: Final = -32001
LEGACY_RESOURCE_NOT_FOUND: Final = -32002
HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022

#: HTTP statuses of errors in the modern era; all others travel in a 200.
MODERN_STATUS: Final = {METHOD_NOT_FOUND: 404, INVALID_PARAMS: 400, MISSING_CAPABILITY: 400}

META: Final = "io.modelcontextprotocol/"
#: Where `Mcp-Name` is copied from (2026-07-28, "Standard MCP Request Headers").
NAMED_BY: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
CACHEABLE: Final = frozenset({"tools/list", "prompts/list", "resources/list", "resources/read", "server/discover"})
#: What one may listen for, as `subscriptions/listen` names it (2026-07-28); a legacy GET stream gets all of it.
LISTS: Final = {"resources": "resourcesListChanged", "tools": "toolsListChanged"}
#: Tools that are answered by an event stream, because they have something to say before they are done.
STREAMED: Final = frozenset({"import_catalog", "slow_report"})

SSE_HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class InputRequired(Exception):  # noqa: N818 - the protocol's own word, and no error
    """A modern call that cannot go on without the person at the client."""

    def __init__(self, requests: Json) -> None:
        super().__init__("input required")
        self.requests = requests


class Stream:
    """What goes out on one event stream, besides the answer that ends it. None ends the stream."""

    def __init__(self) -> None:
        self.outbox: asyncio.Queue[Json | None] = asyncio.Queue()

    def send(self, method: str, params: Json, **members: Any) -> None:
        """Put a notification, or with an ``id`` a request of the server's own, on the stream."""
        self.outbox.put_nowait({"jsonrpc": "2.0", **members, "method": method, "params": params})

    async def messages(self) -> AsyncIterator[Json]:
        """Yield what is sent until the stream is ended."""
        while (message := await self.outbox.get()) is not None:
            yield message


class Session:
    """A legacy session: what `Mcp-Session-Id` stands for."""

    def __init__(self) -> None:
        self.stream: Stream | None = None  # of its GET
        self.can_elicit = False
        self.running: dict[str, asyncio.Task[Json]] = {}  # by the request's id as JSON: 1 and "1" differ
        self.asked: dict[int, asyncio.Future[Json]] = {}  # the server's own requests
        self.next_id = 1


class Call(Stream):
    """One request, seen by the tool that answers it."""

    def __init__(self, params: Json) -> None:
        super().__init__()
        self.params = params
        meta = params.get("_meta")
        self.meta: Json = meta if isinstance(meta, dict) else {}

    async def progress(self, done: int, total: int, message: str) -> None:
        """Send a progress notification if the request carries a token for it."""
        if (token := self.meta.get("progressToken")) is not None:
            params = {"progressToken": token, "progress": done, "total": total, "message": message}
            self.send("notifications/progress", params)


class LegacyCall(Call):
    """A request within a session."""

    def __init__(self, params: Json, session: Session) -> None:
        super().__init__(params)
        self._session = session

    async def ask(self, key: str, message: str, schema: Json) -> Json:
        """Send a request of the server's own on this request's stream; the client POSTs the answer."""
        if not self._session.can_elicit:
            raise ToolError("this tool asks a question, and the client has no `elicitation` capability")
        number, self._session.next_id = self._session.next_id, self._session.next_id + 1
        answer = self._session.asked[number] = asyncio.get_running_loop().create_future()
        self.send("elicitation/create", {"message": message, "requestedSchema": schema}, id=number)
        try:
            return _accepted(await answer)
        finally:
            del self._session.asked[number]


class ModernCall(Call):
    """A request that stands for itself."""

    async def ask(self, key: str, message: str, schema: Json) -> Json:
        """Return the answer that came with the request, or answer it by asking for one."""
        responses = self.params.get("inputResponses")
        if isinstance(responses, dict) and isinstance(responses.get(key), dict):
            return _accepted(responses[key])
        if "elicitation" not in self.meta[META + "clientCapabilities"]:
            need: Json = {"requiredCapabilities": {"elicitation": {}}}
            raise RpcError(MISSING_CAPABILITY, "the client has no `elicitation` capability", need)
        params = {"mode": "form", "message": message, "requestedSchema": schema}
        raise InputRequired({key: {"method": "elicitation/create", "params": params}})


def _accepted(result: Json) -> Json:
    if result.get("action") != "accept" or not isinstance(result.get("content"), dict):
        raise ToolError("the question was not answered")
    content: Json = result["content"]
    return content


class SampleServer:
    """The ASGI application. ``seconds`` scales every wait of its tools."""

    def __init__(self, seconds: float = 1.0) -> None:
        self._shop = Shop(seconds)
        self._sessions: dict[str, Session] = {}
        self._listening: dict[Stream, Json] = {}  # open long streams, and what each of them asked for
        self.app = Starlette(routes=[Route("/mcp", self._endpoint, methods=["GET", "POST", "DELETE", "PUT"])])

    def close_streams(self) -> None:
        """End every stream that would otherwise stay open for ever."""
        for stream in self._listening:
            stream.outbox.put_nowait(None)

    async def _endpoint(self, request: Request) -> Response:
        # "Servers MUST validate the Origin header" (all revisions); a client that is no page sends none.
        if (origin := request.headers.get("origin")) and urlsplit(origin).hostname not in ("localhost", "127.0.0.1"):
            return PlainTextResponse("origin not allowed", 403)
        version = request.headers.get("mcp-protocol-version")
        modern = version is not None and version not in LEGACY
        if request.method == "POST":
            return await self._post(request, version if modern else None)
        if modern or request.method == "PUT":
            return PlainTextResponse("method not allowed", 405, {"allow": "POST"})
        session_id = request.headers.get("mcp-session-id")
        if session_id is None:
            return _refusal(400, INVALID_REQUEST, "Mcp-Session-Id is missing")
        if (session := self._sessions.get(session_id)) is None:
            return _refusal(404, SESSION_NOT_FOUND, "no such session")
        return self._get(request, session) if request.method == "GET" else self._delete(session_id)

    async def _post(self, request: Request, modern: str | None) -> Response:
        accept = request.headers.get("accept", "")
        if "application/json" not in accept or "text/event-stream" not in accept:
            return _refusal(406, INVALID_REQUEST, "Accept must list application/json and text/event-stream")
        try:
            message = json.loads(await request.body())
        except ValueError:
            return _refusal(400, PARSE_ERROR, "the body is not JSON")
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            return _refusal(400, INVALID_REQUEST, "the body must be one JSON-RPC message")
        if modern is not None:
            return await self._modern(request, message, modern)
        return await self._legacy(request, message)

    # ------------------------------------------------------------------------------------------------ legacy era

    async def _legacy(self, request: Request, message: Json) -> Response:
        method, session_id = message.get("method"), request.headers.get("mcp-session-id")
        if method == "initialize" and "id" in message:
            return self._initialize(message)
        if session_id is None:
            return _refusal(400, INVALID_REQUEST, "Mcp-Session-Id is missing")
        if (session := self._sessions.get(session_id)) is None:
            return _refusal(404, SESSION_NOT_FOUND, "no such session", message.get("id"))
        params = _params(message)
        if method is None:
            waiting = session.asked.get(message["id"]) if isinstance(message.get("id"), int) else None
            if waiting and not waiting.done():
                waiting.set_result(message.get("result") or {})
            return Response(status_code=202)
        if "id" not in message:
            if method == "notifications/cancelled" and (task := session.running.get(_key(params.get("requestId")))):
                task.cancel()
            return Response(status_code=202)
        call, id_ = LegacyCall(params, session), message["id"]
        answer = self._answer(id_, method, call)
        if method != "tools/call" or params.get("name") not in STREAMED | {"book_delivery"}:
            return JSONResponse(await answer)
        task = session.running[_key(id_)] = asyncio.ensure_future(answer)
        task.add_done_callback(lambda _: session.running.pop(_key(id_), None))
        # "Disconnection SHOULD NOT be interpreted as the client cancelling its request" (2025-11-25): the call runs on.
        return _sse(self._call_stream(call, task, cancel=False))

    def _initialize(self, message: Json) -> Response:
        params, session, session_id = _params(message), Session(), uuid.uuid4().hex
        capabilities = params.get("capabilities")
        session.can_elicit = isinstance(capabilities, dict) and "elicitation" in capabilities
        self._sessions[session_id] = session
        asked = params.get("protocolVersion")
        result = {
            "protocolVersion": asked if asked in LEGACY else LEGACY[0],
            "capabilities": CAPABILITIES,
            "serverInfo": SERVER_INFO,
            "instructions": INSTRUCTIONS,
        }
        return JSONResponse(_result(message["id"], result), headers={"mcp-session-id": session_id})

    def _get(self, request: Request, session: Session) -> Response:
        if "text/event-stream" not in request.headers.get("accept", ""):
            return PlainTextResponse("Accept must list text/event-stream", 406)
        if session.stream is not None:
            return _refusal(409, SESSION_NOT_FOUND, "this session has a stream already")
        stream = session.stream = Stream()

        async def body() -> AsyncIterator[bytes]:
            self._listening[stream] = dict.fromkeys(LISTS.values(), True)
            try:
                async for message in stream.messages():
                    yield _event(message)
            finally:
                del self._listening[stream]
                session.stream = None

        return _sse(body())

    def _delete(self, session_id: str) -> Response:
        session = self._sessions.pop(session_id)
        if session.stream:
            session.stream.outbox.put_nowait(None)
        return Response(status_code=200)

    # ------------------------------------------------------------------------------------------------ modern era

    async def _modern(self, request: Request, message: Json, version: str) -> Response:
        method, params = message.get("method"), _params(message)
        if not isinstance(method, str):
            return _refusal(400, INVALID_REQUEST, "clients send requests and notifications only", message.get("id"))
        if "id" not in message:
            return Response(status_code=202)
        id_, call = message["id"], ModernCall(params)
        try:
            _check_metadata(request, method, call, version)
        except RpcError as error:
            return JSONResponse(_error(id_, error), 400)
        if method == "subscriptions/listen":
            return _sse(self._listen(id_, params))
        answer = self._answer(id_, method, call)
        if method == "tools/call" and params.get("name") in STREAMED:
            # Closing the response stream is how a modern client cancels, so the call ends with its stream.
            return _sse(self._call_stream(call, asyncio.ensure_future(answer), cancel=True))
        body = await answer
        code = body["error"]["code"] if "error" in body else 0
        return JSONResponse(body, MODERN_STATUS.get(code, 200))

    async def _listen(self, id_: Any, params: Json) -> AsyncIterator[bytes]:
        wanted, stream = params.get("notifications"), Stream()
        asked: Json = wanted if isinstance(wanted, dict) else {}
        honoured: Json = {kind: True for kind in LISTS.values() if asked.get(kind) is True}
        meta = {META + "subscriptionId": id_}
        stream.send("notifications/subscriptions/acknowledged", {"notifications": honoured, "_meta": meta})
        self._listening[stream] = honoured | {"_meta": meta}
        try:
            async for message in stream.messages():
                yield _event(message)
            yield _event(_result(id_, {"resultType": "complete", "_meta": meta}))
        finally:
            del self._listening[stream]

    # ------------------------------------------------------------------------------------------------- both eras

    async def _answer(self, id_: Any, method: str, call: LegacyCall | ModernCall) -> Json:
        """Return the JSON-RPC response to one request."""
        modern = isinstance(call, ModernCall)
        try:
            result = await self._result(method, call)
        except InputRequired as need:
            result = {"resultType": "input_required", "inputRequests": need.requests}
        except RpcError as error:
            return _error(id_, error)
        if modern:
            result = {"resultType": "complete", **result, "_meta": {META + "serverInfo": SERVER_INFO}}
            if method in CACHEABLE:
                result |= {"ttlMs": 0, "cacheScope": "public"}
        return _result(id_, result)

    async def _result(self, method: str, call: LegacyCall | ModernCall) -> Json:
        params, modern = call.params, isinstance(call, ModernCall)
        given = params.get("arguments")
        arguments: Json = given if isinstance(given, dict) else {}
        match method:
            case "server/discover" if modern:
                return {
                    "supportedVersions": [MODERN, *LEGACY],
                    "capabilities": CAPABILITIES,
                    "instructions": INSTRUCTIONS,
                }
            case "ping" if not modern:
                return {}
            case "tools/list":
                return {"tools": self._shop.listed()}
            case "tools/call":
                return await self._call_tool(str(params.get("name")), arguments, call)
            case "resources/list":
                return {"resources": shop.RESOURCES}
            case "resources/read":
                return shop.read_resource(
                    str(params.get("uri")), INVALID_PARAMS if modern else LEGACY_RESOURCE_NOT_FOUND
                )
            case "prompts/list":
                return {"prompts": shop.PROMPTS}
            case "prompts/get":
                return shop.get_prompt(str(params.get("name")), arguments)
        raise RpcError(METHOD_NOT_FOUND, f"no method {method}")

    async def _call_tool(self, name: str, arguments: Json, call: LegacyCall | ModernCall) -> Json:
        if (tool := self._shop.tools.get(name)) is None:
            raise RpcError(INVALID_PARAMS, f"no tool {name}")
        try:
            result = await tool(arguments, call)
        except ToolError as error:
            return {"content": [{"type": "text", "text": str(error)}], "isError": True}
        if name == "import_catalog":
            self._tell_changed("resources")
            if self._shop.take_import():
                self._tell_changed("tools")
        return result

    def _tell_changed(self, kind: str) -> None:
        """Tell whoever listens for it that a list is not what it was."""
        for stream, wanted in self._listening.items():
            if wanted.get(LISTS[kind]):
                stream.send(
                    f"notifications/{kind}/list_changed", {"_meta": wanted["_meta"]} if "_meta" in wanted else {}
                )

    async def _call_stream(self, call: Call, task: asyncio.Task[Json], *, cancel: bool) -> AsyncIterator[bytes]:
        task.add_done_callback(lambda _: call.outbox.put_nowait(None))
        try:
            async for message in call.messages():
                yield _event(message)
            if not task.cancelled():  # the receiver of a cancellation sends no response
                yield _event(task.result())
        finally:
            if cancel:
                task.cancel()


def _check_metadata(request: Request, method: str, call: ModernCall, version: str) -> None:
    """Raise RpcError when the headers or `_meta` of a modern request are not as 2026-07-28 wants them."""
    if version != MODERN:
        data = {"supported": [MODERN, *LEGACY], "requested": version}
        raise RpcError(UNSUPPORTED_VERSION, f"unsupported protocol version {version}", data)
    for key, kind in (("protocolVersion", str), ("clientCapabilities", dict)):
        if not isinstance(call.meta.get(META + key), kind):
            raise RpcError(INVALID_PARAMS, f"_meta lacks {META}{key}")
    if call.meta[META + "protocolVersion"] != version:
        raise RpcError(HEADER_MISMATCH, "MCP-Protocol-Version differs from _meta")
    if request.headers.get("mcp-method") != method:
        raise RpcError(HEADER_MISMATCH, "Mcp-Method differs from the body's method")
    named_by = NAMED_BY.get(method)
    if named_by and _decoded(request.headers.get("mcp-name", "")) != call.params.get(named_by):
        raise RpcError(HEADER_MISMATCH, f"Mcp-Name differs from the body's {named_by}")


def _decoded(value: str) -> str | None:
    """Return a header value without its Base64 wrapper; None when the wrapper is malformed."""
    if not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    try:
        return base64.b64decode(value[9:-2], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def _params(message: Json) -> Json:
    params = message.get("params")
    return params if isinstance(params, dict) else {}


def _key(id_: Any) -> str:
    return json.dumps(id_)


def _result(id_: Any, result: Json) -> Json:
    return {"jsonrpc": "2.0", "id": id_, "result": result}


def _error(id_: Any, error: RpcError) -> Json:
    body = {"code": error.code, "message": str(error)} | ({"data": error.data} if error.data else {})
    return {"jsonrpc": "2.0", "id": id_, "error": body}


def _refusal(status: int, code: int, message: str, id_: Any = None) -> Response:
    return JSONResponse(_error(id_, RpcError(code, message)), status)


def _event(message: Json) -> bytes:
    return b"event: message\ndata: " + json.dumps(message, ensure_ascii=False).encode() + b"\n\n"


def _sse(body: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(body, headers=SSE_HEADERS, media_type="text/event-stream")


# ------------------------------------------------------------------------------------------------------- running


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: whoever starts the sample server decides when it stops."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class RunningServer:
    """A sample server that accepts connections on ``port`` until `stop`."""

    def __init__(self, port: int, sample: SampleServer, server: uvicorn.Server, serving: Awaitable[None]) -> None:
        self.port = port
        self._sample = sample
        self._server = server
        self._serving = serving

    @property
    def url(self) -> str:
        """The MCP endpoint."""
        return f"http://127.0.0.1:{self.port}/mcp"

    async def stop(self) -> None:
        """End open streams, let running calls finish for a second, and free the port."""
        self._sample.close_streams()
        self._server.should_exit = True
        await self._serving


async def serve(host: str = "127.0.0.1", port: int = 0, *, seconds: float = 1.0) -> RunningServer:
    """Start the sample server and return it once its port accepts. OSError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    # asyncio does this itself for sockets that it makes; without it, Nagle and delayed ACKs cost 40 ms an answer.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sample = SampleServer(seconds)
    config = uvicorn.Config(sample.app, lifespan="off", log_level="error", timeout_graceful_shutdown=1)
    server = _Uvicorn(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    return RunningServer(listener.getsockname()[1], sample, server, serving)


async def _main(port: int) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = await serve(port=port)
    print(server.port, flush=True)  # noqa: T201 - how the parent learns it
    await stopped.wait()
    await server.stop()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
