"""The nouns of the project and their values.

Everything here is plain data: no I/O, no clock, nothing but the standard library. The errors are taken from here, too;
they stand apart for the relay process, which needs no nouns. Times are integers: microseconds since the epoch
(``*_us`` and ``at_us``) in what is recorded.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Final

from mcp_tap.errors import NotFoundError as NotFoundError  # noqa: PLC0414
from mcp_tap.errors import StoreError as StoreError  # noqa: PLC0414
from mcp_tap.errors import TapError as TapError  # noqa: PLC0414
from mcp_tap.errors import UpstreamError as UpstreamError  # noqa: PLC0414
from mcp_tap.errors import UsageError as UsageError  # noqa: PLC0414

# --------------------------------------------------------------------------------------------------------- words


class Era(StrEnum):
    """Which family of revisions a connection speaks."""

    LEGACY = "legacy"  # 2024-11-05 … 2025-11-25: opens with `initialize`
    MODERN = "modern"  # 2026-07-28 and later: stateless, metadata on every request


class Origin(StrEnum):
    """What ties the exchanges of one connection together."""

    HEADER = "header"  # the Mcp-Session-Id header
    ENDPOINT = "endpoint"  # the URL handed out by the 2024-11-05 transport
    GATEWAY = "gateway"  # a connection_url of ours
    DERIVED = "derived"  # nothing on the wire: inferred from identity, ids and timing


class Kind(StrEnum):
    """What one line of the timeline is."""

    REQUEST = "request"  # a JSON-RPC request together with its answer
    NOTIFICATION = "notification"  # a JSON-RPC notification: nobody answers it
    RESPONSE = "response"  # a JSON-RPC response whose request was not seen
    LIFECYCLE = "lifecycle"  # something the tap saw happen: session_start, records_dropped, …
    HTTP = "http"  # an HTTP exchange that carried no JSON-RPC, or none that can be read


class Direction(StrEnum):
    """Who sent the request or the notification to whom."""

    TO_SERVER = "client_to_server"
    TO_CLIENT = "server_to_client"


class Status(StrEnum):
    """Whether a message has its answer, and which."""

    WAITING = "waiting_for_response"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class FailureReason(StrEnum):
    """Why a message failed; its code stands beside it."""

    TOOL_ERROR = "tool_error"  # result.isError
    RPC_ERROR = "rpc_error"  # a JSON-RPC error object
    HTTP_ERROR = "http_error"  # HTTP status >= 400 without a JSON-RPC error
    TRANSPORT_ERROR = "transport_error"  # the upstream was lost or could not be reached
    NO_RESPONSE = "no_response"  # the stream ended cleanly without an answer
    TIMEOUT = "timeout"  # the server or the tap said that time ran out
    CANCELLED = "cancelled"  # the client took the request back
    ABANDONED = "abandoned"  # the recording or the session ended before the answer


class Outcome(StrEnum):
    """What a message came to where neither success nor failure says it alone."""

    INPUT_REQUIRED = "input_required"
    TASK = "task"
    AUTH_CHALLENGE = "auth_challenge"
    PROBE = "probe"
    UNPARSED = "unparsed"  # the reason stands in the row's note


class ConnectionStatus(StrEnum):
    """Whether a connection can still be used."""

    ACTIVE = "active"
    ENDED = "ended"


class ConnectionState(StrEnum):
    """Whether a connection was used lately."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


class EndReason(StrEnum):
    """Why a connection ended."""

    CLIENT_DELETE = "client_delete"
    SESSION_NOT_FOUND = "session_not_found"
    STREAM_CLOSED = "stream_closed"
    INITIALIZE_FAILED = "initialize_failed"
    IDLE_TIMEOUT = "idle_timeout"
    REPLACED = "replaced"
    SHUTDOWN = "shutdown"


class Side(Enum):
    """Which half of a message a body is."""

    REQUEST = 0
    RESPONSE = 1


class Codec(StrEnum):
    """How a stored body relates to the bytes that were on the wire."""

    AS_SEEN = "json"  # the very bytes, as text
    MASKED = "json-masked"  # JSON still, with secrets replaced where they stood; the rest as seen
    TEXT = "text"  # no JSON; secrets replaced where patterns found them
    CUT = "text-cut"  # longer than max_body: its first part


# ------------------------------------------------------------------------------------------------------------ ids

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: sorts as it counts, no look-alikes


