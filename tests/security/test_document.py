"""Every line of the threat model names what stops a threat and the tests of that, and these exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "security.md"

#: The heads of the tables that are of threats.
THREATS = ["threat", "what stops it", "tests"]


def tables(text: str) -> list[list[list[str]]]:
    """Return the tables of a document: rows of cells, the head first and its rule left out."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [[rows[0], *rows[2:]] for rows in found if rows]


LINES = [row for table in tables(DOCUMENT.read_text()) if table[0] == THREATS for row in table[1:]]


@cache
def collected(file: str) -> list[str]:
    """Return the names of the tests of a file, as pytest collects them: functions that stand alone."""
    path = ROOT / file
    if not path.is_file() or not path.name.startswith("test_") or ROOT / "tests" not in path.parents:
        return []
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(path.read_text())
    return [node.name for node in tree.body if isinstance(node, functions) and node.name.startswith("test_")]


def missing(cell: str) -> list[str]:
    """Return which of the tests that a cell names do not exist; a cell that names none lacks one."""
    named = re.findall(r"`([^`]+)`", cell)
    # a name that stands twice would be collected once: the second hides the first
    return [name for name in named if collected(name.partition("::")[0]).count(name.partition("::")[2]) != 1] or (
        [] if named and not re.sub(r"`[^`]+`| ", "", cell) else ["no test"]
    )


@pytest.mark.parametrize("line", LINES, ids=[line[0][:60] for line in LINES])
def test_every_threat_is_stopped_by_something_that_is_tested(line: list[str]) -> None:
    threat, stop, tests = line
    assert threat
    assert stop
    assert missing(tests) == []


def test_the_model_covers_every_way_in() -> None:
    text = DOCUMENT.read_text()
    assert len(LINES) >= 55
    for way in ("proxy port", "desk's port", "file, exports, terminal and log", "Credentials", "made of"):
        assert re.search(rf"^## .*{re.escape(way)}", text, re.MULTILINE), way


@pytest.mark.parametrize(
    "cell",
    [
        "", "some words", "`tests/security/test_document.py::test_that_is_not_there`", "`tests/nowhere.py::test_x`",
        "`tests/security/test_document.py::tables`", "`tests/tap.py::running`",
        "`tests/security/test_document.py::test_the_model_covers_every_way_in` and more",
    ],
)  # fmt: skip
def test_a_line_without_a_test_would_be_found(cell: str) -> None:
    assert missing(cell) != []
