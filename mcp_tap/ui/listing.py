"""Rows on their way out of a command: a table for people, tab-separated values for pipes, JSON lines for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal, TextIO

import click

from mcp_tap.ui.text import harmless, json_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

Shape = Literal["table", "tsv", "json"]


def shape(*, as_json: bool) -> Shape:
    """Return how rows are to be printed: as JSON where that is asked for, as a table where a person looks."""
    return "json" if as_json else "table" if sys.stdout.isatty() else "tsv"


def console(out: TextIO | None = None, *, color: bool) -> Console:
    """Return a rich console that interprets no markup and guesses nothing."""
    from rich.console import Console

    return Console(file=out or sys.stdout, markup=False, emoji=False, highlight=False, no_color=not color)


def cell(value: Any) -> str:
    """Return a value as one harmless field: tabs and line ends in it are escaped."""
    if value is None:
        return ""
    if isinstance(value, str):
        return harmless(value)
    return json_line(value) if isinstance(value, (list, dict)) else harmless(str(value))


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


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, color: bool, right: Iterable[str] = ()
) -> None:
    """Print a table for people; columns named in ``right`` are aligned to the right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(
            Text(harmless(name)), justify="right" if name in right else "left", overflow="ellipsis", no_wrap=True
        )
    for row in rows:
        table.add_row(*(value if isinstance(value, Text) else Text(cell(value)) for value in row))
    console(color=color).print(table)
