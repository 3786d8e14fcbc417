"""The servers of the SDK tests, with links that misbehave around the tap in front of each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.faults.chain import Chain, chain
from tests.sdk.conftest import sdk, server_url

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
            return made[server]

        yield to
