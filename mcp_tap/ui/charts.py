"""The charts of the pages: figures in, SVG out, and behind every picture the table that it was drawn from.

Nothing here asks a store or knows a request: `link` makes the address of the list behind a span of time. Series of the
same chart differ by dash and by their word at the end of the line as well as by colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, Final, NamedTuple

from markupsafe import Markup

from mcp_tap.store import Row
from mcp_tap.ui.svg import Element, Scale, clock, element, linear, logarithmic, times, zone
from mcp_tap.ui.text import counted, duration

#: The address of the list behind a span of time, both ends in microseconds since the epoch.
Link = Callable[[int, int], str]

WIDTH: Final = 680
HEIGHT: Final = 230
LEFT: Final = 58
RIGHT: Final = 74  # where the ends of lines are named
TOP: Final = 12
BOTTOM: Final = 26

PERCENTILES: Final = ("p50", "p95", "p99")
_DASHES: Final = {"p50": None, "p95": "7 3", "p99": "2 3"}


class Line(NamedTuple):
    """One line of the table behind a chart."""

    href: str | None  # the list behind the line
    cells: list[str]


class Chart(NamedTuple):
    """A picture, what it says in words, and its table."""

    name: str  # of the element; also the beginning of the ids inside
    title: str
    svg: Markup
    caption: str
    columns: list[str]
    lines: list[Line]


# ------------------------------------------------------------------------------------------------ over time


def latency(spans: Sequence[Row], link: Link, *, exact: bool = True, name: str = "latency") -> Chart:
    """Draw p50, p95 and p99 of rows as `Reader.series` has them; a span without a call breaks the lines."""
    title = "Latency"
    values = [span[f"{p}_ms"] for span in spans for p in PERCENTILES if span[f"{p}_ms"] is not None]
    caption = "Streams that last by design are left out. " + (
        "Percentiles of every stored duration" if exact else "Percentiles from histograms, within 3 % of the durations"
    )
    if not values:
        return _nothing(name, title, caption)
    low, high = max(min(values), 0.01), max(*values, 0.02)
    bottom = HEIGHT - BOTTOM
    # over more than a decade and a half a straight axis would lay the small values on the floor
    y, marks = logarithmic(low, high, bottom, TOP) if high > 30 * low else linear(high, bottom, TOP)
    x = _time(spans)
    lines = []
    for percentile in PERCENTILES:
        for some, run in groupby(spans, key=lambda span: span[f"{percentile}_ms"] is not None):
            if some:
                points = [(x((s["start"] + s["end"]) / 2), y(s[f"{percentile}_ms"])) for s in run]
                lines.append(_line(percentile, points))
    last = next(span for span in reversed(spans) if any(span[f"{p}_ms"] is not None for p in PERCENTILES))
    ends = [(p, y(last[f"{p}_ms"])) for p in PERCENTILES if last[f"{p}_ms"] is not None]
    where = x((last["start"] + last["end"]) / 2)
    named = [
        element("text", percentile, x=min(where + 8, WIDTH - RIGHT + 8), y=place + 4, class_=f"end {percentile}")
        for (percentile, _), place in zip(ends, _apart([place for _, place in ends], bottom), strict=True)
    ]
    description = f"{_span(spans)}: " + ", ".join(
        f"{p} between {duration(min(v))} and {duration(max(v))}"
        for p in PERCENTILES
        if (v := [s[f"{p}_ms"] for s in spans if s[f"{p}_ms"] is not None])
    )
    picture = [*_grid(y, marks, _milliseconds), *_axis(x), *lines, *named]
    scale = "logarithmic axis, " if y.log else ""
    return Chart(
        name,
        title,
        _svg(name, title, description, picture, _spans(spans, x, link, _said_latency), x=x),
        f"{caption}; {scale}times in {zone(spans[0]['start'])}.",
        ["From", "Calls", *PERCENTILES],
        [
            Line(
                link(s["start"], s["end"]),
                [_from(s), f"{s['calls']:,}", *(duration(s[f"{p}_ms"]) for p in PERCENTILES)],
            )
            for s in spans
            if s["calls"]
        ],
    )


def calls(spans: Sequence[Row], link: Link, *, name: str = "calls") -> Chart:
    """Draw calls that succeeded and, on top of them, those that failed, as a bar for each span."""
    title = "Calls and errors"
    total, failed = sum(span["calls"] for span in spans), sum(span["errors"] for span in spans)
    caption = "Requests of clients that have ended. Failed ones stand on top, hatched"
    if not total:
        return _nothing(name, title, caption)
    bottom = HEIGHT - BOTTOM
    y, marks = linear(max(span["calls"] for span in spans), bottom, TOP, whole=True)
    x = _time(spans)
    picture: list[Element] = [*_grid(y, marks, lambda mark: f"{mark:,.0f}"), *_axis(x)]
    for span in spans:
        if not span["calls"]:
            continue
        left, right = x(span["start"]), x(span["end"])
        gap = min(2.0, (right - left) / 4)
        errors = min(span["errors"], span["calls"])
        middle, top = y(span["calls"] - errors), y(span["calls"])
        bar = {"x": left + gap / 2, "width": max(right - left - gap, 0.5)}
        if middle < bottom:
            picture.append(element("rect", class_="bar ok", y=middle, height=bottom - middle, **bar))
        if errors:
            # one failed call among thousands must not vanish
            height = max(middle - top, 2.5)
            on_top = {**bar, "y": max(middle - height, 0), "height": height}
            picture.append(element("rect", class_="bar bad", **on_top))
            if height >= 5:  # stripes of less would be a dotted line
                picture.append(element("rect", fill=f"url(#{name}-hatch)", **on_top))
    description = f"{_span(spans)}: {counted(total, 'call')}, {counted(failed, 'error')}"
    return Chart(
        name,
        title,
        _svg(name, title, description, picture, _spans(spans, x, link, _said_calls), x=x, hatch=True),
        f"{caption}; times in {zone(spans[0]['start'])}.",
        ["From", "Calls", "Errors", "Error %"],
        [
            Line(
                link(s["start"], s["end"]),
                [_from(s), f"{s['calls']:,}", f"{s['errors']:,}", percent(s["errors"], s["calls"])],
            )
            for s in spans
            if s["calls"]
        ],
    )


def heatmap(cells: Sequence[Row], spans: Sequence[Row], link: Link, *, name: str = "heatmap") -> Chart:
    """Draw how many calls took how long when: rows of `Reader.heatmap`, on the time axis of ``spans``."""
    title = "Latency heatmap"
    caption = "Each cell is a span of time and a doubling of latency, darker with more calls, hatched where half failed"
    cells = [cell for cell in cells if cell["calls"]]
    if not cells:
        return _nothing(name, title, caption)
    bottom = HEIGHT - BOTTOM
    x = _time(spans or cells)
    levels = sorted({_level(cell) for cell in cells})
    rows = range(levels[0], levels[-1] + 1)
    height = (bottom - TOP) / len(rows)
    most = max(cell["calls"] for cell in cells)
    picture: list[Element] = []
    every = math.ceil(len(rows) / 7)
    for row in rows:
        if (row - rows[0]) % every == 0:
            at = bottom - (row - rows[0]) * height
            picture.append(element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at))
            picture.append(element("text", _mark(row), class_="mark", x=LEFT - 8, y=at + 4, text_anchor="end"))
    picture += _axis(x)
    columns: dict[tuple[int, int], list[Row]] = {}
    for cell in cells:
        left, right = x(cell["start"]), x(cell["end"])
        at = bottom - (_level(cell) - rows[0] + 1) * height
        box = {"x": left, "y": at, "width": max(right - left - 0.5, 0.5), "height": max(height - 0.5, 0.5)}
        shade = 1 + min(math.floor(4.999 * math.log(cell["calls"] + 1) / math.log(most + 1)), 4)
        bad = cell["errors"] * 2 >= cell["calls"]
        picture.append(element("rect", class_=f"heat-{shade}{' bad' if bad else ''}", **box))
        if bad:
            picture.append(element("rect", fill=f"url(#{name}-hatch)", **box))
        columns.setdefault((cell["start"], cell["end"]), []).append(cell)
    links = [
        element("a", _column(x, bottom, column), href=link(*span), tabindex="-1") for span, column in columns.items()
    ]
    total = sum(cell["calls"] for cell in cells)
    busiest = max(cells, key=lambda cell: cell["calls"])
    description = f"{_span(spans or cells)}: {counted(total, 'call')}, most of them {_range(busiest)}"
    table: dict[int, tuple[Row, dict[int, str]]] = {}
    for cell in sorted(cells, key=lambda cell: cell["start"]):
        failed = f", {cell['errors']:,} failed" if cell["errors"] else ""
        table.setdefault(cell["start"], (cell, {}))[1][_level(cell)] = f"{cell['calls']:,}{failed}"
    return Chart(
        name,
        title,
        _svg(name, title, description, picture, links, x=x, hatch=True),
        f"{caption}; times in {zone(cells[0]['start'])}.",
        ["From", *(f"{_mark(level)} to {_mark(level + 1)}" for level in levels)],
        [_row(first, link, *(by.get(level, "") for level in levels)) for first, by in table.values()],
    )


# ------------------------------------------------------------------------------------------------ in words of HTML


class Cell(NamedTuple):
    """How one client used one tool."""

    calls: int
    errors: int
    shade: int  # 0 (none) to 5 (the most)


class Matrix(NamedTuple):
    """Tools by clients, both in the order of their calls."""

    clients: list[str]
    rows: list[tuple[str, list[Cell]]]
    more_tools: int
    more_clients: int


def matrix(rows: Iterable[Row], *, tools: int = 30, clients: int = 12) -> Matrix:
    """Lay out rows of `Reader.matrix`: the most called tools and the clients that call most."""
    cells = {(row["tool"], row["client"]): (row["calls"], row["errors"]) for row in rows}
    by_tool: dict[str, int] = {}
    by_client: dict[str, int] = {}
    for (tool, client), (count, _) in cells.items():
        by_tool[tool] = by_tool.get(tool, 0) + count
        by_client[client] = by_client.get(client, 0) + count
    across = sorted(by_client, key=lambda client: (-by_client[client], client))
    down = sorted(by_tool, key=lambda tool: (-by_tool[tool], tool))
    most = max((count for count, _ in cells.values()), default=0)
    return Matrix(
        across[:clients],
        [(tool, [_cell(cells.get((tool, client)), most) for client in across[:clients]]) for tool in down[:tools]],
        max(len(down) - tools, 0),
        max(len(across) - clients, 0),
    )


def _cell(counts: tuple[int, int] | None, most: int) -> Cell:
    if counts is None or not counts[0]:
        return Cell(0, 0, 0)
    return Cell(*counts, 1 + min(math.floor(4.999 * math.log(counts[0] + 1) / math.log(most + 1)), 4))


def spark(counts: Sequence[int], said: str) -> Markup:
    """Draw a small line of bars, as many as there are counts; ``said`` is its title."""
    width, height = 96.0, 20.0
    most = max(counts, default=0)
    step = width / max(len(counts), 1)
    bars = [
        element("rect", x=n * step + 0.5, y=height - tall, width=max(step - 1, 0.5), height=tall)
        for n, count in enumerate(counts)
        if count > 0 and (tall := max((height - 2) * count / most, 1.5))
    ]
    floor = element("line", x1=0, x2=width, y1=height - 0.25, y2=height - 0.25)
    return element(
        "svg", element("title", said), floor, *bars, class_="spark", role="img",
        viewbox=f"0 0 {width:.0f} {height:.0f}", width=width, height=height,
    ).markup()  # fmt: skip


class Part(NamedTuple):
    """One client's share of the calls."""

    client: str
    calls: int
    share: float  # 0 to 1
    href: str | None
    shade: int  # 1 to 6, the last one for the rest together


