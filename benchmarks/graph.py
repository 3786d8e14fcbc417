"""Graphs of how something grows, as SVG files that stand in a document: light or dark as their reader is."""

from __future__ import annotations

from typing import Final, NamedTuple

from mcp_tap.ui.svg import Element, Scale, element, linear, logarithmic

_WIDTH: Final = 720
_HEIGHT: Final = 300
_LEFT: Final = 64
_RIGHT: Final = 560  # beyond it stand the names of the lines
_TOP: Final = 44
_BOTTOM: Final = 256
#: Between two names, at least.
_APART: Final = 15

# An image cannot ask the page around it for colours, so it brings both sets.
_STYLE: Final = """
text { font: 12px system-ui, sans-serif; fill: #57606a }
.title { font-weight: 600; font-size: 14px; fill: #1f2328 }
.grid { stroke: #d8dee4 }
.line { fill: none; stroke-width: 2 }
.a { stroke: #0969da; fill: #0969da } .b { stroke: #bc4c00; fill: #bc4c00 } .c { stroke: #1a7f37; fill: #1a7f37 }
.d { stroke: #8250df; fill: #8250df } .e { stroke: #bf3989; fill: #bf3989 } .f { stroke: #57606a; fill: #57606a }
text.a, text.b, text.c, text.d, text.e, text.f { stroke: none }
path.line { fill: none }
@media (prefers-color-scheme: dark) {
    text { fill: #9198a1 } .title { fill: #f0f6fc } .grid { stroke: #3d444d }
    .a { stroke: #4493f8; fill: #4493f8 } .b { stroke: #db6d28; fill: #db6d28 } .c { stroke: #3fb950; fill: #3fb950 }
    .d { stroke: #ab7df8; fill: #ab7df8 } .e { stroke: #db61a2; fill: #db61a2 } .f { stroke: #9198a1; fill: #9198a1 }
}
"""


class Line(NamedTuple):
    """One line of a graph: its name, and places of it in the order of x."""

    name: str
    points: list[tuple[float, float]]


def short(value: float) -> str:
    """Return a number as it stands at an axis: ``250``, ``10k``, ``2.5M``."""
    for unit, power in (("M", 1e6), ("k", 1e3)):
        if value >= power:
            return f"{value / power:.3g}{unit}"
    return f"{value:.3g}"


def graph(title: str, across: str, up: str, lines: list[Line], *, log: bool = False) -> str:
    """Return a picture of lines over a logarithmic axis; ``across`` and ``up`` say what the axes count.

    Up is linear from 0, or logarithmic with ``log``. Lines without points are left out, at most six are drawn.
    """
    lines = [line for line in lines if line.points][:6]
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    x_scale, x_marks = logarithmic(min(xs), max(xs), _LEFT, _RIGHT)
    if log:
        y_scale, y_marks = logarithmic(min(ys), max(ys), _BOTTOM, _TOP)
    else:
        y_scale, y_marks = linear(max(ys), _BOTTOM, _TOP)
    said = "; ".join(
        f"{line.name}: {short(line.points[0][1])} at {short(line.points[0][0])}, "
        f"{short(line.points[-1][1])} at {short(line.points[-1][0])}"
        for line in lines
    )
    picture = element(
        "svg",
        element("title", title),
        element("desc", f"{up} by {across}. {said}."),
        element("style", _STYLE),
        element("text", title, x=_LEFT, y=18, class_="title"),
        element("text", up, x=_LEFT, y=34),
        element("text", across, x=_RIGHT, y=_BOTTOM + 36, text_anchor="end"),
        *_axes(x_scale, x_marks, y_scale, y_marks),
        *_lines(lines, x_scale, y_scale),
        xmlns="http://www.w3.org/2000/svg",
        viewbox=f"0 0 {_WIDTH} {_HEIGHT}",
        width=_WIDTH,
        height=_HEIGHT,
        role="img",
    )
    return f"{picture}\n"


def _axes(x_scale: Scale, x_marks: list[float], y_scale: Scale, y_marks: list[float]) -> list[Element]:
    drawn = []
    for mark in y_marks:
        y = y_scale(mark)
        drawn.append(element("line", x1=_LEFT, x2=_RIGHT, y1=y, y2=y, class_="grid"))
        drawn.append(element("text", short(mark), x=_LEFT - 8, y=y + 4, text_anchor="end"))
    for mark in x_marks:
        x = x_scale(mark)
        drawn.append(element("line", x1=x, x2=x, y1=_BOTTOM, y2=_BOTTOM + 5, class_="grid"))
        drawn.append(element("text", short(mark), x=x, y=_BOTTOM + 20, text_anchor="middle"))
    return drawn


def _lines(lines: list[Line], x_scale: Scale, y_scale: Scale) -> list[Element]:
    drawn = []
    # from the top down, each name below the one before it, and none below the axis
    order = sorted(range(len(lines)), key=lambda number: y_scale(lines[number].points[-1][1]))
    above = float(_TOP - _APART)
    for place, number in enumerate(order):
        look, line = "abcdef"[number], lines[number]
        places = [(x_scale(x), y_scale(y)) for x, y in line.points]
        drawn.append(element("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places), class_=f"line {look}"))
        drawn += [element("circle", cx=x, cy=y, r=2.5, class_=look) for x, y in places]
        lowest = _BOTTOM - _APART * (len(order) - 1 - place)
        above = min(max(places[-1][1], above + _APART), lowest)
        drawn.append(element("text", line.name, x=places[-1][0] + 8, y=above + 4, class_=look))
    return drawn
