"""Plays a conversation into a tracker: what the two ends send, in the order in which the relay would see it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mcp_tap.channel import Closing
from mcp_tap.config import Redact
from mcp_tap.model import Body, Connection, Event, Side, ToolSeen
from mcp_tap.protocol.exchange import Stream
from mcp_tap.protocol.redact import Redactor
from mcp_tap.protocol.tracker import Tracker

#: 2026-11-21 10:00:00 UTC
START_US = 1_795_255_200_000_000
MS = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND


def rpc(method: str, id: object = None, **params: Any) -> dict[str, Any]:  # noqa: A002
    """Return a request, or without an id a notification."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if id is not None:
        message["id"] = id
    if params:
        message["params"] = params
    return message


def result(id: object, **result: Any) -> dict[str, Any]:  # noqa: A002
    """Return an answer."""
    return {"jsonrpc": "2.0", "id": id, "result": result}


def error(id: object, code: int, message: str) -> dict[str, Any]:  # noqa: A002
    """Return an error."""
    return {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}


def modern(method: str, id: object, *, client: str = "agent", **params: Any) -> dict[str, Any]:  # noqa: A002
    """Return a request of revision 2026-07-28."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": client, "version": "1.0"},
        "io.modelcontextprotocol/clientCapabilities": {},
        **params.pop("_meta", {}),
    }
    return rpc(method, id, **params, _meta=meta)


class Wire:
    """A tracker, a clock that is set by hand, and all rows that came of it, in their last state."""

    def __init__(self, *, max_body: int = 64_000, **options: Any) -> None:
        self.tracker = Tracker(Redactor(Redact(), bodies="redacted", max_body=max_body), **options)
        self.now = START_US
        self._streams = 0
        self._events: dict[int, Event] = {}
        self._connections: dict[int, Connection] = {}
        self._bodies: list[Body] = []
        self._tools: list[ToolSeen] = []

    def tcp(self, peer: str = "127.0.0.1:50001", *, resumed: bool = False) -> Tcp:
        """Open a TCP connection."""
        self._streams += 1
        return Tcp(self, Stream(self._streams, self.tracker, peer=peer, upstream="http://up/mcp", resumed=resumed))

    def wait(self, us: int) -> None:
        """Let time pass."""
        self.now += us

    def tick(self) -> None:
        """Let the tracker look at the clock."""
        self.tracker.tick(self.now)

    def take(self) -> None:
        """Collect what is new, as a recorder does."""
        batch = self.tracker.take()
        self._events |= {id(event): event for event in batch.events}
        self._connections |= {id(row): row for row in batch.connections}
        self._bodies += batch.bodies
        self._tools += batch.tools

    @property
    def connections(self) -> list[Connection]:
        self.take()
        return list(self._connections.values())

    @property
    def events(self) -> list[Event]:
        """All rows in the order of a timeline."""
        self.take()
        return sorted(self._events.values(), key=lambda event: (event.at_us, event.seq))

    @property
    def tools(self) -> list[ToolSeen]:
        self.take()
        return self._tools

    @property
    def bodies(self) -> list[Body]:
        self.take()
        return self._bodies

    def one(self, type: str) -> Event:  # noqa: A002
        """Return the only row of a type."""
        (event,) = [event for event in self.events if event.type == type]
        return event

    def types(self) -> list[str]:
        return [event.type for event in self.events]

    def body(self, event: Event, side: Side) -> str | None:
        self.take()
        texts = [body.data for body in self._bodies if body.event is event and body.side is side]
        return texts[0] if texts else None


class Tcp:
    """One TCP connection through the tap. Every step takes a millisecond."""

    def __init__(self, wire: Wire, stream: Stream) -> None:
        self.wire = wire
        self.stream = stream

    def client(self, data: bytes) -> None:
        self.wire.now += MS
        self.stream.client(data, self.wire.now)

    def server(self, data: bytes) -> None:
        self.wire.now += MS
        self.stream.server(data, self.wire.now)

    def request(self, method: str, body: object = None, **headers: str) -> None:
        """Send a request; a body that is not bytes is sent as JSON."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"host": "up", "user-agent": "test"} | headers
        if data:
            headers = {"content-type": "application/json"} | headers | {"content-length": str(len(data))}
        self.client(f"{method} /mcp HTTP/1.1\r\n{_lines(headers)}\r\n".encode() + data)

    def post(self, *messages: object, **headers: str) -> None:
        """POST one message, or several as a batch."""
        self.request("POST", messages[0] if len(messages) == 1 else list(messages), **headers)

    def answer(self, status: int, body: object = None, **headers: str) -> None:
        """Answer; a body that is not bytes is sent as JSON."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        if data:
            headers = {"content-type": "application/json"} | headers
        if status not in (204, 304):
            headers |= {"content-length": str(len(data))}
        self.server(f"HTTP/1.1 {status} Reason\r\n{_lines(headers)}\r\n".encode() + data)

    def open_stream(self, **headers: str) -> None:
        """Answer with the head of an event stream."""
        headers = {"content-type": "text/event-stream", "transfer-encoding": "chunked"} | headers
        self.server(f"HTTP/1.1 200 OK\r\n{_lines(headers)}\r\n".encode())

    def event(self, message: object, *, id: str | None = None) -> None:  # noqa: A002
        """Send one event of the open stream."""
        text = message if isinstance(message, str) else json.dumps(message)
        data = (f"id: {id}\r\n" if id is not None else "").encode() + f"event: message\r\ndata: {text}\r\n\r\n".encode()
        self.server(b"%x\r\n%s\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self.server(b"0\r\n\r\n")

    def sse(self, *messages: object, **headers: str) -> None:
        """Answer with a whole event stream."""
        self.open_stream(**headers)
        for message in messages:
            self.event(message)
        self.end_stream()

    def close(self, how: bytes = Closing.END, *, by: str = "client") -> None:
        """End the connection: both directions in order, begun by one side, or by a reset."""
        self.wire.now += MS
        if how == Closing.END and by == "client":
            self.stream.client_eof()
            self.stream.server_eof(self.wire.now)
        elif how == Closing.END:
            self.stream.server_eof(self.wire.now)
            self.stream.client_eof()
        self.stream.close(how, self.wire.now)
        self.wire.tracker.stream_closed(self.stream)


def initialize(
    tcp: Tcp,
    session_id: str | None = "S1",
    *,
    id: object = 0,  # noqa: A002
    client: str = "claude",
    version: str = "2025-11-25",
    headers: Sequence[tuple[str, str]] = (),
) -> None:
    """Go through the handshake of the legacy era."""
    info = {"name": client, "version": "1.2.3"}
    tcp.post(rpc("initialize", id, protocolVersion=version, capabilities={}, clientInfo=info), **dict(headers))
    answer = {
        "serverInfo": {"name": "shop", "version": "0.4"},
        "protocolVersion": version,
        "capabilities": {"tools": {}},
    }
    tcp.answer(200, result(id, **answer), **({"mcp-session-id": session_id} if session_id else {}))
    session = {"mcp-session-id": session_id} if session_id else {}
    tcp.post(rpc("notifications/initialized"), **session, **{"mcp-protocol-version": version}, **dict(headers))
    tcp.answer(202)


def _lines(headers: dict[str, str]) -> str:
    return "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
