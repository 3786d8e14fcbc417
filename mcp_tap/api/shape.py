"""How a resource is told: a table of fields, each with its type, its meaning and where it comes from.

Answers, the OpenAPI document and the check of docs/api.md are all made from these tables, so they cannot differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from mcp_tap.store import Row


class Field(NamedTuple):
    """One attribute. ``type`` is a JSON type, "date" or "any"; a "?" behind it means that it may be null.

    ``read`` takes the value out of a row; without it the value is the column of the same name. Where ``part`` is
    given it shapes that value: an object, or with ``many`` each of a list.
    """

    name: str
    type: str
    help: str
    read: Callable[[Row], Any] | None = None
    part: Resource | None = None
    many: bool = False
    words: tuple[str, ...] = ()  # all values there are, where they are few

    def of(self, row: Row) -> Any:
        """Return the value of the attribute for a row."""
        value = row.get(self.name) if self.read is None else self.read(row)
        if self.part is None or value is None:
            return value
        return [self.part.of(each) for each in value] if self.many else self.part.of(value)


@dataclass(frozen=True)
class Resource:
    """One kind of object, by the value of its attribute `object`."""

    name: str
    help: str
    fields: tuple[Field, ...]
    called: str = ""  # of its schema, where two kinds of objects have the same name

    def of(self, row: Row) -> dict[str, Any]:
        """Return the object that a row is told as."""
        return {"object": self.name} | {field.name: field.of(row) for field in self.fields}

    @property
    def title(self) -> str:
        """The name of its schema: SessionConnection for session.connection."""
        return self.called or "".join(word.capitalize() for word in re.split(r"\W|_", self.name))

    def schema(self) -> dict[str, Any]:
        """Return its JSON schema (2020-12, as OpenAPI 3.1 has it)."""
        properties: dict[str, Any] = {"object": {"const": self.name}}
        properties |= {field.name: _schema(field) for field in self.fields}
        return {
            "type": "object", "description": self.help, "properties": properties, "required": [*properties],
            "additionalProperties": False,
        }  # fmt: skip

    def parts(self) -> list[Resource]:
        """Return every kind of object that is part of it, itself first."""
        found = [self]
        for field in self.fields:
            if field.part is not None and field.part is not self:
                found += field.part.parts()
        return list(dict.fromkeys(found))


_JSON_TYPES: Final[dict[str, dict[str, Any]]] = {
    "string": {"type": "string"},
    "date": {"type": "string", "format": "date-time"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "object": {"type": "object"},
    "strings": {"type": "array", "items": {"type": "string"}},
    "numbers": {"type": "array", "items": {"type": "number"}},
    "any": {},
}


def _schema(field: Field) -> dict[str, Any]:
    optional = field.type.endswith("?")
    if field.part is not None:
        schema: dict[str, Any] = {"$ref": f"#/components/schemas/{field.part.title}"}
        if field.many:
            schema = {"type": "array", "items": schema}
    else:
        schema = dict(_JSON_TYPES[field.type.removesuffix("?")])
        if field.words:
            schema["enum"] = [*field.words]
    if optional and set(schema) <= {"type", "format", "items"} and schema:
        schema["type"] = [schema["type"], "null"]
    elif optional:
        schema = {"anyOf": [schema, {"type": "null"}]}
    return schema | {"description": field.help}


def dumped(content: Any) -> bytes:
    """Return JSON. Integers beyond 64 bits and halves of surrogate pairs are JSON, too, and rare."""
    try:
        return orjson.dumps(content) + b"\n"
    except orjson.JSONEncodeError:
        return json.dumps(content, separators=(",", ":")).encode() + b"\n"
