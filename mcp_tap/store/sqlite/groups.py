"""Errors in groups: what failed in the same way stands together, whatever numbers and ids its text holds."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from mcp_tap.model import NotFoundError
from mcp_tap.store import Row
from mcp_tap.store import queries_desk as queries
from mcp_tap.store.rows import iso, number_id
from mcp_tap.store.sqlite.figures import SPARKS, sparks
from mcp_tap.store.sqlite.tallies import Asked, Cut, bounds

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
    """The errors of one kind, in the order of time."""

    def __init__(self) -> None:
        self.pks: list[int] = []
        self.moments: list[int] = []
        self.connections: set[int | None] = set()


#: All digits look the same: texts that differ by numbers are looked at once.
_DIGITS: Final = str.maketrans("123456789", "0" * 9)


@lru_cache(maxsize=4096)
def _without_details(message: str) -> str:
    return _VARYING.sub("…", message[:_LONG])


def without_details(message: str | None) -> str | None:
    """Return an error's text with `…` for what differs from one occurrence to the next."""
    return None if message is None else _without_details(message.translate(_DIGITS))


def groups(db: sqlite3.Connection, asked: Asked) -> dict[_Kind, _Group]:
    """Return the failed messages of a range by kind."""
    alike: dict[tuple[Any, ...], _Group] = {}
    found: dict[_Kind, _Group] = {}
    where, values = asked.events
    failed: Any = db.execute(queries.FAILED.format(source=queries.events(where), where=where), values)
    for row in failed:
        message = row[4]
        seen = row[:5] if message is None else (*row[:4], message.translate(_DIGITS))
        group = alike.get(seen)
        if group is None:
            group = alike[seen] = found.setdefault(
                _Kind(row[0], row[1], row[2], row[3], without_details(message)), _Group()
            )
        group.pks.append(row[5])
        group.moments.append(row[6])
        group.connections.add(row[7])
    return found


def errors(db: sqlite3.Connection, asked: Asked, limit: int, replica: str) -> list[Row]:
    """Return the groups of a range, most errors first."""
    found = groups(db, asked)
    every = sum(len(group.pks) for group in found.values())
    ordered = sorted(found.items(), key=lambda item: (-len(item[1].pks), -item[1].moments[-1]))
    cut = sparks(bounds(db, asked.where))
    clients = _clients(db, (group for _, group in ordered[:limit]))
    return [_row(kind, group, every, replica, cut, clients) for kind, group in ordered[:limit]]


def error(db: sqlite3.Connection, asked: Asked, group_id: str, replica: str) -> tuple[Row, list[int]]:
    """Return one group of a range and the numbers of its messages."""
    found = groups(db, asked)
    every = sum(len(group.pks) for group in found.values())
    for kind, group in found.items():
        if kind.group_id == group_id:
            cut = sparks(bounds(db, asked.where))
            return _row(kind, group, every, replica, cut, _clients(db, [group])), group.pks
    raise NotFoundError(
        f'no group of errors "{group_id}"', hint="it may lie outside of the time range:  mcp-tap errors"
    )


def _clients(db: sqlite3.Connection, of: Iterable[_Group]) -> dict[int | None, tuple[str | None, str | None]]:
    """Return the clients of all connections that some groups have errors of."""
    those = orjson.dumps([*set[int | None]().union(*(group.connections for group in of)) - {None}]).decode()
    return {pk: (name, version) for pk, name, version in db.execute(queries.CLIENTS_OF, (those,))}


def _row(
    kind: _Kind,
    group: _Group,
    every: int,
    replica: str,
    cut: Cut,
    clients: dict[int | None, tuple[str | None, str | None]],
) -> Row:
    spark = Counter(map(cut.part, group.moments))
    return {
        "group_id": kind.group_id,
        **kind._asdict(),
        "count": len(group.pks),
        "share": len(group.pks) / every,
        "clients": len(set(map(clients.get, group.connections))),
        "sessions": len(group.connections - {None}),
        "first": iso(group.moments[0]),
        "last": iso(group.moments[-1]),
        "spark": [spark[part] for part in range(SPARKS)],
        "message_id": number_id("smg_", replica, group.pks[-1]),
    }
