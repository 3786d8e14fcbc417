"""The OpenAPI document, made from the table of paths and the tables of fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from mcp_tap import __version__
from mcp_tap.api import parameters
from mcp_tap.store import filters

if TYPE_CHECKING:
    from mcp_tap.api.routes import Path

Json = dict[str, Any]

_ERROR: Final[Json] = {
    "type": "object",
    "properties": {
        "object": {"const": "error"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "message": {"type": "string"},
        "hint": {"type": "string"},
        "entity": {"type": "string"},
        "id": {"type": "string"},
    },
    "required": ["object", "status", "code", "message"],
    "additionalProperties": False,
}

_PAGINATION: Final[Json] = {
    "type": "object",
    "properties": {
        "has_more_before": {"type": "boolean"},
        "has_more_after": {"type": "boolean"},
        "next_cursor": {"type": ["string", "null"]},
        "previous_cursor": {"type": ["string", "null"]},
    },
    "required": ["has_more_before", "has_more_after", "next_cursor", "previous_cursor"],
    "additionalProperties": False,
}


def document(paths: Iterable[Path]) -> Json:
    """Return the document of these paths."""
    paths = [*paths]
    parts = {part.title: part for path in paths for part in path.resource.parts()}
    schemas: Json = {"Error": _ERROR, "Pagination": _PAGINATION}
    schemas |= {title: part.schema() for title, part in sorted(parts.items())}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mcp-tap",
            "version": __version__,
            "description": "What a recording of MCP traffic holds. Everything here only reads.",
        },
        "paths": {f"/api{plain(path.path)}": {"get": _operation(path)} for path in paths}
        | {"/api/live": {"get": _LIVE}},
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def plain(path: str) -> str:
    """Return a path as the document writes it, without the types of its parameters."""
    return path.replace(":path}", "}").replace(":int}", "}")


def _operation(path: Path) -> Json:
    ref: Json = {"$ref": f"#/components/schemas/{path.resource.title}"}
    named = [name.split("}")[0] for name in path.path.split("{")[1:]]
    answers: Json = {"200": _answer(path.help, _envelope(ref) if path.many else ref)}
    answers["400"] = _answer("A parameter cannot be read.", _ref("Error"))
    if named:
        answers["404"] = _answer("Nothing has that id.", _ref("Error"))
    for status, why in (("401", "The desk wants its token."), ("503", "The recording cannot be read.")):
        answers[status] = _answer(why, _ref("Error"))
    return {
        "summary": path.help,
        "operationId": plain(path.path).strip("/").replace("/", "_").replace("{", "").replace("}", "") or "index",
        "parameters": [_in_path(name) for name in named] + _in_query(path),
        "responses": answers,
    }


def _ref(title: str) -> Json:
    return {"$ref": f"#/components/schemas/{title}"}


def _answer(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _envelope(item: Json) -> Json:
    return {
        "type": "object",
        "properties": {
            "object": {"const": "list"},
            "items": {"type": "array", "items": item},
            "pagination": _ref("Pagination"),
            "matched": {"type": "integer", "description": "how many there are; 10,000 means that many or more"},
        },
        "required": ["object", "items", "pagination", "matched"],
        "additionalProperties": False,
    }


def _in_path(name: str) -> Json:
    name, _, kind = name.partition(":")
    schema: Json = {"type": "integer", "minimum": 0} if kind == "int" else {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(path: Path) -> list[Json]:
    found = [_parameter("q", "words of the filter language, as people write them")]
    found += [_parameter(key, f"{known.help}; as in {known.example}") for key, known in filters.KEYS.items()]
    if path.types:
        found.append(_parameter("type", f"one of {', '.join(path.types)}"))
    if path.reads:
        limit = {"type": "integer", "minimum": 1, "maximum": parameters.MOST}
        found.append(_parameter("limit", "rows of the answer; 20 where nothing is said", limit))
        order = {"type": "string", "enum": ["asc", "desc"], "default": path.order}
        found.append(_parameter("order", "how the list runs", order))
    if path.reads == "page":
        found.append(_parameter("sort", "what it runs by; time where nothing is said", {"enum": [*path.sorts]}))
        for name, help_ in (
            ("after", "the id of a row: those that follow it"),
            ("before", "the id of a row: those right before it"),
            ("cursor", "next_cursor or previous_cursor of an answer"),
        ):
            found.append(_parameter(name, help_))
    return found


def _parameter(name: str, description: str, schema: Json | None = None) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema or {"type": "string"}}


_LIVE: Final[Json] = {
    "summary": "What is recorded, as server-sent events.",
    "operationId": "live",
    "parameters": [
        _parameter("q", "words of the filter language, as people write them"),
        _parameter("of", "events, sessions, or both where nothing is said"),
        _parameter("change", "the change number to go on from; now where nothing is said"),
        {"name": "Last-Event-ID", "in": "header", "description": "the same, and it counts more",
         "schema": {"type": "string"}},
    ],
    "responses": {
        "200": {"description": "Events until the reader goes.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        "400": _answer("A parameter cannot be read.", _ref("Error")),
        "401": _answer("The desk wants its token.", _ref("Error")),
    },
}  # fmt: skip
