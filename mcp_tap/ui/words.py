"""The words of the pages for what rows say in codes: states, ends, reasons, errors."""

from __future__ import annotations

import json
from typing import Final

from mcp_tap.store import Row
from mcp_tap.ui.json_text import Piece, pieces, plain

END_REASONS: Final = {
    "client_delete": ("deleted", "deleted by the client"),
    "session_not_found": ("not found", "the server answered 404 to its id"),
    "stream_closed": ("stream closed", "the stream that carried it was closed"),
    "initialize_failed": ("initialize failed", "the server refused to initialize it"),
    "idle_timeout": ("idle", "idle since then"),
    "replaced": ("replaced", "the client initialised a new one in its place"),
    "shutdown": ("tap stopped", "the tap was stopped"),
}

ORIGINS: Final = {
    "header": "session id from header",
    "endpoint": "known by its endpoint URL",
    "gateway": "made through the gateway",
    "derived": "grouped by who calls",
}

TRANSPORTS: Final = {"streamable_http": "Streamable HTTP", "sse": "HTTP+SSE"}

ERAS: Final = {
    "legacy": "the revision of MCP that was agreed on; in it a session has an id, the header Mcp-Session-Id",
    "modern": "the revision of MCP that each request names; in it there are no sessions",
}

FAILURES: Final = {
    "tool_error": "The tool reports an error",
    "rpc_error": "JSON-RPC error",
    "http_error": "HTTP error",
    "transport_error": "The connection failed",
    "no_response": "Never answered",
    "timeout": "Timed out",
    "cancelled": "Cancelled by the client",
    "abandoned": "The client left before the answer",
}

#: What the codes of JSON-RPC 2.0 (§5.1) and of MCP mean to whoever reads them for the first time.
RPC_CODES: Final = {
    "-32700": "Parse error: the server could not read the request as JSON.",
    "-32600": "Invalid request: it is JSON, but no JSON-RPC request that the server accepts.",
    "-32601": "Method not found: the server does not have this method, or does not offer it to this client.",
    "-32602": "Invalid params: an argument is missing, unknown or of the wrong type; in MCP also an unknown tool.",
    "-32603": "Internal error: something broke inside the server.",
    "-32000": "Server error: a code that servers give their own meaning; the text says which.",
    "-32001": "Server error; many MCP servers and SDKs use it for a request that timed out or an unknown session.",
    "-32002": "Resource not found: there is no resource with this URI.",
    "-32042": "URL elicitation required: the person has to open a URL before the server can go on.",
    "-32800": "Request cancelled.",
    "-1": "The person refused what the server asked for.",
}

HTTP_CODES: Final = {
    "400": "The server could not accept the request as it was sent.",
    "401": "The server wants to know who calls: no valid credentials came with the request.",
    "403": "The server knows who calls and refuses.",
    "404": "There is nothing at this path, or the session id is not known (any more).",
    "405": "The server does not offer this HTTP method here; for GET it means: no stream.",
    "406": "The client does not accept what the server can send (application/json, text/event-stream).",
    "415": "The server wants application/json.",
    "429": "Too many requests: the server limits how often it may be called.",
    "500": "Something broke inside the server.",
    "502": "Whoever stands before the server could not reach it.",
    "503": "The server is not ready for requests.",
    "504": "Whoever stands before the server waited too long for it.",
}

OUTCOMES: Final = {
    "input_required": ("input required", "the server asks for input before it goes on"),
    "task": ("task", "the server goes on working; its result is fetched later"),
    "auth_challenge": ("401", "the server asks for credentials: the beginning of OAuth, not a failure"),
    "probe": ("probe", "the client tried whether something is there, and did without it"),
    "unparsed": ("unparsed", "the tap could not read it"),
}


def shown_id(row: Row) -> str:
    """Return what a session is called on pages: the beginning of its Mcp-Session-Id, else of its connection's id."""
    raw = row["mcp_session_id"]
    if raw:
        return str(raw)[:13] if str(raw).startswith("hash:") else str(raw)[:8]
    return short_id(row["connection_id"])


def short_id(identity: str | None) -> str:
    """Return an id of ours short enough for a table, its end: the beginning of ids made together is the same."""
    if not identity:
        return ""
    prefix, _, rest = identity.partition("_")
    return f"{prefix}_…{rest[-6:]}" if len(rest) > 8 else identity


def client(row: Row) -> str:
    """Return the client's name, "unknown" where it gave none."""
    return str(row["client_name"] or "unknown")