class Proportion(NamedTuple):
    """A bar cut in parts, and the same parts for its legend."""

    svg: Markup
    parts: list[Part]


def proportion(clients: Iterable[tuple[str, int]], link: Callable[[str], str | None], *, most: int = 5) -> Proportion:
    """Draw who makes the calls: (client, calls) as one bar, the largest first, those beyond ``most`` together."""
    ranked = sorted(((client, count) for client, count in clients if count > 0), key=lambda each: (-each[1], each[0]))
    total = sum(count for _, count in ranked)
    parts = [Part(c, n, n / total, link(c), k + 1) for k, (c, n) in enumerate(ranked[:most])]
    if rest := ranked[most:]:
        count = sum(n for _, n in rest)
        parts.append(Part(counted(len(rest), "other"), count, count / total, None, most + 1))
    at, drawn, links = 0.0, [], []
    for part in parts:
        width, gap = WIDTH * part.share, 0.0 if part is parts[-1] else 1.5
        box: dict[str, float] = {"x": min(at, WIDTH - 0.5), "y": 0, "width": max(width - gap, 0.5), "height": 16}
        drawn.append(element("rect", class_=f"part-{part.shade}", **box))
        if part.href is not None:
            said = f"{part.client}: {counted(part.calls, 'call')}, {percent(part.calls, total)}"
            links.append(_target(part.href, said, class_="cell", **box))
        at += width
    said = ", ".join(f"{part.client} {percent(part.calls, total)}" for part in parts)
    svg = _svg("clients", "Calls by client", said, drawn, links, height=16, stretched=True)
    return Proportion(svg, parts)


