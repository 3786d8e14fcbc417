from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_tap.ui import definitions


def tool(**members: Any) -> dict[str, Any]:
    return {"name": "weather", "description": "The weather.", **members}


def schema(required: list[str], **properties: Any) -> dict[str, Any]:
    return tool(inputSchema={"type": "object", "properties": properties, "required": required})


TEXT = {"type": "string"}

CHANGES = [
    (tool(), tool(), []),
    (tool(), tool(description="The weather, now."), ["description changed"]),
    (tool(), tool(title="Weather"), ["title added"]),
    (schema([]), schema(["city"], city=TEXT), ["added argument city (required)"]),
    (schema([]), schema([], city=TEXT), ["added argument city (optional)"]),
    (schema(["city"], city=TEXT), schema([]), ["removed argument city"]),
    (schema([], city=TEXT), schema(["city"], city=TEXT), ["argument city is now required"]),
    (schema([], n=TEXT), schema([], n={}), ["argument n changed from string to any type"]),
    (schema([], n=TEXT), schema([], n={"type": "string", "enum": ["a"]}), ["allowed values of argument n added"]),
    (
        schema([], where={"type": "object", "properties": {"city": TEXT}}),
        schema([], where={"type": "object", "properties": {"zip": TEXT}}),
        ["added argument where.zip (optional)", "removed argument where.city"],
    ),
    (
        schema([], all={"type": "array", "items": {"type": "object", "properties": {}}}),
        schema([], all={"type": "array", "items": {"type": "object", "properties": {"city": TEXT}}}),
        ["added argument all[].city (optional)"],
    ),
    (schema([]), schema([]) | {"inputSchema": {"type": "object"}}, ["input schema changed"]),
    (tool(), tool(annotations={"readOnlyHint": True}), ["added annotation readOnlyHint: true"]),
    (
        tool(annotations={"readOnlyHint": True}),
        tool(annotations={"readOnlyHint": False}),
        ["annotation readOnlyHint changed from true to false"],
    ),
    (tool(), tool(outputSchema={"type": "object"}), ["output schema added"]),
    (tool(icons=[]), tool(icons=[1]), ["icons changed"]),
    (tool(inputSchema="no object"), tool(inputSchema=[1]), ["input schema changed"]),
    ("a text", 7, []),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "sentences"), CHANGES)
def test_sentences(old: Any, new: Any, sentences: list[str]) -> None:
    assert definitions.sentences(old, new) == sentences


def test_the_order_of_members_is_no_change() -> None:
    assert definitions.compared({"a": 1, "b": 2}, {"b": 2, "a": 1}) == []


def test_lines_that_differ_stand_among_those_around_them() -> None:
    old = dict.fromkeys("abcdefghijklmnop", 1)
    lines = definitions.compared(old, old | {"h": 2}, context=1)
    assert [(line.sign, line.before.strip(), line.differs, line.after) for line in lines] == [
        ("…", "7 lines unchanged", "", ""),
        (" ", '"g": 1,', "", ""),
        ("-", '"h":', "1", ","),
        ("+", '"h":', "2", ","),
        (" ", '"i": 1,', "", ""),
        ("…", "8 lines unchanged", "", ""),
    ]


def test_words_differ_as_a_whole() -> None:
    _, minus, plus, _ = definitions.compared({"hint": True}, {"hint": False})
    assert (minus.differs, plus.differs) == ("true", "false")


def test_what_a_server_wrote_is_harmless() -> None:
    hostile = tool(inputSchema={"properties": {"\u202eevil\x1b[31m": TEXT}})
    said = definitions.sentences(tool(), hostile)
    shown = "".join(line.before + line.differs + line.after for line in definitions.compared(tool(), hostile))
    for text in (*said, shown):
        assert text.isprintable()
    assert said[0] == "added argument \\u202eevil\\x1b[31m (optional)"


def test_a_definition_without_end_is_cut() -> None:
    lines = definitions.lines([0] * 20_000)
    assert len(lines) == definitions.MOST_LINES + 1
    assert lines[-1] == "… 17,002 lines more"
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert definitions.lines(deep) == ['"nested too deeply to be shown"']


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=12,
)
definition = st.one_of(
    anything,
    st.fixed_dictionaries(
        {},
        optional={
            "inputSchema": st.one_of(
                anything, st.fixed_dictionaries({"properties": anything}, optional={"required": anything})
            ),
            "annotations": anything,
        },
    ),
)


@given(definition, definition)
@settings(max_examples=80, deadline=None)
def test_a_comparison_holds_both_sides(old: Any, new: Any) -> None:
    lines = definitions.compared(old, new, context=10_000)
    if not lines:
        assert json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
    else:
        for sign, side in (("-", old), ("+", new)):
            shown = [line.before + line.differs + line.after for line in lines if line.sign in {sign, " "}]
            assert shown == definitions.lines(side)
    definitions.sentences(old, new)
