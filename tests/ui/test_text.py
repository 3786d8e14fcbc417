"""Whatever the wire says, a terminal shows it and obeys none of it."""

from __future__ import annotations

import json
import unicodedata

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcp_tap.ui.text import columns, counted, duration, harmless, json_line, left, local, right, size

ANY = st.text(st.characters(exclude_categories=[]), max_size=60)
WIRE = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
FORBIDDEN = {*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
FORBIDDEN |= {0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x061C, 0x2028, 0x2029, 0x2060, 0xFEFF, 0xAD, 0x3164, 0x2800}


@given(ANY)
@example("\x1b]0;pwned\x07")
@example("".join(map(chr, sorted(FORBIDDEN))))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = harmless(text)
    assert not FORBIDDEN & {ord(char) for char in shown}
    assert shown.isprintable() or any(unicodedata.category(char) in {"Mn", "Me"} for char in shown)
    shown.encode()  # no half of a surrogate pair either


@given(ANY, st.integers(0, 40))
@example("你" * 30, 7)
@example("é\u0301" * 30, 7)
def test_never_wider_than_the_limit(text: str, limit: int) -> None:
    shown = harmless(text, limit)
    assert columns(shown) <= limit
    assert shown == harmless(text) or shown.endswith("…") or limit == 0


@given(ANY, st.integers(1, 40))
def test_padding_fills_its_column_exactly(text: str, width: int) -> None:
    assert columns(left(text, width)) == width
    assert columns(right(text, width)) == width


@given(ANY)
def test_combining_marks_cannot_pile_up_on_other_text(text: str) -> None:
    shown = harmless(text)
    marks = [unicodedata.category(char) in {"Mn", "Me"} for char in shown]
    assert marks[:1] != [True]
    assert not any(all(marks[i : i + 3]) for i in range(len(marks) - 2))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("wörter 你好", "wörter 你好"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u202eb", "a\\u202eb"),
        ("two\nlines\t!", "two\\nlines\\t!"),
        ("\x9b2J", "\\x9b2J"),
        ("\U000e0041", "\\U000e0041"),
        ("[bold]no markup[/bold]", "[bold]no markup[/bold]"),
        ("\ud800", "\\ud800"),
    ],
)
def test_shown_as_what_it_is(text: str, shown: str) -> None:
    assert harmless(text) == shown


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WIRE, lambda inner: st.lists(inner) | st.dictionaries(WIRE, inner)
)


@given(VALUES)
@example("\u202e\x7f\x9b\U000e0041")
@example(2**70)
def test_json_is_the_same_value_and_harmless(value: object) -> None:
    for indent in (False, True):
        text = json_line(value, indent=indent)
        assert json.loads(text) == value
        assert not (FORBIDDEN - {ord("\n")}) & {ord(char) for char in text}
        assert indent or "\n" not in text


def test_json_with_half_a_surrogate_pair() -> None:
    assert json_line({"a": "\ud800"}) == '{"a": "\\ud800"}'


def test_json_is_as_short_as_orjson_makes_it() -> None:
    row = {"a": [1, 2.5, None], "b": "wörter"}
    assert json_line(row) == orjson.dumps(row).decode()


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (None, ""),
        (0.04, "0 ms"),
        (0.42, "0.4 ms"),
        (2.0, "2 ms"),
        (9.96, "10 ms"),
        (42.3, "42 ms"),
        (999.6, "1.00 s"),
        (2340, "2.34 s"),
        (46_000, "46 s"),
        (99_600, "1 min 40 s"),
        (3_600_000, "1 h 0 min"),
        (2_592_000_000, "30 d 0 h"),
    ],
)
def test_durations(ms: float | None, words: str) -> None:
    assert duration(ms) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(None, ""), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (8000, "8.0 kB"), (12_345, "12 kB"),
     (3_100_000, "3.1 MB"), (999_600, "1.0 MB"), (5 * 10**15, "5000 TB")],
)  # fmt: skip
def test_sizes(count: int | None, words: str) -> None:
    assert size(count) == words


def test_counts_and_times() -> None:
    assert [counted(n, "call") for n in (0, 1, 1234)] == ["0 calls", "1 call", "1,234 calls"]
    assert local("2026-11-12T10:08:44.998Z", "%S.%f") == "44.998"
    assert local(None, "%S") == ""
    assert local("\x1b[2J", "%S") == "\\x1b[2J"
