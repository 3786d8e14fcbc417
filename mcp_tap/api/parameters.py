"""What the URL of a list asks: a filter, a part of the list, and what the reader wants to see.

One reading serves a page and its JSON. A wrong word is refused with the nearest one that exists.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterable
from typing import Final, Literal, NamedTuple, cast

from starlette.requests import Request

from mcp_tap.model import UsageError
from mcp_tap.store import Paging, filters
from mcp_tap.store.filters import Filter
from mcp_tap.values import nearest

#: Rows of one answer, at most.
MOST: Final = 100

#: Rows of one page, at most: a page is read by eye and costs no second request.
MOST_OF_A_PAGE: Final = 200

#: The columns that some list can be sorted by; "" is time.
SORTS: Final = (
    "started", "client_name", "duration_ms", "calls", "errors", "last_active", "time", "latency_ms", "size",
)  # fmt: skip

#: Parameters that say which part of a list is asked for.
PAGING: Final = ("limit", "order", "sort", "after", "before", "cursor")

#: Parameters that choose how something is shown, not what: a page's JSON takes them all and needs few.
SHOWN: Final = frozenset(
    {"event", "message", "hide", "only", "open", "over", "panel", "reveal", "table", "theme", "time", "view", "zoom"}
)

#: The resources' own names for what a filter asks.
RESOURCE_WORDS: Final = {
    "session_connection_id": "conn",
    "session_message_id": "id",
    "session_event_id": "id",
    "source": "dir",
}

_ID: Final = re.compile(r"(?:ses|scn|smg|sev|seg|spt|spr|ser)_[0-9a-z]{1,40}")
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CURSOR: Final = "cur_"

Side = Literal["after", "before"]


class Question(NamedTuple):
    """What a URL asks of a list."""

    where: Filter
    paging: Paging
    parameters: list[tuple[str, str]]  # all of them as they were given, for links to the next question


def read(
    request: Request,
    *,
    limit: int = 20,
    order: Literal["asc", "desc"] = "asc",
    sorts: Collection[str] = SORTS,
    more: Collection[str] = (),
) -> Question:
    """Read the question of a request; ``limit`` and ``order`` are what holds where it says nothing.

    ``sorts`` are the columns that this list can be sorted by, ``more`` the parameters that only this route knows.
    Raises UsageError with code `invalid_data`, or `filter` for a word of the filter language.
    """
    parameters = request.query_params.multi_items()
    page = not request.url.path.startswith("/api")
    if not page:
        refuse_unknown(parameters, more)
    last = {name: value for name, value in parameters if value}
    after, before = _position(last)
    paging = Paging(
        limit=_limit(last.get("limit"), limit, MOST_OF_A_PAGE if page else MOST),
        order=cast('Literal["asc", "desc"]', _one_of("order", last.get("order", order), ("asc", "desc"))),
        sort=_one_of("sort", last["sort"], sorts) if "sort" in last else "",
        after=after,
        before=before,
    )
    return Question(where(parameters), paging, parameters)


def where(parameters: Iterable[tuple[str, str]]) -> Filter:
    """Return the filter that parameters ask for, in the language's words or in those of the resources."""
    return filters.from_parameters(map(_in_the_language, parameters), now_us=time.time_ns() // 1000)


def _in_the_language(parameter: tuple[str, str]) -> tuple[str, str]:
    name, value = parameter
    if name == "session_provider_id":  # one provider for each session, with the same ending
        return "session", re.sub(r"\bspr_", "ses_", value)
    if name == "source":
        value = {"provider": "server"}.get(value, value)
    return RESOURCE_WORDS.get(name, name), value


def refuse_unknown(parameters: Iterable[tuple[str, str]], more: Collection[str] = ()) -> None:
    """Raise UsageError for a parameter that nothing reads: a question that is not asked gets a wrong answer."""
    known = {*filters.KEYS, *filters.ALIASES, *RESOURCE_WORDS, *PAGING, *more, "q", "session_provider_id"}
    for name, _ in parameters:
        if name.removeprefix("-") not in known and name not in SHOWN:
            raise _invalid(f'there is no parameter "{name}"', nearest(name, sorted(known)))


def cursor(side: Side, of: str) -> str:
    """Return the cursor that stands for the rows after, or before, a row."""
    number = int.from_bytes(json.dumps([side, of], separators=(",", ":")).encode())
    digits = ""
    while number:
        number, digit = divmod(number, 62)
        digits = _DIGITS[digit] + digits
    return _CURSOR + digits


def _position(last: dict[str, str]) -> tuple[str | None, str | None]:
    """Return what a list is to continue after, and before what; only one of them counts: after > before > cursor."""
    for name in ("after", "before"):
        if name in last and not _ID.fullmatch(last[name]):
            raise _invalid(f'{name}: "{last[name]}" is no id', "take the id of a row of this list")
    if "after" in last or "before" in last:
        return last.get("after"), None if "after" in last else last["before"]
    if "cursor" not in last:
        return None, None
    side, of = _decoded(last["cursor"])
    return (of, None) if side == "after" else (None, of)


def _decoded(text: str) -> tuple[str, str]:
    digits = text.removeprefix(_CURSOR)
    wrong = _invalid(f'"{text}" is no cursor', "take next_cursor or previous_cursor of an answer as it is")
    if digits == text or not 0 < len(digits) <= 200 or not set(digits) <= set(_DIGITS):
        raise wrong
    number = 0
    for digit in digits:
        number = number * 62 + _DIGITS.index(digit)
    try:
        side, of = json.loads(number.to_bytes((number.bit_length() + 7) // 8))
    except (ValueError, TypeError, RecursionError):
        raise wrong from None
    if side not in ("after", "before") or not isinstance(of, str) or not _ID.fullmatch(of):
        raise wrong
    return side, of


def _limit(text: str | None, default: int, most: int) -> int:
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= most:
        raise _invalid(f'limit: "{text}" is not a number from 1 to {most}', f"try:  limit={most}")
    return int(text)


def _one_of(name: str, text: str, words: Collection[str]) -> str:
    if text not in words:
        raise _invalid(f'{name}: "{text}" is none of {", ".join(words)}', nearest(text, words))
    return text


def _invalid(message: str, hint: str) -> UsageError:
    return UsageError(message, hint=hint, code="invalid_data")
