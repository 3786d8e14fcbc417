"""Errors in groups: what failed in the same way stands together, whatever numbers and ids its text holds."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from functools import lru_cache
from typing import Any, Final, NamedTuple

from mcp_tap.model import NotFoundError
from mcp_tap.store import Row
from mcp_tap.store import queries_desk as queries
from mcp_tap.store.rows import iso, number_id
from mcp_tap.store.sqlite.figures import SPARKS, sparks
from mcp_tap.store.sqlite.tallies import Asked, bounds

#: What differs between two texts of the same error: quoted words, ids, addresses, numbers.
_VARYING: Final = re.compile(
    r"""
      "[^"\n]{0,200}" | '(?<![A-Za-z]')[^'\n]{0,200}'(?![A-Za-z]) | `[^`\n]{0,200}` | “[^”\n]{0,200}”
    | https?://[^\s]+
    | \b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b
    | \b(?=[0-9a-zA-Z_-]*\d)[0-9a-zA-Z]+(?:[_-][0-9a-zA-Z]+)*\b
    | \d+(?:[.,:]\d+)*
    """,
    re.VERBOSE,
)

#: A text is looked at this far.
_LONG: Final = 500


class _Kind(NamedTuple):
    """What the errors of a group have in common."""

    type: str
    name: str | None
    failure_reason: str | None
    error_code: str | None
    error_message: str | None

    @property
    def group_id(self) -> str:
        """The same in every recording."""
        return "seg_" + hashlib.blake2b(repr(tuple(self)).encode(errors="replace"), digest_size=13).hexdigest()


class _Group:
    """What is counted of the errors of one kind."""

    def __init__(self) -> None:
        self.pks: list[int] = []
        self.clients: set[tuple[str | None, str | None]] = set()
        self.connections: set[int] = set()
        self.first_us = self.last_us = self.newest = 0
        self.spark = [0] * SPARKS


@lru_cache(maxsize=4096)
def without_details(message: str | None) -> str | None:
    """Return an error's text with `…` for what differs from one occurrence to the next."""
    return None if message is None else _VARYING.sub("…", message[:_LONG])


def groups(db: sqlite3.Connection, asked: Asked) -> dict[_Kind, _Group]:
    """Return the failed messages of a range by kind."""
    drawn = sparks(bounds(db, asked.where))
    found: dict[_Kind, _Group] = {}
    where, values = asked.events
    failed: Any = db.execute(queries.FAILED.format(where=where), values)
    for pk, type_, name, reason, code, message, at_us, client, version, connection in failed:
        kind = _Kind(type_, name, reason, code, without_details(message))
        group = found.get(kind)
        if group is None:
            group = found[kind] = _Group()
        group.pks.append(pk)
        group.clients.add((client, version))
        if connection is not None:
            group.connections.add(connection)
        group.first_us = min(group.first_us or at_us, at_us)
        if at_us >= group.last_us:
            group.last_us, group.newest = at_us, pk
        group.spark[drawn.part(at_us)] += 1
    return found


def errors(db: sqlite3.Connection, asked: Asked, limit: int, replica: str) -> list[Row]:
    """Return the groups of a range, most errors first."""
    found = groups(db, asked)
    every = sum(len(group.pks) for group in found.values())
    ordered = sorted(found.items(), key=lambda item: (-len(item[1].pks), -item[1].last_us))
    return [_row(kind, group, every, replica) for kind, group in ordered[:limit]]


def error(db: sqlite3.Connection, asked: Asked, group_id: str, replica: str) -> tuple[Row, list[int]]:
    """Return one group of a range and the numbers of its messages."""
    found = groups(db, asked)
    every = sum(len(group.pks) for group in found.values())
    for kind, group in found.items():
        if kind.group_id == group_id:
            return _row(kind, group, every, replica), group.pks
    raise NotFoundError(
        f'no group of errors "{group_id}"', hint="it may lie outside of the time range:  mcp-tap errors"
    )


def _row(kind: _Kind, group: _Group, every: int, replica: str) -> Row:
    return {
        "group_id": kind.group_id,
        **kind._asdict(),
        "count": len(group.pks),
        "share": len(group.pks) / every,
        "clients": len(group.clients),
        "sessions": len(group.connections),
        "first": iso(group.first_us),
        "last": iso(group.last_us),
        "spark": group.spark,
        "message_id": number_id("smg_", replica, group.newest),
    }