def agent(row: Row) -> str:
    """Return the product that a client without a name announces in its User-Agent."""
    return str(row["user_agent"] or "").split(" ", 1)[0].split("/", 1)[0]


def transport(row: Row) -> str:
    """Return the transport by its name in the specification, "" while it is not known."""
    return TRANSPORTS.get(row["transport"] or "", str(row["transport"] or ""))


def state(row: Row) -> str:
    """Return the state of a session: active, quiet (active, but not used lately), or ended."""
    if row["status"] != "active":
        return "ended"
    return "active" if row["connection_state"] == "connected" else "quiet"


def end_reason(row: Row) -> tuple[str, str]:
    """Return why a session ended, in a word or two and in a sentence; empty while it has not."""
    reason = row["end_reason"]
    return END_REASONS.get(reason, (str(reason).replace("_", " "), "")) if reason else ("", "")


def incomplete(row: Row) -> str:
    """Return what is missing in the record of a session or a message, "" where it is complete."""
    parts = []
    if row["dropped"]:
        parts.append("1 record dropped" if row["dropped"] == 1 else f"{row['dropped']:,} records dropped")
    if row["truncated"]:
        parts.append("1 body cut" if row["truncated"] == 1 else f"{row['truncated']:,} bodies cut")
    return ", ".join(parts)


def status(row: Row) -> tuple[str, str]:
    """Return how a message went: the state (ok, failed, waiting, "") and the word that pages show for it."""
    if row["status"] == "failed":
        reason, code = row["failure_reason"], row["error_code"]
        if reason == "http_error" and code:
            return "failed", f"HTTP {code}"
        if reason == "rpc_error" and code:
            return "failed", str(code)
        return "failed", str(reason or "failed").replace("_", " ")
    if row["outcome"]:
        return "other", OUTCOMES.get(row["outcome"], (str(row["outcome"]),))[0]
    if row["status"] == "waiting_for_response":
        return "waiting", "waiting"
    return ("ok", "ok") if row["status"] == "succeeded" else ("", "")


def explained(row: Row) -> str:
    """Return what an error means in plain language, "" where it needs no explanation."""
    code = str(row["error_code"] or "")
    if row["failure_reason"] == "rpc_error":
        if code in RPC_CODES:
            return RPC_CODES[code]
        return "A code of the server's own." if code else ""
    if row["failure_reason"] == "http_error":
        return HTTP_CODES.get(code, "")
    return {
        "tool_error": "The call arrived and the tool answered; the answer says that it could not do it (isError).",
        "transport_error": "The TCP connection broke, or the server could not be reached.",
        "no_response": "The answer's stream ended without an answer.",
        "timeout": "Whoever waited for the answer gave up.",
        "cancelled": "The client sent notifications/cancelled for it.",
        "abandoned": "The client closed its connection while the call was at work.",
    }.get(row["failure_reason"] or "", "")


def outcome_explained(row: Row) -> str:
    """Return what an outcome that is neither success nor failure means."""
    return OUTCOMES[row["outcome"]][1] if row["outcome"] in OUTCOMES else ""


def event(row: Row) -> str:
    """Return what a line of a timeline is called: its method and the tool, prompt or resource."""
    return f"{row['type']} {row['name']}" if row["name"] else str(row["type"])


def bytes_of(row: Row) -> int:
    """Return the size of a message: both bodies."""
    return int(row["request_bytes"] or 0) + int(row["response_bytes"] or 0)


def remark(row: Row) -> str:
    """Return what else is to be said about a line, in one: the error's code and text, why it ended, a note."""
    if row["status"] == "failed":
        reason, code, said = row["failure_reason"], row["error_code"], row["error_message"]
        shown = str(code) if reason == "rpc_error" else f"HTTP {code}" if reason == "http_error" else ""
        words = FAILURES.get(reason or "", "").lower() if not said and not shown else ""
        return " ".join(part for part in (shown, words, str(said or "")) if part)
    note = str(row["note"] or "")
    return END_REASONS[note][1] if note in END_REASONS else note.replace("_", " ")


def peers(row: Row) -> str:
    """Return who talks to whom: claude-desktop 1.2.3 → weather 0.4."""
    names = []
    for side in ("client", "server"):
        name, version = row[f"{side}_name"] or f"unknown {side}", row[f"{side}_version"] or ""
        names.append(f"{name} {version}".strip())
    return " → ".join(names)


def json_pieces(value: object) -> list[Piece]:
    """Return a parsed value as JSON in pieces."""
    return pieces(json.dumps(value, ensure_ascii=False))


def lines(text: str) -> str:
    """Return a foreign text with its lines."""
    return plain(text, most=8_000)
