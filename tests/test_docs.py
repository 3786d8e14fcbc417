"""What the documents tell people to type exists."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from mcp_tap.cli import verbs
from mcp_tap.config import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=[document.name for document in DOCUMENTS])


def prose_and_code(document: Path) -> Iterator[str]:
    """Yield each line of a fenced block and each span of inline code."""
    fenced = False
    for line in document.read_text().splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced:
            yield line.strip().removeprefix("$ ")
        else:
            yield from re.findall(r"`([^`]+)`", line)


@every_document
def test_command_lines_exist(document: Path) -> None:
    for line in prose_and_code(document):
        command, _, rest = line.partition(" ")
        if command in ("mcp-tap", ".venv/bin/mcp-tap") and rest and rest[0] not in "<>=0123456789":
            parse(shlex.split(rest, comments=True))


def parse(arguments: list[str]) -> None:
    """Parse a command line as the program does, without running it; of a verb named alone only the name."""
    with verbs.make_context("mcp-tap", list(arguments)) as outer:
        name, verb, rest = verbs.resolve_command(outer, [*outer._protected_args, *outer.args])
        assert verb is not None, arguments
        if len(arguments) == 1:
            return
        with verb.make_context(name, rest, parent=outer):
            pass


def test_a_command_line_that_does_not_exist_would_be_found() -> None:
    with pytest.raises(click.UsageError):
        parse(["sessions", "--no-such-flag"])
    with pytest.raises(click.UsageError):
        parse(["no-such-verb"])


@every_document
def test_make_targets_exist(document: Path) -> None:
    named = {
        target
        for line in prose_and_code(document)
        if line.startswith("make ")
        for target in shlex.split(line, comments=True)[1:]
        if "=" not in target
    }
    assert named <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_each_make_target_can_be_made() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    subprocess.run(["make", "--dry-run", *targets[1].split()], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@every_document
def test_variables_exist(document: Path) -> None:
    known = {name for setting in SETTINGS for name in (setting.variable, setting.short)} | {"MCP_TAP_CONFIG"}
    assert set(re.findall(r"\bMCP_TAP_[A-Z_]*[A-Z]\b", document.read_text())) <= known


@every_document
def test_links_lead_somewhere(document: Path) -> None:
    for target, fragment in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", document.read_text()):
        file = (document.parent / target).resolve() if target else document
        assert file.exists(), target
        if fragment:
            headings = re.findall(r"^#+ +(.*)$", file.read_text(), re.MULTILINE)
            assert fragment in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