def percent(part: float, whole: float) -> str:
    """Return a share in words: 0 %, 0.4 %, 12 %; never 0 % for something and never 100 % for less than all."""
    if not whole or not part:
        return "0 %"
    share = 100 * part / whole
    if share < 9.95:
        return f"{max(share, 0.1):.1f} %".replace(".0 ", " ")
    return f"{min(share, 99.0) if part < whole and share >= 99 else share:.0f} %"


# ------------------------------------------------------------------------------------------------ parts of pictures


def _svg(
    name: str, title: str, said: str, picture: Sequence[Element], links: Sequence[Element], *,
    x: Scale | None = None, hatch: bool = False, height: float = HEIGHT, stretched: bool = False,
) -> Markup:  # fmt: skip
    # where the axis of time runs: a script asks for the span that somebody drags over
    axis: dict[str, str | float] = {} if x is None else {
        "data_from": _integer(x.low), "data_to": _integer(x.high), "data_left": x.start, "data_right": x.end,
    }  # fmt: skip
    pattern = element(
        "defs",
        element(
            "pattern", element("path", d="M-1 1L1 -1M0 6L6 0M5 7L7 5", class_="hatching"),
            id=f"{name}-hatch", width=6, height=6, pattern_units="userSpaceOnUse",
        ),
    )  # fmt: skip
    return element(
        "svg",
        pattern if hatch else None,
        element(
            "g", element("title", title, id=f"{name}-title"), element("desc", said, id=f"{name}-desc"), *picture,
            role="img", aria_labelledby=f"{name}-title {name}-desc",
        ),
        element("g", *links, class_="targets", aria_hidden="true"),
        class_=f"chart {name}",
        viewbox=f"0 0 {WIDTH} {height:g}",
        preserve_aspect_ratio="none" if stretched else None,
        data_chart=name,
        **axis,
    ).markup()  # fmt: skip


