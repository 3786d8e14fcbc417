"""The OpenAPI document, made from the table of paths and the tables of fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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


_LIST: Final[Json] = {
    "type": "object",
    "properties": {
        "object": {"const": "list"},
        "items": {"type": "array"},
        "pagination": {"$ref": "#/components/schemas/Pagination"},
        "matched": {"type": "integer", "description": "how many there are; 10,000 means that many or more"},
        "searched_until": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "what is older was not looked at, ask for it with `to`; null: everything was",
        },
    },
    "required": ["object", "items", "pagination", "matched", "searched_until"],
    "additionalProperties": False,
}


def document(paths: Iterable[Path]) -> Json:
    """Return the document of these paths."""
    paths = [*paths]
    parts = {part.title: part for path in paths for part in path.resource.parts()}
    schemas: Json = {"Error": _ERROR, "Pagination": _PAGINATION, "List": _LIST}
    schemas |= {title: part.schema() for title, part in sorted(parts.items())}
    schemas |= {_told(path): _envelope(_schema(path.resource.title)) for path in paths if path.many}
    own = {name: said for path in paths for name, said in (_in_path(path) | _own(path)).items()}
    told = {_told(path): _answer(path.resource.help, _schema(_told(path))) for path in paths}
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
            "parameters": _PARAMETERS | own,
            "responses": {"Refused": _REFUSED} | told,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def plain(path: str) -> str:
    """Return a path as the document writes it, without the types of its parameters."""
    return path.replace(":path}", "}").replace(":int}", "}")


def _operation(path: Path) -> Json:
    return {
        "summary": path.help,
        "operationId": plain(path.path).strip("/").replace("/", "_").replace("{", "").replace("}", "") or "index",
        "parameters": [_ref("parameters", name) for name in (*_in_path(path), *_shared(path), *_own(path))],
        "responses": {"200": _ref("responses", _told(path)), "default": _ref("responses", "Refused")},
    }


def _told(path: Path) -> str:
    """Return the name of what a path answers with."""
    return f"ListOf{path.resource.title}" if path.many else path.resource.title


def _ref(part: str, name: str) -> Json:
    return {"$ref": f"#/components/{part}/{name}"}


def _schema(title: str) -> Json:
    return _ref("schemas", title)


def _answer(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _envelope(item: Json) -> Json:
    return {"allOf": [_schema("List"), {"properties": {"items": {"items": item}}}]}


def _in_path(path: Path) -> Json:
    """Return the parameters in a path by name."""
    found: Json = {}
    for piece in path.path.split("{")[1:]:
        name, _, kind = piece.split("}")[0].partition(":")
        schema: Json = {"type": "integer", "minimum": 0} if kind == "int" else {"type": "string", "minLength": 1}
        found[name] = {"name": name, "in": "path", "required": True, "schema": schema}
    return found


def _shared(path: Path) -> Iterator[str]:
    """Yield the names of the parameters that mean the same wherever they are read."""
    yield "filter"
    if path.reads:
        yield "limit"
    if path.reads == "page":
        yield "position"


def _own(path: Path) -> Json:
    """Return the parameters whose values depend on what is listed, by names that say so."""
    found: Json = {}
    if path.types:
        found[f"type.{path.resource.title}"] = _parameter("type", f"one of {', '.join(path.types)}")
    if path.reads:
        order = {"enum": ["asc", "desc"], "default": path.order}
        found[f"order.{path.order}"] = _parameter("order", "how the list runs", order)
    if path.reads == "page":
        schema = {"enum": [*path.sorts]}
        found[f"sort.{path.sorts[0]}"] = _parameter("sort", "what it runs by; time where nothing is said", schema)
    return found


def _parameter(name: str, description: str, schema: Json | None = None) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema or {"type": "string"}}


def _exploded(name: str, properties: Json) -> Json:
    """Return an object whose properties are parameters of the URL, each by its own name (`style` and `explode`)."""
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {"name": name, "in": "query", "style": "form", "explode": True, "schema": schema}


def _text(description: str) -> Json:
    return {"type": "string", "description": description}


_WORDS: Final = "words of the filter language, as people write them"

# What many paths have in common stands here once: 28 keys of filters for each would be most of the document.
_PARAMETERS: Final[Json] = {
    "filter": _exploded(
        "filter",
        {"q": _text(_WORDS)}
        | {key: _text(f"{known.help}; as in {known.example}") for key, known in filters.KEYS.items()},
    ),
    "position": _exploded(
        "position",
        {
            "after": _text("the id of a row: those that follow it"),
            "before": _text("the id of a row: those right before it"),
            "cursor": _text("next_cursor or previous_cursor of an answer"),
        },
    ),
    "limit": _parameter(
        "limit",
        "rows of the answer; 20 where nothing is said",
        {"type": "integer", "minimum": 1, "maximum": parameters.MOST},
    ),
}

_REFUSED: Final = _answer("An error; its status and its code say which.", _schema("Error"))

_LIVE: Final[Json] = {
    "summary": "What is recorded, as server-sent events.",
    "operationId": "live",
    "parameters": [
        _ref("parameters", "filter"),
        _parameter("of", "events, sessions, or both where nothing is said"),
        _parameter("change", "the change number to go on from; now where nothing is said"),
        {"name": "Last-Event-ID", "in": "header", "description": "the same, and it counts more",
         "schema": {"type": "string"}},
    ],
    "responses": {
        "200": {"description": "Events until the reader goes.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}}},
        "default": _ref("responses", "Refused"),
    },
}  # fmt: skip
