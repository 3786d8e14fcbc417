"""The programs that stand beside the tap: from the system's packages, in environments of their own, or named by you.

- nginx and haproxy are installed through apt-get where this runs as root on such a system, or said to be missing.
- mitmproxy, FastMCP and the mcp-proxy of PyPI are installed at pinned versions, each below `.cache/bench`.
- The tap is installed as `pip install .` does it, its core compiled where there is a C compiler.
- Another MCP proxy takes part where its variable holds the command that runs it, with `{port}` where it has to listen
  on 127.0.0.1 and `{url}` for the server that it stands in front of:
  `BENCH_MCPR='/opt/mcpr --mcp {url} --port {port}'`. Clients use the path `/mcp`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

from benchmarks.machine import say

ROOT: Final = Path(__file__).resolve().parents[1]
CACHE: Final = ROOT / ".cache" / "bench"

#: Debian's packages, which are named as their programs are.
PACKAGES: Final = ("nginx", "haproxy")

#: What is installed from PyPI, each with the program that is run.
PINS: Final = {
    "mitmproxy": ("mitmproxy==11.0.2", "mitmdump"),
    "fastmcp": ("fastmcp==4.0.11", "python"),
    "mcp-proxy": ("mcp-proxy==0.13.0", "mcp-proxy"),
}

#: Proxies that are no package of either kind, and the variables with their commands.
NAMED: Final = {"mcpr": "BENCH_MCPR", "agentgateway": "BENCH_AGENTGATEWAY", "mcpsnoop": "BENCH_MCPSNOOP"}


def package(name: str) -> str | None:
    """Return the path of a program of the system's."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def pinned(name: str) -> str | None:
    """Return the path of a program that is installed from PyPI, at the version named here."""
    pin, program = PINS[name]
    made = CACHE / name / "made"
    return str(CACHE / name / "bin" / program) if made.exists() and made.read_text() == pin else None


def command(name: str) -> str | None:
    """Return the command that runs a proxy which a variable names."""
    return os.environ.get(NAMED[name])


def tap() -> str | None:
    """Return the Python that the tap is installed for, as its sources are now."""
    made = CACHE / "tap" / "made"
    return str(CACHE / "tap" / "bin" / "python") if made.exists() and made.read_text() == _sources() else None


def compiled() -> bool:
    """Whether the core of the tap that is measured is compiled."""
    return bool(tap() and next(CACHE.glob("tap/lib/*/site-packages/mcp_tap__mypyc.*"), None))


def install() -> None:
    """Install what is missing, and say what cannot be."""
    if tap() is None:
        _make("tap", str(ROOT), _sources())
    missing = [name for name in PACKAGES if package(name) is None]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"installing {' and '.join(missing)}")
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update", "-qq"], ["install", "-qq", "--no-install-recommends", *missing]):
            subprocess.run(["apt-get", *arguments], env=environment, stdout=subprocess.DEVNULL, check=False)
        missing = [name for name in PACKAGES if package(name) is None]
    for name in missing:
        say(f"{name} is not installed and left out: apt-get install {name}")
    for name, (pin, _) in PINS.items():
        if pinned(name) is None:
            _make(name, pin)


@cache
def _sources() -> str:
    """Return a hash of what the tap is made from."""
    files = [ROOT / "pyproject.toml", ROOT / "hatch_build.py", *sorted(ROOT.glob("mcp_tap/**/*"))]
    read = (file.read_bytes() for file in files if file.is_file() and "__pycache__" not in file.parts)
    return hashlib.blake2b(b"\0".join(read), digest_size=8).hexdigest()


def _make(name: str, pin: str, mark: str = "") -> None:
    folder = CACHE / name
    shutil.rmtree(folder, ignore_errors=True)
    say(f"making .cache/bench/{name}: {'the tap, compiled where there is a compiler' if mark else pin}")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", pin]
    try:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run(pip, check=True)
    except (subprocess.CalledProcessError, OSError):
        say(f"{name} cannot be installed and is left out: {pin}")
    else:
        (folder / "made").write_text(mark or pin)


@cache
def versions() -> dict[str, str]:
    """Return the versions of the programs that are there."""
    found = {name: pin.partition("==")[2] for name, (pin, _) in PINS.items() if pinned(name)}
    for name in PACKAGES:
        if (program := package(name)) is not None:
            done = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
            match = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
            found[name] = match[0] if match else "?"
    core = {"the core of mcp-tap": "compiled" if compiled() else "not compiled"}
    return (
        core
        | {name: found[name] for name in (*PACKAGES, *PINS) if name in found}
        | {name: "as given" for name in NAMED if command(name)}
    )
