from __future__ import annotations

import asyncio
import socket

import pytest

from mcp_tap.demo.client import Played, play
from mcp_tap.demo.server import serve
from mcp_tap.model import UpstreamError


def test_a_round_is_the_same_each_time() -> None:
    async def run() -> list[Played]:
        server = await serve(seconds=0.05)
        try:
            return [await play(server.url, once=True) for _ in range(2)]
        finally:
            await server.stop()

    # Two refused payments, an unknown city, an unknown tool; and one call that the client gives up.
    assert asyncio.run(run()) == [Played(sessions=3, calls=25, errors=4, cancelled=1)] * 2


def test_a_silent_address_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/mcp"
    with pytest.raises(UpstreamError, match=url):
        asyncio.run(play(url, once=True))
