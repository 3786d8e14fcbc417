"""Compiles the core of the recorder while a wheel is built, where there is a C compiler.

The modules are plain Python with types, and mypyc makes them native: a recorded call takes little more than half of the
CPU. Without a compiler, with ``MCP_TAP_PURE=1`` or when anything goes wrong, the wheel holds the same modules as they
are written, and so does an editable installation. The relay is never compiled: little of its time is Python's.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: What is compiled: what every call goes through, and nothing that does I/O.
COMPILED = (
    "mcp_tap/model.py",
    *(
        f"mcp_tap/protocol/{name}.py"
        for name in (
            "connections", "content", "derived", "exchange", "heads", "http1", "ledger", "operations", "redact",
            "revisions", "screen", "sse", "timeline", "tracker", "verdict",
        )
    ),
    "mcp_tap/store/rows.py",
    "mcp_tap/store/sqlite/lines.py",
)  # fmt: skip

#: What compiling needs. The libraries are for their types.
NEEDED = ("mypy[mypyc]>=1.13", "setuptools>=70", "httptools", "msgspec", "orjson")


class CompiledCore(BuildHookInterface):  # type: ignore[type-arg]
    """The hook that hatchling runs for a wheel."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what has to be installed for the build."""
        return list(NEEDED) if _wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the compiled modules to the wheel."""
        if version == "editable" or not _wanted():
            return
        self._folder = tempfile.mkdtemp(prefix="mcp-tap-")
        try:
            made = _compile(Path(self.root), Path(self._folder))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - without it everything works, only slower
            self.app.display_warning(f"the core is not compiled, and works as it is: {error}")
            return
        build_data["pure_python"], build_data["infer_tag"] = False, True
        build_data["force_include"].update(made)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leave nothing behind."""
        if folder := getattr(self, "_folder", None):
            shutil.rmtree(folder, ignore_errors=True)


def _wanted() -> bool:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    return not os.environ.get("MCP_TAP_PURE") and shutil.which(compiler) is not None


def _compile(root: Path, folder: Path) -> dict[str, str]:
    """Compile into a folder; return where each module is, and where in the wheel it belongs."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    before = Path.cwd()
    os.chdir(root)  # modules are named by their path from here
    try:
        options = ["--config-file=", "--ignore-missing-imports", f"--cache-dir={folder}/types"]
        extensions = mypycify(
            [*options, *COMPILED], opt_level="2", debug_level="0", target_dir=str(folder / "c"), group_name="mcp_tap"
        )
        command = build_ext(Distribution({"name": "mcp_tap", "ext_modules": extensions}))
        command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "objects")
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(before)
    return {output: str(Path(output).relative_to(folder / "lib")) for output in command.get_outputs()}
