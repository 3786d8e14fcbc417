"""Known vulnerabilities of what is installed: ``python -m tests.audit``.

pip-audit asks the Python Package Index about every package of this environment, runtime and tools alike. Where the
index keeps no advisories, or none can be reached, nothing was audited, which pip-audit itself reports as nothing found:
here it is a skip that says so, and with ``--must`` a failure.

An advisory that does not concern this project stands in pyproject.toml, with the reason:

    [tool.mcp-tap.audit.ignored]
    GHSA-xxxx-xxxx-xxxx = "only what parses untrusted YAML is affected, and nothing here does"
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]

#: Seconds for one answer of the index, and for all of them.
ANSWER: Final = 15
ALL: Final = 300

Json = dict[str, Any]


class Verdict(NamedTuple):
    """What an audit came to: an exit status and lines for people."""

    status: int
    lines: list[str]


def main(arguments: Sequence[str]) -> int:
    """Audit this environment, print the verdict and return the exit status."""
    parser = argparse.ArgumentParser(prog="make audit", description="Look for known vulnerabilities.")
    parser.add_argument("--must", action="store_true", help="fail where nothing can be audited")
    must = parser.parse_args(arguments).must
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"].get("mcp-tap", {})
    verdict = judge(*asked(), settings.get("audit", {}).get("ignored", {}), must=must)
    print("\n".join(verdict.lines))
    return verdict.status


def asked() -> tuple[Json | None, str]:
    """Return pip-audit's report, or None and why there is none."""
    command = [sys.executable, "-m", "pip_audit", "--local", "--skip-editable", "--progress-spinner=off"]
    command += ["--format=json", f"--timeout={ANSWER}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ALL, check=False)
    except subprocess.TimeoutExpired:
        return None, f"no answer within {ALL} s"
    try:
        return json.loads(done.stdout), ""
    except ValueError:
        said = done.stderr.strip().splitlines() or [f"pip-audit ended with status {done.returncode}"]
        return None, said[-1]


def judge(report: Json | None, why: str, ignored: Mapping[str, str], *, must: bool = False) -> Verdict:
    """Return what a report means: 1 for an advisory that is not ignored, else 0.

    Where nothing could be audited that is 2 with ``must``, and else a skip.
    """
    packages = report["dependencies"] if report is not None else []
    skipped = [package for package in packages if "skip_reason" in package]
    audited = len(packages) - len(skipped)
    if not audited:
        reason = why or (skipped[0]["skip_reason"] if skipped else "no package is installed")
        return Verdict(
            2 if must else 0,
            [f"audit: {'FAILED' if must else 'SKIPPED'}: the index here tells of no vulnerabilities ({reason})"],
        )
    lines: list[str] = []
    found: set[str] = set()
    for package in packages:
        for advisory in package.get("vulns", []):
            names = {advisory["id"], *advisory.get("aliases", [])}
            found |= names
            if names.isdisjoint(ignored):
                fixed = ", ".join(advisory.get("fix_versions", [])) or "none yet"
                lines.append(f"{package['name']} {package['version']}: {advisory['id']} (fixed in: {fixed})")
    status = int(bool(lines))
    lines += [f"note: nothing here has {name} any more; take it from the list" for name in sorted({*ignored} - found)]
    if skipped:
        names_skipped = ", ".join(package["name"] for package in skipped)
        lines.append(f"note: not audited, because the index does not know them: {names_skipped}")
    verdict = "FAILED: upgrade, or say in pyproject.toml why it does not concern us" if status else "passed"
    return Verdict(status, [*lines, f"audit: {verdict} ({audited} packages)"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
