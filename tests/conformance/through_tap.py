"""Puts the tap between the suite and its client: ``python -m tests.conformance.through_tap COMMAND … URL``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.tap import running


@contextmanager
def through_tap(upstream: str) -> Iterator[str]:
    """Run the tap in front of a server and yield its URL."""
    with tempfile.TemporaryDirectory() as folder, running(upstream, Path(folder) / "tap.db", "--format", "json") as tap:
        assert tap.proxy, "\n".join(tap.said)
        yield tap.proxy
        assert tap.stop() == 0, "\n".join(tap.said)


if __name__ == "__main__":
    with through_tap(sys.argv[-1]) as url:
        status = subprocess.run([*sys.argv[1:-1], url], check=False).returncode
    sys.exit(status)
