"""Servers that are started once and shared, and the rule about SDKs that are not installed."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from .environments import missing
from .harness import everything_server, python_server, sample_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def need(name: str) -> None:
    """Skip the test when an environment is missing; where CI is set, nothing may be skipped."""
    if why := missing(name):
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)


@pytest.fixture(scope="session")
def server_url() -> Iterator[Callable[[str], str]]:
    """Return the URL of a server (py1, py2, everything or sample), started when first asked for."""
    urls: dict[str, str] = {}
    with contextlib.ExitStack() as running:

        def url(kind: str) -> str:
            if kind not in urls:
                if kind == "sample":
                    server = sample_server()
                else:
                    need("node" if kind == "everything" else kind)
                    server = everything_server() if kind == "everything" else python_server(kind)
                urls[kind] = running.enter_context(server)
            return urls[kind]

        yield url


@pytest.fixture
def sdk() -> Callable[[str], None]:
    """Skip the test unless the SDK of a client is there."""
    return lambda client: need("node" if client == "ts" else client.partition("-")[0])
