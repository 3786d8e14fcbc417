"""The documents about the database say what is true: every query answers as shown, every column is described."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_tap.store import Table, open_reader, open_writer

from .plausible import morning

DOCS = Path(__file__).parents[2] / "docs"


def blocks(name: str) -> list[tuple[str, str, str]]:
    """Give (heading, SQL, answer) of every query in a document."""
    text = (DOCS / name).read_text()
    found = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        for sql, answer in re.findall(r"```sql\n(.*?)```\n(?:\n```text\n(.*?)```)?", section, re.DOTALL):
            found.append((section.splitlines()[0], sql, answer))
    return found


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('docs')}/morning.db"

    async def record() -> None:
        writer = await open_writer(url)
        for batch in morning():
            await writer.write(batch)
        await writer.close()

    asyncio.run(record())
    return url


@pytest.fixture
def an_hour_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def drawn(table: Table) -> str:
    """Draw a table the way the documents show it: columns of text, nothing for NULL."""
    cells = [table.columns, *[["" if cell is None else str(cell) for cell in row] for row in table.rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        pytest.param(sql, answer, id=f"{name}: {heading}")
        for name in ("queries.md", "schema.md")
        for heading, sql, answer in blocks(name)
    ],
)
@pytest.mark.usefixtures("an_hour_east")
def test_a_documented_query_answers_as_shown(recording: str, sql: str, answer: str) -> None:
    async def ask() -> Table:
        reader = await open_reader(recording)
        try:
            return await reader.query(sql)
        finally:
            await reader.close()

    table = asyncio.run(ask())
    assert table.rows, "a query that finds nothing in this recording shows nothing"
    assert drawn(table) == answer


def test_every_question_has_one_query_of_at_most_ten_lines() -> None:
    found = blocks("queries.md")
    assert len({heading for heading, _, _ in found}) == len(found) >= 10
    assert [heading for heading, sql, _ in found if len(sql.splitlines()) > 10] == []


def test_every_table_and_column_is_documented_and_no_other(recording: str) -> None:
    documented: dict[str, list[tuple[str, str]]] = {}
    for section in re.split(r"^## ", (DOCS / "schema.md").read_text(), flags=re.MULTILINE)[1:]:
        if title := re.match(r"(?:table|view) `(\w+)`\n", section):
            documented[title[1]] = re.findall(r"^\| `(\w+)` \| (\w*) \|", section, re.MULTILINE)
    db = sqlite3.connect(recording.removeprefix("sqlite:///"))
    names = db.execute("SELECT name, type FROM sqlite_schema WHERE type IN ('table', 'view')").fetchall()
    real = {
        name: [
            (column, "" if kind == "view" else type_)
            for column, type_ in db.execute("SELECT name, type FROM pragma_table_info(?)", (name,))
        ]
        for name, kind in names
        if not name.startswith("sqlite_")
    }
    db.close()
    assert documented == real


def test_every_index_is_documented(recording: str) -> None:
    db = sqlite3.connect(recording.removeprefix("sqlite:///"))
    made = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")}
    db.close()
    assert made == set(re.findall(r"^\| `(\w+)` \| `\w+ \(", (DOCS / "schema.md").read_text(), re.MULTILINE))