def _row(span: Row, link: Link, *cells: str) -> Line:
    return Line(link(span["start"], span["end"]), [_from(span), *cells])


def _nothing(name: str, title: str, caption: str) -> Chart:
    words = element("text", "no calls in this range", class_="nothing", x=WIDTH / 2, y=HEIGHT / 2, text_anchor="middle")
    return Chart(name, title, _svg(name, title, "no calls in this range", [words], []), f"{caption}.", [], [])


def _time(spans: Sequence[Row]) -> Scale:
    start, end = min(span["start"] for span in spans), max(span["end"] for span in spans)
    return Scale(start, max(end, start + 1), LEFT, WIDTH - RIGHT)


def _axis(x: Scale) -> list[Element]:
    base = HEIGHT - BOTTOM
    marks = [element("line", class_="axis", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base)]
    for at_us, label in times(int(x.low), int(x.high)):
        marks.append(element("line", class_="axis", x1=x(at_us), x2=x(at_us), y1=base, y2=base + 4))
        marks.append(element("text", label, class_="mark", x=x(at_us), y=HEIGHT - 7, text_anchor="middle"))
    return marks


def _grid(y: Scale, marks: Sequence[float], label: Callable[[float], str]) -> list[Element]:
    lines = []
    for mark in marks:
        lines.append(element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y(mark), y2=y(mark)))
        lines.append(element("text", label(mark), class_="mark", x=LEFT - 8, y=y(mark) + 4, text_anchor="end"))
    return lines


def _line(percentile: str, points: list[tuple[float, float]]) -> Element:
    if len(points) == 1:  # a line of one point would not be seen
        return element("circle", class_=f"point {percentile}", cx=points[0][0], cy=points[0][1], r=2.5)
    drawn = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    return element("polyline", class_=f"line {percentile}", points=drawn, stroke_dasharray=_DASHES[percentile])


