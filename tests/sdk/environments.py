"""The official SDKs, each in an environment of its own under `.cache/sdk`, at pinned versions.

`python tests/sdk/environments.py` makes what is missing and is quick when nothing is. An environment carries a file
with its pins, written last, so that a half-made one is made again. Standard library only: this runs before anything
is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

CACHE: Final = Path(__file__).resolve().parents[2] / ".cache" / "sdk"

#: The Python SDK in both of its major versions: 1.x speaks the legacy era, 2.x both.
PYTHON_PINS: Final = {"py1": "mcp==1.30.0", "py2": "mcp==2.3.0"}

NODE_PINS: Final = (
    "@modelcontextprotocol/sdk@1.32.2",
    "@modelcontextprotocol/server-everything@2026.8.31",
)


def python_of(name: str) -> Path:
    """Return the interpreter of a Python SDK's environment, whether or not it is there."""
    return CACHE / name / "bin" / "python"


def node_modules() -> Path:
    """Return the folder that holds the TypeScript SDK, whether or not it is there."""
    return CACHE / "node" / "node_modules"


def missing(name: str) -> str:
    """Return why environment ``name`` (py1, py2 or node) cannot be used, or nothing when it can."""
    if name == "node" and not shutil.which("node"):
        return "node is not installed"
    if _is_current(name):
        return ""
    return f"no environment {CACHE.name}/{name} with {_pins(name)}: run `make sdk`"


def _pins(name: str) -> str:
    return " ".join(NODE_PINS) if name == "node" else PYTHON_PINS[name]


def _is_current(name: str) -> bool:
    made = CACHE / name / "made"
    return made.exists() and made.read_text() == _pins(name)


def _make(name: str) -> None:
    folder = CACHE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"making .cache/sdk/{name}: {_pins(name)}", flush=True)
    if name == "node":
        (folder / "package.json").write_text('{"private": true}\n')
        quiet = ["--no-audit", "--no-fund", "--loglevel=error", "--save-exact"]
        subprocess.run(["npm", "install", *quiet, *NODE_PINS], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    else:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip: list[str | Path] = [python_of(name), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, PYTHON_PINS[name]], check=True)
    (folder / "made").write_text(_pins(name))


def main() -> int:
    """Make every environment that is missing; without node the TypeScript one is left out with a word."""
    for name in (*PYTHON_PINS, "node"):
        if _is_current(name):
            continue
        if name == "node" and not shutil.which("npm"):
            print("npm is not installed: the TypeScript SDK is left out", file=sys.stderr)
            continue
        _make(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
