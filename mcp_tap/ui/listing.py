"""Rows on their way out of a command: a table for people, tab-separated values for pipes, JSON lines for programs."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from mcp_tap.ui import text
from mcp_tap.ui.terminal import paint
from mcp_tap.ui.text import harmless, json_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mcp_tap.store import Row

#: A column narrower than this says nothing.
_NARROW: Final = 6

#: To this many columns a cell may be cut before other columns are left out.
_READABLE: Final = 16

Shape = Literal["table", "tsv", "json"]


def shape(*, as_json: bool) -> Shape:
    """Return how rows are to be printed: as JSON where that is asked for, as a table where a person looks."""
    return "json" if as_json else "table" if sys.stdout.isatty() else "tsv"


def width() -> int:
    """Return how many columns the terminal has."""
    return shutil.get_terminal_size().columns


def cell(value: Any) -> str:
    """Return a value as one harmless field: tabs and line ends in it are escaped."""
    if value is None:
        return ""
    if isinstance(value, str):
        return harmless(value)
    return json_line(value) if isinstance(value, (list, dict, bool)) else harmless(str(value))


def tsv_line(values: Iterable[Any]) -> str:
    """Return one line of tab-separated values."""
    return "\t".join(cell(value) for value in values)


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]], form: Shape) -> None:
    """Print rows as TSV, a header line first, or as JSON lines."""
    if form == "json":
        lines = [json_line(dict(zip(columns, row, strict=True))) for row in rows]
    else:
        lines = [tsv_line(columns), *(tsv_line(row) for row in rows)]
    if lines:
        click.echo("\n".join(lines))


def print_records(rows: Sequence[Row], form: Shape) -> None:
    """Print rows that know their columns, all the same ones: nothing where there are none."""
    if rows:
        print_rows(list(rows[0]), (list(row.values()) for row in rows), form)


def _plain(column: str, shown: str) -> str:
    return ""


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    color: bool,
    right: Iterable[str] = (),
    whole: Iterable[str] = (),
    spare: Iterable[str] = (),
    style: Callable[[str, str], str] = _plain,
) -> None:
    """Print a table for people, cut to the terminal: ``right`` names columns of numbers, ``whole`` those never cut.

    ``spare`` names those that are left out where there is no room, the last one first. ``style`` says how a cell is
    painted, from its column and its text. What has too many columns for lines is printed one value per line instead,
    each row a block.
    """
    cells = [[cell(value) for value in row] for row in rows]
    if not cells:
        click.echo("nothing")
        return
    widths = [max(text.columns(harmless(shown)) for shown in column) for column in zip(columns, *cells, strict=True)]
    for index in [index for index, name in enumerate(columns) if name in spare][::-1]:
        needed = (wide if name in whole else min(wide, _READABLE) for name, wide in zip(columns, widths, strict=True))
        if sum(needed) + 2 * (len(columns) - 1) > width():
            columns = [*columns[:index], *columns[index + 1 :]]
            cells = [[*row[:index], *row[index + 1 :]] for row in cells]
            del widths[index]
    room = width() - 2 * (len(columns) - 1)
    if room < len(columns) * _NARROW:
        _print_blocks(columns, cells, color=color)
        return
    flexible = [index for index, name in enumerate(columns) if name not in whole]
    while sum(widths) > room and flexible:
        widest = max(flexible, key=lambda index: widths[index])
        if widths[widest] <= _NARROW:
            break
        widths[widest] -= 1
    sides = [text.right if name in right else text.left for name in columns]
    title = "  ".join(side(name, wide) for side, name, wide in zip(sides, columns, widths, strict=True))
    lines = [paint(title.rstrip(), "bold", color=color)]
    for row in cells:
        placed = [side(shown, wide) for side, shown, wide in zip(sides, row, widths, strict=True)]
        placed[-1] = placed[-1].rstrip()
        styles = map(style, columns, row)
        lines.append("  ".join(paint(text, name, color=color) for text, name in zip(placed, styles, strict=True)))
    click.echo("\n".join(line.rstrip() for line in lines), color=color)


def _print_blocks(columns: Sequence[str], cells: Iterable[Sequence[str]], *, color: bool) -> None:
    wide = max(text.columns(harmless(name)) for name in columns)
    names = [paint(text.right(name, wide), "dim", color=color) for name in columns]
    blocks = ["\n".join(f"{name}  {shown}" for name, shown in zip(names, row, strict=True)) for row in cells]
    click.echo("\n\n".join(blocks), color=color)
