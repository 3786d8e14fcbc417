"""The resources of a recording: sessions, their connections, messages, events, participants and errors.

Rows of the store in, objects out. Attributes that the session resources define come first and mean what they mean
there; what only a tap knows stands beside them. Dates are ISO 8601 in UTC with milliseconds.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from mcp_tap.api.shape import Field, Resource
from mcp_tap.model import ConnectionState, ConnectionStatus, FailureReason, Kind, Status
from mcp_tap.store import Row

#: Characters of an `mcp-session-id` that are told without being asked for: whoever has all of it has the session.
SHOWN_OF_SESSION_ID: Final = 8

#: The twelve types of events. A tap makes the first six; the others belong to who runs providers itself.
EVENT_TYPES: Final = (
    "message_created", "message_processed", "error_occurred", "connection_connected", "connection_disconnected",
    "connection_disabled", "warning_occurred", "connection_created", "session_created", "session_started",
    "provider_run_started", "provider_run_stopped",
)  # fmt: skip

MESSAGE_TYPES: Final = ("tool_call", "mcp_control", "mcp_message", "unknown")

#: Methods that keep a connection going rather than do a client's work.
CONTROL: Final = (
    "initialize", "ping", "logging/setLevel", "server/discover", "subscriptions/listen", "notifications/*",
)  # fmt: skip

FAILURES: Final = tuple(reason.value for reason in FailureReason)
STATUSES: Final = tuple(status.value for status in Status)

_OUR_FAILURES: Final = {"timeout": "timeout"} | dict.fromkeys(
    ("tool_error", "rpc_error", "http_error"), "provider_error"
)


def short_session_id(row: Row) -> str | None:
    """Return what is told of an `mcp-session-id`: its beginning, all of it where ``reveal`` says so, or its hash."""
    whole: str | None = row.get("mcp_session_id")
    if whole is None or row.get("reveal") or whole.startswith("hash:") or len(whole) <= SHOWN_OF_SESSION_ID:
        return whole
    return f"{whole[:SHOWN_OF_SESSION_ID]}…"


def provider_of(session_id: str | None) -> str | None:
    """Return the id of the one provider of a session, which has the session's own ending."""
    return None if session_id is None else f"spr_{session_id[4:]}"


def message_type(method: str) -> str:
    """Return the type of a message by its method."""
    if method == "tools/call":
        return "tool_call"
    if method in CONTROL or method.startswith("notifications/"):
        return "mcp_control"
    return "unknown" if method in {"response", "http"} else "mcp_message"


def event_type(row: Row) -> str:
    """Return which of the twelve types a line of a timeline is."""
    if row["kind"] == Kind.LIFECYCLE:
        if row["type"] in {"session_start", "session_reopened"}:
            return "connection_connected"
        if row["type"] != "session_end":
            return "warning_occurred"
        return "connection_disabled" if row["note"] == "client_delete" else "connection_disconnected"
    if row["status"] == Status.WAITING:
        return "message_created"
    return "error_occurred" if row["status"] == Status.FAILED else "message_processed"


def failure_reason(row: Row) -> str:
    """Return the reason of a failure in the words of the session resources."""
    reason = row["failure_reason"]
    return "none" if reason is None else _OUR_FAILURES.get(reason, "system_error")


def _completed(row: Row) -> str | None:
    if row["latency_ms"] is None or row["status"] == Status.WAITING:
        return None
    at = datetime.fromisoformat(row["time"]) + timedelta(milliseconds=row["latency_ms"])
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _nothing(_: Row) -> None:
    return None


def _column(name: str) -> Any:
    return lambda row: row[name]


def _itself(row: Row) -> Row:
    return row


def _provider(row: Row) -> str | None:
    return provider_of(row["session_id"])


def _has_warnings(row: Row) -> bool:
    return bool(row["dropped"] or row["truncated"] or (row["origin_note"] or "").startswith("shared"))


# ---------------------------------------------------------------------------------------------------- connections


def _party(name: str, row: Row) -> Row | None:
    told = {key: row[f"{name}_{key}"] for key in ("name", "version", "capabilities")}
    return None if not any(told.values()) else told | {"capabilities": told["capabilities"] or {}}


_PARTY: Final = (
    Field("name", "string?", "as it names itself"),
    Field("version", "string?", "as it says"),
    Field("capabilities", "object", "what it offers; {} where it said nothing"),
)
CLIENT: Final = Resource("session.connection.client", "The client of a connection, by its own words.", _PARTY)
SERVER: Final = Resource("session.connection.server", "The server of a connection, by its own words.", _PARTY)

