"""The server behind the taps: the sample server of the demonstration, which counts each numbered call as it arrives.

``python -m tests.soak.server SEEN [PORT]`` prints its port. It may be killed and started again at any moment.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from mcp_tap.demo.server import SampleServer, _Uvicorn
from tests.soak.ledger import Seen, read

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Counting:
    """ASGI middleware: counts calls when all of their body is there."""

    def __init__(self, application: ASGIApp, seen: Seen) -> None:
        self._application = application
        self._seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""

        async def counted() -> Message:
            nonlocal body
            message = await receive()
            if message["type"] == "http.request":
                body += message.get("body", b"")
                if not message.get("more_body"):
                    self._count(body)
            return message

        await self._application(scope, counted, send)

    def _count(self, body: bytes) -> None:
        try:
            message = json.loads(body)
        except ValueError:
            return
        if isinstance(message, dict) and message.get("method") == "tools/call":
            number = read(message.get("id"))
            if number is not None:
                self._seen.add(number)


async def _long_text(arguments: dict[str, Any], _: object) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": "mcp " * (arguments["size"] // 4)}]}


async def main(path: str, port: int) -> None:
    """Serve until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    sample = SampleServer()
    sample._shop.tools["long_text"] = _long_text
    listener = socket.create_server(("127.0.0.1", port))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    application = Counting(sample.app, Seen(Path(path)))
    server = _Uvicorn(uvicorn.Config(application, lifespan="off", log_level="critical", timeout_graceful_shutdown=1))
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    print(listener.getsockname()[1], flush=True)
    await stopped.wait()
    sample.close_streams()
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0))
