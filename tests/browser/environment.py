"""What the tests in a browser need beside Python: a Chromium, and axe-core for accessibility.

`python tests/browser/environment.py` installs what is missing: the browser through the system's package manager where
that can be done without asking for a password, axe-core through npm into `.cache/browser`. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

CACHE: Final = Path(__file__).resolve().parents[2] / ".cache" / "browser"

AXE_PIN: Final = "axe-core@4.10.3"

#: Where a Chromium may be; a variable of the environment goes first.
VARIABLE: Final = "MCP_TAP_CHROMIUM"
NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
APPLICATIONS: Final = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)


def chromium() -> str | None:
    """Return the path of a Chromium on this machine."""
    if named := os.environ.get(VARIABLE):
        return named
    found = (shutil.which(name) for name in NAMES)
    return next((path for path in (*found, *filter(os.path.exists, APPLICATIONS)) if path), None)


def axe() -> Path:
    """Return the script of axe-core, whether or not it is there."""
    return CACHE / "node_modules" / "axe-core" / "axe.min.js"


def missing(what: str = "browser") -> str:
    """Return why ``what`` (browser or axe) cannot be used and what to do, or nothing when it can."""
    if find_spec("playwright") is None:
        return "playwright is not installed: run `make browser`"
    if chromium() is None:
        return f"no Chromium: run `make browser`, or name one in {VARIABLE}"
    if what == "axe" and not axe().exists():
        return "no axe-core in .cache/browser: run `make browser` (needs npm)"
    return ""


def _install_chromium() -> None:
    if sys.platform == "darwin" and shutil.which("brew"):
        subprocess.run(["brew", "install", "--quiet", "--cask", "chromium"], check=False)
    elif shutil.which("apt-get"):
        sudo = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
        if sudo and not shutil.which("sudo"):
            return
        quiet = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "--no-install-recommends"]
        for command in (["update"], ["install", "chromium", "fonts-dejavu-core"]):
            subprocess.run([*quiet, *command], check=False, stdout=subprocess.DEVNULL)


def _install_axe() -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "package.json").write_text('{"private": true}\n')
    quiet = ["--no-audit", "--no-fund", "--loglevel=error", "--save-exact"]
    subprocess.run(["npm", "install", *quiet, AXE_PIN], cwd=CACHE, check=False, stdout=subprocess.DEVNULL)


def main() -> int:
    """Install what is missing as far as this machine allows, and say what is left."""
    if chromium() is None:
        print("installing Chromium", flush=True)
        _install_chromium()
    if not axe().exists() and shutil.which("npm"):
        print(f"fetching {AXE_PIN} into .cache/browser", flush=True)
        _install_axe()
    if why := missing("axe"):
        print(f"tests in a browser will be skipped: {why}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
