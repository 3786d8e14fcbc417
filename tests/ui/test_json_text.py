"""JSON in pieces: laid out from its text, whatever the text is."""

from __future__ import annotations

import json
import random

import pytest

from mcp_tap.ui import json_text
from mcp_tap.ui.json_text import MOST, pieces, plain


def text(of: str) -> str:
    return "".join(piece.text for piece in pieces(of))


def test_each_piece_says_what_it_is() -> None:
    assert [(kind, shown) for kind, shown in pieces('{"a": [1, "b", null]}') if kind] == [
        ("k", '"a"'), ("c", "1"), ("s", '"b"'), ("c", "null"),
    ]  # fmt: skip
    assert text('{"a":[1,"b",null],"c":{},"d":[]}') == (
        '{\n  "a": [\n    1,\n    "b",\n    null\n  ],\n  "c": {},\n  "d": []\n}'
    )


def test_what_was_redacted_says_why() -> None:
    (found,) = [piece for piece in pieces('{"token":"•••• (redacted: key)","x":"••••"}') if piece.kind == "red"]
    assert found.text == "•••• redacted (key)"
    # only the tap's own mark: a server that writes like it is quoted
    assert all(piece.kind != "red" for piece in pieces('{"x":"•••• (redacted: <b>)\\" (x)"}'))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ('"\\u00e9\\u4e2d"', '"é中"'),
        ('"a\\nb\\"c"', '"a\\nb\\"c"'),
        ('"\\u202e\\u0000"', '"\\u202e\\u0000"'),
        ('"\u202e\x1b[31m"', '"\\u202e\\x1b[31m"'),
        ('"\\ud800"', '"\\ud800"'),
        ("12345678901234567890.10", "12345678901234567890.10"),
        ("1e999", "1e999"),
        ('{"a":1,"a":2}', '{\n  "a": 1,\n  "a": 2\n}'),
        ('{"cut": "in the mid', '{\n  "cut": "in the mid'),
        ('["cut\\', '[\n  "cut\\'),
        ("", ""),
        ("]]]", "\n]\n]\n]"),
    ],
)
def test_nothing_is_lost_and_nothing_obeyed(given: str, shown: str) -> None:
    assert text(given) == shown


def test_any_value_is_shown_as_it_is() -> None:
    """What is shown is the same value again."""
    shuffled = random.Random(7)

    def value(depth: int) -> object:
        kind = shuffled.randrange(7 if depth else 5)
        if kind == 5:
            return [value(depth - 1) for _ in range(shuffled.randrange(4))]
        if kind == 6:
            return {f"k{n} \"'\\": value(depth - 1) for n in range(shuffled.randrange(4))}
        return [None, True, shuffled.random() * 1e6, shuffled.randrange(10**30), 'text {[:,]} \\ " <b>'][kind]

    for _ in range(300):
        of = value(4)
        assert json.loads(text(json.dumps(of))) == of
        assert json.loads(text(json.dumps(of, indent=7))) == of


@pytest.mark.parametrize(
    "nasty",
    ["[" * 1_000_000, '{"a":' * 300_000, '"' + "x" * 10_000_000, " " * 10_000_000, "[1," * 1_000_000, "x" * 10_000_000,
     '"' + "\\" * 10_000_001, '"\\u00e9' * 1_000_000],
    ids=["brackets", "nested", "string", "blanks", "numbers", "word", "backslashes", "escapes"],
)  # fmt: skip
def test_what_is_huge_is_cut_and_says_so(nasty: str) -> None:
    shown = text(nasty)
    assert len(shown) < MOST * 2
    assert "more characters" in shown


def test_depth_is_not_indented_for_ever() -> None:
    lines = text("[" * 100 + "]" * 100).splitlines()
    assert max(len(line) - len(line.lstrip()) for line in lines) == json_text.DEEPEST * 2


def test_plain_text_keeps_its_lines() -> None:
    assert plain("a\tb\r\nc\x1b[0m\u202e") == "a   b\nc\\x1b[0m\\u202e"
    assert plain("x" * 100, most=10) == "xxxxxxxxxx\n… 90 more characters"
