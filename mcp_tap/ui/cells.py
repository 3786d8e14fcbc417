"""What stands in the cells of every table: times, events, how a message went.

A page has thousands of cells, and a macro of a template takes ten times as long as these functions. What strangers
wrote goes through `harmless` and `escape` here, as it does in templates.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup, escape

from mcp_tap.store import Row
from mcp_tap.ui import text, words

# ------------------------------------------------------------------------------------------------------- times


def clock(iso: str | None) -> str:
    """Return the time of day in the server's zone, with milliseconds; the date before it where it is not today."""
    moment = _local(iso)
    if moment is None:
        return text.harmless(iso or "")
    return _day_time(moment) if moment.date() == datetime.now().date() else f"{moment:%d %b, %H:%M:%S}"  # noqa: DTZ005 local by intent


def day_time(iso: str | None) -> str:
    """Return the time of day alone, in the server's zone, with milliseconds."""
    moment = _local(iso)
    return text.harmless(iso or "") if moment is None else _day_time(moment)


def full(iso: str | None) -> str:
    """Return date and time in the server's zone, with milliseconds."""
    return text.local(iso, "%d %b %Y, %H:%M:%S.%f")


def relative(iso: str | None) -> str:
    """Return how long ago that was, in words."""
    if not iso:
        return ""
    try:
        ms = (datetime.now(UTC) - datetime.fromisoformat(iso)).total_seconds() * 1000
    except ValueError:
        return text.harmless(iso)
    return "now" if ms < 1000 else f"{text.duration(ms)} ago"


def _local(iso: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(iso).astimezone() if iso else None
    except (ValueError, OverflowError):
        return None


def _day_time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")[11:23]


#: The forms in which pages write a time; scripts have the same ones.
TIMES: Final[dict[str, Callable[[str | None], str]]] = {
    "clock": clock,
    "full": full,
    "relative": relative,
    "time": day_time,
}


def time(iso: str | None, form: str = "clock") -> Markup:
    """Return a time; scripts write it again where the browser's zone is another one."""
    if not iso:
        return Markup("")
    written, said = escape(iso), escape(TIMES[form](iso))
    return Markup(f'<time datetime="{written}" title="{written}" data-form="{form}">{said}</time>')  # noqa: S704


# -------------------------------------------------------------------------------------------------- messages


def event(row: Row, leg: str = "try") -> Markup:
    """Return the method and what it is about, which ``leg`` of its operation it is, and whether its record is whole."""
    name, attempt = row["name"], row["attempt"]
    about = f" <b>{_foreign(name, 80)}</b>" if name else ""
    again = (
        f' <span class="badge" title="the same was asked before in this session">↻ {nth(attempt)} {escape(leg)}</span>'
        if attempt and attempt > 1
        else ""
    )
    cut = ""
    if row["truncated"] or row["dropped"]:
        cut = f' <span class="note" title="the record of this is not complete">{escape(words.incomplete(row))}</span>'
    return Markup(f'<span class="event">{_foreign(row["type"], 60)}{about}</span>{again}{cut}')  # noqa: S704


def status(row: Row) -> Markup:
    """Return how a message went: a shape, a word, a colour."""
    state, word = words.status(row)
    said = _foreign(word, 24)
    if state == "failed":
        return Markup(f'<span class="err">✕ {said}</span>')  # noqa: S704
    if state == "waiting":
        return Markup(f'<span class="wait"><i class="ring" aria-hidden="true"></i>{said}</span>')  # noqa: S704
    if state == "other":
        return Markup(f'<span class="other" title="{escape(words.outcome_explained(row))}">◇ {said}</span>')  # noqa: S704
    return Markup(f'<span class="muted">{said}</span>') if state else Markup("")  # noqa: S704


def nth(number: int) -> str:
    """Return a number in its place: 1st, 2nd, 3rd, 11th."""
    return f"{number}{'th' if number % 100 in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def _foreign(said: object, limit: int) -> Markup:
    return escape(text.harmless(str(said), limit))
