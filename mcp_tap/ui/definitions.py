"""What changed between two definitions of a tool: as lines, and in sentences.

A definition is what `tools/list` says of a tool (MCP, Tool: name, title, description, inputSchema, outputSchema,
annotations), any JSON for all we know: servers write it. Both are compared as canonical text, members sorted, so that
only what a client could notice counts.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from mcp_tap.ui.text import counted, harmless

#: Lines of one definition that are compared, and columns of one line that are shown.
MOST_LINES: Final = 3000
MOST_COLUMNS: Final = 4000

#: How deep arguments of arguments are told apart in sentences.
_DEPTH: Final = 4

_MISSING: Final = object()

_WORD: Final = re.compile(r"\w")


class Line(NamedTuple):
    """A line of a comparison: what both begin with, what differs, what both end in."""

    sign: str  # "+" only in the newer one, "-" only in the older one, " " in both, "…" lines left out
    before: str
    differs: str = ""
    after: str = ""


def pretty(definition: Any) -> str:
    """Return a definition as canonical lines of JSON: members sorted, two blanks a level."""
    try:
        return json.dumps(definition, indent=2, sort_keys=True, ensure_ascii=False)
    except RecursionError:
        return '"nested too deeply to be shown"'


def lines(definition: Any) -> list[str]:
    """Return the canonical lines of a definition, harmless, at most `MOST_LINES`."""
    whole = pretty(definition).split("\n")
    shown = [harmless(line, MOST_COLUMNS) for line in whole[:MOST_LINES]]
    return [*shown, f"… {counted(len(whole) - MOST_LINES, 'line')} more"] if len(whole) > MOST_LINES else shown


def compared(old: Any, new: Any, *, context: int = 3) -> list[Line]:
    """Return the lines that differ, with ``context`` lines around them; nothing where none does."""
    before, after = lines(old), lines(new)
    found: list[Line] = []
    at = 0  # the first line of the newer one that is not shown yet
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for group in matcher.get_grouped_opcodes(context):
        if group[0][0] == "equal" and (skipped := group[0][3] - at):
            found.append(Line("…", f"{counted(skipped, 'line')} unchanged"))
        for tag, i1, i2, j1, j2 in group:
            at = j2
            if tag == "equal":
                found += [Line(" ", line) for line in after[j1:j2]]
            else:
                found += _replaced(before[i1:i2], after[j1:j2])
    if found and (skipped := len(after) - at):
        found.append(Line("…", f"{counted(skipped, 'line')} unchanged"))
    return found


def _replaced(old: list[str], new: list[str]) -> Iterator[Line]:
    if len(old) != len(new):
        yield from (Line("-", line) for line in old)
        yield from (Line("+", line) for line in new)
        return
    pairs = [(_parts("-", a, b), _parts("+", b, a)) for a, b in zip(old, new, strict=True)]
    yield from (a for a, _ in pairs)
    yield from (b for _, b in pairs)


def _parts(sign: str, line: str, other: str) -> Line:
    """Return a line with what sets it apart from its counterpart; all of it where little is common."""
    most = min(len(line), len(other))
    head = next((n for n in range(most) if line[n] != other[n]), most)
    tail = next((n for n in range(most - head) if line[-1 - n] != other[-1 - n]), most - head)
    while head and _WORD.match(line, head - 1):  # whole words: true and false have an e in common
        head -= 1
    while tail and _WORD.match(line, len(line) - tail):
        tail -= 1
    if len(line[:head].strip()) + tail < 4:
        return Line(sign, line)
    return Line(sign, line[:head], line[head : len(line) - tail], line[len(line) - tail :])


# --------------------------------------------------------------------------------------------------- in sentences


def sentences(old: Any, new: Any) -> list[str]:
    """Return what changed for whoever calls the tool, the most telling first."""
    old, new = _members(old), _members(new)
    said = [
        *_arguments(_members(old.get("inputSchema")), _members(new.get("inputSchema"))),
        *_texts(old, new),
        *_hints(_members(old.get("annotations")), _members(new.get("annotations"))),
    ]
    for name, words in (("inputSchema", "input schema"), ("outputSchema", "output schema")):
        told = name == "inputSchema" and any("argument" in each for each in said)
        if not told and (change := _change(old.get(name, _MISSING), new.get(name, _MISSING))):
            said.append(f"{words} {change}")
    known = {"name", "title", "description", "inputSchema", "outputSchema", "annotations"}
    others = ((key, _change(old.get(key, _MISSING), new.get(key, _MISSING))) for key in sorted({*old, *new} - known))
    return [*said, *(f"{_name(key)} {change}" for key, change in others if change)]


def _members(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _name(text: str) -> str:
    return harmless(str(text), 80)


def _change(old: Any, new: Any) -> str:
    if old is _MISSING:
        return "" if new is _MISSING else "added"
    if new is _MISSING:
        return "removed"
    return "" if pretty(old) == pretty(new) else "changed"


def _texts(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for key in ("name", "title", "description"):
        if change := _change(old.get(key, _MISSING), new.get(key, _MISSING)):
            yield f"{key} {change}"


def _hints(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for key in sorted({*old, *new}):
        change = _change(old.get(key, _MISSING), new.get(key, _MISSING))
        if change == "changed":
            yield f"annotation {_name(key)} changed from {_short(old[key])} to {_short(new[key])}"
        elif change:
            yield f"{change} annotation {_name(key)}{f': {_short(new[key])}' if change == 'added' else ''}"


def _arguments(old: dict[str, Any], new: dict[str, Any], path: str = "", depth: int = 0) -> Iterator[str]:
    """Yield what changed in the properties of a JSON Schema object and of the objects in it."""
    before, after = _members(old.get("properties")), _members(new.get("properties"))
    needed_before, needed_after = _required(old), _required(new)
    for key in [*after, *(key for key in before if key not in after)]:
        name = f"argument {path}{_name(key)}"
        if key not in before:
            yield f"added {name} ({'required' if key in needed_after else 'optional'})"
        elif key not in after:
            yield f"removed {name}"
        else:
            a, b = _members(before[key]), _members(after[key])
            if (key in needed_before) != (key in needed_after):
                yield f"{name} is now {'required' if key in needed_after else 'optional'}"
            if _type(a) != _type(b):
                yield f"{name} changed from {_type(a)} to {_type(b)}"
            for member, words in _TOLD.items():
                if change := _change(a.get(member, _MISSING), b.get(member, _MISSING)):
                    yield f"{words} of {name} {change}"
            if depth < _DEPTH:
                yield from _arguments(a, b, f"{path}{_name(key)}.", depth + 1)
                yield from _arguments(
                    _members(a.get("items")), _members(b.get("items")), f"{path}{_name(key)}[].", depth + 1
                )


_TOLD: Final = {
    "description": "description", "enum": "allowed values", "default": "default", "minimum": "minimum",
    "maximum": "maximum", "pattern": "pattern", "format": "format",
}  # fmt: skip


def _required(schema: dict[str, Any]) -> set[str]:
    required = schema.get("required")
    return {key for key in required if isinstance(key, str)} if isinstance(required, list) else set()


def _type(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return harmless(" or ".join(map(str, kind)), 80)
    return harmless(str(kind), 80) if kind is not None else "any type"


def _short(value: Any) -> str:
    return harmless(pretty(value), 60)
