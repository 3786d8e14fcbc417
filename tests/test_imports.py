"""Who may know whom: a module imports from the floors above its own, and never sideways between two folders."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1] / "mcp_tap"

FLOORS = (
    ("errors",), ("model", "channel"), ("values",), ("config",), ("relay",), ("protocol",), ("transport_session",),
    ("store",), ("ship",), ("recorder",), ("gateway",), ("api",), ("ui",), ("app", "cli", "demo", "doctor", "verify"),
)  # fmt: skip
FLOOR = {unit: number for number, units in enumerate(FLOORS) for unit in units}
#: The last floor wires everything together, verbs among them.
WIRING = len(FLOORS) - 1

#: What these may import from outside of the standard library, and which other units they may know; the rest, any.
PACKAGES = {unit: set[str]() for unit in ("errors", "model", "channel", "values", "config")} | {
    "relay": {"uvloop"},
    "protocol": {"orjson", "msgspec", "httptools", "brotli", "zstandard"},
}
UNITS = {"relay": {"errors", "channel", "values", "config"}, "protocol": {"model", "channel", "values", "config"}}

MODULES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def imported(source: str) -> Iterator[str]:
    """Yield the dotted name of each import, wherever in a module it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide who knows whom"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def offences(unit: str, source: str) -> list[str]:
    """Return the imports that a module of a unit may not have."""
    found = []
    for name in imported(source):
        package, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if package != "mcp_tap":
            if package not in sys.stdlib_module_names and package not in PACKAGES.get(unit, {package}):
                found.append(name)
        elif other in FLOOR and other != unit:
            above = FLOOR[other] < FLOOR[unit] or FLOOR[unit] == WIRING
            if not above or other not in UNITS.get(unit, {other}):
                found.append(name)
    return found


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_imports_point_upwards(path: Path) -> None:
    unit = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert unit in FLOOR, f"{unit} has no floor yet"
    assert offences(unit, path.read_text()) == []


@pytest.mark.parametrize(
    ("unit", "source"),
    [
        ("relay", "import orjson"),
        ("relay", "def f():\n    from mcp_tap.protocol import sse"),
        ("protocol", "from mcp_tap import relay"),
        ("protocol", "import httpx"),
        ("config", "import click"),
        ("model", "from mcp_tap.config import Settings"),
        ("store", "from mcp_tap.recorder import Recorder"),
        ("api", "import mcp_tap.ui"),
    ],
)
def test_an_import_that_points_elsewhere_would_be_found(unit: str, source: str) -> None:
    assert len(offences(unit, source)) == 1
