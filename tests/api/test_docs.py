"""docs/api.md names every path, parameter, word and attribute that there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from mcp_tap.api import errors, live, parameters, recorded
from mcp_tap.api.openapi import plain
from mcp_tap.api.routes import PATHS
from mcp_tap.api.shape import Field, Resource
from mcp_tap.store import filters

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
PARTS = {part.title: part for path in PATHS for part in path.resource.parts()}


def section(title: str, marks: str = "##") -> str:
    return re.split(rf"^#{{2,{len(marks)}}} ", TEXT.split(f"\n{marks} {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table in a text, without heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_path_is_documented_with_its_answer() -> None:
    documented = {row[0].strip("`"): row for row in rows(section("Paths"))[1:]}
    assert documented.keys() == {f"/api{plain(path.path)}" for path in PATHS} | {"/api/live", "/api/openapi.json"}
    for path in PATHS:
        _, answer, help_ = documented[f"/api{plain(path.path)}"]
        listed = "list of " if path.many else ""
        assert answer == f"{listed}[`{path.resource.name}`](#{path.resource.title.lower()})"
        assert help_.rstrip(" |") == path.help


def test_every_parameter_of_lists_is_documented() -> None:
    documented = {row[0].strip("`") for row in rows(section("Lists"))[1:]}
    assert documented == {*parameters.PAGING, "type", "q", "reveal"}
    told = section("Lists")
    for word in (
        *parameters.RESOURCE_WORDS,
        *filters.ALIASES,
        "session_provider_id",
        *recorded.SESSION_SORTS,
        *recorded.EVENT_SORTS,
    ):
        assert f"`{word}`" in told, word


def test_the_live_stream_is_documented() -> None:
    named = {row[0].strip("`") for row in rows(section("Live"))}
    assert named == {"parameter", "event", *live.PARAMETERS, "connection", "skipped", "status"}
    assert f"tells {live.TOLD} of each kind" in TEXT
    assert f"up to {live.MISSED:,} changes" in TEXT
    assert f"after {live.SIGN_OF_LIFE:.0f} quiet seconds" in TEXT


def test_every_status_of_an_error_is_documented() -> None:
    documented = {(int(row[0]), row[1].strip("`")) for row in rows(section("Errors"))[1:]}
    mapped = {(status, code) for _, status, code in errors._STATUS if status != 502}  # nothing here asks a server
    assert documented == mapped | {*errors._CODES.items()}


def typed(field: Field) -> str:
    name = field.type.removesuffix("?")
    if field.part is not None:
        name = f"[{field.part.title}](#{field.part.title.lower()})"
    name = (
        f"list of {name}"
        if field.many
        else {"strings": "list of strings", "numbers": "list of numbers"}.get(name, name)
    )
    return f"{name} or null" if field.type.endswith("?") else name


def test_every_object_is_documented_with_every_attribute() -> None:
    objects = TEXT.split("\n## Objects\n")[1]
    assert re.findall(r"^### (\w+)$", objects, re.MULTILINE) == [*PARTS]
    for title, part in PARTS.items():
        assert described(title) == expected(part), title


def described(title: str) -> list[tuple[str, str, str]]:
    return [(row[0].strip("`"), row[1], row[2].rstrip(" |")) for row in rows(section(title, "###"))[1:]]


def expected(part: Resource) -> list[tuple[str, str, str]]:
    def told(field: Field) -> str:
        return field.help + (f"; {', '.join(f'`{word}`' for word in field.words)}" if field.words else "")

    return [(field.name, typed(field), told(field)) for field in part.fields]
