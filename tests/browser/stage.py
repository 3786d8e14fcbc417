"""What is played in front of the browser: the demo's server with a few tools of its own, the tap, and clients.

Nothing here is asyncio for whoever uses it: Playwright's sync API occupies the thread's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
import uvicorn

from mcp_tap.demo import play, shop
from mcp_tap.demo.server import SampleServer
from mcp_tap.demo.shop import Caller, Json
from tests.tap import HEADERS, PATIENCE, Tap, rpc, running

#: Everything that a page must show and not obey: markup, a handler, a terminal's escapes, marks that turn text around.
HOSTILE: Final = (
    "<script>window.owned = 1</script><img src=x onerror='window.owned=1'><svg onload='window.owned=1'>"
    "</textarea></template><a href='javascript:window.owned=1'>x</a>{{7*7}}"
    "\x1b[31mred\x1b[0m\x1b]0;title\x07 abc\u202egnp.exe\u2066 zero\u200bwidth \u0000 end"
)

LONG: Final = 10_000_000


class _Quiet(uvicorn.Server):
    """uvicorn in a thread, where there are no signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Stage:
    """A sample server in a thread.

    Its tools `hold` and `export_orders` answer once they are told to; `hostile` and `long` are nasty.
    """

    def __init__(self, seconds: float = 0.05) -> None:
        self._sample = SampleServer(seconds)
        self._held: list[tuple[asyncio.Event, list[str]]] = []
        self._sample._shop.tools |= {
            "hold": self._hold,
            "export_orders": self._hold,
            "hostile": self._hostile,
            "long": self._long,
        }
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        config = uvicorn.Config(self._sample.app, lifespan="off", log_level="error", timeout_graceful_shutdown=1)
        self._server = _Quiet(config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(listener,))
        self._thread.start()

    def _run(self, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._server.serve(sockets=[listener]))

    async def _hold(self, _: Json, __: Caller) -> Json:
        released, fault = asyncio.Event(), list[str]()
        self._held.append((released, fault))
        await released.wait()
        if fault:
            raise shop.ToolError(fault[0])
        return {"content": [{"type": "text", "text": "released"}]}

    async def _hostile(self, _: Json, __: Caller) -> Json:
        return {"content": [{"type": "text", "text": HOSTILE}], "isError": True}

    async def _long(self, _: Json, __: Caller) -> Json:
        return {"content": [{"type": "text", "text": "0123456789" * (LONG // 10)}]}

    def wire(self, desk: str) -> Wire:
        """Return a wire to the desk."""
        return Wire(self._loop, desk)

    def release(self, fault: str = "") -> None:
        """Let the oldest held call be answered, by an error if a text is given."""

        def let_go() -> None:
            released, told = self._held.pop(0)
            if fault:
                told.append(fault)
            released.set()

        self._loop.call_soon_threadsafe(let_go)

    def stop(self) -> None:
        """Let every held call go, end open streams and the server."""
        for _ in self._held[:]:
            self.release()
        self._loop.call_soon_threadsafe(self._sample.close_streams)
        self._server.should_exit = True
        self._thread.join(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


class Wire:
    """What a browser reaches the desk through when the wire between them is to be cut. Lives in the stage's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, desk: str) -> None:
        self._loop = loop
        self._port = int(desk.rstrip("/").rpartition(":")[2])
        self._open: set[asyncio.StreamWriter] = set()
        self._broken = False
        listening = asyncio.start_server(self._carry, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(listening, loop).result(PATIENCE)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._broken:
            writer.transport.abort()
            return
        answers, requests = await asyncio.open_connection("127.0.0.1", self._port)
        self._open |= {writer, requests}
        await asyncio.gather(self._pass(reader, requests), self._pass(answers, writer))
        self._open -= {writer, requests}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        """Break every connection, and refuse new ones until `mend`."""
        self._broken = True
        for writer in [*self._open]:
            self._loop.call_soon_threadsafe(writer.transport.abort)

    def mend(self) -> None:
        """Let new connections through."""
        self._broken = False

    def close(self) -> None:
        """End it."""
        self.cut()
        self._loop.call_soon_threadsafe(self._server.close)


class Client:
    """A small client of the legacy era: `call` waits for the answer, `begin` does not."""

    def __init__(self, url: str, name: str = "stage-client", version: str = "1.2.3") -> None:
        self.url = url
        self._http = httpx.Client(timeout=None, trust_env=False)  # a call may be held for long
        self._headers = dict(HEADERS)
        self.requests = 0
        self._waiting: list[threading.Thread] = []
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": name, "version": version},
        }
        answer = self._http.post(url, json=rpc("initialize", 0, **params), headers=self._headers)
        self.session = answer.headers["mcp-session-id"]
        self._headers |= {"mcp-session-id": self.session, "mcp-protocol-version": "2025-11-25"}
        self._http.post(url, json=rpc("notifications/initialized"), headers=self._headers)

    def request(self, method: str, **params: Any) -> Any:
        """Send a request and return the JSON-RPC answer."""
        self.requests += 1
        answer = self._http.post(self.url, json=rpc(method, self.requests, **params), headers=self._headers)
        if answer.headers["content-type"].startswith("text/event-stream"):
            lines = (line[5:] for line in answer.text.splitlines() if line.startswith("data:"))
            return next(message for message in map(json.loads, lines) if "method" not in message)
        return answer.json()

    def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool and return the JSON-RPC answer."""
        return self.request("tools/call", name=tool, arguments=arguments)

    def begin(self, tool: str, **arguments: Any) -> None:
        """Call a tool in a thread of its own."""
        thread = threading.Thread(target=self.call, args=(tool,), kwargs=arguments)
        self._waiting.append(thread)
        thread.start()

    def end(self) -> None:
        """End the session as the specification wants it."""
        self._http.delete(self.url, headers=self._headers)

    def close(self) -> None:
        """Wait for what was begun, and go away without a word."""
        for thread in self._waiting:
            thread.join(PATIENCE)
        self._http.close()


class Scene:
    """The stage, the tap in front of it, and its addresses."""

    def __init__(self, stage: Stage, tap: Tap) -> None:
        self.stage = stage
        self.tap = tap
        self.desk = tap.desk
        self._clients: list[Client] = []
        self._played = False

    def client(self, name: str = "stage-client", version: str = "1.2.3") -> Client:
        """Return a client that has shaken hands through the tap."""
        self._clients.append(Client(self.tap.proxy, name, version))
        return self._clients[-1]

    def recorded(self, client: Client) -> None:
        """Wait until what a client did and got is in the recording."""
        query = (
            f"select 1 from sessions where mcp_session_id = '{client.session}'"
            f" and calls > {client.requests} and open_calls = 0"
        )
        self.tap.until(lambda: self.tap.rows(query))

    def play(self) -> None:
        """Play one round of the demonstration, and a client that gets hostile answers; once."""
        if self._played:
            return
        self._played = True
        in_thread(lambda: asyncio.run(play(self.tap.proxy, once=True)))
        self.client("desk-assistant", "1.5.0").request("tools/list")
        nasty = self.client("<b>nasty</b>\u202e", "0")
        nasty.call("hostile", query="<script>alert(1)</script>")
        nasty.call("search_products")  # an argument is missing
        nasty.end()

    def close(self) -> None:
        """End every client."""
        for client in self._clients:
            client.close()


def in_thread(work: Any) -> None:
    """Do something that needs an event loop of its own; raises what it raised."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # handed over to the thread that waits
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


@contextlib.contextmanager
def scene(
    file: Path, *options: str, seconds: float = 0.05, environment: dict[str, str] | None = None
) -> Iterator[Scene]:
    """Run stage and tap; ``environment`` is added to the tap's."""
    with Stage(seconds) as stage, running(stage.url, file, *options, env=os.environ | (environment or {})) as tap:
        playing = Scene(stage, tap)
        try:
            yield playing
        finally:
            playing.close()
            tap.stop()