def _apart(places: list[float], floor: float, least: float = 13.0) -> list[float]:
    """Return places of words, given from low to high values, so that none covers another."""
    kept: list[float] = []
    for place in places:
        kept.append(min(place, kept[-1] - least) if kept else min(place, floor))
    lowest = min(kept, default=TOP)
    return [place + max(TOP - lowest, 0) for place in kept]


def _spans(spans: Sequence[Row], x: Scale, link: Link, said: Callable[[Row], str]) -> list[Element]:
    """Return a column over each span that has calls: what a pointer hits, and what it says there."""
    return [
        _target(
            link(span["start"], span["end"]), said(span),
            x=x(span["start"]), y=TOP, width=max(x(span["end"]) - x(span["start"]), 0.5), height=HEIGHT - BOTTOM - TOP,
            class_="span", data_from=_integer(span["start"]), data_to=_integer(span["end"]),
        )
        for span in spans
        if span["calls"]
    ]  # fmt: skip


def _target(href: str, said: str, **box: Any) -> Element:
    return element("a", element("title", said), element("rect", **box), href=href, tabindex="-1")


def _integer(at_us: float) -> str:
    return str(int(at_us))


def _said_latency(span: Row) -> str:
    figures = ", ".join(f"{p} {duration(span[f'{p}_ms'])}" for p in PERCENTILES if span[f"{p}_ms"] is not None)
    return f"{_both(span)}: {counted(span['calls'], 'call')}{', ' if figures else ''}{figures}"


def _said_calls(span: Row) -> str:
    return f"{_both(span)}: {counted(span['calls'], 'call')}, {counted(span['errors'], 'error')}"


def _column(x: Scale, bottom: float, cells: Sequence[Row]) -> Element:
    """Return what a pointer meets over a span of a heatmap: its figures, slowest first."""
    left, right = x(cells[0]["start"]), x(cells[0]["end"])
    by_latency = sorted(cells, key=lambda cell: -(cell["low_ms"] or 0))
    said = "; ".join(f"{_range(cell)}: {_some(cell)}" for cell in by_latency)
    return element(
        "rect", element("title", f"{_both(cells[0])} — {said}"), class_="cell",
        x=left, y=TOP, width=max(right - left - 0.5, 0.5), height=bottom - TOP,
    )  # fmt: skip


def _some(cell: Row) -> str:
    failed = f", {cell['errors']:,} failed" if cell["errors"] else ""
    return f"{counted(cell['calls'], 'call')}{failed}"


def _level(cell: Row) -> int:
    """Return the power of two at which a cell begins; everything below a 128th of a millisecond is one level."""
    low = cell["low_ms"]
    return max(round(math.log2(low)), -8) if low and low > 0 else -8


def _mark(level: int) -> str:
    return _milliseconds(2.0**level) if level > -8 else "0"


def _range(cell: Row) -> str:
    return f"{_milliseconds(cell['low_ms'] or 0)} to {_milliseconds(cell['high_ms'])}"


def _milliseconds(ms: float) -> str:
    """Return a mark of an axis of latencies: 0, 125 µs, 0.5 ms, 20 ms, 1.5 s, 5 min."""
    if ms <= 0:
        return "0"
    if ms < 0.5:
        return f"{ms * 1000:.3g} µs"
    if ms < 1000:
        return f"{ms:.3g} ms"
    return f"{ms / 1000:.2g} s" if ms < 9950 else f"{ms / 1000:.0f} s" if ms < 300_000 else f"{ms / 60_000:,.0f} min"


def _from(span: Row) -> str:
    return _moment(span["start"], (span["end"] - span["start"]) / 1_000_000)


def _moment(at_us: float, step: float) -> str:
    day = clock(at_us, 86400)
    return day if step >= 86400 else f"{day} {clock(at_us, min(step, 60))}"


def _both(span: Row) -> str:
    step = (span["end"] - span["start"]) / 1_000_000
    return _between(span["start"], span["end"], step)


@lru_cache(maxsize=512)  # every cell of a heatmap's column says the same span
def _between(start: float, end: float, step: float) -> str:
    day, last = clock(start, 86400), clock(end, 86400)
    whole = step >= 86400 or last != day
    return f"{_moment(start, step)} to {_moment(end, step) if whole else clock(end, min(step, 60))}"


def _span(spans: Sequence[Row]) -> str:
    return _between(spans[0]["start"], spans[-1]["end"], (spans[0]["end"] - spans[0]["start"]) / 1_000_000)
