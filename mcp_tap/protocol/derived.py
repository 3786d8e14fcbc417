"""Which connection a request belongs to when nothing on the wire says so.

The modern era has no sessions, and a stateless legacy server hands out no id. What is left are signs: who sends
(that is the key under which connections are gathered), on which TCP connection, and how the ids count. Clients count
their requests up from 0 or 1, and a client that starts over begins there again.

Two clients of one identity cannot always be told apart. Then both are in one row, and the row is marked as shared:
never an unmarked mixture. Being wrong the other way round, a mark on a row that is one client's, does less harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from mcp_tap.protocol.connections import Live

#: A derived connection is rolled over at these: nothing on the wire ever ends it.
ROLL_US: Final = 24 * 3600 * 1_000_000
ROLL_MESSAGES: Final = 10_000

#: How far an id on a new TCP connection may be from the last one of the only connection: so many calls of one client
#: may be under way at once.
NEAR: Final = 32

BEGINNING_UNSEEN: Final = "its beginning was not seen"


class Choice(NamedTuple):
    """Where a request belongs. ``live`` is None where it opens a connection."""

    live: Live | None = None
    shared: Sequence[Live] = ()  # those that can no longer be told apart
    after: Live | None = None  # the one that is rolled over, where it opens one
    note: str | None = None  # what is uncertain about the new one


def choose(
    lives: Sequence[Live], mine: Live | None, *, method: str | None, number: int | None, at_us: int, idle_us: int
) -> Choice:
    """Choose among the connections of one sender, oldest first.

    ``mine`` is the one that used the request's TCP connection last; ``number`` is an integer id, None where the id is
    none or the message is a notification.
    """
    usable = [live for live in lives if not live.ended and (live.open or at_us - live.row.last_active_us <= idle_us)]
    fresh = [live for live in usable if not _worn_out(live, at_us)]
    starts = method == "server/discover" or (number is not None and number <= 1)
    if not fresh and usable:
        return Choice(after=usable[-1], note=usable[-1].row.origin_note)
    if not fresh:
        return Choice(note=None if starts else BEGINNING_UNSEEN)
    newest = fresh[-1]
    if mine not in fresh:
        mine = None
    if mine is not None and number is not None and number in (mine.last_id, _next(mine)):
        return Choice(mine)  # it goes on counting, or has one id for every call
    if starts and not any(number == _next(live) for live in fresh):
        if not newest.streams and not newest.waiting():
            return Choice()
        newest.starts += 1
        return Choice(newest, fresh)
    if mine is not None:
        return Choice(mine, [mine] if _used(mine, number) else ())
    if len(fresh) == 1:
        return Choice(newest, fresh if _used(newest, number) or _far(newest, number) else ())
    before = [live for live in fresh if number is not None and number == _next(live)]
    if len(before) == 1:
        return Choice(before[0])
    return Choice(newest, fresh)


def _worn_out(live: Live, at_us: int) -> bool:
    return at_us - live.row.created_us > ROLL_US or live.row.messages >= ROLL_MESSAGES


def _next(live: Live) -> int | None:
    """Return the id that a client that counts up sends next."""
    return None if live.last_id is None else live.last_id + 1


def _used(live: Live, number: int | None) -> bool:
    """Whether an id was used before: one client uses each once, unless it has one for all."""
    return number in live.ids and len(live.ids) > 1


def _far(live: Live, number: int | None) -> bool:
    return number is not None and live.last_id is not None and abs(number - live.last_id) > NEAR
