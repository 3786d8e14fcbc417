"""What a recording holds, asked by paths: sessions and what is below them, each also on its own.

One handler answers a nested path and its flat twin: what stands in the path narrows the question.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any, Final

from starlette.requests import Request

from mcp_tap.api import parameters, resources
from mcp_tap.api.desk import Desk
from mcp_tap.api.errors import missing
from mcp_tap.api.parameters import Question
from mcp_tap.api.shape import Resource
from mcp_tap.model import Kind, UsageError
from mcp_tap.store import ALL, Page, Paging, Reader, Row
from mcp_tap.store.filters import Filter, Term
from mcp_tap.store.rows import MESSAGES
from mcp_tap.values import nearest

Json = dict[str, Any]

SESSION_SORTS: Final = ("started", "client_name", "duration_ms", "calls", "errors", "last_active")
EVENT_SORTS: Final = ("time", "latency_ms", "size")

#: Levels of a body that are told as JSON. Nobody's arguments have so many, and writers of JSON have their limits.
_DEEP: Final = 200

#: Ids that one question to the store names.
_AT_ONCE: Final = 200

#: Connections of one session that are told, at most.
_CONNECTIONS: Final = 100

_MESSAGES: Final = frozenset(kind.value for kind in MESSAGES)
_EXCHANGES: Final = _MESSAGES | {Kind.HTTP.value}

#: Each type of event as a question: kinds of lines, and words of the filter language. What a tap never makes is
#: asked for in vain.
_NEVER: Final = (frozenset[str](), ())
_EVENTS_OF: Final[dict[str, tuple[frozenset[str], tuple[Term, ...]]]] = {
    "message_created": (_EXCHANGES, (Term("status", "waiting_for_response"),)),
    "message_processed": (_EXCHANGES, (Term("status", "waiting_for_response,failed", negated=True),)),
    "error_occurred": (_EXCHANGES, (Term("status", "failed"),)),
    "connection_connected": (frozenset({"lifecycle"}), (Term("method", "session_start,session_reopened"),)),
    "connection_disconnected": (
        frozenset({"lifecycle"}), (Term("method", "session_end"), Term("text", "client_delete", negated=True)),
    ),
    "connection_disabled": (frozenset({"lifecycle"}), (Term("method", "session_end"), Term("text", "client_delete"))),
    "warning_occurred": (
        frozenset({"lifecycle"}), (Term("method", "session_start,session_reopened,session_end", negated=True),),
    ),
}  # fmt: skip

_CONTROL: Final = ",".join(resources.CONTROL)
_MESSAGES_OF: Final[dict[str, tuple[frozenset[str], tuple[Term, ...]]]] = {
    "tool_call": (_MESSAGES, (Term("method", "tools/call"),)),
    "mcp_control": (_MESSAGES, (Term("method", _CONTROL),)),
    "mcp_message": (_MESSAGES, (Term("method", f"tools/call,response,{_CONTROL}", negated=True),)),
    "unknown": (_MESSAGES, (Term("method", "response"),)),
}


# ------------------------------------------------------------------------------------------------------ envelopes


def listed(resource: Resource, page: Page, key: str) -> Json:
    """Return a page of a list in its envelope; ``key`` is the column that positions are named by."""
    rows = page.rows
    after = parameters.cursor("after", rows[-1][key]) if rows and page.more_after else None
    before = parameters.cursor("before", rows[0][key]) if rows and page.more_before else None
    return {
        "object": "list",
        "items": [resource.of(row) for row in rows],
        "pagination": {
            "has_more_before": page.more_before,
            "has_more_after": page.more_after,
            "next_cursor": after,
            "previous_cursor": before,
        },
        "matched": page.matched,
        "searched_until": page.searched_until,
    }


def whole(resource: Resource, rows: list[Row], limit: int | None = None) -> Json:
    """Return a list that has no further pages, cut where the question says so."""
    shown = rows if limit is None else rows[:limit]
    return listed(resource, Page(shown, False, False, len(rows)), "")


def _revealed(request: Request) -> bool:
    return "session_id" in request.query_params.getlist("reveal")


def _narrowed(request: Request, question: Question) -> Filter:
    """Return the filter of a question about what the path names."""
    terms = tuple(
        Term(key, request.path_params[name])
        for name, key in (("session", "session"), ("connection", "conn"))
        if name in request.path_params
    )
    return Filter(tuple(dict.fromkeys((*question.where.terms, *terms))), question.where.now_us)


def _typed(
    request: Request,
    question: Question,
    types: dict[str, tuple[frozenset[str], tuple[Term, ...]]],
    every: Iterable[str],
) -> tuple[Filter, frozenset[str] | None]:
    """Take the types of resources out of a question; any other value of ``type`` is the method it always was."""
    named = request.query_params.getlist("type")
    where = _narrowed(request, question)
    wanted = [name for name in named if name in every]
    if not wanted:
        return where, None
    if len(named) > 1:
        raise UsageError("type is given more than once", hint="ask for one type at a time", code="invalid_data")
    kinds, terms = types.get(wanted[0], _NEVER)
    rest = tuple(term for term in where.terms if term != Term("method", wanted[0]))
    return Filter((*rest, *terms), where.now_us), kinds


# ------------------------------------------------------------------------------------------ sessions, connections


async def sessions(desk: Desk, request: Request) -> Json:
    """Answer with a page of sessions, newest first."""
    question = parameters.read(request, order="desc", sorts=SESSION_SORTS)
    paging, key = question.paging, "session_id"
    if paging.sort or (paging.after or paging.before or "").startswith("scn_"):
        page, key = await desk.reader.list_sessions(question.where, paging), "connection_id"
    else:
        page = await desk.reader.session_ids(question.where, paging)
    told = await _contexts(desk.reader, [row["session_id"] for row in page.rows], revealed=_revealed(request))
    rows = [told[row["session_id"]] | {key: row[key]} for row in page.rows if row["session_id"] in told]
    if key == "connection_id":  # each session once, where the first of its connections stands
        rows = [
            row for number, row in enumerate(rows) if row["session_id"] not in {r["session_id"] for r in rows[:number]}
        ]
    return listed(resources.SESSION, page._replace(rows=rows), key)


async def session(desk: Desk, request: Request) -> Json:
    """Answer with one session."""
    parameters.refuse_unknown(request.query_params.multi_items())
    of = request.path_params["session"]
    told = await _contexts(desk.reader, [of], revealed=_revealed(request))
    if of not in told:
        raise missing(of, "session")
    return resources.SESSION.of(told[of])


async def _contexts(reader: Reader, ids: list[str], *, revealed: bool) -> dict[str, Row]:
    """Return sessions by their ids: their newest connection, and all of them."""
    if not ids or not all(of.startswith("ses_") for of in ids):
        return {}
    wanted = Filter((Term("session", ",".join(dict.fromkeys(ids))),))
    found = await reader.list_sessions(wanted, Paging(limit=_CONNECTIONS * (1 if len(ids) == 1 else 10)))
    told: dict[str, Row] = {}
    for row in found.rows:
        row["reveal"] = revealed
        newest = told.setdefault(row["session_id"], {**row, "connections": []})
        newest["connections"].append(row)
        newest["created_at"] = row["created"]
    return {of: told[of] for of in ids if of in told}


async def connections(desk: Desk, request: Request) -> Json:
    """Answer with a page of connections: of one session in the order of time, of all newest first."""
    nested = "session" in request.path_params
    question = parameters.read(request, order="asc" if nested else "desc", sorts=SESSION_SORTS)
    page = await desk.reader.list_sessions(_narrowed(request, question), question.paging)
    if nested and not page.rows:
        await _be_there(desk.reader, request)
    for row in page.rows:
        row["reveal"] = _revealed(request)
    return listed(resources.CONNECTION, page, "connection_id")


async def connection(desk: Desk, request: Request) -> Json:
    """Answer with one connection."""
    parameters.refuse_unknown(request.query_params.multi_items())
    of = request.path_params["connection"]
    row = (await connections_by_id(desk.reader, [of])).get(of)
    if row is None or row["session_id"] != request.path_params.get("session", row["session_id"]):
        raise missing(of, "session.connection")
    return resources.CONNECTION.of(row | {"reveal": _revealed(request)})


#: What lines of timelines say of their connection.
NAMES: Final = ("client_name", "client_version", "mcp_session_id")


async def connections_by_id(reader: Reader, ids: Iterable[str | None], *, where: Filter = ALL) -> dict[str, Row]:
    """Return connections by their ids, those that fit ``where``; ids that nothing has are left out."""
    wanted = [of for of in dict.fromkeys(ids) if of and of.startswith("scn_") and "," not in of]
    found: dict[str, Row] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        part = wanted[start : start + _AT_ONCE]
        named = Filter((*where.terms, Term("conn", ",".join(part))), where.now_us)
        page = await reader.list_sessions(named, Paging(limit=len(part) + 1))
        found |= {row["connection_id"]: row for row in page.rows if row["connection_id"] in part}
    return found


async def _be_there(reader: Reader, request: Request) -> None:
    """Raise NotFoundError when the session or the connection that a path names is not there."""
    of = request.path_params.get("connection")
    if of is not None:
        if of not in await connections_by_id(reader, [of]):
            raise missing(of, "session.connection")
        return
    of = request.path_params["session"]
    if not of.startswith("ses_") or of not in await _contexts(reader, [of], revealed=False):
        raise missing(of, "session")


# ------------------------------------------------------------------------------------- messages, events, and errors


async def messages(desk: Desk, request: Request) -> Json:
    """Answer with a page of messages, each with what was asked and answered as far as it is stored."""
    question, nested = _of_timeline(request)
    where, kinds = _typed(request, question, _MESSAGES_OF, resources.MESSAGE_TYPES)
    page = await desk.reader.list_events(where, question.paging, kinds=kinds or _MESSAGES)
    if nested and not page.rows:
        await _be_there(desk.reader, request)
    return listed(resources.MESSAGE, page._replace(rows=await with_bodies(desk.reader, page.rows)), "message_id")


async def with_bodies(reader: Reader, rows: list[Row]) -> list[Row]:
    """Return messages with their parsed bodies and what is known of their connections."""
    known, *details = await asyncio.gather(
        connections_by_id(reader, (row["connection_id"] for row in rows)),
        *(reader.event(row["event_id"]) for row in rows),
    )
    return [
        complete({**row, **detail}, known.get(row["connection_id"])) | {"child_message_ids": None}
        for row, detail in zip(rows, details, strict=True)
    ]


def complete(row: Row, of: Row | None) -> Row:
    """Return a message as `Reader.event` has it with its parsed bodies and what its connection says."""
    known = (*NAMES, "protocol_version", "transport", "participant_id")
    told = {name: None if of is None else of[name] for name in known}
    return {
        **row, **told,
        "jsonrpc_id": parsed(row["jsonrpc_id"]),
        "input": parsed((row["request_body"] or {}).get("data")),
        "output": parsed((row["response_body"] or {}).get("data")),
    }  # fmt: skip


def parsed(text: str | None) -> Any:
    """Return what JSON says, None for what is none or too deep. Numbers stay what they are, however long."""
    if text is None:
        return None
    try:
        value = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None
    return None if _deeper(value, _DEEP) else value


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _deeper(value: Any, levels: int) -> bool:
    """Whether a value has more levels than that, one inside the other."""
    inside = [value]
    while inside and levels >= 0:
        inside = [
            each
            for outer in inside
            if isinstance(outer, list | dict)
            for each in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(each, list | dict)
        ]
        levels -= 1
    return bool(inside)


async def events(desk: Desk, request: Request) -> Json:
    """Answer with a page of timelines: of one session or connection in its order, of all newest first."""
    question, nested = _of_timeline(request)
    where, kinds = _typed(request, question, _EVENTS_OF, resources.EVENT_TYPES)
    if kinds is not None and not kinds:
        page = Page([], False, False, 0)
    else:
        page = await desk.reader.list_events(where, question.paging, kinds=kinds)
    if nested and not page.rows:
        await _be_there(desk.reader, request)
    return listed(resources.EVENT, page, "event_id")


async def event(desk: Desk, request: Request) -> Json:
    """Answer with one line of a timeline."""
    parameters.refuse_unknown(request.query_params.multi_items())
    row = await line(desk.reader, request, request.path_params["event"], "sev_")
    of = (await connections_by_id(desk.reader, [row["connection_id"]])).get(row["connection_id"])
    return resources.EVENT.of(complete(row, of))


async def line(reader: Reader, request: Request, of: str, prefix: str) -> Row:
    """Return one line with its details; raise NotFoundError when it is not there, or below another parent."""
    what = "session.message" if prefix == "smg_" else "session.event"
    if not of.startswith(prefix):
        raise missing(of, what)
    row = await reader.event(of)
    if row["message_id" if prefix == "smg_" else "event_id"] != of:
        raise missing(of, what)
    for name in ("session", "connection"):
        if request.path_params.get(name, row[f"{name}_id"]) != row[f"{name}_id"]:
            raise missing(of, what)
    return row


async def failures(desk: Desk, request: Request) -> Json:
    """Answer with a page of errors: messages that failed, told by what they failed with."""
    question, nested = _of_timeline(request)
    where = Filter((*_narrowed(request, question).terms, Term("status", "failed")), question.where.now_us)
    page = await desk.reader.list_events(where, of_events(question.paging), kinds=_MESSAGES)
    if nested and not page.rows:
        await _be_there(desk.reader, request)
    return listed(resources.ERROR, page, "event_id")


async def failure(desk: Desk, request: Request) -> Json:
    """Answer with one error."""
    parameters.refuse_unknown(request.query_params.multi_items())
    of = request.path_params["error"]
    if not of.startswith("ser_"):
        raise missing(of, "session.error")
    row = await line(desk.reader, request, f"sev_{of[4:]}", "sev_")
    if row["status"] != "failed":
        raise missing(of, "session.error")
    return resources.ERROR.of(row | {"output": parsed((row["response_body"] or {}).get("data"))})


def of_events(paging: Paging) -> Paging:
    """Return the part of a list of errors as that of the events that they are made of."""
    after, before = (
        f"sev_{of[4:]}" if of is not None and of.startswith("ser_") else of for of in (paging.after, paging.before)
    )
    return paging._replace(after=after, before=before)


async def participants(desk: Desk, request: Request) -> Json:
    """Answer with everyone who takes part in a session."""
    parameters.refuse_unknown(request.query_params.multi_items())
    of = request.path_params["session"]
    found = await desk.reader.participants(of) if of.startswith("ses_") else []
    if not found:
        await _be_there(desk.reader, request)
    wanted = request.query_params.getlist("type")
    kinds = ("mcp_client", "provider", "unknown")
    for word in wanted:
        if word not in kinds:
            raise UsageError(f'"{word}" is no type of participant', hint=nearest(word, kinds), code="invalid_data")
    rows = [row | {"session_id": of} for row in found if not wanted or row["type"] in wanted]
    return whole(resources.PARTICIPANT, rows)


async def participant(desk: Desk, request: Request) -> Json:
    """Answer with one who takes part in a session."""
    parameters.refuse_unknown(request.query_params.multi_items())
    of, session_id = request.path_params["participant"], request.path_params["session"]
    for row in await desk.reader.participants(session_id) if session_id.startswith("ses_") else []:
        if row["id"] == of:
            return resources.PARTICIPANT.of(row | {"session_id": session_id})
    raise missing(of, "session.participant")


def _of_timeline(request: Request) -> tuple[Question, bool]:
    """Return the question about lines, and whether it is about one session or connection."""
    nested = "session" in request.path_params or "connection" in request.path_params
    return parameters.read(request, order="asc" if nested else "desc", sorts=EVENT_SORTS), nested