def _base32(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        digits.append(_ALPHABET[number & 31])
        number >>= 5
    return "".join(reversed(digits))


def new_id(prefix: str, at_us: int) -> str:
    """Return ``prefix`` and 26 characters: 10 of milliseconds, so that ids sort by time, and 16 of chance."""
    return prefix + _base32(at_us // 1000, 10) + _base32(secrets.randbits(80), 16)


def new_replica() -> str:
    """Return the five characters that keep the ids of one recording apart from those of another."""
    return _base32(secrets.randbits(25), 5)


def hash_session_id(raw: str, key: bytes) -> str:
    """Return the keyed hash that stands for a raw `mcp-session-id`; ``key`` is the ``session_key`` of the recording."""
    return "hash:" + hashlib.blake2b(raw.encode(errors="replace"), key=key, digest_size=16).hexdigest()


# ----------------------------------------------------------------------------------------------------------- rows
# What the tracker makes and a store writes. Rows are live objects: the tracker goes on changing a row that was
# already written, and hands it over again. `pk` is 0 until a store has given it a number, `change` the number of its
# last write.


@dataclass(slots=True, eq=False)
class Connection:
    """One client lifecycle: the row of the Sessions page.

    ``mcp_session_id`` holds the raw id, or its keyed hash (``hash:`` and 32 hex digits) where the settings say so.
    """

    id: str  # scn_…
    session_id: str  # ses_…: the runtime context it belongs to; implicit ones have one connection
    origin: Origin
    created_us: int
    pk: int = 0
    change: int = 0
    origin_note: str | None = None  # what is uncertain about it: "adopted", "shared (3 starts)", …
    mcp_session_id: str | None = None
    era: Era | None = None
    protocol_version: str | None = None
    transport: str | None = None  # streamable_http | sse
    upstream: str = ""
    client_name: str | None = None
    client_version: str | None = None
    client_capabilities: str | None = None  # JSON
    client_address: str | None = None  # without the port
    user_agent: str | None = None
    server_name: str | None = None
    server_version: str | None = None
    server_capabilities: str | None = None  # JSON
    instructions: str | None = None
    status: ConnectionStatus = ConnectionStatus.ACTIVE
    state: ConnectionState = ConnectionState.CONNECTED
    end_reason: EndReason | None = None
    started_us: int | None = None  # the successful initialize, or the first success where there is none
    last_active_us: int = 0
    ended_us: int | None = None
    seq: int = 0  # the number of the last line of its timeline
    messages: int = 0
    calls: int = 0  # requests of the client
    open_calls: int = 0
    errors: int = 0
    dropped: int = 0  # pieces of traffic that never reached the recorder
    truncated: int = 0  # bodies that were cut in the record
    open_streams: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    tools: dict[str, int] = field(default_factory=dict)  # name of each tool called -> calls; bounded
    replaces: str | None = None  # id of the connection that this one re-initialised


@dataclass(slots=True, eq=False)
class Event:
    """One line of a timeline: a message (a request with its answer, or a lone notification) or a lifecycle line."""

    kind: Kind
    type: str  # the JSON-RPC method, or the name of what happened: session_start, http, …
    at_us: int
    pk: int = 0
    change: int = 0
    connection: Connection | None = None
    seq: int = 0  # counts within the connection
    name: str | None = None  # tool, prompt or resource
    direction: Direction | None = None
    status: Status | None = None
    outcome: Outcome | None = None
    failure_reason: FailureReason | None = None
    code: str | None = None  # JSON-RPC code, HTTP status or the transport's own word
    message: str | None = None  # error text, masked
    duration_us: int | None = None
    headers_us: int | None = None  # until the head of the answer
    first_byte_us: int | None = None  # until the first byte of the answer's body
    first_event_us: int | None = None  # until the first SSE event
    last_byte_us: int | None = None  # until the last byte of the answer's body, so far: a stall shows while it lasts
    jsonrpc_id: str | None = None  # as JSON: 1 and "1" are different ids
    operation: Event | None = None  # the first try or round of the same operation
    attempt: int = 1
    parent: Event | None = None  # the request on whose stream this came
    http_method: str | None = None
    http_status: int | None = None
    path: str | None = None  # request target; the values of its query are masked
    peer: str | None = None  # client address and port
    stream: int = 0  # number of the TCP connection in this run
    trace_id: str | None = None
    request_bytes: int = 0
    response_bytes: int = 0
    request_cut: bool = False
    response_cut: bool = False
    dropped: int = 0  # pieces of its own traffic that never reached the recorder
    sse_events: list[int] = field(default_factory=list)  # µs from at_us to each SSE event of the answer; bounded
    note: str | None = None  # what was guessed, or why it could not be read
    key: bytes = b""  # its JSON-RPC id as it was sent, to find its answer by; never stored


@dataclass(slots=True)  # making a frozen one takes three times as long
class Body:
    """One stored body, after masking. ``data`` is text because people query this file."""

    event: Event
    side: Side
    codec: Codec
    data: str
    masked: int = 0  # how many values were replaced


@dataclass(slots=True, frozen=True)
class ToolSeen:
    """One sight of one tool's definition in a `tools/list` answer."""

    connection: Connection
    at_us: int
    name: str
    hash: str  # of the canonical JSON of the definition
    definition: str  # JSON, masked


@dataclass(slots=True)
class Batch:
    """What a store writes in one transaction, in the order in which it happened."""

    connections: list[Connection] = field(default_factory=list)  # new or changed
    events: list[Event] = field(default_factory=list)  # new or changed
    bodies: list[Body] = field(default_factory=list)
    tools: list[ToolSeen] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.connections or self.events or self.bodies or self.tools)
