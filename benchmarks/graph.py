"""Graphs of how something grows, as SVG files that stand in a document: light or dark as their reader is."""

from __future__ import annotations

from typing import Final, NamedTuple

from mcp_tap.ui.svg import Element, Scale, element, linear, logarithmic

_WIDTH: Final = 740
_HEIGHT: Final = 300
_LEFT: Final = 64
_RIGHT: Final = 560  # beyond it stand the names of the lines
_TOP: Final = 44
_BOTTOM: Final = 256
#: Between two names, at least.
_APART: Final = 15

#: The colours of the lines, on light and on dark. An image cannot ask the page around it, so it brings both.
_LIGHT: Final = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#57606a")
_DARK: Final = ("#4493f8", "#db6d28", "#3fb950", "#ab7df8", "#db61a2", "#9198a1")
_LOOKS: Final = "abcdef"


def _colours(text: str, title: str, grid: str, lines: tuple[str, ...]) -> str:
    each = (f".{look} {{ --c: {colour} }}" for look, colour in zip(_LOOKS, lines, strict=True))
    return f"text {{ fill: {text} }} .title {{ fill: {title} }} .grid {{ stroke: {grid} }} {' '.join(each)}"


_STYLE: Final = (
    "text { font: 12px system-ui, sans-serif } .title { font-weight: 600; font-size: 14px } "
    f"{_colours('#57606a', '#1f2328', '#d8dee4', _LIGHT)} "
    f"@media (prefers-color-scheme: dark) {{ {_colours('#9198a1', '#f0f6fc', '#3d444d', _DARK)} }} "
    "path { fill: none; stroke: var(--c); stroke-width: 2 } circle, .name { fill: var(--c) }"
)


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
    lines = [line for line in lines if line.points][: len(_LOOKS)]
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    x_scale = Scale(min(xs), max(xs), _LEFT, _RIGHT, log=True)  # lines end where their names begin
    x_marks = [mark for mark in logarithmic(min(xs), max(xs), _LEFT, _RIGHT)[1] if min(xs) <= mark <= max(xs)]
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
        look, line = _LOOKS[number], lines[number]
        places = [(x_scale(x), y_scale(y)) for x, y in line.points]
        drawn.append(element("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places), class_=look))
        drawn += [element("circle", cx=x, cy=y, r=2.5, class_=look) for x, y in places]
        lowest = _BOTTOM - _APART * (len(order) - 1 - place)
        above = min(max(places[-1][1], above + _APART), lowest)
        drawn.append(element("text", line.name, x=places[-1][0] + 8, y=above + 4, class_=f"name {look}"))
    return drawn
