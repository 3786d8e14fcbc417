"""The waterfall of a session: one picture for each line of its timeline, all of them on one axis of time.

A bar has two shades: waiting until the first byte of the answer, and receiving. Times without traffic are folded, so
that a session of an hour with ten calls can be read; the places of all pictures are units of one drawing, `WIDTH`
wide, so that a script zooms by looking at a part of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from markupsafe import Markup, escape

from mcp_tap.protocol.revisions import LASTING
from mcp_tap.store import Row
from mcp_tap.ui.svg import number
from mcp_tap.ui.text import duration, harmless
from mcp_tap.ui.words import event as name_of

#: Units of the pictures. A line's picture is `HEIGHT` high, the small one of the whole session `MINI`.
WIDTH: Final = 1000
HEIGHT: Final = 14
MINI: Final = 40

#: The least that a bar takes: it can be seen, and two of them can be told apart.
LEAST: Final = 3.0

#: A longer time without traffic is folded to `FOLD` units.
GAP_US: Final = 5_000_000
FOLD: Final = 24.0

#: More folds than this are not drawn, by the height of a picture: they would be a hatching, and a long page.
BREAKS: Final = {HEIGHT: 8, MINI: 40}

TICK: Final = 1.5

#: So many SSE events of one answer are ticks; they are spread over all of them where there are more.
TICKS: Final = 120


class Bar(NamedTuple):
    """One line of the timeline as it is drawn. Times are microseconds since the epoch."""

    begin: int
    first: int | None  # first byte of the answer
    end: int | None  # None: at a single moment, or still waiting
    ticks: tuple[int, ...] = ()  # each SSE event of the answer
    bad: bool = False
    waiting: bool = False
    back: bool = False  # the server asks the client
    lasting: bool = False  # open by design: says nothing about when there was traffic
    title: str = ""


class Stretch(NamedTuple):
    """A part of the axis: from one moment to another, and the places of both."""

    begin: int
    end: int
    left: float
    right: float
    folded: bool = False


def bar(row: Row) -> Bar:
    """Return how a row of `waterfall` or `list_events` is drawn."""
    begin = _begin(row)
    took = row["duration_us"] if "duration_us" in row else _us(row["latency_ms"])
    first = row["first_byte_us"] if "first_byte_us" in row else _us(row["first_byte_ms"])
    waiting = row["status"] == "waiting_for_response"
    return Bar(
        begin,
        None if first is None else begin + first,
        None if took is None else begin + took,
        tuple(begin + at for at in row.get("sse_events") or ()),
        bad=row["status"] == "failed",
        waiting=waiting,
        back=row["direction"] == "server_to_client",
        lasting=lasts(row),
        title=f"{name_of(row)} {duration(row['latency_ms'])}".strip() + (" so far unanswered" if waiting else ""),
    )


def lasts(row: Row) -> bool:
    """Whether a line is open by design: a stream that listens (a GET, or its successor) says nothing about speed."""
    return row["type"] in LASTING or (row["kind"] == "http" and str(row["name"] or "").startswith("GET "))


def _begin(row: Row) -> int:
    if "at_us" in row:
        return int(row["at_us"])
    return round(datetime.fromisoformat(row["time"]).timestamp() * 1_000_000)


def _us(ms: float | None) -> int | None:
    return None if ms is None else round(ms * 1000)


class Axis:
    """The way from moments to places."""

    def __init__(self, bars: Sequence[Bar], *, fold: bool = True, zoom: tuple[float, float] | None = None) -> None:
        """Lay the axis over ``bars``; ``zoom`` shows only a part of it, as shares of the whole width."""
        busy = [(b.begin, max(b.end or b.begin, *b.ticks, b.begin)) for b in bars if not b.lasting]
        busy = busy or [(b.begin, b.end or b.begin) for b in bars]
        self.begin = min((begin for begin, _ in busy), default=0)
        self.end = max((end for _, end in busy), default=0)
        self.stretches = _stretches(sorted(busy), self.begin, self.end, fold=fold)
        self.folds = sum(stretch.folded for stretch in self.stretches)
        self.zoom = low, high = zoom or (0.0, 1.0)
        self._left, self._scale = low * WIDTH, 1 / (high - low)
        self._ends = [stretch.end for stretch in self.stretches]
        self.breaks = self._breaks()

    def __call__(self, moment: int) -> float:
        """Return the place of a moment; what lies beyond the ends is put on them."""
        return (self._place(moment) - self._left) * self._scale

    def _place(self, moment: int) -> float:
        if not self.stretches or moment <= self.begin:
            return 0.0
        at = bisect_left(self._ends, moment)
        if at == len(self._ends):
            return float(WIDTH)
        begin, end, left, right, _ = self.stretches[at]
        return min(left + (moment - begin) / max(end - begin, 1) * (right - left), float(WIDTH))

    def _breaks(self) -> list[float]:
        """Return the middle of each folded stretch that can be seen."""
        middles = [(s.left + s.right) / 2 for s in self.stretches if s.folded]
        places = [(middle - self._left) * self._scale for middle in middles]
        return [place for place in places if 0 <= place <= WIDTH]

    def marks(self, count: int = 5) -> list[str]:
        """Return what the axis says below itself, at equal distances: how long after the beginning that is."""
        low, high = self.zoom
        places = [(low + (high - low) * n / (count - 1)) * WIDTH for n in range(count)]
        return [duration((self._moment(place) - self.begin) / 1000) or "0 ms" for place in places]

    def knots(self) -> str:
        """Return the places between which time runs evenly, each with its milliseconds: 0:0 976:420 1000:60420."""
        ends = [(stretch.right, stretch.end) for stretch in self.stretches]
        return " ".join(f"{number(at)}:{round((end - self.begin) / 1000)}" for at, end in [(0.0, self.begin), *ends])

    def _moment(self, place: float) -> float:
        for begin, end, left, right, _ in self.stretches:
            if place <= right:
                return begin + (place - left) / max(right - left, 1e-9) * (end - begin)
        return self.end


def _stretches(busy: Sequence[tuple[int, int]], begin: int, end: int, *, fold: bool) -> list[Stretch]:
    """Divide the time from ``begin`` to ``end`` into what is drawn to scale and what is folded."""
    if end <= begin:
        return []
    gaps = []
    reached = begin
    for start, stop in busy:
        if fold and start - reached > GAP_US:
            gaps.append((reached, start))
        reached = max(reached, stop)
    # a session of many pauses: folds take at most half of the room
    width = min(FOLD, WIDTH / 2 / len(gaps)) if gaps else 0.0
    drawn = end - begin - sum(stop - start for start, stop in gaps)
    scale = (WIDTH - width * len(gaps)) / drawn if drawn > 0 else 0.0
    if drawn <= 0:
        width = WIDTH / len(gaps)
    found, place, at = [], 0.0, begin
    for start, stop in [*gaps, (end, end)]:
        if start > at:
            right = place + (start - at) * scale
            found.append(Stretch(at, start, place, right))
            place = right
        if stop > start:
            found.append(Stretch(start, stop, place, place + width, folded=True))
            place += width
        at = stop
    return found


# ------------------------------------------------------------------------------------------------------- pictures


# A page has thousands of shapes, and they hold numbers and words of ours alone: they are written as text at once.
# What strangers wrote, the title, goes through `harmless` and `escape`.


def picture(of: Bar, axis: Axis) -> Markup:
    """Return the picture of one line."""
    shapes = "".join((*_break_lines(axis, HEIGHT), *_rects(of, axis, 3, 8)))
    return Markup(  # noqa: S704  see above
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" data-waterfall="" aria-hidden="true">'
        f"<title>{escape(harmless(of.title))}</title>{shapes}</svg>"
    )


def _break_lines(axis: Axis, height: int) -> Iterator[str]:
    if len(axis.breaks) <= BREAKS[height]:
        for place in axis.breaks:
            at = number(place)
            yield f'<line x1="{at}" x2="{at}" y1="0" y2="{height}" class="break"/>'


def _rects(of: Bar, axis: Axis, y: float, height: float) -> Iterator[str]:
    bad = "bad " if of.bad else ""
    begin = axis(of.begin)
    if 0 <= begin <= WIDTH:
        begin = min(begin, WIDTH - LEAST)  # the last one can be seen, too
    if of.waiting:
        # until now: the reader sees that it is not over
        right = WIDTH if of.end is None else axis(of.end)
        yield _rect(begin, right, y, height, "pending")
    elif of.end is None or (of.end <= of.begin and not of.ticks):
        yield _arrow(begin, y, height) if of.back else _rect(begin, begin + LEAST, y + 1, height - 2, "tick")
    else:
        end = max(axis(of.end), begin + LEAST)
        # never without either shade, as long as both times are known
        middle = end if of.first is None else min(max(axis(min(of.first, of.end)), begin), end - LEAST / 2)
        kind = "back " if of.back else ""
        if of.lasting:
            y, height = y + height / 2 - 1, 2
        yield _rect(begin, middle, y, height, f"{bad}{kind}wait")
        yield _rect(middle, end, y, height, f"{bad}{kind}recv")
        if of.back:
            yield _arrow(begin, y, height)
    for tick in _spread(of.ticks):
        place = axis(tick)
        yield _rect(place - TICK / 2, place + TICK / 2, y - 2, height + 4, "tick")


def _rect(left: float, right: float, y: float, height: float, kind: str) -> str:
    """Return what of a bar can be seen, "" where nothing can."""
    left, right = max(left, 0.0), min(right, float(WIDTH))
    if right - left < 0.01:
        return ""
    width = number(right - left)
    return f'<rect x="{number(left)}" y="{number(y)}" width="{width}" height="{number(height)}" class="{kind}"/>'


def _arrow(place: float, y: float, height: float) -> str:
    """Point to the left: what the server sends to the client goes the other way."""
    if not 0 <= place <= WIDTH:
        return ""
    points = f"{place:.1f},{y + height / 2:.1f} {place + 8:.1f},{y:.1f} {place + 8:.1f},{y + height:.1f}"
    return f'<polygon points="{points}" class="back"/>'


def _spread(ticks: Sequence[int]) -> Iterable[int]:
    if len(ticks) <= TICKS:
        return ticks
    return [ticks[n * (len(ticks) - 1) // (TICKS - 1)] for n in range(TICKS)]


def minimap(bars: Sequence[Bar], axis: Axis, *, title: str) -> Markup:
    """Return the small picture of the whole session; the higher a bar the longer the call."""
    longest = max((_took(each) for each in bars if not each.lasting), default=0)
    shapes = [f'<line x1="0" x2="{WIDTH}" y1="{MINI - 8}" y2="{MINI - 8}" class="axis"/>', *_break_lines(axis, MINI)]
    seen: set[tuple[int, int, bool]] = set()  # what lies on the same place is drawn once
    for each in bars:
        if each.lasting or (each.end is None and not each.waiting):
            continue
        left = axis(each.begin)
        right = WIDTH if each.end is None else axis(each.end)
        share = 1.0 if each.waiting else (_took(each) / longest) ** 0.5 if longest else 0.0
        height = 5 + share * (MINI - 15)
        place = (round(left), round(height), each.bad)
        kind = "bad recv" if each.bad else "pending" if each.waiting else "recv"
        left = min(left, WIDTH - LEAST)
        if place not in seen:
            seen.add(place)
            shapes.append(_rect(left, max(right, left + LEAST), MINI - 8 - height, height, kind))
    to_ms = round((axis.end - axis.begin) / 1000)
    return Markup(  # noqa: S704  see above
        f'<svg viewBox="0 0 {WIDTH} {MINI}" preserveAspectRatio="none" class="mini" role="img" '
        f'aria-label="{escape(title)}" data-minimap="" data-from="0" data-to="{to_ms}" data-knots="{axis.knots()}">'
        f"<title>{escape(harmless(title))}</title>{''.join(shapes)}</svg>"
    )


def _took(of: Bar) -> int:
    return max((of.end or of.begin) - of.begin, 0)


# ----------------------------------------------------------------------------------------------------------- lines


class Line(NamedTuple):
    """One line of the timeline on the page."""

    row: Row
    svg: Markup
    depth: int  # 0, or how deep below its request it stands
    leg: str = "try"  # what a further leg of its operation is called: a round where the server asked for input


class Pause(NamedTuple):
    """A time without traffic, folded."""

    ms: float
    row: None = None


def lines(rows: Sequence[Row], bars: Sequence[Bar], axis: Axis, *, fold: bool = True) -> Iterator[Line | Pause]:
    """Yield the lines of a timeline in order, each with its bar, with the pauses between them where these are folded.

    What came on the stream of a request stands below it.
    """
    by_pk = {row["pk"]: row for row in rows}
    asked = {row["operation_id"] for row in rows if row["outcome"] == "input_required"}
    reached: int | None = None
    for row, drawn in zip(rows, bars, strict=True):
        if fold and reached is not None and drawn.begin - reached > GAP_US and not drawn.lasting:
            yield Pause((drawn.begin - reached) / 1000)
        if not drawn.lasting:
            reached = max(reached or 0, drawn.begin, drawn.end or 0)
        yield Line(row, picture(drawn, axis), _depth(row, by_pk), "round" if row["operation_id"] in asked else "try")


def _depth(row: Row, by_pk: dict[int, Row]) -> int:
    depth, at = 0, row
    while depth < 2:
        above = by_pk.get(_parent(at) or 0)
        if above is None or above is at:
            break
        depth, at = depth + 1, above
    return depth


def _parent(row: Row) -> int | None:
    if "parent" in row:
        return int(row["parent"]) if row["parent"] else None
    return int(str(row["parent_id"])[-12:]) if row["parent_id"] else None
