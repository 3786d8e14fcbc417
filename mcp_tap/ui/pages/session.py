"""One session: who talked to whom, and its timeline with a waterfall; one message of it in a panel beside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from mcp_tap.api import parameters
from mcp_tap.api.desk import Desk
from mcp_tap.model import UsageError
from mcp_tap.protocol.revisions import LASTING
from mcp_tap.store import Page, Paging, Row
from mcp_tap.store.filters import Filter, Term
from mcp_tap.ui import waterfall
from mcp_tap.ui.frame import Link, address
from mcp_tap.ui.pages import message
from mcp_tap.ui.web import matched, render
from mcp_tap.ui.words import peers

#: Connections of one session on one page.
CONNECTIONS: Final = 20

#: A timeline with more lines is read in pages, like a log, and one page has so many.
LONG: Final = 2_000
PAGE: Final = 500

#: What "slow" means here: so much and more. The Slow page has its own threshold.
SLOW_MS: Final = 1_000

#: What the links above the waterfall can show alone, and what they can leave out.
ONLY: Final = ("", "errors", "slow")
HIDE: Final = {"notifications": "notifications", "ping": "ping"}


class Timeline(NamedTuple):
    """One connection and its lines."""

    connection: Row
    lines: list[waterfall.Line | waterfall.Pause]
    minimap: Markup | str
    marks: list[str]  # what the axis says
    folds: int
    shown: int
    all: int
    errors: int
    slow: int
    page: Page | None = None  # a long timeline is read in pages


async def page(desk: Desk, request: Request) -> Response:
    """Answer with one session; another id than its own leads there."""
    ref = request.path_params["id"]
    question = parameters.read(request, limit=PAGE, order="asc")
    where = Filter((Term("session", ref),))
    connections = await desk.reader.list_sessions(where, Paging(limit=CONNECTIONS, order="asc"))
    if not connections.rows or connections.rows[0]["session_id"] != ref:
        return await _elsewhere(desk, request, ref)
    choices = _Choices(request)
    if request.query_params.get("panel"):  # a script has the timeline already and takes the panel alone
        timelines = [Timeline(row, [], "", [], 0, 0, 0, 0, 0) for row in connections.rows]
    else:
        timelines = [await _timeline(desk, row, question.where, question.paging, choices) for row in connections.rows]
    event = request.query_params.get("event")
    panel = None
    if event:
        row = await desk.reader.event(event)
        path = f"/sessions/{ref}"
        kept = [*_kept(request), ("event", row["event_id"])]
        panel = await message.seen(desk, request, row, path, kept)
    first = connections.rows[0]
    return render(
        desk, request, "session.html", title=peers(first),
        first=first,
        timelines=timelines,
        more=connections.more_after,
        participants=await desk.reader.participants(ref),
        around=await _around(desk, first),
        choices=choices,
        reveal=request.query_params.get("reveal") == "session_id",
        panel=panel,
        at=panel["row"]["event_id"] if panel else "",
        live=address("/api/live", [("session", ref)]) if any(r["status"] == "active" for r in connections.rows) else "",
    )  # fmt: skip


async def _elsewhere(desk: Desk, request: Request, ref: str) -> Response:
    found = await desk.reader.session(ref)
    fragment = f"#{found['connection_id']}" if ref == found["connection_id"] else ""
    query = request.query_params.multi_items()
    return RedirectResponse(address(f"/sessions/{found['session_id']}", query) + fragment)


_OF_THE_PANEL: Final = frozenset({"event", "view", "panel", "theme"})


def _kept(request: Request) -> list[tuple[str, str]]:
    return [pair for pair in request.query_params.multi_items() if pair[0] not in _OF_THE_PANEL]


async def _around(desk: Desk, row: Row) -> tuple[str, str]:
    """Return the URLs of the sessions that began before and after this one, "" where there is none."""
    at = row["connection_id"]
    earlier = await desk.reader.list_sessions(paging=Paging(limit=1, order="desc", after=at))
    later = await desk.reader.list_sessions(paging=Paging(limit=1, order="asc", after=at))
    ids = [page.rows[0]["session_id"] if page.rows else row["session_id"] for page in (earlier, later)]
    before, after = ("" if each == row["session_id"] else f"/sessions/{each}" for each in ids)
    return before, after


# ------------------------------------------------------------------------------------------------- what is chosen


class _Choices:
    """What of the timeline is shown, as its URL says: `only`, `hide`, `time`, `zoom`."""

    def __init__(self, request: Request) -> None:
        given = request.query_params
        self.only = given.get("only", "")
        self.hide = [word for word in given.get("hide", "").split(",") if word]
        self.fold = given.get("time") != "real"
        self.zoom = _zoom(given.get("zoom", ""))
        self._path = request.url.path
        self._pairs = [p for p in given.multi_items() if p[0] not in {"after", "before", "cursor", "panel", "theme"}]
        for word, known in [(self.only, ONLY), *((hidden, tuple(HIDE)) for hidden in self.hide)]:
            if word not in known:
                raise UsageError(f'"{word}" cannot be chosen here', hint=f"there is:  {' '.join(filter(None, known))}")

    def shows(self, row: Row) -> bool:
        """Whether a line is to be shown."""
        if self.only == "errors" and row["status"] != "failed":
            return False
        if self.only == "slow" and not is_slow(row):
            return False
        return not (
            ("notifications" in self.hide and row["kind"] == "notification")
            or ("ping" in self.hide and row["type"] == "ping")
        )

    @property
    def any(self) -> bool:
        """Whether something is left out."""
        return bool(self.only or self.hide)

    def link(self, **changes: str) -> str:
        """Return the URL with some choices changed; "" takes one away."""
        kept = [pair for pair in self._pairs if pair[0] not in changes]
        return address(self._path, kept + [(name, value) for name, value in changes.items() if value])

    def only_links(self, timeline: Timeline) -> list[Link]:
        """Return the links that show everything, errors or slow calls alone."""
        named = {"": "All", "errors": f"Errors {matched(timeline.errors)}", "slow": f"Slow {matched(timeline.slow)}"}
        return [Link(text, self.link(only=value), value == self.only) for value, text in named.items()]

    def hide_links(self) -> list[Link]:
        """Return the links that leave something out, or take it in again."""
        links = []
        for value, text in HIDE.items():
            hidden = value in self.hide
            rest = [word for word in self.hide if word != value] + ([] if hidden else [value])
            links.append(Link(f"{'show' if hidden else 'hide'} {text}", self.link(hide=",".join(rest)), hidden))
        return links

    def zoom_links(self) -> list[Link]:
        """Return the links that look closer, from further away, and to both sides."""
        low, high = self.zoom or (0.0, 1.0)
        middle, width = (low + high) / 2, high - low

        def to(text: str, low: float, high: float, key: str) -> Link:
            low, high = max(low, 0.0), min(high, 1.0)
            whole = high - low >= 1
            return Link(text, self.link(zoom="" if whole else f"{low:.4f}..{high:.4f}"), False, key)

        return [
            to("+", middle - width / 4, middle + width / 4, "in"),
            to("\N{MINUS SIGN}", middle - width, middle + width, "out"),
            to("fit", 0.0, 1.0, "fit"),
        ]


def is_slow(row: Row) -> bool:
    """Whether a message took long. Streams that are open by design did not."""
    return row["latency_ms"] is not None and row["latency_ms"] >= SLOW_MS and not waterfall.lasts(row)


def _zoom(text: str) -> tuple[float, float] | None:
    """Read `0.25..0.5`: which part of the axis is seen."""
    if not text:
        return None
    match = re.fullmatch(r"(0?\.\d{1,6}|[01](?:\.0*)?)\.\.(0?\.\d{1,6}|[01](?:\.0*)?)", text)
    if match is None or not float(match[1]) < float(match[2]):
        raise UsageError(f'zoom: "{text}" is no part of the waterfall', hint="write shares of it:  zoom=0.25..0.5")
    return float(match[1]), float(match[2])


# --------------------------------------------------------------------------------------------------- the timeline


async def _timeline(desk: Desk, row: Row, where: Filter, paging: Paging, choices: _Choices) -> Timeline:
    identity = row["connection_id"]
    if row["messages"] > LONG:
        asked = Filter((Term("conn", identity), *where.terms), where.now_us)
        if choices.only:
            asked = _only(asked, choices.only)
        if "ping" in choices.hide:
            asked = asked.plus("method", "ping", negated=True)
        found = await desk.reader.list_events(asked, paging._replace(limit=min(paging.limit, PAGE)))
        whole: Sequence[Row] = found.rows
        shown = [each for each in whole if choices.shows(each)]
        counts = [await _counted(desk, identity, only) for only in ("errors", "slow")]
        return _drawn(row, whole, shown, choices, page=found, total=row["messages"])._replace(
            errors=counts[0], slow=counts[1]
        )
    whole = await desk.reader.waterfall(identity)
    fitting = await _fitting(desk, identity, where) if where else None
    shown = [each for each in whole if choices.shows(each) and (fitting is None or each["pk"] in fitting)]
    return _drawn(row, whole, shown, choices, page=None, total=len(whole))


def _only(asked: Filter, only: str) -> Filter:
    """Return what asks for the errors, or for what `is_slow`, alone."""
    if only == "errors":
        return asked.plus("status", "failed")
    return asked.plus("latency", f">={SLOW_MS}ms").plus("method", ",".join(LASTING), negated=True)


async def _counted(desk: Desk, identity: str, only: str) -> int:
    """Return how many errors, or slow calls, a whole connection has, up to `COUNTED`."""
    asked = _only(Filter((Term("conn", identity),)), only)
    return (await desk.reader.list_events(asked, Paging(limit=1))).matched


async def _fitting(desk: Desk, identity: str, where: Filter) -> set[int]:
    asked = Filter((Term("conn", identity), *where.terms), where.now_us)
    found = await desk.reader.list_events(asked, Paging(limit=LONG, order="asc"))
    return {each["pk"] for each in found.rows}


def _drawn(
    row: Row, whole: Sequence[Row], shown: Sequence[Row], choices: _Choices, *, page: Page | None, total: int
) -> Timeline:
    bars = [waterfall.bar(each) for each in whole]
    session = waterfall.Axis(bars, fold=choices.fold)
    axis = waterfall.Axis(bars, fold=choices.fold, zoom=choices.zoom) if choices.zoom else session
    fitting = {each["pk"] for each in shown}
    drawn = [each for row, each in zip(whole, bars, strict=True) if row["pk"] in fitting]
    title = f"The session in time: {len(whole)} lines, {row['errors']} errors"
    return Timeline(
        row,
        list(waterfall.lines(shown, drawn, axis, fold=choices.fold and not choices.any)),
        waterfall.minimap(bars, session, title=title) if len(bars) > 1 else "",
        axis.marks(),
        axis.folds,
        len(shown),
        total,
        errors=sum(each["status"] == "failed" for each in whole),
        slow=sum(map(is_slow, whole)),
        page=page,
    )
