from __future__ import annotations

from typing import Any

import pytest

from mcp_tap.store import Paging
from mcp_tap.ui.ranking import Column, ranked, words

COLUMNS = (
    Column("Name", "name", lambda row: row["name"]),
    Column("Slow", "", lambda row: row["ms"], number=True),
    Column("Picture"),
)
ROWS: list[dict[str, Any]] = [{"name": "b", "ms": 3.0}, {"name": "A", "ms": None}, {"name": "c", "ms": 9.0}]


@pytest.mark.parametrize(
    ("paging", "names"),
    [
        (Paging(), "cbA"),
        (Paging(order="asc"), "bcA"),
        (Paging(sort="name"), "cbA"),
        (Paging(sort="name", order="asc"), "Abc"),
    ],
)
def test_rows_stand_in_the_order_asked_for_and_the_unknown_last(paging: Paging, names: str) -> None:
    assert "".join(row["name"] for row in ranked(ROWS, COLUMNS, paging)) == names


def test_only_columns_that_sort_are_words() -> None:
    assert words(COLUMNS) == ["name"]
