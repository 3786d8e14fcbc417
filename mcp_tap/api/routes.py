"""Every path under /api: who answers there, with what, and which parameters are read.

The routes and the OpenAPI document are made from one table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import orjson
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_tap.api import detail, figures, live, openapi, recorded, resources
from mcp_tap.api.desk import Desk
from mcp_tap.api.shape import Resource, dumped

Handler = Callable[[Desk, Request], Awaitable[dict[str, Any]]]


class Path(NamedTuple):
    """One path: its answer is one ``resource``, or with ``many`` a list of them.

    ``reads`` says which parameters beside the filter count: those of a `page`, of a `ranking`, or none.
    """

    path: str
    answer: Handler
    resource: Resource
    help: str
    many: bool = False
    reads: str = ""
    order: str = "desc"
    sorts: tuple[str, ...] = ()
    types: tuple[str, ...] = ()  # values of `type`


def _list(path: str, answer: Handler, resource: Resource, help: str, **more: Any) -> Path:  # noqa: A002 as Path has it
    return Path(path, answer, resource, help, many=True, **({"reads": "page"} | more))


def _resources(prefix: str, order: str = "desc") -> list[Path]:
    """Return what a session holds, below it or under another prefix for all sessions."""
    events: dict[str, Any] = {"order": order, "sorts": recorded.EVENT_SORTS}
    return [
        _list(f"{prefix}connections", recorded.connections, resources.CONNECTION, "Lifecycles of clients.",
              order=order, sorts=recorded.SESSION_SORTS),
        Path(f"{prefix}connections/{{connection}}", recorded.connection, resources.CONNECTION, "One connection."),
        _list(f"{prefix}messages", recorded.messages, resources.MESSAGE, "Requests with their answers.",
              types=resources.MESSAGE_TYPES, **events),
        Path(f"{prefix}messages/{{message}}", detail.message, detail.DETAIL, "One message and what is around it."),
        _list(f"{prefix}events", recorded.events, resources.EVENT, "Lines of timelines.",
              types=resources.EVENT_TYPES, **events),
        Path(f"{prefix}events/{{event}}", recorded.event, resources.EVENT, "One line of a timeline."),
    ]  # fmt: skip


def _errors(prefix: str, order: str = "desc") -> list[Path]:
    return [
        _list(f"{prefix}errors", recorded.failures, resources.ERROR, "What messages failed with.",
              order=order, sorts=recorded.EVENT_SORTS),
        Path(f"{prefix}errors/{{error}}", recorded.failure, resources.ERROR, "One error."),
        _list(f"{prefix}error-groups", figures.error_groups, figures.ERROR_GROUP, "Errors in groups, most first.",
              reads="ranking"),
        Path(f"{prefix}error-groups/{{group}}", figures.error_group, figures.ERROR_GROUP_DETAIL,
             "One group of errors with its occurrences.", reads="page", sorts=recorded.EVENT_SORTS),
    ]  # fmt: skip


PATHS: Final = (
    Path("", figures.overview, figures.OVERVIEW, "Figures of a range, what is newest in it, and all paths."),
    Path("/overview", figures.overview, figures.OVERVIEW, "The same."),
    _list("/sessions", recorded.sessions, resources.SESSION, "Runtime contexts.", sorts=recorded.SESSION_SORTS),
    Path("/sessions/{session}", recorded.session, resources.SESSION, "One session."),
    *_resources("/sessions/{session}/", "asc"),
    *_errors("/sessions/{session}/", "asc"),
    _list("/sessions/{session}/participants", recorded.participants, resources.PARTICIPANT,
          "Who takes part in a session.", reads="", types=("mcp_client", "provider", "unknown")),
    Path("/sessions/{session}/participants/{participant}", recorded.participant, resources.PARTICIPANT,
         "One who takes part in a session."),
    *_resources("/"),
    _list("/connections/{connection}/events", recorded.events, resources.EVENT, "The timeline of a connection.",
          order="asc", sorts=recorded.EVENT_SORTS, types=resources.EVENT_TYPES),
    _list("/connections/{connection}/messages", recorded.messages, resources.MESSAGE, "The messages of a connection.",
          order="asc", sorts=recorded.EVENT_SORTS, types=resources.MESSAGE_TYPES),
    *_resources("/session-"),
    *_errors("/session-"),
    _list("/tools", figures.tools, figures.TOOL, "Tools, slowest first.", reads="ranking"),
    Path("/tools/{tool:path}/versions/{old:int}..{new:int}", figures.versions, figures.COMPARISON,
         "Two definitions of a tool."),
    Path("/tools/{tool:path}", figures.tool, figures.TOOL_DETAIL, "One tool and its definitions."),
    _list("/clients", figures.clients, figures.CLIENT, "Clients, most calls first.", reads="ranking"),
    Path("/clients/{client:path}", figures.client, figures.CLIENT, "One client."),
    _list("/errors", figures.error_groups, figures.ERROR_GROUP, "Errors in groups, most first.", reads="ranking"),
    Path("/errors/{group}", figures.error_group, figures.ERROR_GROUP_DETAIL,
         "One group of errors with its occurrences.", reads="page", sorts=recorded.EVENT_SORTS),
    _list("/slow", figures.slow, resources.MESSAGE, "The calls that took longest.", sorts=recorded.EVENT_SORTS),
)  # fmt: skip


#: The desk is read through port-forwards, too. Not for the live stream: what it packs would wait for more.
PACKED: Final = (Middleware(GZipMiddleware, minimum_size=1000, compresslevel=4),)


def routes(desk: Desk) -> list[Route]:
    """Return the routes of the API."""
    document = orjson.dumps(openapi.document(PATHS)) + b"\n"

    async def described(_: Request) -> Response:
        return Response(document, media_type="application/json")

    return [
        Route("/api/openapi.json", described, methods=["GET"], middleware=PACKED),
        Route("/api/live", live.endpoint(desk), methods=["GET"]),
        *(Route(f"/api{path.path}", _endpoint(desk, path), methods=["GET"], middleware=PACKED) for path in PATHS),
    ]


def _endpoint(desk: Desk, path: Path) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        return Response(dumped(await path.answer(desk, request)), media_type="application/json")

    return answer
