"""The sample server with the habits that servers in the field have, each under a path of its own: `PATH/mcp`.

`python -m tests.faults.server` prints its port, and then lines of JSON: how each call of `slow_report` fares, and
when, on the monotonic clock in ns. Its tools take their time and say what time it is:

- `import_catalog` takes `steps`, and tells its progress every 200 ms, with the wall clock in µs as the message;
- `slow_report` takes half a minute. In the modern era it is cancelled with its stream, as the specification has it; in
  the legacy era it goes on, and says so after half a second.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import brotli
import uvicorn
import zstandard
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_tap.demo.server import SampleServer
from mcp_tap.demo.shop import Caller, Json

#: Seconds between two steps of `import_catalog`, and how many there are where nothing is said.
STEP: Final = 0.2
STEPS: Final = 4

#: Seconds that `slow_report` takes.
LONG: Final = 30.0

#: Seconds that the head of an answer is held back below `/held`; in the field it is a quarter of a minute and more.
HELD: Final = 0.5

#: Bytes of `/big`: the sockets of three hops hold up to 30 MB on their own.
BIG: Final = 96_000_000
PIECE: Final = bytes(64_000)

TOKEN: Final = "a-token-of-the-tests"

CODINGS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),  # the same bytes each time
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


async def import_catalog(arguments: Json, caller: Caller) -> Json:
    steps = arguments.get("steps", STEPS)
    for step in range(1, steps + 1):
        await asyncio.sleep(STEP)
        await caller.progress(step, steps, str(time.time_ns() // 1000))
    return {"content": [{"type": "text", "text": "imported"}]}


async def slow_report(_: Json, caller: Caller) -> Json:
    say("started")
    await caller.progress(0, 1, "started")
    try:
        await asyncio.sleep(0.5)
        say("goes on")
        await asyncio.sleep(LONG)
    except asyncio.CancelledError:
        say("cancelled")
        raise
    return {"content": []}


def say(what: str) -> None:
    print(json.dumps({"slow_report": what, "at_ns": time.monotonic_ns()}), flush=True)


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """Never answer; the client is the one that ends it."""
    while (message := await receive())["type"] != "http.disconnect":
        if not message.get("more_body"):
            say("started")
    say("cancelled")


def lingering(app: ASGIApp) -> ASGIApp:
    """Hold the end of an event stream back, after its last event, until the client has left."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        streaming = False

        async def late(message: Message) -> None:
            nonlocal streaming
            if message["type"] == "http.response.start":
                streaming = (b"content-type", b"text/event-stream; charset=utf-8") in message["headers"]
            elif streaming and not message.get("more_body"):
                while (await receive())["type"] != "http.disconnect":
                    pass
            await send(message)

        await app(scope, receive, late)

    return call


def held(app: ASGIApp) -> ASGIApp:
    """Hold the head of an answer back."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async def late(message: Message) -> None:
            if message["type"] == "http.response.start":
                await asyncio.sleep(HELD)
            await send(message)

        await app(scope, receive, late)

    return call


def compressed(app: ASGIApp) -> ASGIApp:
    """Compress whole answers as the client asks; event streams are compressed at their end, all at once."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        asked = dict(scope["headers"]).get(b"accept-encoding", b"").decode()
        start: Message = {}
        body = b""

        async def late(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
            data = CODINGS[asked](body) if body else b""
            headers += [(b"content-length", str(len(data)).encode()), (b"content-encoding", asked.encode())]
            await send({**start, "headers": headers})
            await send({"type": "http.response.body", "body": data})

        await app(scope, receive, late)

    return call


def guarded(app: ASGIApp) -> ASGIApp:
    """Want a token, and say where to get one (RFC 9728 §5.1)."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if dict(scope["headers"]).get(b"authorization") == f"Bearer {TOKEN}".encode():
            await app(scope, receive, send)
            return
        where = "http://127.0.0.1/.well-known/oauth-protected-resource/guarded/mcp"
        response = JSONResponse({"error": "invalid_token"}, 401)
        response.headers.append("www-authenticate", f'Bearer resource_metadata="{where}", scope="shop:read"')
        response.headers.append("WWW-Authenticate", 'Basic realm="the shop"')
        await response(scope, receive, send)

    return call


async def protected_resource(request: Request) -> Response:
    return JSONResponse({"resource": "http://127.0.0.1/guarded/mcp", "authorization_servers": ["http://127.0.0.1/"]})


async def authorization_server(request: Request) -> Response:
    return JSONResponse({"issuer": "http://127.0.0.1/", "token_endpoint": "http://127.0.0.1/token"})


async def big(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(BIG // len(PIECE)):
            yield number.to_bytes(8, "big") + PIECE[8:]

    return StreamingResponse(pieces(), media_type="application/octet-stream")


async def token(request: Request) -> Response:
    await request.body()
    return JSONResponse({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600})


def app() -> Starlette:
    sample = SampleServer()
    sample._shop.tools |= {"import_catalog": import_catalog, "slow_report": slow_report}
    layers: dict[str, Callable[[ASGIApp], ASGIApp]] = {
        "/lingering": lingering,
        "/held": held,
        "/compressed": compressed,
        "/guarded": guarded,
    }
    routes: list[Any] = [
        Route("/.well-known/oauth-protected-resource/guarded/mcp", protected_resource),
        Route("/.well-known/oauth-authorization-server", authorization_server),
        Route("/big", big),
        Route("/token", token, methods=["POST"]),
    ]
    routes += [Mount(path, layer(sample.app)) for path, layer in layers.items()]
    return Starlette(routes=[*routes, Mount("/silent", silent), Mount("/", sample.app)])


async def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = uvicorn.Server(uvicorn.Config(app(), lifespan="off", log_level="error", timeout_graceful_shutdown=1))
    print(listener.getsockname()[1], flush=True)
    await server.serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(main())