MCP: Final = Resource(
    "session.connection.mcp",
    "What was agreed on a connection.",
    (
        Field("version", "string?", "the revision of the protocol", _column("protocol_version")),
        Field("connection_type", "string?", "how it is transported", _column("transport"),
              words=("sse", "streamable_http", "websocket")),
        Field("client", "object?", "null where nothing said who it is", lambda row: _party("client", row), CLIENT),
        Field("server", "object?", "null where nothing said who it is", lambda row: _party("server", row), SERVER),
    ),
)  # fmt: skip

_LIFE: Final = (
    Field("end_reason", "string?", "why it ended: client_delete, session_not_found, stream_closed, idle_timeout, …"),
    Field("duration_ms", "integer", "from its start to its end, or to its last use"),
    Field("calls", "integer", "requests of the client"),
    Field("errors", "integer", "those of them that failed"),
    Field("has_errors", "boolean", "whether any did", lambda row: row["errors"] > 0),
    Field("has_warnings", "boolean", "whether its record is incomplete, or shared by several clients", _has_warnings),
    Field("origin", "string", "what ties its requests together", words=("header", "endpoint", "gateway", "derived")),
    Field("mcp_session_id", "string?", "the beginning of the header's value; all of it with reveal=session_id",
          short_session_id),
    Field("upstream", "string", "the URL of the server"),
    Field("last_active_at", "date", "when it was last used", _column("last_active")),
)  # fmt: skip

