"""The official conformance suite, at a pinned version with the Node that it needs, and what it says about somebody."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = ROOT / ".cache" / "conformance"

#: The suite imports `fs.globSync`, which Node has since 22; the npm package `node` ships its binary.
PINS: Final = ("node@22.23.3", "@modelcontextprotocol/conformance@0.2.0-alpha.12")

REVISIONS: Final = ("2025-06-18", "2025-11-25", "2026-07-28")

#: Clients compare the `resource` of the protected resource metadata with the URL they dialled (RFC 9728 §3.3), so no
#: proxy under another name gets through a login that names the server's.
EXCLUDED: Final = "auth/"

#: Seconds for one run of the suite; the longest takes five.
PATIENCE: Final = 300

#: How often each check came out how: (check id, status) -> times.
Verdicts = Counter[tuple[str, str]]


def installed() -> bool:
    """Whether the suite is there, at these versions."""
    made = CACHE / "made"
    return made.exists() and made.read_text() == " ".join(PINS)


def install() -> None:
    """Install the suite where it is missing."""
    if installed():
        return
    shutil.rmtree(CACHE, ignore_errors=True)
    CACHE.mkdir(parents=True)
    print(f"installing .cache/conformance: {' '.join(PINS)}", flush=True)
    (CACHE / "package.json").write_text('{"private": true}\n')
    quiet = ["--no-audit", "--no-fund", "--loglevel=error", "--save-exact"]
    subprocess.run(["npm", "install", *quiet, *PINS], cwd=CACHE, check=True, stdout=subprocess.DEVNULL)
    (CACHE / "made").write_text(" ".join(PINS))


def client_scenarios(revision: str) -> list[str]:
    """Return the names of the scenarios for clients of a revision."""
    return re.findall(r"^  - (\S+) \[", _suite("list", "--client", "--spec-version", revision), re.MULTILINE)


def server_verdicts(url: str, revision: str, only: str = "") -> dict[str, Verdicts]:
    """Run every scenario for servers of a revision, or ``only`` one, and return what came out, by scenario."""
    chosen = ["--scenario", only] if only else ["--suite", "all"]
    with tempfile.TemporaryDirectory() as folder:
        _suite("server", "--url", url, *chosen, "--spec-version", revision, "-o", folder)
        return read_verdicts(Path(folder))


def client_verdicts(command: list[str], scenario: str, revision: str) -> Verdicts:
    """Run one scenario for clients with a command that gets the URL, and return what came out."""
    with tempfile.TemporaryDirectory() as folder:
        named = ["--scenario", scenario, "--spec-version", revision, "-o", folder]
        _suite("client", "--command", shlex.join(command), *named)
        (verdicts,) = read_verdicts(Path(folder)).values()
    return verdicts


def read_verdicts(folder: Path) -> dict[str, Verdicts]:
    """Return the verdicts in a folder that the suite wrote, by scenario."""
    found = {}
    for file in folder.rglob("checks.json"):
        scenario = re.sub(r"^server-|-\d{4}-\d\d-\d\dT[\d-]+Z$", "", file.parent.relative_to(folder).as_posix())
        found[scenario] = Counter((check["id"], check["status"]) for check in json.loads(file.read_text()))
    return found


def differences(direct: Verdicts, tapped: Verdicts) -> list[str]:
    """Return every check that came out differently, in words."""
    return [
        f"{check} {status}: {direct[check, status]} times directly, {tapped[check, status]} through the tap"
        for check, status in sorted(direct.keys() | tapped.keys())
        if direct[check, status] != tapped[check, status]
    ]


def _suite(*arguments: str) -> str:
    modules = CACHE / "node_modules"
    program = modules / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    command: list[str | Path] = [modules / "node" / "bin" / "node", program, *arguments]
    # The exit status says whether all passed, which is not what is asked here.
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout
