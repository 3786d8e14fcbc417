"""One message: what was asked and answered, and how that went over the wire; as a page, or beside its session."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from mcp_tap.api import parameters
from mcp_tap.api.curl import curl
from mcp_tap.api.desk import Desk
from mcp_tap.model import UsageError
from mcp_tap.store import Row
from mcp_tap.ui import message, waterfall
from mcp_tap.ui.frame import Link, address
from mcp_tap.ui.text import harmless
from mcp_tap.ui.web import render
from mcp_tap.ui.words import event as name_of
from mcp_tap.values import nearest

VIEWS: Final = ("pretty", "raw", "network", "timing", "related")


async def page(desk: Desk, request: Request) -> Response:
    """Answer with one message, seen in one of five ways."""
    parameters.read(request, limit=50)  # refuses what nothing reads
    row = await desk.reader.event(request.path_params["id"])
    path = f"/messages/{row['message_id'] or row['event_id']}"
    shown = await seen(desk, request, row, path, [])
    return render(desk, request, "message.html", title=name_of(row), m=shown, twin=shown["twin"])


async def seen(desk: Desk, request: Request, row: Row, path: str, kept: list[tuple[str, str]]) -> dict[str, Any]:
    """Return what the templates show of a message in the way that ``view`` asks for.

    ``path`` and ``kept`` make the links to the other views. Raises UsageError for a view that does not exist.
    """
    view = request.query_params.get("view") or "pretty"
    if view not in VIEWS:
        raise UsageError(f'there is no view "{view}"', hint=nearest(view, VIEWS))
    connection = await desk.reader.session(row["connection_id"]) if row["connection_id"] else None
    identity = row["message_id"] or row["event_id"]
    return {
        "row": row,
        "session": connection,
        "view": view,
        "tabs": [Link(v.capitalize(), address(path, [*kept, ("view", v)]), v == view) for v in VIEWS],
        "request": message.request(row) if view == "pretty" else [],
        "answer": message.answer(row) if view == "pretty" else [],
        "raw": [
            (side, message.raw(row[f"{side}_body"]), message.notices(row, side)) for side in ("request", "response")
        ]
        if view == "raw"
        else [],
        "network": _network(row, connection) if view == "network" else [],
        "moments": message.moments(row) if view == "timing" else [],
        "picture": _picture(row) if view == "timing" else "",
        "related": await desk.reader.related(identity) if view == "related" else None,
        "context": await desk.reader.context(identity) if row["connection_id"] and view == "pretty" else [],
        "curl": curl(row, connection, _url(desk, connection)),
        "json": _both(row),
        "link": f"/messages/{identity}",
        "twin": f"/api/messages/{identity}" if row["message_id"] else f"/api/events/{identity}",
    }


def _url(desk: Desk, connection: Row | None) -> str:
    """Return where the request can be sent again: through the tap, so that the new try is recorded, too."""
    upstream = str(connection["upstream"]) if connection else ""
    of_proxies = {proxy.upstream.url: proxy.url for proxy in desk.proxies}
    return of_proxies.get(upstream, upstream or next(iter(of_proxies.values()), ""))


def _both(row: Row) -> str:
    bodies = (row["request_body"], row["response_body"])
    return "\n".join(body["data"] for body in bodies if body is not None)


def _picture(row: Row) -> str:
    timed = waterfall.bar(row)
    return waterfall.picture(timed, waterfall.Axis([timed], fold=False)) if row["latency_ms"] is not None else ""


def _network(row: Row, connection: Row | None) -> list[tuple[str, str, str]]:
    """Return what is known of the exchange: a name, a value, and what it means."""
    to_server = row["direction"] != "server_to_client"
    line = " ".join(str(part) for part in (row["http_method"], row["path"]) if part)
    found = [
        ("Request", line, "the HTTP request that carried it"),
        ("Status", row["http_status"], "of the HTTP answer; a JSON-RPC error usually comes with 200"),
        ("Direction", "client → server" if to_server else "server → client", ""),
        ("Client", row["peer"], "address and port of the TCP connection"),
        ("TCP connection", row["stream"], "its number in this run of the tap"),
        ("JSON-RPC id", row["jsonrpc_id"], "ties the answer to the request"),
        ("traceparent", row["trace_id"], "trace id (W3C Trace Context), from the header or from _meta"),
        ("Bytes", f"{row['request_bytes']:,} in the request, {row['response_bytes']:,} in the answer", "bodies"),
        ("SSE events", len(row["sse_events"]) or None, "the answer came as a stream of server-sent events"),
        ("Note", row["note"], ""),
    ]
    if connection:
        session_id = connection["mcp_session_id"]
        shown = f"{session_id[:8]}… •••• redacted (credential)" if session_id else None
        modern = connection["era"] == "modern"
        found[3:3] = [
            (
                "Mcp-Session-Id",
                shown,
                "names the session; who has it can speak in its name where nothing else is asked",
            ),
            ("MCP-Protocol-Version", connection["protocol_version"], "the revision that was agreed on"),
            ("Mcp-Method", row["type"] if modern and row["kind"] != "lifecycle" else None, "repeats the method"),
            ("Mcp-Name", row["name"] if modern else None, "repeats the tool, prompt or resource"),
            ("User-Agent", connection["user_agent"], "what the client calls itself in HTTP"),
        ]
    return [(name, harmless(str(value), 400), about) for name, value, about in found if value not in (None, "")]