CONNECTION: Final = Resource(
    "session.connection",
    "One lifecycle of one MCP client.",
    (
        Field("id", "string", "scn_…", _column("connection_id")),
        Field("status", "string?", "whether it can still be used", words=tuple(s.value for s in ConnectionStatus)),
        Field("connection_state", "string?", "whether it was used lately",
              words=tuple(s.value for s in ConnectionState)),
        Field("mcp", "object", "what was agreed", _itself, MCP),
        Field("metadata", "object?", "always null: a tap is told none", _nothing),
        Field("session_id", "string", "ses_…, the session that it belongs to"),
        Field("session_provider_id", "string?", "spr_…, the one provider of that session", _provider),
        Field("started_at", "date?", "the successful initialize, or the first request; null where initialize failed",
              lambda row: None if row["end_reason"] == "initialize_failed" else row["started"]),
        Field("ended_at", "date?", "when it ended; after idling, when it was last used", _column("ended")),
        Field("created_at", "date", "first contact", _column("created")),
        Field("updated_at", "date", "when it was last used or ended", _column("updated")),
        Field("transport", "string", "always mcp: nothing else goes through a tap", lambda _: "mcp", words=("mcp",)),
        Field("participant_id", "string?", "spt_…, its client"),
        Field("provider_deployment_id", "string?", "pde_…, its server", _column("provider_id")),
        *_LIFE,
        Field("origin_note", "string?", "what is uncertain about it: adopted, shared (3 starts), …"),
        Field("era", "string?", "the family of revisions", words=("legacy", "modern")),
        Field("open_calls", "integer", "requests that wait for their answers"),
        Field("open_streams", "integer", "streams that are open"),
        Field("messages", "integer", "messages both ways"),
        Field("dropped", "integer", "pieces of traffic that are not in the record"),
        Field("truncated", "integer", "bodies that are cut in the record"),
        Field("request_bytes", "integer", "bytes of bodies from the client"),
        Field("response_bytes", "integer", "bytes of bodies to the client"),
        Field("tool_calls", "object", "calls by the name of the tool", lambda row: row["tool_calls"] or {}),
        Field("instructions", "string?", "what the server tells its clients' models"),
        Field("client_address", "string?", "where the client connects from"),
        Field("user_agent", "string?", "what its HTTP library calls itself"),
        Field("replaces_connection_id", "string?", "scn_…, which this one initialised anew", _column("replaces")),
        Field("change", "integer", "number of its last change in this recording"),
    ),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------- sessions


def _client(row: Row) -> str | None:
    return " ".join(filter(None, (row["client_name"], row["client_version"]))) or None


DEPLOYMENT: Final = Resource(
    "session.provider_deployment#preview",
    "The server that a session is about.",
    (
        Field("id", "string", "spr_…", _provider),
        Field("name", "string?", "as it names itself", _column("server_name")),
        Field("provider_id", "string?", "pde_…"),
        Field("provider_deployment_id", "string?", "pde_…", _column("provider_id")),
    ),
)

USAGE: Final = Resource(
    "session.usage",
    "How much a session was used.",
    (Field("total_productive_message_count", "integer", "messages both ways", _column("messages")),),
)

SESSION: Final = Resource(
    "session",
    "A runtime context with its connections; most have one. What has no plural is told of the newest connection.",
    (
        Field("id", "string", "ses_…", _column("session_id")),
        Field("name", "string?", "always null: a tap is told none", _nothing),
        Field("description", "string?", "always null", _nothing),
        Field("metadata", "object?", "always null", _nothing),
        Field("status", "string", "whether it can still be used", words=tuple(s.value for s in ConnectionStatus)),
        Field("connection_status", "string", "whether it was used lately", _column("connection_state"),
              words=tuple(s.value for s in ConnectionState)),
        Field("connection_state", "string", "the same", words=tuple(s.value for s in ConnectionState)),
        Field("connection_url", "string?", "always null: clients are given the proxy's URL", _nothing),
        Field("usage", "object", "how much it was used", _itself, USAGE),
        Field("provider_deployments", "array", "its one server", lambda row: [row], DEPLOYMENT, many=True),
        Field("created_at", "date", "first contact"),
        Field("updated_at", "date", "when it was last used or ended", _column("updated")),
        Field("client", "string?", "name and version of the client", _client),
        Field("started", "date", "when it started"),
        Field("tools", "strings", "names of the tools that were called", lambda row: [*(row["tool_calls"] or ())]),
        Field("protocol_version", "string?", "the revision of the protocol"),
        *_LIFE,
        Field("connections", "array", "all of its connections, newest first; at most 100", _column("connections"),
              CONNECTION, many=True),
    ),
)  # fmt: skip


# --------------------------------------------------------------------------------------------- messages and errors


def _data(row: Row) -> Any:
    output = row.get("output")
    error = output.get("error") if isinstance(output, dict) else None
    return error.get("data") if isinstance(error, dict) else None


def _error_id(row: Row) -> str:
    return f"ser_{row['event_id'][4:]}"


ERROR: Final = Resource(
    "session.error",
    "What a message failed with.",
    (
        Field("id", "string", "ser_…", _error_id),
        Field("type", "string", "the kind of failure", lambda row: f"message_processing_{failure_reason(row)}",
              words=("message_processing_timeout", "message_processing_provider_error",
                     "message_processing_system_error")),
        Field("code", "string?", "JSON-RPC code, HTTP status or the transport's own word", _column("error_code")),
        Field("message", "string?", "the error's text, masked", _column("error_message")),
        Field("data", "any", "of the JSON-RPC error, where the body is stored", _data),
        Field("status", "string", "always processed", lambda _: "processed", words=("processed",)),
        Field("failure", "string?", "the reason in the tap's own words", _column("failure_reason"), words=FAILURES),
        Field("name", "string", "the JSON-RPC method", _column("type")),
        Field("target", "string?", "the tool, prompt or resource", _column("name")),
        Field("session_id", "string?", "ses_…"),
        Field("connection_id", "string?", "scn_…"),
        Field("message_id", "string?", "smg_…, the message that failed"),
        Field("event_id", "string", "sev_…, its line in the timeline"),
        Field("provider_run_id", "string?", "always null", _nothing),
        Field("created_at", "date", "when the message was sent", _column("time")),
    ),
)  # fmt: skip

HIERARCHY: Final = Resource(
    "session.message.hierarchy",
    "Whether a message came on the stream of another one.",
    (
        Field("type", "string", "parent, or child of a parent",
              lambda row: "child" if row["parent_id"] else "parent", words=("parent", "child")),
        Field("parent_message_id", "string?", "smg_…", _column("parent_id")),
        Field("child_message_ids", "strings?", "what came on its stream; null in lists, where nobody looks"),
    ),
)  # fmt: skip

MESSAGE_MCP: Final = Resource(
    "session.message.transport.mcp",
    "The message as the protocol has it.",
    (
        Field("id", "any", "its JSON-RPC id, number or string", _column("jsonrpc_id")),
        Field("protocol_version", "string?", "the revision of its connection"),
        Field("transport", "string", "how its connection is transported", lambda row: row["transport"] or "unknown",
              words=("unknown", "sse", "streamable_http")),
    ),
)  # fmt: skip

TRANSPORT: Final = Resource(
    "session.message.transport",
    "How a message came.",
    (
        Field("type", "string", "always mcp", lambda _: "mcp", words=("mcp",)),
        Field("mcp", "object", "the message as the protocol has it", _itself, MESSAGE_MCP),
        Field("tool_call", "object?", "always null: no calls are made through this API", _nothing),
    ),
)

SENDER: Final = Resource(
    "session.message.sender",
    "Who sent a message.",
    (
        Field("type", "string", "the client, or the server behind the tap",
              lambda row: "provider" if row["direction"] == "server_to_client" else "client",
              words=("client", "provider")),
        Field("id", "string?", "spt_… of a client; null for the server",
              lambda row: None if row["direction"] == "server_to_client" else row.get("participant_id")),
    ),
)  # fmt: skip

_OUTCOME: Final = (
    Field("status", "string?", "whether it has its answer, and which; null for what nobody answers", words=STATUSES),
    Field("outcome", "string?", "what it came to where success and failure do not say it",
          words=("input_required", "task", "auth_challenge", "probe", "unparsed")),
    Field("failure_reason", "string", "why it failed, in the words of the session resources", failure_reason,
          words=("none", "timeout", "provider_error", "system_error")),
    Field("failure", "string?", "why it failed, in the tap's own words", _column("failure_reason"), words=FAILURES),
    Field("error", "object?", "what it failed with", lambda row: row if row["status"] == Status.FAILED else None,
          ERROR),
    Field("latency_ms", "number?", "from the request to its answer"),
    Field("first_byte_ms", "number?", "from the request to the first byte of the answer's body"),
    Field("attempt", "integer", "which try or round of its operation it is, from 1"),
    Field("operation_id", "string?", "smg_…, the first try or round"),
    Field("request_bytes", "integer", "size of the request's body"),
    Field("response_bytes", "integer", "size of the answer's body"),
    Field("truncated", "integer", "bodies that are cut in the record"),
    Field("dropped", "integer", "pieces of its traffic that are not in the record"),
    Field("http_status", "integer?", "of the answer"),
    Field("trace_id", "string?", "from traceparent"),
    Field("note", "string?", "what was guessed, or why it could not be read"),
)  # fmt: skip

_WHERE: Final = (
    Field("session_id", "string?", "ses_…"),
    Field("session_provider_id", "string?", "spr_…", _provider),
    Field("connection_id", "string?", "scn_…"),
    Field("provider_run_id", "string?", "always null", _nothing),
)

MESSAGE: Final = Resource(
    "session.message",
    "A request with its answer, or a notification.",
    (
        Field("id", "string", "smg_…", _column("message_id")),
        Field("type", "string", "what it is for", lambda row: message_type(row["type"]), words=MESSAGE_TYPES),
        Field("source", "string", "who asked", lambda row: SENDER.of(row)["type"], words=("client", "provider")),
        *_WHERE,
        Field("hierarchy", "object", "where it belongs", _itself, HIERARCHY),
        Field("transport", "object", "how it came", _itself, TRANSPORT),
        Field("sender", "object", "who sent it", _itself, SENDER),
        Field("name", "string", "the JSON-RPC method", _column("type")),
        Field("target", "string?", "the tool, prompt or resource", _column("name")),
        Field("input", "any", "the request as recorded; null where its body is not stored or no JSON"),
        Field("output", "any", "the answer as recorded; likewise"),
        *_OUTCOME,
        Field("event_id", "string", "sev_…, its line in the timeline"),
        Field("client", "string?", "name and version of the client", _client),
        Field("created_at", "date", "when it was sent", _column("time")),
        Field("completed_at", "date?", "when its answer was complete", _completed),
        Field("change", "integer", "number of its last change in this recording"),
    ),
)

EVENT: Final = Resource(
    "session.event",
    "One line of a timeline.",
    (
        Field("id", "string", "sev_…", _column("event_id")),
        Field("type", "string", "which of the twelve types it is", event_type, words=EVENT_TYPES),
        Field("name", "string", "session_start, initialize, tools/list, tools/call, …, session_end", _column("type")),
        Field("target", "string?", "the tool, prompt or resource", _column("name")),
        *_WHERE,
        Field("message_id", "string?", "smg_…, where the line is a message"),
        Field("parent_message_id", "string?", "smg_…, on whose stream it came", _column("parent_id")),
        Field("kind", "string", "what the line is", words=tuple(kind.value for kind in Kind)),
        Field("direction", "string?", "who sent it to whom", words=("client_to_server", "server_to_client")),
        Field("seq", "integer", "its number within the connection"),
        *_OUTCOME,
        Field("client", "string?", "name and version of the client", _client),
        Field("mcp_session_id", "string?", "the beginning of that of its session", short_session_id),
        Field("created_at", "date", "when it happened", _column("time")),
        Field("completed_at", "date?", "when its answer was complete", _completed),
        Field("change", "integer", "number of its last change in this recording"),
    ),
)

PARTICIPANT: Final = Resource(
    "session.participant",
    "Who takes part in a session: its clients and its server.",
    (
        Field("id", "string", "spt_…"),
        Field("type", "string", "what it is", words=("mcp_client", "provider", "unknown")),
        Field("identifier", "string", "name@version"),
        Field("name", "string?", "as it names itself"),
        Field("version", "string?", "as it says"),
        Field("description", "string?", "always null", _nothing),
        Field("metadata", "object?", "always null", _nothing),
        Field("session_id", "string", "ses_…"),
        Field("connection_ids", "strings", "scn_…, where it takes part"),
        Field("created_at", "date", "when it first did", _column("created")),
        Field("updated_at", "date", "the same", _column("created")),
    ),
)
