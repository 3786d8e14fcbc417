"""Figures of a range of time: tools, clients, groups of errors, what is slow, and all of it in short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from starlette.requests import Request

from mcp_tap.api import parameters, resources
from mcp_tap.api.desk import Desk
from mcp_tap.api.errors import missing
from mcp_tap.api.recorded import EVENT_SORTS, Json, listed, of_events, whole, with_bodies
from mcp_tap.api.shape import Field, Resource
from mcp_tap.model import UsageError
from mcp_tap.store import Paging, Row
from mcp_tap.store.filters import Filter
from mcp_tap.store.rows import iso

_PERCENTILES: Final = (
    Field("p50_ms", "number?", "half of the calls took no longer; null without a call"),
    Field("p95_ms", "number?", "19 of 20 calls took no longer"),
    Field("p99_ms", "number?", "99 of 100 calls took no longer"),
)
_EXACT: Final = Field("exact", "boolean", "whether percentiles are of stored durations; else within 3 % of them",
                      lambda row: bool(row["exact"]))  # fmt: skip
_COUNTS: Final = (
    Field("calls", "integer", "finished requests of clients"),
    Field("errors", "integer", "those of them that failed"),
)

_TOOL: Final = (
    Field("name", "string", "the tool"),
    *_COUNTS,
    *_PERCENTILES,
    _EXACT,
    Field("last_called_at", "date?", "the newest call", lambda row: row["last_called"]),
    Field("clients", "integer", "how many clients called it"),
    Field("spark", "numbers", "calls in equal parts of the range"),
    Field("listed", "boolean", "whether a tools/list named it", lambda row: bool(row["listed"])),
    Field("versions", "integer", "how many definitions of it there were"),
    Field("changed_at", "date?", "first sight of the newest definition; null with only one",
          lambda row: row["changed"]),
    Field("health", "string", "how it is, by a written rule",
          words=("down", "degraded", "unclear", "inactive", "healthy")),
)  # fmt: skip

TOOL: Final = Resource("tool", "One tool and how it is used.", _TOOL)

SEEN_BY: Final = Resource(
    "tool.definition.seen_by",
    "A connection that was told a definition.",
    (
        Field("connection_id", "string", "scn_…"),
        Field("session_id", "string", "ses_…"),
        Field("client", "string?", "name and version of the client",
              lambda row: " ".join(filter(None, (row["client_name"], row["client_version"]))) or None),
        Field("first_seen_at", "date", "when it was told first", lambda row: row["first_seen"]),
        Field("last_seen_at", "date", "when it was told last", lambda row: row["last_seen"]),
    ),
)  # fmt: skip

DEFINITION: Final = Resource(
    "tool.definition",
    "One definition of a tool, as a server listed it.",
    (
        Field("version", "integer", "counts from 1"),
        Field("upstream", "string", "the URL of the server"),
        Field("hash", "string", "of its canonical JSON"),
        Field("definition", "any", "the definition, masked"),
        Field("first_seen_at", "date", "when it was listed first", lambda row: row["first_seen"]),
        Field("last_seen_at", "date?", "when it was listed last", lambda row: row["last_seen"]),
        Field("times", "integer?", "how often it was listed"),
        Field("seen_by", "array", "to whom", part=SEEN_BY, many=True),
    ),
)

ARGUMENT: Final = Resource(
    "tool.argument",
    "A key of the arguments that a tool is called with.",
    (Field("key", "string", "the key"), Field("calls", "integer", "of the newest 200 stored calls")),
)

TOOL_DETAIL: Final = Resource(
    "tool",
    "One tool, how it is used, and what it was defined as.",
    (
        *_TOOL,
        Field("definitions", "array", "oldest first", part=DEFINITION, many=True),
        Field("arguments", "array", "most used first", part=ARGUMENT, many=True),
    ),
    called="ToolDetail",
)

COMPARISON: Final = Resource(
    "tool.comparison",
    "Two definitions of one tool.",
    (
        Field("name", "string", "the tool"),
        Field("old", "object", "one definition", part=DEFINITION),
        Field("new", "object", "the other one", part=DEFINITION),
    ),
)

CLIENT: Final = Resource(
    "client",
    "One client in one version.",
    (
        Field("id", "string", "name@version; unknown without a name", lambda row: row["client"]),
        Field("name", "string?", "as it names itself"),
        Field("version", "string?", "as it says"),
        Field("revisions", "strings", "of the protocol", lambda row: _several(row["revisions"])),
        Field("sessions", "integer", "its connections"),
        *_COUNTS,
        Field("p95_ms", "number?", "19 of 20 calls took no longer"),
        _EXACT,
        Field("tools", "integer", "how many different ones it called"),
        Field("first_seen_at", "date", "first contact", lambda row: row["first_seen"]),
        Field("last_seen_at", "date", "last use", lambda row: row["last_seen"]),
    ),
)

ERROR_GROUP: Final = Resource(
    "session.error_group",
    "Errors of one kind: the same method and target, reason, code and text but for what varies in it.",
    (
        Field("id", "string", "seg_…, the same in every recording", lambda row: row["group_id"]),
        Field("code", "string?", "JSON-RPC code, HTTP status or the transport's own word",
              lambda row: row["error_code"]),
        Field("message", "string?", "the text, with … for what varies", lambda row: row["error_message"]),
        Field("data", "any", "always null", lambda _: None),
        Field("provider_id", "string?", "always null", lambda _: None),
        Field("occurrence_count", "integer", "how many", lambda row: row["count"]),
        Field("count", "integer", "the same"),
        Field("name", "string", "the JSON-RPC method", lambda row: row["type"]),
        Field("target", "string?", "the tool, prompt or resource", lambda row: row["name"]),
        Field("failure_reason", "string", "the reason in the words of the session resources",
              resources.failure_reason, words=("none", "timeout", "provider_error", "system_error")),
        Field("failure", "string?", "the reason in the tap's own words", lambda row: row["failure_reason"],
              words=resources.FAILURES),
        Field("share", "number", "of all errors in range, from 0 to 1"),
        Field("clients", "integer", "how many clients met it"),
        Field("sessions", "integer", "how many connections"),
        Field("spark", "numbers", "how many in equal parts of the range"),
        Field("message_id", "string?", "smg_…, the newest one"),
        Field("created_at", "date", "the first one", lambda row: row["first"]),
        Field("updated_at", "date", "the newest one", lambda row: row["last"]),
    ),
)  # fmt: skip

OCCURRENCES: Final = Resource(
    "list",
    "A page of errors.",
    (
        Field("items", "array", "the errors", part=resources.ERROR, many=True),
        Field("pagination", "object", "what lies around the page"),
        Field("matched", "integer", "how many there are; 10,000 means that many or more"),
        Field("searched_until", "date?", "always null"),
    ),
    called="Occurrences",
)

ERROR_GROUP_DETAIL: Final = Resource(
    "session.error_group",
    "Errors of one kind, and a page of them.",
    (*ERROR_GROUP.fields, Field("occurrences", "object", "the errors, newest first", part=OCCURRENCES)),
    called="SessionErrorGroupDetail",
)

TOTALS: Final = Resource(
    "totals",
    "The figures of a range.",
    (
        Field("sessions", "integer", "connections"),
        Field("active", "integer", "those that can still be used"),
        *_COUNTS,
        Field("tool_calls", "integer", "calls of tools"),
        *_PERCENTILES,
        _EXACT,
        Field("dropped", "integer", "pieces of traffic that are not in the record"),
    ),
)


def _moment(name: str) -> Callable[[Row], str]:
    return lambda row: iso(row[name])


SPAN: Final = Resource(
    "span",
    "The figures of one part of a range.",
    (Field("from", "date", "its beginning", _moment("start")), Field("to", "date", "its end", _moment("end")),
     *_COUNTS, *_PERCENTILES),
)  # fmt: skip

OVERVIEW: Final = Resource(
    "overview",
    "Whether all is well.",
    (
        Field("totals", "object", "the figures of the range", part=TOTALS),
        Field("previous", "object?", "those of the equally long time before; null without a beginning", part=TOTALS),
        Field("series", "array", "figures over time, oldest first", part=SPAN, many=True),
        Field("clients", "array", "most calls first", part=CLIENT, many=True),
        Field("sessions", "array", "the five newest connections", part=resources.CONNECTION, many=True),
        Field("errors", "array", "the five newest errors", part=resources.ERROR, many=True),
        Field("paths", "strings", "what else there is below /api"),
    ),
)


def _several(revisions: Any) -> list[str]:
    return revisions.split(",") if isinstance(revisions, str) else [*(revisions or ())]


# ------------------------------------------------------------------------------------------------------- the lists

#: What lists of figures can be sorted by: names of attributes, and the short ones that pages use in their links.
_RANKS: Final[dict[str, Callable[[Row], Any]]] = {
    "rate": lambda row: row["errors"] / row["calls"] if row["calls"] else 0,
    "p50": lambda row: row["p50_ms"], "p95": lambda row: row["p95_ms"], "p99": lambda row: row["p99_ms"],
    "group": lambda row: row["name"] or row["type"], "kind": lambda row: row["failure_reason"],
}  # fmt: skip


def _ranked(request: Request, rows: list[Row], resource: Resource, columns: str) -> Json:
    """Return figures in the order that is asked for, else in that of the store; what has no value stands last."""
    words = (*columns.split(), *(field.name for field in resource.fields))
    question = parameters.read(request, limit=parameters.MOST, order="desc", sorts=words)
    if sort := question.paging.sort:
        read = _RANKS.get(sort) or (lambda row: row.get(sort, row.get(sort.removesuffix("_at"))))
        told = [(rank, row) for row in rows if isinstance(rank := read(row), str | int | float)]
        told.sort(key=lambda pair: _comparable(pair[0]), reverse=question.paging.order == "desc")
        rows = [row for _, row in told] + [row for row in rows if not isinstance(read(row), str | int | float)]
    return whole(resource, rows, question.paging.limit if "limit" in request.query_params else None)


def _comparable(value: float | str) -> tuple[float, str]:
    return (0, value.casefold()) if isinstance(value, str) else (value, "")


async def tools(desk: Desk, request: Request) -> Json:
    """Answer with every tool, slowest first."""
    rows = await desk.reader.tools(_where(request))
    return _ranked(request, rows, TOOL, "health calls errors rate p50 p95 p99 last_called clients changed")


async def tool(desk: Desk, request: Request) -> Json:
    """Answer with one tool and its definitions."""
    return TOOL_DETAIL.of(await desk.reader.tool(request.path_params["tool"], _where(request)))


async def versions(desk: Desk, request: Request) -> Json:
    """Answer with two definitions of one tool."""
    parameters.refuse_unknown(request.query_params.multi_items())
    name = request.path_params["tool"]
    found = {row["version"]: row for row in (await desk.reader.tool(name))["definitions"]}
    old, new = (request.path_params[which] for which in ("old", "new"))
    for number in (old, new):
        if number not in found:
            raise missing(str(number), "tool.definition")
    return COMPARISON.of({"name": name, "old": found[old], "new": found[new]})


async def clients(desk: Desk, request: Request) -> Json:
    """Answer with every client, most calls first."""
    rows = await desk.reader.clients(_where(request))
    return _ranked(request, rows, CLIENT, "client sessions calls errors rate p95 tools first_seen last_seen")


async def client(desk: Desk, request: Request) -> Json:
    """Answer with one client."""
    of = request.path_params["client"]
    for row in await desk.reader.clients(_where(request)):
        if row["client"] == of:
            return CLIENT.of(row)
    raise missing(of, "client")


async def error_groups(desk: Desk, request: Request) -> Json:
    """Answer with the groups of errors, most first; below a session with its own."""
    where = _where(request)
    if "session" in request.path_params:
        where = where.plus("session", request.path_params["session"])
    rows = await desk.reader.errors(where)
    return _ranked(request, rows, ERROR_GROUP, "group kind count share clients first last")


async def error_group(desk: Desk, request: Request) -> Json:
    """Answer with one group and its occurrences, newest first."""
    question = parameters.read(request, order="desc", sorts=EVENT_SORTS)
    where = question.where
    if "session" in request.path_params:
        where = where.plus("session", request.path_params["session"])
    group, page = await desk.reader.error(request.path_params["group"], where, of_events(question.paging))
    return ERROR_GROUP.of(group) | {"occurrences": listed(resources.ERROR, page, "event_id")}


#: What counts as slow where nobody says.
_OVER: Final = "1s"


async def slow(desk: Desk, request: Request) -> Json:
    """Answer with the calls that took longest."""
    question = parameters.read(request, order="desc", sorts=EVENT_SORTS)
    over = (request.query_params.get("over") or _OVER).lstrip(">=")
    try:
        where = question.where.plus("latency", f">={over}")
    except UsageError as error:
        raise UsageError(f'over: "{over}" is no span of time', hint=error.hint, code="invalid_data") from None
    # what listens lasts by design
    where = where.plus("is", "call").plus("method", "subscriptions/listen", negated=True)
    paging = question.paging if question.paging.sort else question.paging._replace(sort="latency_ms")
    page = await desk.reader.list_events(where, paging, kinds=frozenset({"request"}))
    return listed(resources.MESSAGE, page._replace(rows=await with_bodies(desk.reader, page.rows)), "message_id")


async def overview(desk: Desk, request: Request) -> Json:
    """Answer with the figures of a range, what is newest in it, and what else can be asked."""
    where, reader = _where(request), desk.reader
    earlier = where.previous()
    failed = where if where.value("status") == "failed" else where.plus("status", "failed")
    five = Paging(limit=5)
    totals, previous, series, listed_clients, sessions, errors = await asyncio.gather(
        reader.totals(where),
        _maybe(desk, earlier),
        reader.series(where),
        reader.clients(where),
        reader.list_sessions(where, five),
        reader.list_events(failed, five, kinds=frozenset({"request", "notification", "response"})),
    )
    return OVERVIEW.of(
        {
            "totals": totals, "previous": previous, "series": series, "clients": listed_clients,
            "sessions": sessions.rows, "errors": errors.rows, "paths": paths_of(request),
        }
    )  # fmt: skip


def paths_of(request: Request) -> list[str]:
    """Return every path below /api, as the routes have them."""
    paths = (getattr(route, "path_format", "") for route in request.app.routes)
    return [path for path in paths if path.startswith("/api/")]


async def _maybe(desk: Desk, where: Filter | None) -> Row | None:
    return None if where is None else await desk.reader.totals(where)


def _where(request: Request) -> Filter:
    given = request.query_params.multi_items()
    parameters.refuse_unknown(given)
    return parameters.where(given)
