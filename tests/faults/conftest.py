"""Servers, each with the tap in front of it and links that misbehave around that."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.faults.chain import Chain, chain
from tests.faults.raw import RawClient, http
from tests.sdk.conftest import sdk, server_url
from tests.tap import PATIENCE

__all__ = ["sdk", "server_url"]


@pytest.fixture(scope="session")
def chain_to(
    server_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Chain]]:
    """Return the chain to a server (py1, py2, everything or sample), made when first asked for."""
    made: dict[str, Chain] = {}
    with contextlib.ExitStack() as running:

        def to(server: str) -> Chain:
            if server not in made:
                file = tmp_path_factory.mktemp(server) / "tap.db"
                made[server] = running.enter_context(chain(server_url(server), file))
                if server == "sample":
                    # its first import changes what it lists: after that it answers the same every time
                    with http() as connections:
                        RawClient(connections, server_url(server), modern=True).call(1, "import_catalog", steps=1)
            return made[server]

        yield to


class Server:
    """The server with odd habits, running."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._lines: queue.Queue[str] = queue.Queue()
        self.origin = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        self._said = process.stdout
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        for line in self._said:
            self._lines.put(line)

    def says(self) -> str:
        """Wait for the next thing that a slow report says of itself."""
        said: str = json.loads(self._lines.get(timeout=PATIENCE))["slow_report"]
        return said

    def join(self) -> None:
        self._thread.join()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    command = [sys.executable, "-m", "tests.faults.server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        running = Server(process)
        yield running
        process.kill()
        running.join()


@pytest.fixture(scope="module")
def tapped(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """Yield the chain to the server with odd habits."""
    with chain(f"{server.origin}/mcp", tmp_path_factory.mktemp("odd") / "tap.db") as links:
        yield links


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/faults/" in item.path.as_posix() and not getattr(item.module, "IN_CI", False):  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.links)
