"""The scripts as texts: what they must not contain, what a type checker says, and how they are made small enough."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mcp_tap.ui.web import HERE, STATIC

from .environment import CACHE

SCRIPTS = sorted(STATIC.glob("*.js"))

#: Everything in the DOM that parses text as HTML or runs it as a script (Trusted Types §2, "injection sinks").
SINKS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|setHTML|srcdoc"
    r"|\beval\b|new Function|setTimeout\(\s*[\"'`]|setInterval\(\s*[\"'`]|javascript:|\.on[a-z]+\s*=[^=]|createPolicy"
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_no_script_parses_html_or_runs_text(script: Path) -> None:
    code = re.sub(r"/\*.*?\*/|(?<!:)//[^\n]*", "", script.read_text(), flags=re.DOTALL)
    assert SINKS.findall(code) == []


def test_sinks_would_be_found() -> None:
    for line in ("a.innerHTML = b", "setTimeout('f()')", "a.onclick = b", "new DOMParser()", "eval(b)"):
        assert SINKS.search(line), line
    assert not SINKS.search("setTimeout(() => f(), 3)")


def test_scripts_are_modules_that_import_each_other_only() -> None:
    names = {script.name for script in SCRIPTS}
    for script in SCRIPTS:
        imported = re.findall(r'(?:from|import) "([^"]+)"', script.read_text())
        assert {name.removeprefix("./") for name in imported} <= names, script.name


def test_no_template_carries_script_or_style_of_its_own() -> None:
    for template in (HERE / "templates").glob("*.html"):
        text = template.read_text()
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text), template.name


@pytest.mark.matrix
def test_types() -> None:
    """Types are in JSDoc; nobody needs a compiler, and where there is npm one looks at them."""
    if not shutil.which("npm"):
        if os.environ.get("CI") == "true":
            pytest.fail("npm is not installed")
        pytest.skip("npm is not installed")
    compiler = CACHE / "node_modules" / ".bin" / "tsc"
    if not compiler.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        quiet = ["--no-audit", "--no-fund", "--loglevel=error", "--save-exact"]
        subprocess.run(["npm", "install", *quiet, "typescript@5.9.3"], cwd=CACHE, check=True)
    options = [
        "--noEmit",
        "--checkJs",
        "--strict",
        "--target",
        "es2022",
        "--module",
        "es2022",
        "--lib",
        "es2023,dom,dom.iterable",
    ]
    done = subprocess.run([compiler, *options, *SCRIPTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
