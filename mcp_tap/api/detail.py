"""One message with everything that a panel beside a timeline shows."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.requests import Request

from mcp_tap.api import parameters, resources
from mcp_tap.api.curl import curl
from mcp_tap.api.desk import Desk
from mcp_tap.api.recorded import Json, complete, connections_by_id, line
from mcp_tap.api.shape import Field, Resource
from mcp_tap.store import Row

BODY: Final = Resource(
    "session.message.body",
    "One body as it is stored, after masking.",
    (
        Field("codec", "string", "how it relates to the bytes on the wire",
              words=("json", "json-masked", "text", "text-cut")),
        Field("data", "string", "the body"),
        Field("masked", "integer", "how many values were masked in it"),
        Field("bytes", "integer", "how many bytes it had on the wire"),
        Field("cut", "boolean", "whether only its beginning is stored", lambda row: row["codec"] == "text-cut"),
    ),
)  # fmt: skip

BODIES: Final = Resource(
    "session.message.bodies",
    "What was sent and what came back; null for what is not stored.",
    (
        Field("request", "object?", "the request's", part=BODY),
        Field("response", "object?", "the answer's", part=BODY),
    ),
)

NETWORK: Final = Resource(
    "session.message.network",
    "The HTTP exchange that carried a message.",
    (
        Field("method", "string?", "POST for nearly all", lambda row: row["http_method"]),
        Field("path", "string?", "the request's target; the values of its query are masked"),
        Field("url", "string?", "the target at the proxy where one runs, else at the server"),
        Field("status", "integer?", "of the answer", lambda row: row["http_status"]),
        Field("peer", "string?", "address and port of the client"),
        Field("stream", "integer?", "number of the TCP connection in that run"),
    ),
)

TIMING: Final = Resource(
    "session.message.timing",
    "When the parts of an answer came, in milliseconds from the request.",
    (
        Field("headers_ms", "number?", "the head of the answer"),
        Field("first_byte_ms", "number?", "the first byte of its body"),
        Field("first_event_ms", "number?", "the first server-sent event"),
        Field("last_byte_ms", "number?", "the last byte so far"),
        Field("latency_ms", "number?", "the JSON-RPC answer"),
        Field("events_ms", "numbers", "each server-sent event", lambda row: [us / 1000 for us in row["sse_events"]]),
    ),
)

OPERATION: Final = Resource(
    "session.message.operation",
    "Where the time of all tries and rounds of one operation went.",
    (
        Field("legs", "integer", "tries and rounds"),
        Field("server_ms", "number", "spent by the server"),
        Field("person_ms", "number", "spent by a person who was asked"),
        Field("client_ms", "number", "spent by the client"),
    ),
)

NEIGHBOUR: Final = Resource(
    "session.event",
    "A line of a timeline, with how long before or after another one it was.",
    (*resources.EVENT.fields, Field("offset_ms", "number", "from the message that was asked for; negative before it")),
    called="SessionEventAround",
)

RELATED: Final = Resource(
    "session.message.related",
    "What belongs to a message.",
    (
        Field("operation", "array", "all tries and rounds in their order; empty where it is alone",
              part=resources.EVENT, many=True),
        Field("children", "array", "what came on its stream", part=resources.EVENT, many=True),
        Field("parent", "object?", "the message on whose stream it came", part=resources.EVENT),
        Field("same_arguments", "array", "other calls of the tool with the same arguments, newest first",
              part=resources.EVENT, many=True),
        Field("context", "array", "the requests around it in its session, with it", part=NEIGHBOUR, many=True),
    ),
)  # fmt: skip

COPY: Final = Resource(
    "session.message.copy",
    "The message as text to paste elsewhere.",
    (
        Field("curl", "string", "the command that sends it again; empty for what a client did not send"),
        Field("json", "string", "the JSON-RPC request as recorded; empty where it is not"),
        Field("link", "string", "the page of the message"),
    ),
)

DETAIL: Final = Resource(
    "session.message",
    "A message with all that is known of it and of what stands around it.",
    (
        *resources.MESSAGE.fields,
        Field("bodies", "object", "the stored bodies", lambda row: row, BODIES),
        Field("network", "object", "the HTTP exchange", lambda row: row, NETWORK),
        Field("timing", "object", "when the parts of the answer came", lambda row: row, TIMING),
        Field("operation", "object?", "where the time of its operation went; null where it is alone", part=OPERATION),
        Field("related", "object", "what belongs to it", part=RELATED),
        Field("copy", "object", "the message as text", part=COPY),
    ),
    called="SessionMessageDetail",
)


async def message(desk: Desk, request: Request) -> Json:
    """Answer with one message, everything about it, and what stands around it."""
    parameters.refuse_unknown(request.query_params.multi_items())
    row = await line(desk.reader, request, request.path_params["message"], "smg_")
    related, context, known = await asyncio.gather(
        desk.reader.related(row["event_id"]),
        _context(desk, row),
        connections_by_id(desk.reader, [row["connection_id"]]),
    )
    of = known.get(row["connection_id"])
    row = complete(row, of)
    row["child_message_ids"] = [child["message_id"] for child in related["children"] if child["message_id"]]
    for side in ("request", "response"):
        body = row[f"{side}_body"]
        row[side] = body and {**body, "bytes": row[f"{side}_bytes"]}
    url = where_spoken(desk, of)
    row["url"] = _joined(url, row["path"])
    row["related"] = related | {"context": context}
    link = str(request.base_url.replace(path=f"/messages/{row['message_id']}", query=""))
    row["copy"] = {"curl": curl(row, of, url), "json": (row["request_body"] or {}).get("data", ""), "link": link}
    return DETAIL.of(row)


async def _context(desk: Desk, row: Row) -> list[Row]:
    return [] if row["connection_id"] is None else await desk.reader.context(row["event_id"])


def where_spoken(desk: Desk, of: Row | None) -> str:
    """Return the URL under which a connection's server is spoken to: the proxy's where one runs, else its own."""
    upstream: str = "" if of is None else of["upstream"]
    for proxy in desk.proxies:
        if proxy.upstream.url == upstream and not proxy.listen.socket:
            return proxy.url
    if not upstream and desk.proxies:
        return desk.proxies[0].url
    return upstream


def _joined(url: str, path: str | None) -> str | None:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}{path}" if rest and path and path.startswith("/") else url or None
