"""Events as text for other programs."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from pathlib import Path

import pytest

from mcp_tap.model import Batch, Connection, Kind, Origin
from mcp_tap.store import ALL, Paging, Reader, open_reader
from mcp_tap.ui import export
from mcp_tap.ui.export import Format
from tests.store.recording import connection, event, record


def lines(file: Path, form: Format) -> list[bytes]:
    async def read() -> list[bytes]:
        reader = await open_reader(f"sqlite:///{file}")
        try:
            return [piece async for piece in export.events(reader, ALL, form)]
        finally:
            await reader.close()

    return asyncio.run(read())


@pytest.fixture
def three_pages(tmp_path: Path) -> Path:
    one = connection()
    file = tmp_path / "tap.db"
    record(
        file, Batch(connections=[one], events=[event(one, at_us=1_773_482_924_000_000 + n // 7) for n in range(1203)])
    )
    return file


@pytest.mark.parametrize("form", export.FORMATS)
def test_pages_join_without_a_seam(three_pages: Path, form: Format) -> None:
    """Many events happen in the same millisecond: none is left out or written twice where pages meet."""
    pieces = lines(three_pages, form)
    assert len(pieces) == (4 if form == "csv" else 3)
    assert all(piece.endswith(b"\n") for piece in pieces)
    text = b"".join(pieces).decode()
    if form == "csv":
        numbers = [int(row["seq"]) for row in csv.DictReader(io.StringIO(text, newline=""))]
    else:
        numbers = [json.loads(line)["seq"] for line in text.splitlines()]
    assert numbers == list(range(1, 1204))


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1 for this", "'+1 for this"),
        ("-32000", "-32000"),
        ("+4.5", "+4.5"),
        ("-1+cmd|' /C calc'!A0", "'-1+cmd|' /C calc'!A0"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\\tx"),
        ("\r=1", "'\\r=1"),
        ("a, \"b\"\nc", "a, \"b\"\nc"),
        ("\x1b[31m\u202eevil", "\\x1b[31m\\u202eevil"),
        ("", ""),
    ],
)  # fmt: skip
def test_no_cell_is_a_formula_or_obeyed(tmp_path: Path, text: str, cell: str) -> None:
    one = Connection("scn_1", "ses_1", Origin.HEADER, 1, client_name=text, last_active_us=1)
    file = tmp_path / "tap.db"
    record(file, Batch(connections=[one], events=[event(one, message=text, kind=Kind.LIFECYCLE)]))
    [row] = csv.DictReader(io.StringIO(b"".join(lines(file, "csv")).decode(), newline=""))
    assert (row["error_message"], row["client_name"]) == (cell, cell)


def test_whoever_stops_reading_stops_the_questions(three_pages: Path) -> None:
    """The next page is asked for when the one before it is taken: memory is bounded by the reader's pace."""

    class Counting:
        def __init__(self, reader: Reader) -> None:
            self.reader, self.asked = reader, 0

        async def list_events(self, where: object, paging: Paging) -> object:
            self.asked += 1
            return await self.reader.list_events(ALL, paging)

    async def read() -> int:
        reader = await open_reader(f"sqlite:///{three_pages}")
        counting = Counting(reader)
        pieces = export.events(counting, ALL, "jsonl")  # type: ignore[arg-type]
        await anext(pieces)
        await pieces.aclose()  # type: ignore[attr-defined]
        await reader.close()
        return counting.asked

    assert asyncio.run(read()) == 1
