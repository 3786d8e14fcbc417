"""Errors in groups: what failed in the same way stands together, whatever numbers and ids its text holds."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections import Counter
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from mcp_tap.model import NotFoundError
from mcp_tap.store import Row
from mcp_tap.store import queries_desk as queries
from mcp_tap.store.rows import iso, number_id
from mcp_tap.store.sqlite.figures import SPARKS, sparks
from mcp_tap.store.sqlite.tallies import Asked, bounds, clients_of, in_time

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


#: All digits look the same: texts that differ by numbers are looked at once.
_DIGITS: Final = str.maketrans("123456789", "0" * 9)
_MESSAGE: Final = 4
_DIGITS_OF_UTF8: Final = bytes.maketrans(b"123456789", b"0" * 9)


@lru_cache(maxsize=4096)
def _without_details(message: str) -> str:
    return _VARYING.sub("…", message[:_LONG])


def without_details(message: str | None) -> str | None:
    """Return an error's text with `…` for what differs from one occurrence to the next."""
    return None if message is None else _without_details(message.translate(_DIGITS))


class _Failed:
    """The failed messages of a range in the order of time, column by column; a group is the number of its kind."""

    def __init__(self, db: sqlite3.Connection, asked: Asked) -> None:
        where, values = asked.events
        sql = queries.FAILED.format(source=queries.events(where), where=where)
        read: list[str] = list(db.execute(sql, values).fetchone())
        # texts that differ by digits are one text from here on: they are most of all texts
        if "\\u" not in read[_MESSAGE]:
            read[_MESSAGE] = read[_MESSAGE].encode().translate(_DIGITS_OF_UTF8).decode()
        columns: list[list[Any]] = [orjson.loads(column) for column in read]
        *named, messages, self.pks, self.moments, connections = in_time(columns, -2)
        texts = {message: without_details(message) for message in set(messages)}
        alike = [*zip(*named, map(texts.__getitem__, messages), strict=True)]
        numbers: dict[tuple[Any, ...], int] = {kind: number for number, kind in enumerate(dict.fromkeys(alike))}
        self.kinds = [_Kind(*kind) for kind in numbers]
        self.groups = [*map(numbers.__getitem__, alike)]
        self.counts = Counter(self.groups)
        self.newest = dict(zip(self.groups, range(len(alike)), strict=True))
        self._oldest = dict(zip(reversed(self.groups), reversed(range(len(alike))), strict=True))
        self._sessions: dict[int, set[int | None]] = {}
        for group, connection in {*zip(self.groups, connections, strict=True)}:
            self._sessions.setdefault(group, set()).add(connection)
        self._db = db
        self._cut = sparks(bounds(db, asked.where))

    def rows(self, groups: list[int], replica: str) -> list[Row]:
        """Return what is told of groups."""
        clients = clients_of(self._db, set[int | None]().union(*map(self._sessions.__getitem__, groups)))
        start, length, last = self._cut.start, self._cut.length, self._cut.parts - 1
        sparked = Counter(zip(self.groups, ((at_us - start) // length for at_us in self.moments), strict=True))
        spark = {group: [0] * SPARKS for group in groups}
        for (group, part), count in sparked.items():
            if group in spark:
                spark[group][min(last, max(0, part))] += count
        return [
            {
                "group_id": self.kinds[group].group_id,
                **self.kinds[group]._asdict(),
                "count": self.counts[group],
                "share": self.counts[group] / len(self.groups),
                "clients": len({clients.get(connection) for connection in self._sessions[group]}),
                "sessions": len(self._sessions[group] - {None}),
                "first": iso(self.moments[self._oldest[group]]),
                "last": iso(self.moments[self.newest[group]]),
                "spark": spark[group],
                "message_id": number_id("smg_", replica, self.pks[self.newest[group]]),
            }
            for group in groups
        ]


def errors(db: sqlite3.Connection, asked: Asked, limit: int, replica: str) -> list[Row]:
    """Return the groups of a range, most errors first."""
    failed = _Failed(db, asked)
    ordered = sorted(failed.counts, key=lambda group: (-failed.counts[group], -failed.newest[group]))
    return failed.rows(ordered[:limit], replica)


def error(db: sqlite3.Connection, asked: Asked, group_id: str, replica: str) -> tuple[Row, list[int]]:
    """Return one group of a range and the numbers of its messages."""
    failed = _Failed(db, asked)
    for group, kind in enumerate(failed.kinds):
        if kind.group_id == group_id:
            pks = [pk for pk, of in zip(failed.pks, failed.groups, strict=True) if of == group]
            return failed.rows([group], replica)[0], pks
    raise NotFoundError(
        f'no group of errors "{group_id}"', hint="it may lie outside of the time range:  mcp-tap errors"
    )
