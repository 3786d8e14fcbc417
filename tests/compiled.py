"""The tests of the core, and of the whole with it, against a wheel whose core is compiled.

``python -m tests.compiled [pytest's arguments]`` builds the wheel as ``pip install .`` does, unpacks it beside a copy
of the tests below .cache/compiled, and runs them there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]
TREE = ROOT / ".cache" / "compiled"

#: What goes through the core. The rest of the tests would say the same twice.
TESTED = (
    "tests/protocol", "tests/fuzz", "tests/statements", "tests/transcripts", "tests/store", "tests/test_app.py",
    "tests/test_channel.py", "tests/test_recorder.py", "tests/test_secrets.py",
)  # fmt: skip


def build(into: Path) -> None:
    """Build the wheel and unpack it into a folder; raise RuntimeError where its core is not compiled."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(ROOT)]
        subprocess.run(wheel, check=True)
        (file,) = Path(folder).iterdir()
        shutil.rmtree(into, ignore_errors=True)
        with ZipFile(file) as packed:
            packed.extractall(into)
    if not list(into.glob("mcp_tap/protocol/tracker.*.so")):
        raise RuntimeError("the core was not compiled: is there a C compiler?")


def main(arguments: list[str]) -> int:
    """Build, copy what the tests need, and run them; return the exit status."""
    build(TREE)
    for name in ("tests", "benchmarks", "docs", ".ci"):
        shutil.copytree(ROOT / name, TREE / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    for name in ("pyproject.toml", "config.example.toml", "Makefile", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, TREE / name)
    return subprocess.run([sys.executable, "-m", "pytest", *(arguments or TESTED)], cwd=TREE, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
